import type { Snapshot } from "./snapshot.ts"
import { PCR_MEANING } from "./tpm.ts"

/** Values of a snapshot as JSON text, each by its dotted name. */
export type NamedValues = ReadonlyMap<string, string>

/** A value that two snapshots have differently. */
export interface ValueDifference {
  /** `tpm_reference.pcrs.7`. */
  readonly name: string
  /** What it is, where the name does not say it. */
  readonly meaning?: string
  /** A string as it is, anything else as JSON; null where the snapshot has no such value. */
  readonly before: string | null
  readonly after: string | null
}

/** The TPM's clock always goes on: of two snapshots it tells which is the later one, like their times. */
const CLOCK = "tpm_reference.clock"
/** When the attestation key was proven to be in a TPM: of the same proof, every snapshot has a time of its own. */
const ENROLLED_AT = "tpm_reference.ak_enrolment.at"

/**
 * All reference values that are no file's and that two snapshots of one state have in common. Null ones are left out. A member that
 * is not named here is a reference value, so that one which is new to snapshots is never merged unseen.
 */
export function referenceValues(snapshot: Snapshot): NamedValues {
  const { filehashes, unreadable, taken_at, host, agent_version, ...more } = snapshot
  // Follows from the PCRs and RTMRs, which are compared.
  const { packages, superseded, taken_under, boot_reference, ...references } = more
  const values = new Map<string, string>()
  for (const [name, value] of Object.entries(references)) flatten(name, value, values)
  values.delete(CLOCK)
  values.delete(ENROLLED_AT)
  return values
}

/** When, where and by which version the snapshot was taken. */
export function originValues(snapshot: Snapshot): NamedValues {
  const { taken_at, host, agent_version, taken_under, tpm_reference } = snapshot
  const values = new Map<string, string>()
  for (const [name, value] of Object.entries({ taken_at, host, agent_version, taken_under }))
    flatten(name, value, values)
  flatten(CLOCK, tpm_reference?.clock, values)
  flatten(ENROLLED_AT, tpm_reference?.ak_enrolment?.at, values)
  return values
}

/** Values that differ, in order of the first snapshot, then those that only the second one has. */
export function differingValues(before: NamedValues, after: NamedValues): ValueDifference[] {
  const names = new Set([...before.keys(), ...after.keys()])
  const out: ValueDifference[] = []
  for (const name of names) {
    const a = before.get(name) ?? null
    const b = after.get(name) ?? null
    if (a === b) continue
    const meaning = meaningOf(name)
    out.push({ name, ...(meaning === null ? {} : { meaning }), before: shown(a), after: shown(b) })
  }
  return out
}

/** Different values never get the same names and texts: an object without members is there, a quoted name has dots of its own. */
function flatten(name: string, value: unknown, out: Map<string, string>): void {
  if (value === null || value === undefined) return
  if (typeof value !== "object" || Array.isArray(value)) {
    out.set(name, JSON.stringify(value))
    return
  }
  const known = out.size
  for (const [member, inner] of Object.entries(value))
    flatten(`${name}.${/^[\w-]+$/.test(member) ? member : JSON.stringify(member)}`, inner, out)
  if (out.size === known) out.set(name, "{}")
}

function shown(json: string | null): string | null {
  const value: unknown = json === null ? null : JSON.parse(json)
  return typeof value === "string" ? value : json
}

function meaningOf(name: string): string | null {
  const pcr = /^tpm_reference\.(?:nitro_tpm\.)?pcrs\.(\d+)$/.exec(name)?.[1]
  if (pcr !== undefined) return PCR_MEANING[Number(pcr)] ?? null
  return MEANINGS[name] ?? null
}

const MEANINGS: Readonly<Record<string, string>> = {
  "tee_policy.Sev.measurement": "what the VM was launched with",
  "tee_policy.Sev.report_id": "changes with each start of the VM",
  "tee_policy.Tdx.body.mr_td": "what the trust domain was launched with",
  "tee_policy.Tdx.body.mr_seam": "the TDX module",
  "tee_reference.rtmr0": "the firmware's configuration",
  "tee_reference.rtmr1": "boot loader and kernel",
  "tee_reference.rtmr2": "kernel command line and initial RAM disk",
  "tpm_policy.reset_count": "how often the machine was started",
  "tpm_policy.restart_count": "how often the machine was resumed",
  "tpm_reference.ak_name": "the TPM's attestation key: another one is another VM",
  "tpm_reference.nitro_tpm.instance": "the AWS instance whose NitroTPM AWS vouched for",
  [ENROLLED_AT]: "when the attestation key was proven to be in a TPM",
  [CLOCK]: "the TPM's clock, in milliseconds",
  "ima_reference.boot_aggregate": "digest over the boot PCRs, by the kernel",
}
