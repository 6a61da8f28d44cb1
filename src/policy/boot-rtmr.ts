import type { Evidence } from "../formats/evidence.ts"
import { bytesEqual, fromHex, shortHex } from "../formats/hex.ts"
import type { TdxAttestation } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { type BootLog, explainRegister, logFacts, logFindings, readBootLog } from "./boot-log.ts"
import { mismatch, policyClaim } from "./policy-findings.ts"
import type { ProvenTee } from "./prove-tee.ts"
import type { Snapshot } from "./snapshot.ts"
import { tdxReferenceIn } from "./snapshot-tee.ts"
import type { Claim, Finding } from "./verdict.ts"

/** Registers that are final when the operating system takes over; it may go on measuring into RTMR3, and does into RTMR2. */
export const BOOT_RTMRS = [0, 1, 2] as const
const RTMR_MEANING = [
  "the firmware and its configuration",
  "the boot loader and the kernel",
  "the kernel command line and the initial RAM disk",
] as const

/** A trust domain whose own registers say what booted, with what its log is worth. */
export interface ProvenTd {
  readonly attestation: Verified<TdxAttestation>
  readonly log: BootLog
}

/** Null where the TEE is none of this kind. Below a paravisor the registers are the paravisor's, and say nothing of the VM. */
export function provenTd(
  tee: ProvenTee | null,
  { ccEventLog, kernelCommandLine: claimedCommandLine }: Evidence,
): ProvenTd | null {
  if (tee === null || tee.paravisor !== null || !("quote" in tee.attestation)) return null
  const { attestation } = tee
  const quoted = new Map(attestation.quote.body.rtmrs.entries())
  return {
    attestation,
    log: readBootLog(ccEventLog, quoted, { kind: "cc", bank: "sha384", claimedCommandLine }),
  }
}

/**
 * The check `boot` of a trust domain without TPM, by its registers. Null where they cannot decide it: a snapshot of a VM with a TPM
 * has to be compared by the TPM's PCRs, and one without registers by nothing.
 */
export function tdBootClaim(td: ProvenTd, reference: Snapshot | null): Claim | null {
  if (
    reference !== null &&
    (reference.tpm_reference !== null || tdxReferenceIn(reference.tee_reference) === null)
  )
    return null
  const { rtmrs } = td.attestation.quote.body
  const unmeasured = BOOT_RTMRS.every((rtmr) => rtmrs[rtmr]?.every((byte) => byte === 0) ?? true)
  const nothing = mismatch("ERR_BOOT_NOT_MEASURED", "RTMR0 to RTMR2", "measurements", "zeros", {
    meaning: "firmware, boot loader and kernel may be any",
    remedy: "use firmware that measures (OVMF for TDX), or give the check up by name: --skip boot",
  })
  return policyClaim({
    check: "boot",
    failureClass: "boot",
    findings: [...(unmeasured ? [nothing] : []), ...registerFindings(td, reference, true)],
    warnings: [],
    summary:
      reference === null
        ? "the firmware measured what it booted into the trust domain's registers"
        : "firmware, boot loader, kernel and command line are the snapshot's (RTMR0 to RTMR2)",
    facts: logFacts(td.log, "RTMR"),
  })
}

/** What a trust domain's registers and log add to a check that the TPM's PCRs decide: why the registers differ. */
export function tdFindings(td: ProvenTd, reference: Snapshot | null): Finding[] {
  return registerFindings(td, reference, false)
}

/** @param all also registers whose difference no log explains. */
function registerFindings(
  { attestation, log }: ProvenTd,
  reference: Snapshot | null,
  all: boolean,
): Finding[] {
  const known = tdxReferenceIn(reference?.tee_reference ?? null)
  const events = reference?.boot_reference?.rtmrs ?? {}
  const unchanged: number[] = []
  const findings: Finding[] = []
  for (const rtmr of BOOT_RTMRS) {
    const found = attestation.quote.body.rtmrs[rtmr] ?? new Uint8Array(0)
    const expected = known === null ? null : (fromHex(known[`rtmr${rtmr}`]) ?? new Uint8Array(0))
    if (expected === null || bytesEqual(found, expected)) {
      unchanged.push(rtmr)
      continue
    }
    const why = explainRegister(events[rtmr], log, rtmr)
    if (why === null && !all) continue
    const subject = `RTMR${rtmr}${why === null || why.position === null ? "" : `, event ${why.position}`}`
    findings.push(
      mismatch("ERR_TDX_RTMR", subject, why?.expected ?? shortHex(expected), why?.found ?? shortHex(found), {
        meaning: `changed: ${why?.meaning ?? RTMR_MEANING[rtmr]}`,
        remedy: "compare with what was updated; if that explains it, take a new snapshot",
      }),
    )
  }
  return [...findings, ...logFindings(log, unchanged, events, "RTMR")]
}
