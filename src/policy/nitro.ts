import { CodedError } from "../errors.ts"
import { bytesEqual, fromHex, shortHex, toHex } from "../formats/hex.ts"
import type { LaterPcr } from "../verify/ima.ts"
import { type NitroAnchor, type NitroTpmStatement, verifyNitroTpm } from "../verify/nitro-tpm.ts"
import type { Verified } from "../verify/verified.ts"
import { type BootLog, readBootLog } from "./boot-log.ts"
import { mismatch } from "./policy-findings.ts"
import type { Snapshot } from "./snapshot.ts"
import type { NitroReference } from "./snapshot-nitro.ts"
import { BOOT_PCRS, PCR_MEANING } from "./tpm.ts"
import { alsoFailing, failedBy } from "./validation-claims.ts"
import type { Claim, Finding } from "./verdict.ts"

export interface NitroInput {
  /** As the VM sent it; absent: it sent none. */
  readonly document: Uint8Array | undefined
  /** What the quote's qualifyingData have to be, which bind it to nonce, TLS key and TEE part. */
  readonly binding: Uint8Array
  readonly anchors: readonly NitroAnchor[]
  /** What the snapshot was taken with; null: with no document, or there is none yet. */
  readonly reference: NitroReference | null
  /** The firmware's event log, as compared with the quote, and as it came. */
  readonly log: BootLog
  readonly eventLog: Uint8Array | undefined
  readonly at: Date
}

/** What a document adds to the checks of a TPM. */
export interface NitroJudgement {
  /** Null where there is none, or where anything is wrong with it. */
  readonly statement: Verified<NitroTpmStatement> | null
  readonly simulated: boolean
  /** For the check `tpm`: the document itself. */
  readonly findings: readonly Finding[]
  /** For the same, without failing it. */
  readonly warnings: readonly Finding[]
  /** For the check `boot`: PCRs that are not the snapshot's. */
  readonly boot: readonly Finding[]
}

/** No document, and none that there has to be. */
export const NO_NITRO: NitroJudgement = {
  statement: null,
  simulated: false,
  findings: [],
  warnings: [],
  boot: [],
}
/** Documents are over all PCRs; these are what is looked at. */
const NEEDED = [...BOOT_PCRS, 10]
/** The firmware's own: even one that measures little leaves its separators there. */
const FIRMWARE_PCRS = [0, 1, 2, 3, 4, 5, 6, 7]

/**
 * Judges the NitroTPM document beside a quote. AWS signs PCRs of an instance's TPM and nothing about keys, so that the attestation key
 * is no more proven than before; but the PCRs are, in the SHA-384 bank, whoever holds that key. Whether there has to be a document, and
 * of which instance, is the snapshot's word: a VM gains nothing by leaving it out or by sending another's.
 */
export function appraiseNitro(input: NitroInput): NitroJudgement {
  const { document, binding, anchors, reference, at } = input
  if (document === undefined)
    return reference === null ? NO_NITRO : { ...NO_NITRO, findings: [absent(reference)] }
  try {
    const roots = new Set(anchors.map(({ fingerprint }) => fingerprint))
    const statement = verifyNitroTpm({ document, roots, nonce: binding, at })
    const findings = [
      ...missingPcrs(statement),
      ...(reference === null ? [] : otherInstance(statement, reference)),
    ]
    const changed = reference === null ? [] : changedPcrs(statement, reference)
    const boot = findings.length > 0 ? [] : [...changed, ...logFindings(statement, input.log, input.eventLog)]
    const anchor = anchors.find(({ fingerprint }) => fingerprint === statement.rootFingerprint)
    return {
      statement: findings.length === 0 ? statement : null,
      simulated: anchor?.simulated !== false,
      findings,
      warnings: [],
      boot,
    }
  } catch (error) {
    const { findings } = failedBy("tpm", "tpm", error)
    // Nobody that we know vouches for it: that is as good as none, and no worse.
    const unknown = error instanceof CodedError && error.code === "ERR_CERT_UNTRUSTED" && reference === null
    return unknown ? { ...NO_NITRO, warnings: findings } : { ...NO_NITRO, findings }
  }
}

/** The instance of a document: `module_id` without what is said about the TPM's start. */
export function instanceOf({ document: { moduleId } }: NitroTpmStatement): string {
  return /^(i-[0-9a-f]+)-tpm[0-9a-f]+$/.exec(moduleId)?.[1] ?? moduleId
}

/** What a snapshot keeps of a document. */
export function nitroReferenceOf(statement: Verified<NitroTpmStatement>): NitroReference {
  const pcrs = BOOT_PCRS.map(
    (pcr) => [`${pcr}`, toHex(statement.document.pcrs.get(pcr) ?? new Uint8Array(0))] as const,
  )
  return { instance: instanceOf(statement), root: statement.rootFingerprint, pcrs: Object.fromEntries(pcrs) }
}

/** The checks `tpm` and `boot` with what a document adds. */
export function withNitro(
  tpm: Claim,
  boot: Claim,
  nitro: NitroJudgement,
): readonly [tpm: Claim, boot: Claim] {
  const { statement, findings, warnings } = nitro
  const facts =
    statement === null
      ? {}
      : {
          nitroInstance: instanceOf(statement),
          nitroModuleId: statement.document.moduleId,
          nitroTimestamp: new Date(Number(statement.document.timestamp)).toISOString(),
          nitroRoot: statement.rootFingerprint,
        }
  const shown: Claim = { ...tpm, facts: { ...tpm.facts, ...facts }, findings: [...tpm.findings, ...warnings] }
  const warned: Claim =
    warnings.length > 0 && shown.status === "passed"
      ? {
          ...shown,
          status: "warning",
          summary: `${shown.summary}; its NitroTPM document is under no root that is known here, and says nothing`,
        }
      : shown
  return [alsoFailing(warned, "tpm", findings), alsoFailing(boot, "boot", nitro.boot)]
}

/** PCR 10 that AWS signed, which the measurement list has to give as well; null where there is no document. */
export function nitroPcr10({ statement }: NitroJudgement): LaterPcr | null {
  const value = statement?.document.pcrs.get(10)
  return value === undefined ? null : { bank: "sha384", value, by: "NitroTPM document" }
}

/**
 * What the results rest on with a document; null where they do not: there is none, a check on it failed, or the snapshot has nothing to
 * compare its PCRs with.
 * @param snapshot null: one is about to be taken.
 */
export function nitroAssurance(
  { statement, simulated }: NitroJudgement,
  claims: readonly Claim[],
  snapshot: Snapshot | null,
): { readonly instance: string; readonly meaning: string } | null {
  const holds = (check: Claim["check"]) =>
    claims.some((claim) => claim.check === check && (claim.status === "passed" || claim.status === "warning"))
  const compared = snapshot === null || snapshot.tpm_reference?.nitro_tpm !== undefined
  if (statement === null || !compared || !holds("tpm") || !holds("boot")) return null
  const instance = instanceOf(statement)
  const who = simulated ? "a SIMULATED root in AWS's place" : "AWS"
  const signed = `${who} signed the PCR values (SHA-384) of the NitroTPM of instance ${instance} for this request`
  const results = holds("ima") ? "boot and IMA results rest" : "boot results rest"
  const rests =
    snapshot === null
      ? "that this is the instance one talks to is only known by its name"
      : `it is the snapshot's instance, so that ${results} on that signature and not on the attestation key, on which the counts of restarts rest`
  return { instance, meaning: `${signed}; ${rests}` }
}

/** PCRs that the event log gives in the quote's bank and not in the document's: then the two are of different boots. */
function logFindings(
  { document: { pcrs } }: NitroTpmStatement,
  log: BootLog,
  eventLog: Uint8Array | undefined,
): Finding[] {
  if (log.state !== "read") return []
  const values = new Map([...pcrs].filter(([pcr]) => BOOT_PCRS.some((boot) => boot === pcr)))
  const other = readBootLog(eventLog, values, { kind: "tcg", bank: "sha384" })
  if (other.state !== "read") return []
  return [...other.events.unexplained]
    .filter(([pcr]) => log.events.registers.has(pcr))
    .map(([pcr, own]) =>
      mismatch("ERR_NITRO_PCR", `PCR ${pcr}, SHA-384`, shortHex(own), shortHex(values.get(pcr) ?? own), {
        meaning: "the event log gives the quoted value of this PCR, and not the one that AWS signed",
        remedy: "do not trust what the VM says about its boot until this is explained",
      }),
    )
}

/** A bank that the firmware left alone is the same after every boot, and says nothing about any. */
function missingPcrs({ document: { pcrs } }: NitroTpmStatement): Finding[] {
  const missing = NEEDED.filter((pcr) => !pcrs.has(pcr))
  const measured = FIRMWARE_PCRS.some((pcr) => pcrs.get(pcr)?.some((byte) => byte !== 0))
  if (missing.length === 0 && measured) return []
  const found = missing.length > 0 ? `none of ${missing.join(", ")}` : "zeros in PCRs 0 to 7"
  return [
    mismatch("ERR_NITRO_PCR", "NitroTPM document", "measurements in PCRs 0 to 15", found, {
      meaning: "the document does not say what was booted",
      remedy: "do not trust this document: AWS's have all PCRs, and its firmware measures into them",
    }),
  ]
}

function otherInstance(statement: NitroTpmStatement, reference: NitroReference): Finding[] {
  const instance = instanceOf(statement)
  const wrong = (subject: string, expected: string, found: string) =>
    mismatch("ERR_NITRO_INSTANCE", subject, expected, found, {
      meaning: "the document is of another instance than the one that the snapshot was taken of",
      remedy:
        "if the VM was moved to another instance on purpose, take a new snapshot; otherwise do not trust it",
    })
  return [
    ...(instance === reference.instance ? [] : [wrong("instance", reference.instance, instance)]),
    ...(statement.rootFingerprint === reference.root
      ? []
      : [wrong("root of the NitroTPM document", reference.root, statement.rootFingerprint)]),
  ]
}

function changedPcrs({ document: { pcrs } }: NitroTpmStatement, reference: NitroReference): Finding[] {
  return BOOT_PCRS.flatMap((pcr) => {
    const expected = fromHex(reference.pcrs[`${pcr}`] ?? "") ?? new Uint8Array(0)
    const found = pcrs.get(pcr) ?? new Uint8Array(0)
    if (expected.length === 48 && bytesEqual(expected, found)) return []
    return [
      mismatch(
        "ERR_NITRO_PCR",
        `PCR ${pcr}, SHA-384`,
        shortHex(expected) || "a value in the snapshot",
        shortHex(found),
        {
          meaning: `AWS signed another value than at the snapshot: ${PCR_MEANING[pcr]}`,
          remedy:
            "compare with what was updated before the latest reboot; if that explains it, take a new snapshot",
        },
      ),
    ]
  })
}

function absent(reference: NitroReference): Finding {
  return mismatch("ERR_NITRO_ABSENT", "NitroTPM document", `one of instance ${reference.instance}`, "none", {
    meaning: "the snapshot was taken with PCRs that AWS had signed, and now the VM does not show that",
    remedy:
      "run cosmian_vm doctor in the VM; if the VM has left AWS on purpose, take a new snapshot; otherwise do not trust it",
  })
}
