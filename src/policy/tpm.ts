import { bytesEqual, fromHex, shortHex, toHex } from "../formats/hex.ts"
import type { TpmAttestation } from "../verify/tpm.ts"
import type { Verified } from "../verify/verified.ts"
import { type BootLog, explainRegister, logFacts, logFindings, NO_LOG } from "./boot-log.ts"
import type { BootReference } from "./boot-reference.ts"
import type { AkEnrolment, Snapshot, TpmPolicy, TpmReference } from "./snapshot.ts"
import type { NitroReference } from "./snapshot-nitro.ts"
import type { Check, Claim, Finding } from "./verdict.ts"

/** PCRs that say what booted. PCR 10 is IMA's and moves with each program; 16 and up can be reset while the machine runs. */
export const BOOT_PCRS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15] as const

/**
 * What each PCR measures, for people.
 * Source: TCG PC Client Platform Firmware Profile 1.06, section "PCR Usage"; UAPI Group, "Linux TPM PCR Registry".
 */
export const PCR_MEANING: Readonly<Record<number, string>> = {
  0: "the firmware's code",
  1: "the firmware's configuration",
  2: "option ROMs and drivers of added devices",
  3: "configuration of option ROMs and drivers",
  4: "the boot loader, and what it started",
  5: "the boot loader's configuration and the partition table",
  6: "events of the platform's maker",
  7: "secure boot: whether it is on, its keys, and who signed what was started",
  8: "the kernel command line and commands of the boot loader",
  9: "the kernel and the initial RAM disk, as the boot loader read them",
  11: "the unified kernel image and the phases of the boot",
  12: "kernel command line and credentials given beside a unified kernel image",
  13: "system extensions",
  14: "secure boot keys of the machine's owner (MOK)",
  15: "the machine's identity and encrypted volumes, as systemd measures them",
}

/** Claims that rest on the TPM's own statement. */
export interface TpmClaims {
  /** The TPM is the one of the snapshot. */
  readonly tpm: Claim
  /** It was not rebooted or suspended since. */
  readonly reboot: Claim
  /** What booted is what booted then. */
  readonly boot: Claim
}

/**
 * Appraises a verified quote against the snapshot. Each value that differs is a finding.
 * @param reference null when a snapshot is about to be taken: then only what needs no reference is judged.
 * @param options.acceptReboot the user said that the machine may have been restarted (`--accept-reboot`).
 * @param options.log the firmware's event log, compared with this very quote: it explains differences, and may be caught lying.
 */
export function appraiseTpm(
  tpm: Verified<TpmAttestation>,
  reference: Snapshot | null,
  options: { readonly acceptReboot?: boolean; readonly log?: BootLog } = {},
): TpmClaims {
  const identity = appraiseTpmIdentity(tpm, reference)
  const boot = appraiseBoot(tpm, reference, options.log ?? NO_LOG)
  const reboot = appraiseReboot(tpm, reference)
  const same = identity.status === "passed" && boot.status === "passed"
  const accepted = options.acceptReboot === true && same ? acceptedReboot(reboot, tpm, reference) : reboot
  return { tpm: identity, reboot: accepted, boot }
}

/** The snapshot's members that a verified quote over PCRs 0–15 fills. */
export function tpmReferenceOf(
  tpm: Verified<TpmAttestation>,
  enrolment: AkEnrolment | null = null,
  nitro: NitroReference | null = null,
): {
  tpm_policy: TpmPolicy
  tpm_reference: TpmReference
} {
  const pcrs = BOOT_PCRS.map((pcr) => [String(pcr), toHex(pcrValue(tpm, pcr) ?? new Uint8Array(0))] as const)
  return {
    tpm_policy: { reset_count: tpm.resetCount, restart_count: tpm.restartCount },
    tpm_reference: {
      ak_name: toHex(tpm.akName),
      pcrs: Object.fromEntries(pcrs),
      clock: Number(tpm.clock),
      ...(enrolment === null ? {} : { ak_enrolment: enrolment }),
      ...(nitro === null ? {} : { nitro_tpm: nitro }),
    },
  }
}

function appraiseTpmIdentity(tpm: TpmAttestation, reference: Snapshot | null): Claim {
  const facts = { akName: toHex(tpm.akName), firmwareVersion: `0x${tpm.firmwareVersion.toString(16)}` }
  const good = (summary: string): Claim => ({ check: "tpm", status: "passed", summary, findings: [], facts })
  if (reference === null) return good("a TPM signed the PCRs for this very request")
  if (reference.tpm_reference === null) return withoutReference("tpm", reference, facts)
  const findings = [
    ...akFindings(tpm, reference.tpm_reference),
    ...rollbackFindings(tpm, reference.tpm_policy),
    ...clockFindings(tpm, reference),
  ]
  if (findings.length === 0) return good("the snapshot's TPM signed the PCRs for this very request")
  return failedClaim(
    "tpm",
    "this is not the TPM of the snapshot, or not in a later state of it",
    findings,
    facts,
  )
}

function akFindings(tpm: TpmAttestation, reference: TpmReference): Finding[] {
  const expected = fromHex(reference.ak_name)
  if (expected !== null && expected.length > 0 && bytesEqual(expected, tpm.akName)) return []
  return [
    {
      code: "ERR_TPM_AK_CHANGED",
      subject: "AK Name",
      expected: reference.ak_name,
      found: toHex(tpm.akName),
      meaning:
        "another TPM, or another key of it, signed the quote: this is another VM, or somebody answers with a TPM of their own",
      remedy:
        "if the VM was moved to another TPM on purpose, take a new snapshot from the VM itself; otherwise do not trust it",
    },
  ]
}

/** A TPM's boot counter never goes back: with the same key, a lower one means an older state of it was put back. */
function rollbackFindings(tpm: TpmAttestation, policy: TpmPolicy | null): Finding[] {
  if (policy === null || tpm.resetCount >= policy.reset_count) return []
  return [
    {
      code: "ERR_TPM_ROLLED_BACK",
      subject: "resetCount",
      expected: `at least ${policy.reset_count}`,
      found: `${tpm.resetCount}`,
      meaning:
        "the TPM has booted fewer times than when the snapshot was taken: an old copy of its state is in use",
      remedy: "find out who restored the VM or its TPM; if it was you, take a new snapshot",
    },
  ]
}

/** Within one boot the clock only goes on. (Over boots it may repeat, where the power was cut.) */
function clockFindings(tpm: TpmAttestation, { tpm_policy, tpm_reference }: Snapshot): Finding[] {
  const then = tpm_reference?.clock ?? null
  if (then === null || tpm_policy?.reset_count !== tpm.resetCount || tpm.clock >= BigInt(then)) return []
  return [
    {
      code: "ERR_TPM_ROLLED_BACK",
      subject: "clock",
      expected: `at least ${then} ms`,
      found: `${tpm.clock} ms`,
      meaning:
        "the TPM's clock is behind that of the snapshot in the same boot: an old copy of the VM is running",
      remedy: "find out who restored the VM or its TPM; if it was you, take a new snapshot",
    },
  ]
}

function appraiseReboot(tpm: TpmAttestation, reference: Snapshot | null): Claim {
  const facts = {
    resetCount: tpm.resetCount,
    restartCount: tpm.restartCount,
    clock: `${tpm.clock} ms`,
    clockSafe: tpm.safe,
  }
  if (reference !== null && reference.tpm_policy === null) return withoutReference("reboot", reference, facts)
  const findings = reference?.tpm_policy == null ? [] : countFindings(tpm, reference.tpm_policy)
  if (findings.length > 0)
    return failedClaim("reboot", findings.map((finding) => finding.meaning).join("; "), findings, facts)
  const since =
    reference === null ? `boot number ${tpm.resetCount}` : "neither rebooted nor suspended since the snapshot"
  if (tpm.safe) return { check: "reboot", status: "passed", summary: since, findings, facts }
  return {
    check: "reboot",
    status: "warning",
    summary: `${since}; the machine was switched off without an orderly shutdown before this boot`,
    findings: [
      {
        code: "ERR_TPM_CLOCK_UNSAFE",
        subject: "TPM clock",
        expected: "safe",
        found: "not safe",
        meaning:
          "power went away without an orderly shutdown; the TPM's clock may repeat, its boot counter does not",
        remedy: "nothing to do: it becomes safe again after about an hour, and no check rests on the clock",
      },
    ],
    facts,
  }
}

/**
 * A restart that the user allowed, of a machine that is the snapshot's and booted the same. Counters only ever go up: one that
 * went back is an old state of the TPM, which nobody can allow.
 */
function acceptedReboot(reboot: Claim, tpm: TpmAttestation, reference: Snapshot | null): Claim {
  const policy = reference?.tpm_policy ?? null
  if (reboot.status !== "failed" || policy === null) return reboot
  const resets = tpm.resetCount - policy.reset_count
  const restarts = tpm.restartCount - policy.restart_count
  if (resets < 0 || (resets === 0 && restarts < 0)) return reboot
  const what = resets > 0 ? `rebooted ${resets} time(s)` : `suspended and resumed ${restarts} time(s)`
  return {
    check: "reboot",
    status: "warning",
    summary: `${what} since the snapshot, accepted by --accept-reboot: the same TPM key signed, and the same was booted; what ran before the latest boot is not known`,
    findings: reboot.findings.map((finding) => ({
      ...finding,
      remedy: "nothing to do if you know of it; to have restarts fail again, leave --accept-reboot out",
    })),
    facts: { ...reboot.facts, accepted: true },
  }
}

function countFindings(tpm: TpmAttestation, policy: TpmPolicy): Finding[] {
  const remedy =
    "if you know why, check the VM and take a new snapshot; or --accept-reboot where restarts are expected"
  const reboot: Finding = {
    code: "ERR_REBOOTED",
    subject: "resetCount",
    expected: `${policy.reset_count}`,
    found: `${tpm.resetCount}`,
    meaning: `the machine was rebooted ${Math.abs(tpm.resetCount - policy.reset_count)} time(s) since the snapshot`,
    remedy,
  }
  if (tpm.resetCount !== policy.reset_count) return [reboot]
  if (tpm.restartCount === policy.restart_count) return []
  return [
    {
      code: "ERR_RESUMED",
      subject: "restartCount",
      expected: `${policy.restart_count}`,
      found: `${tpm.restartCount}`,
      meaning: "the machine was suspended and resumed since the snapshot",
      remedy,
    },
  ]
}

function appraiseBoot(tpm: TpmAttestation, reference: Snapshot | null, log: BootLog): Claim {
  const facts = {
    ...logFacts(log, "PCR"),
    ...Object.fromEntries(
      BOOT_PCRS.map((pcr) => [`pcr${pcr}`, toHex(pcrValue(tpm, pcr) ?? new Uint8Array(0))]),
    ),
  }
  if (reference !== null && reference.tpm_reference === null)
    return withoutReference("boot", reference, facts)
  const known = reference?.boot_reference?.pcrs ?? {}
  const changed = reference?.tpm_reference == null ? [] : changedPcrs(tpm, reference.tpm_reference)
  const rebooted = reference?.tpm_policy?.reset_count !== tpm.resetCount
  const findings = changed.map((change) => pcrFinding(change, rebooted, known, log))
  const unchanged = BOOT_PCRS.filter((pcr) => !changed.some((change) => change.pcr === pcr))
  const lies = logFindings(log, unchanged, known, "PCR")
  if (findings.length > 0) {
    const which = findings.map((finding) => finding.subject).join("; ")
    const missing = log.state === "absent" ? ` (${log.reason}, so only PCRs can be compared)` : ""
    const summary = `something else booted than at the snapshot: ${which}${missing}`
    return failedClaim("boot", summary, [...findings, ...lies], facts)
  }
  if (lies.length > 0)
    return failedClaim("boot", "the event log is not what the TPM was told while booting", lies, facts)
  if (measuresNothing(tpm)) return notMeasured(facts)
  const summary =
    reference === null
      ? "the firmware measured what it booted"
      : `firmware, boot loader, kernel and command line are the snapshot's (${BOOT_PCRS.length} PCRs)`
  return { check: "boot", status: "passed", summary, findings, facts }
}

interface ChangedPcr {
  readonly pcr: (typeof BOOT_PCRS)[number]
  /** Null where the snapshot, or the quote, has no value. */
  readonly expected: Uint8Array | null
  readonly found: Uint8Array | null
}

function changedPcrs(tpm: TpmAttestation, reference: TpmReference): ChangedPcr[] {
  return BOOT_PCRS.flatMap((pcr) => {
    const value = fromHex(reference.pcrs[String(pcr)] ?? "")
    const expected = value?.length === 32 ? value : null
    const found = pcrValue(tpm, pcr) ?? null
    return expected !== null && found !== null && bytesEqual(expected, found)
      ? []
      : [{ pcr, expected, found }]
  })
}

/** By the first event that differs, where logs of both boots give the PCR's values; else by the values. */
function pcrFinding(
  { pcr, expected, found }: ChangedPcr,
  rebooted: boolean,
  known: BootReference["pcrs"],
  log: BootLog,
): Finding {
  const remedy = rebooted
    ? "compare with what was updated before the reboot; if that explains it, take a new snapshot"
    : "without a reboot this PCR should stay: find out what extended it"
  const why = expected === null || found === null ? null : explainRegister(known[String(pcr)], log, pcr)
  if (why !== null)
    return {
      code: "ERR_BOOT_PCR",
      subject: `PCR ${pcr}${why.position === null ? "" : `, event ${why.position}`}`,
      expected: why.expected,
      found: why.found,
      meaning: `changed: ${why.meaning}`,
      remedy,
    }
  return {
    code: "ERR_BOOT_PCR",
    subject: `PCR ${pcr}`,
    expected: expected === null ? "a value in the snapshot" : shortHex(expected),
    found: found === null ? "none" : shortHex(found),
    meaning: `changed: ${PCR_MEANING[pcr]}`,
    remedy,
  }
}

/** PCRs 0–7 belong to the firmware: even one that measures little leaves its separators there. */
function measuresNothing(tpm: TpmAttestation): boolean {
  return [0, 1, 2, 3, 4, 5, 6, 7].every((pcr) => pcrValue(tpm, pcr)?.every((byte) => byte === 0) ?? true)
}

function notMeasured(facts: Claim["facts"]): Claim {
  return {
    check: "boot",
    status: "failed",
    failureClass: "boot",
    summary: "the firmware measured nothing, so nothing is known about what booted",
    findings: [
      {
        code: "ERR_BOOT_NOT_MEASURED",
        subject: "PCRs 0-7",
        expected: "measurements",
        found: "zeros",
        meaning: "firmware, boot loader and kernel may be any",
        remedy:
          "use firmware with TPM support (OVMF, or SeaBIOS with a TPM), or give the check up by name: --skip boot",
      },
    ],
    facts,
  }
}

/** Missing reference values never make a check pass. */
function withoutReference(check: Check, reference: Snapshot, facts: Claim["facts"]): Claim {
  const old =
    reference.format === 1 ? "it was taken by a version before 2.0" : "it was taken of a VM without TPM"
  const finding: Finding = {
    code: "ERR_TPM_REFERENCE_ABSENT",
    subject: "snapshot",
    expected: check === "reboot" ? "tpm_policy" : "tpm_reference",
    found: "none",
    meaning: `the snapshot has nothing to compare with: ${old}`,
    remedy: `take a new snapshot, or leave this check out by --skip ${check}`,
  }
  return failedClaim(check, finding.meaning, [finding], facts)
}

function failedClaim(
  check: Check,
  summary: string,
  findings: readonly Finding[],
  facts: Claim["facts"],
): Claim {
  const failureClass = check === "reboot" || check === "boot" ? check : "tpm"
  return { check, status: "failed", failureClass, summary, findings, facts }
}

/** PCR values are in the order of the selection, which need not begin at 0. */
function pcrValue(tpm: TpmAttestation, pcr: number): Uint8Array | undefined {
  const index = tpm.pcrSelection.indexOf(pcr)
  return index < 0 ? undefined : tpm.pcrs[index]
}
