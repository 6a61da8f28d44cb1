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
import { appraiseBootAggregate, type BootPcrs, templateOf } from "./ima-boot.ts"
import {
  appraiseCoverage,
  type ImaArguments,
  isPolicyFile,
  type KnownImaPolicy,
  SeenPolicies,
  SHIPPED_POLICY,
} from "./ima-coverage.ts"
import { FAIL_VIOLATIONS, type ImaExpectations } from "./ima-expectations.ts"
import { BOOT_AGGREGATE, FileJudge, isBootAggregate, isZeroDigest, type JudgedFiles } from "./ima-files.ts"
import type { ImaReference, Snapshot } from "./snapshot.ts"
import type { Claim } from "./verdict.ts"
import type { Whitelist, WhitelistRule } from "./whitelist.ts"

export interface ImaAppraisalOptions {
  readonly whitelist: Whitelist
  /** Quoted PCRs, to compute boot_aggregate from. */
  readonly pcrs: BootPcrs
  /** As of when lines of the whitelist count. */
  readonly at: Date
  /**
   * Keys whose valid signature over an entry's digest accepts that entry, in the snapshot or not; none where absent. A
   * signature covers the content, not the path: older versions, and other files' contents under a path, are accepted with it.
   */
  readonly imaKeys?: readonly ImaKey[]
  /** `[ima]` of a policy; null where there is none. */
  readonly expectations?: ImaExpectations | null
  /** Texts of IMA policies that the user gives, beside the one of the packages. */
  readonly knownPolicies?: readonly KnownImaPolicy[]
  /** What is proven of the kernel's command line; null or absent: nothing. */
  readonly commandLine?: ImaArguments | null
  /** Where no quote vouches for the list, which the claim then says; absent: one does. */
  readonly unquoted?: boolean
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
  const appraisal = new ImaAppraisal(reference, options)
  appraisal.add(quoted.list)
  return appraisal.claim(quoted.notYetQuoted)
}

/**
 * The same for a list that comes in parts. Only quoted entries may be given to it, and its claim counts only when they were all
 * found to be quoted: see `QuotedPrefix`.
 */
export class ImaAppraisal {
  readonly #reference: Snapshot | null
  readonly #options: ImaAppraisalOptions
  readonly #findings = new Findings()
  readonly #notes = new Findings()
  readonly #judge: FileJudge
  #entries = 0
  #template = "none"
  #recomputed = false
  /** Whether there is an entry beyond the kernel's own. */
  #covers = false

  constructor(reference: Snapshot | null, options: ImaAppraisalOptions) {
    this.#reference = reference
    this.#options = options
    const { whitelist, at, imaKeys = [] } = options
    const violations = options.expectations?.violations ?? FAIL_VIOLATIONS
    const references = { reference, whitelist, imaKeys, violations, at }
    this.#judge = new FileJudge(references, this.#findings, this.#notes)
  }

  /** Entries that follow those given before. */
  add(list: MeasurementList): void {
    if (this.#entries === 0 && list.count > 0) {
      this.#template = templateOf(list)
      this.#recomputed = appraiseBootAggregate(list, this.#reference, this.#options.pcrs, this.#findings)
    }
    this.#covers ||= coversSomething(list, this.#entries === 0 ? 1 : 0)
    this.#judge.judge(list, this.#entries)
    this.#entries += list.count
  }

  /** @param notYetQuoted entries that came after the quote. */
  claim(notYetQuoted: number): Claim {
    if (!this.#covers) this.#noteOff()
    const { measuredDataNames, ...files } = this.#judge.finish()
    const { expectations, knownPolicies = [] } = this.#options
    const coverage = appraiseCoverage(
      {
        seen: this.#judge.policies,
        known: [SHIPPED_POLICY, ...knownPolicies],
        reference: this.#reference,
        required: expectations?.required ?? [],
        commandLine: this.#options.commandLine ?? null,
      },
      this.#findings,
      this.#notes,
    )
    const facts = {
      entries: this.#entries,
      notYetQuoted,
      template: this.#template,
      bootAggregateRecomputed: this.#recomputed,
      ...files,
      ...(measuredDataNames.length === 0 ? {} : { measuredDataNames: measuredDataNames.join(", ") }),
      ...coverage,
      mismatches: this.#findings.total,
    }
    const open = this.#options.whitelist.openRules(this.#options.at)
    const { total, kept } = this.#findings
    if (total > 0)
      return {
        check: "ima",
        status: "failed",
        failureClass: "ima",
        summary: total === 1 ? "1 mismatch in what ran" : `${total} mismatches in what ran`,
        findings: kept,
        facts,
      }
    const unquoted = this.#options.unquoted === true
    const summary = passedSummary(this.#reference, { ...facts, unquoted }, measuredDataNames, open)
    const status = unquoted || this.#notes.total > 0 || open.length > 0 ? "warning" : "passed"
    return { check: "ima", status, summary, findings: this.#notes.kept, facts }
  }

  /** A list that holds nothing beyond the kernel's own first entry covers nothing: whatever ran, ran unseen. */
  #noteOff(): void {
    this.#findings.add(() => ({
      code: "ERR_IMA_OFF",
      subject: "measurement list",
      expected: "an entry for each file that ran",
      found: this.#entries === 0 ? "an empty list" : `only ${BOOT_AGGREGATE}`,
      meaning: "the kernel was started without an IMA policy: anything may have run and nothing shows it",
      remedy: "install the IMA policy of the package as /etc/ima/ima-policy and reboot",
    }))
  }
}

function coversSomething(list: MeasurementList, from: number): boolean {
  for (let index = from; index < list.count; index++)
    if (list.content[index] !== CONTENT.data && !isBootAggregate(list, index)) return true
  return false
}

function passedSummary(
  reference: Snapshot | null,
  facts: Omit<JudgedFiles, "measuredDataNames"> & {
    readonly entries: number
    readonly notYetQuoted: number
    readonly unquoted: boolean
  },
  dataNames: readonly string[],
  open: readonly WhitelistRule[],
): string {
  const late = facts.notYetQuoted === 0 ? "" : `; ${facts.notYetQuoted} measured after the quote, not judged`
  const data =
    facts.measuredData === 0 ? "" : `; ${facts.measuredData} of measured data (${dataNames.join(", ")})`
  const broken = facts.violations === 0 ? "" : `; ${facts.violations} violations, let pass by the policy`
  const replayed = facts.unquoted
    ? `${facts.entries} entries, which no quote vouches for`
    : `${facts.entries} entries replay to the quoted PCR 10`
  if (reference === null) return `${replayed}${data}${broken}${late}`
  const listed = facts.whitelisted === 0 ? "" : ` and ${facts.whitelisted} of the whitelist`
  const signed = facts.signed === 0 ? "" : ` and ${facts.signed} signed by a given key`
  const given =
    open.length === 0
      ? ""
      : `; nothing is proven of ${open.map(({ text }) => text).join(", ")}, where the whitelist accepts any content (${facts.anyContent} ran)`
  return `${replayed}; what ran: ${facts.files} of the snapshot${listed}${signed}${given}${data}${broken}${late}`
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
      list.count === 0
        ? null
        : {
            template: templateOf(list),
            boot_aggregate: digestText(list, 0),
            policy: policiesIn(list),
          },
    hash_algorithm: algorithm,
    filehashes: [...pairs.values()],
    omitted,
  }
}

/** Policy files that the list shows, as `algorithm:hex`. */
function policiesIn(list: MeasurementList): readonly string[] {
  const seen = new SeenPolicies()
  for (let index = 1; index < list.count; index++)
    if (
      isFileEntry(list, index) &&
      isPolicyFile(list.bytes, list.pathAt[index] ?? 0, list.pathEnd[index] ?? 0)
    )
      seen.add(digestText(list, index))
  return seen.digests
}

function isFileEntry(list: MeasurementList, index: number): boolean {
  return list.content[index] !== CONTENT.data && !isViolation(list, index) && !isZeroDigest(list, index)
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
