import { UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import { type AkEnrolment, encodeSnapshotBytes, type Snapshot } from "../policy/snapshot.ts"
import type { ConnectionOptions, TrustOptions } from "./agent-options.ts"
import { appraisalOf } from "./appraisal.ts"
import { attest, withAgent } from "./attest.ts"
import { contentFor } from "./compressed-file.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { ProgressLine } from "./progress.ts"
import { renderVerdict } from "./render.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

export interface EnrollOptions extends ConnectionOptions, TrustOptions {
  readonly snapshot: string
  /** Where to write it; null: over the snapshot. */
  readonly output: string | null
  readonly acceptReboot: boolean
  /** File with the public half of the TPM's endorsement key; null: its certificate is asked for. */
  readonly ek: string | null
}

/**
 * `enroll`: verifies the VM against its snapshot, has its TPM prove the attestation key, and writes the proof into the snapshot, from
 * where on every verification asks for it. All or nothing.
 * @throws UsageError ERR_MISSING_ARGUMENT without --tpm-ca and --ek, ERR_BAD_VALUE with both
 */
export async function enrollKey(
  options: EnrollOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const { tpmCa = null, ek } = options
  if (tpmCa === null && ek === null)
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: "--tpm-ca",
      expected: "the certificates of the TPM's maker, or the TPM's endorsement key (--ek)",
      hint: "without them nothing can be proven; see docs/tpm-ca.md",
    })
  if (tpmCa !== null && ek !== null)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--ek",
      expected: "one thing that the TPM is known by",
      found: "--tpm-ca as well",
    })
  for (const check of ["tpm", "ak"])
    if (options.skip.includes(check))
      throw new UsageError("ERR_BAD_VALUE", {
        at: `--skip ${check}`,
        expected: "a check that enrolling does without",
        found: check,
      })
  const appraisal = appraisalOf(options)
  const path = options.output ?? options.snapshot
  const progress = new ProgressLine(terminal, !options.quiet && !options.json)
  const file = beginFile(path, 0o644)
  try {
    const { verdict, enrolment } = await interruptible((signal) =>
      withAgent(options, signal, (client) => attest(client, options, appraisal, progress, signal)),
    )
    progress.clear()
    const enrolled = verdict.passed ? withEnrolment(appraisal.reference, enrolment) : null
    if (enrolled !== null) file.commit(contentFor(path, encodeSnapshotBytes(enrolled)))
    if (options.json)
      terminal.out(jsonText({ enrolment: enrolled === null ? null : { file: path, ...enrolment }, verdict }))
    else {
      const { outStyle: style, outColumns: columns } = terminal
      const passedMeans = "has proven its attestation key"
      terminal.out(renderVerdict(verdict, { style, columns, quiet: options.quiet, passedMeans }))
      if (enrolled === null)
        terminal.talk(`the snapshot was left as it is${verdict.passed ? BY_CLAIMS : ""}\n`)
      else if (!options.quiet) terminal.out(`[ OK ] enrolled: the proof is in ${printable(path)}\n`)
    }
    return verdict.exitCode
  } finally {
    progress.clear()
    file.abandon()
  }
}

/** Passed without a certificate: only a paravisor whose launch measurement is the snapshot's gets so far. */
const BY_CLAIMS = ": it asks for the paravisor's claims already, which prove the key each time"

/** Null where neither certificate nor endorsement key has proven anything. */
function withEnrolment(snapshot: Snapshot | null, enrolment: AkEnrolment | null): Snapshot | null {
  const reference = snapshot?.tpm_reference ?? null
  if (snapshot === null || reference === null || enrolment === null) return null
  return { ...snapshot, tpm_reference: { ...reference, ak_enrolment: enrolment } }
}
