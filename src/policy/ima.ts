import { createHash } from "node:crypto"
import { HASH_ALGORITHMS } from "../formats/hash-algorithms.ts"
import { toHex } from "../formats/hex.ts"
import {
  digestText,
  fileDigest,
  isViolation,
  type MeasurementList,
  pathBytes,
} from "../formats/ima/measurement-list.ts"
import { CONTENT } from "../formats/ima/template.ts"
import { pathToText } from "../formats/path-text.ts"
import type { QuotedMeasurements } from "../verify/ima.ts"
import type { ImaKey } from "../verify/ima-signature.ts"
import type { Verified } from "../verify/verified.ts"
import { Findings } from "./findings.ts"
import {
  appraiseFiles,
  BOOT_AGGREGATE,
  DISTRUST,
  isBootAggregate,
  isZeroDigest,
  RETAKE,
} from "./ima-files.ts"
import type { ImaReference, Snapshot } from "./snapshot.ts"
import type { Claim } from "./verdict.ts"
import type { Whitelist } from "./whitelist.ts"

export interface ImaAppraisalOptions {
  readonly whitelist: Whitelist
  /** Quoted PCRs of the SHA-256 bank, PCR 0 first. */
  readonly pcrs: readonly Uint8Array[]
  /**
   * Keys whose valid signature over an entry's digest accepts that entry, in the snapshot or not; none where absent. A
   * signature covers the content alone: older versions, and other files' contents under a path, are accepted with it.
   */
  readonly imaKeys?: readonly ImaKey[]
}

/**
 * Compares what ran with the reference values: every quoted entry must be a file of the snapshot or of the whitelist, by
 * path, digest and algorithm, or be signed by a given key. Collects all mismatches. Entries of measured data (keys, command
 * lines, critical data) are no files: they are counted and named in the facts, and neither accepted as files nor refused.
 * @param reference null only when a snapshot is about to be taken: then there is nothing yet to compare files with, and
 * what the list says about the kernel and itself is still judged.
 */
export function appraiseIma(
  quoted: Verified<QuotedMeasurements>,
  reference: Snapshot | null,
  options: ImaAppraisalOptions,
): Claim {
  const { list } = quoted
  const findings = new Findings()
  appraiseCoverage(list, findings)
  const recomputed = appraiseBootAggregate(list, reference, options.pcrs, findings)
  const { whitelist, imaKeys = [] } = options
  const { measuredDataNames, ...files } = appraiseFiles(list, { reference, whitelist, imaKeys }, findings)
  const facts = {
    entries: list.count,
    notYetQuoted: quoted.notYetQuoted,
    template: templateOf(list),
    bootAggregateRecomputed: recomputed,
    ...files,
    ...(measuredDataNames.length === 0 ? {} : { measuredDataNames: measuredDataNames.join(", ") }),
    mismatches: findings.total,
  }
  if (findings.total === 0)
    return { check: "ima", status: "passed", summary: passedSummary(reference, facts), findings: [], facts }
  return {
    check: "ima",
    status: "failed",
    failureClass: "ima",
    summary: findings.total === 1 ? "1 mismatch in what ran" : `${findings.total} mismatches in what ran`,
    findings: findings.kept,
    facts,
  }
}

/** What a new snapshot keeps of the quoted entries. */
export interface ImaReferenceValues {
  /** Null where the list is empty. */
  readonly ima_reference: ImaReference | null
  /** Algorithm of `filehashes`. Null where no file was measured and none was asked for. */
  readonly hash_algorithm: string | null
  /** Files of the quoted entries, each pair once. */
  readonly filehashes: readonly (readonly [path: string, digest: string])[]
  /** Files left out because their digest is of another algorithm, of no content (fs-verity), or is none. */
  readonly omitted: number
}

/**
 * Reference values from quoted entries that passed {@link appraiseIma}.
 * @param hashAlgorithm algorithm of the snapshot's other digests; the first measured file's where absent.
 */
export function imaReferenceOf(
  quoted: Verified<QuotedMeasurements>,
  hashAlgorithm?: string,
): ImaReferenceValues {
  const { list } = quoted
  const algorithm = hashAlgorithm ?? firstAlgorithm(list)
  const pairs = new Map<string, readonly [string, string]>()
  let omitted = 0
  for (let index = 1; index < list.count; index++) {
    if (isBootAggregate(list, index) || list.content[index] === CONTENT.data) continue
    const comparable = list.content[index] === CONTENT.file && algorithmName(list, index) === algorithm
    if (isViolation(list, index) || isZeroDigest(list, index) || !comparable) omitted += 1
    else {
      const pair = [pathToText(pathBytes(list, index)), toHex(fileDigest(list, index))] as const
      pairs.set(pair.join("\0"), pair)
    }
  }
  return {
    ima_reference:
      list.count === 0 ? null : { template: templateOf(list), boot_aggregate: digestText(list, 0) },
    hash_algorithm: algorithm,
    filehashes: [...pairs.values()],
    omitted,
  }
}

/** A list that holds nothing beyond the kernel's own first entry covers nothing: whatever ran, ran unseen. */
function appraiseCoverage(list: MeasurementList, findings: Findings): void {
  for (let index = 1; index < list.count; index++)
    if (list.content[index] !== CONTENT.data && !isBootAggregate(list, index)) return
  findings.add(() => ({
    code: "ERR_IMA_OFF",
    subject: "measurement list",
    expected: "an entry for each file that ran",
    found: list.count === 0 ? "an empty list" : `only ${BOOT_AGGREGATE}`,
    meaning: "the kernel was started without an IMA policy: anything may have run and nothing shows it",
    remedy: "install the IMA policy of the package as /etc/ima/ima-policy and reboot",
  }))
}

/**
 * The first entry ties the list to what booted: a digest over the boot PCRs. It is computed anew from the quoted PCRs and
 * compared with the snapshot's; that it occurs among the snapshot's files would say nothing.
 * @returns whether it could be computed. It cannot where the kernel took it over a bank that is not quoted (SHA-1): then
 * the boot check compares the quoted PCRs themselves, and the snapshot's value is required to be equal.
 */
function appraiseBootAggregate(
  list: MeasurementList,
  reference: Snapshot | null,
  pcrs: readonly Uint8Array[],
  findings: Findings,
): boolean {
  if (list.count === 0) return false
  const found = digestText(list, 0)
  const wrong = (expected: string, meaning: string) =>
    findings.add(() => ({
      code: "ERR_IMA_BOOT_AGGREGATE",
      subject: BOOT_AGGREGATE,
      expected,
      found,
      meaning,
      remedy: `if you changed the boot chain yourself, ${RETAKE}; else ${DISTRUST}`,
    }))
  if (!isBootAggregate(list, 0) || isViolation(list, 0)) {
    wrong(`${BOOT_AGGREGATE} as the first entry`, "the measurement list does not begin where the kernel did")
    return false
  }
  const computed = list.algorithm[0] === SHA256 ? bootAggregate(pcrs) : null
  if (computed === null && list.algorithm[0] === SHA256)
    wrong("a digest over the quoted PCRs 0 to 9", "the quote does not cover the boot measurements")
  if (computed !== null && computed !== found)
    wrong(computed, "the measurement list began with other boot measurements than the TPM holds")
  const known = reference?.ima_reference ?? null
  if (known !== null && known.boot_aggregate !== found)
    wrong(known.boot_aggregate, "firmware, boot loader or kernel are not those of the snapshot")
  if (known !== null && known.template !== templateOf(list))
    findings.add(() => ({
      code: "ERR_IMA_TEMPLATE_CHANGED",
      subject: "measurement list",
      expected: known.template,
      found: templateOf(list),
      meaning: "the kernel was started with another ima_template than when the snapshot was taken",
      remedy: `restore the kernel arguments, or ${RETAKE}`,
    }))
  // Format 1 has no place for the value; there the computed one has to do.
  if (reference !== null && known === null && (reference.format === 2 || computed === null))
    findings.add(() => ({
      code: "ERR_IMA_REFERENCE",
      subject: BOOT_AGGREGATE,
      found,
      meaning: "the snapshot does not say with which boot measurements the list has to begin",
      remedy: RETAKE,
    }))
  return computed !== null
}

/**
 * `sha256:hex` over SHA-256 PCRs 0 to 9, or null without them. Kernels before 5.8 took SHA-1 over PCRs 0 to 7 whatever
 * the bank, and later ones still do where the bank or ima_hash is SHA-1.
 * Source: Linux 6.12, security/integrity/ima/ima_crypto.c, ima_calc_boot_aggregate_tfm.
 */
function bootAggregate(pcrs: readonly Uint8Array[]): string | null {
  if (pcrs.length < 10) return null
  const hash = createHash("sha256")
  for (const pcr of pcrs.slice(0, 10)) hash.update(pcr)
  return `sha256:${hash.digest("hex")}`
}

function passedSummary(
  reference: Snapshot | null,
  facts: {
    entries: number
    files: number
    whitelisted: number
    signed: number
    measuredData: number
    notYetQuoted: number
    measuredDataNames?: string
  },
): string {
  const late = facts.notYetQuoted === 0 ? "" : `; ${facts.notYetQuoted} measured after the quote, not judged`
  const { measuredData, measuredDataNames } = facts
  const data = measuredData === 0 ? "" : `; ${measuredData} of measured data (${measuredDataNames})`
  if (reference === null) return `${facts.entries} entries replay to the quoted PCR 10${data}${late}`
  const listed = facts.whitelisted === 0 ? "" : ` and ${facts.whitelisted} of the whitelist`
  const signed = facts.signed === 0 ? "" : ` and ${facts.signed} signed by a given key`
  return `${facts.entries} entries replay to the quoted PCR 10; what ran: ${facts.files} of the snapshot${listed}${signed}${data}${late}`
}

function templateOf(list: MeasurementList): string {
  return list.count === 0 ? "none" : (list.templates[list.template[0] ?? 0]?.name ?? "none")
}

/** Algorithm of the first measured file. */
function firstAlgorithm(list: MeasurementList): string | null {
  for (let index = 1; index < list.count; index++)
    if (list.content[index] !== CONTENT.data) return algorithmName(list, index)
  return null
}

function algorithmName(list: MeasurementList, index: number): string | null {
  if (index >= list.count) return null
  return HASH_ALGORITHMS[list.algorithm[index] ?? 0]?.name ?? null
}

const SHA256 = HASH_ALGORITHMS.findIndex(({ name }) => name === "sha256")
