import { HASH_ALGORITHMS, hashAlgorithmOfSize } from "../formats/hash-algorithms.ts"
import {
  digestSize,
  digestText,
  fileDigest,
  isViolation,
  type MeasurementList,
  measurementEntry,
  parseMeasurementList,
  pathBytes,
} from "../formats/ima/measurement-list.ts"
import { CONTENT } from "../formats/ima/template.ts"
import { pathToText } from "../formats/path-text.ts"
import type { ImaKey } from "../verify/ima-signature.ts"
import { FileHashIndex } from "./file-hashes.ts"
import type { Findings } from "./findings.ts"
import { isPolicyFile, SeenPolicies } from "./ima-coverage.ts"
import type { ViolationPolicy } from "./ima-expectations.ts"
import { fileFindingOf, updateOf } from "./ima-packages.ts"
import { SignedFiles } from "./ima-signed.ts"
import { JudgedViolations } from "./ima-violations.ts"
import { fileHashIndex, type Snapshot, supersededIndex } from "./snapshot.ts"
import type { FileFinding, FileState, Finding } from "./verdict.ts"
import type { Whitelist, WhitelistRule } from "./whitelist.ts"

/** Name that the kernel gives to the first entry. It stands for no file. */
export const BOOT_AGGREGATE = "boot_aggregate"
export const RETAKE = "take a new snapshot of the VM once you trust it"
export const DISTRUST = "do not trust this machine until this is explained"

/** What files are accepted by. */
export interface FileReferences {
  readonly reference: Snapshot | null
  readonly whitelist: Whitelist
  /** Keys whose signature is as good as being in the snapshot. */
  readonly imaKeys: readonly ImaKey[]
  readonly violations: ViolationPolicy
  /** As of when lines of the whitelist count. */
  readonly at: Date
}

/** How many entries each of the references accepted, and how many are of no file. */
export interface JudgedFiles {
  readonly files: number
  /** Among them those that may hold anything. */
  readonly whitelisted: number
  readonly anyContent: number
  readonly signed: number
  readonly violations: number
  readonly measuredData: number
  /** Names of the measured data as the kernel has them, each once and the first only. */
  readonly measuredDataNames: readonly string[]
}

/** Names of measured data that are kept: a VM can make any number of keyrings. */
const MAX_DATA_NAMES = 32
const MAX_DATA_NAME = 80

/** What can be wrong with an entry. */
type Problem =
  | "ERR_IMA_UNKNOWN_FILE"
  | "ERR_IMA_CHANGED_FILE"
  | "ERR_IMA_OLD_VERSION"
  | "ERR_IMA_ALGORITHM"
  | "ERR_IMA_VIOLATION"
  | "ERR_IMA_NO_DIGEST"
  | "ERR_IMA_BOOT_AGGREGATE"

const STATES: Readonly<Record<Problem, FileState>> = {
  ERR_IMA_UNKNOWN_FILE: "unknown",
  ERR_IMA_CHANGED_FILE: "changed",
  ERR_IMA_OLD_VERSION: "old-version",
  ERR_IMA_ALGORITHM: "not-comparable",
  ERR_IMA_VIOLATION: "written-in-use",
  ERR_IMA_NO_DIGEST: "unreadable",
  ERR_IMA_BOOT_AGGREGATE: "unknown",
}

/**
 * Judges entries one by one against snapshot, whitelist and signatures, all but the list's first. Text is made only for those
 * that do not match.
 */
export class FileJudge {
  readonly policies = new SeenPolicies()
  #known = 0
  #whitelisted = 0
  #anyContent = 0
  #measuredData = 0
  readonly #dataNames = new Set<string>()
  readonly #signed: SignedFiles
  readonly #violations: JudgedViolations
  #list: MeasurementList = NO_LIST
  /** Index of the first entry of `#list` in the whole list. */
  #first = 0
  readonly #reference: Snapshot | null
  readonly #whitelist: Whitelist
  readonly #at: Date
  readonly #findings: Findings
  readonly #files: FileHashIndex | null
  readonly #superseded: FileHashIndex
  /** By path: the first entry of the version that is accepted, where older ones are known. */
  readonly #newerSince = new Map<string, number>()
  /** By path and digest: the last entry of a version that was replaced. */
  readonly #lastOld = new Map<string, number>()
  readonly #inSnapshot: readonly boolean[]

  /** @param notes for what is no failure and should be known. */
  constructor(references: FileReferences, findings: Findings, notes: Findings) {
    const { reference, whitelist, imaKeys, violations, at } = references
    this.#signed = new SignedFiles(imaKeys)
    this.#violations = new JudgedViolations(violations, notes)
    this.#reference = reference
    this.#whitelist = whitelist
    this.#at = at
    this.#findings = findings
    this.#files = reference === null || reference.filehashes === null ? null : fileHashIndex(reference)
    this.#superseded = reference === null ? FileHashIndex.EMPTY : supersededIndex(reference)
    // Digests of equal size can be of different algorithms, and only equal algorithms say anything.
    this.#inSnapshot = HASH_ALGORITHMS.map(({ name }, index) =>
      reference?.hash_algorithm ? name === reference.hash_algorithm : (BARE[index] ?? false),
    )
    if (reference !== null && reference.filehashes === null)
      findings.add(() => ({
        code: "ERR_IMA_REFERENCE",
        subject: "filehashes",
        expected: "the digest of each file of the machine",
        found: "none",
        meaning: "the snapshot holds no file to compare with what ran",
        remedy: RETAKE,
      }))
  }

  /** Entries that follow those that were judged already. @param first index of the first of them in the whole list. */
  judge(list: MeasurementList, first: number): void {
    this.#list = list
    this.#first = first
    for (let index = first === 0 ? 1 : 0; index < list.count; index++) {
      const problem = this.#problem(index)
      if (problem === "ERR_IMA_OLD_VERSION") {
        const { path } = measurementEntry(list, index)
        this.#lastOld.set(`${path}\0${digestText(list, index)}`, first + index)
      }
      if (problem !== null) this.#findings.add(() => this.#finding(problem, index))
    }
  }

  /** When all were judged. */
  finish(): JudgedFiles {
    this.#violations.finish()
    const { kept } = this.#findings
    kept.forEach((finding, at) => {
      kept[at] = this.#orderOld(finding)
    })
    return {
      files: this.#known,
      whitelisted: this.#whitelisted,
      anyContent: this.#anyContent,
      signed: this.#signed.accepted,
      violations: this.#violations.total,
      measuredData: this.#measuredData,
      measuredDataNames: [...this.#dataNames],
    }
  }

  /** What is wrong with an entry, or null. */
  #problem(index: number): Problem | null {
    const list = this.#list
    // The name in a violation is not covered by the TPM: somebody may have put a harmless one there.
    if (isViolation(list, index))
      return this.#violations.passes(list, index, this.#first) ? null : "ERR_IMA_VIOLATION"
    // No file, so that nothing of the snapshot is to be compared with it: it may be named as one on purpose.
    if (list.content[index] === CONTENT.data) return this.#keepData(index)
    if (isBootAggregate(list, index)) return "ERR_IMA_BOOT_AGGREGATE"
    if (isZeroDigest(list, index)) return "ERR_IMA_NO_DIGEST"
    if (isPolicyFile(list.bytes, list.pathAt[index] ?? 0, list.pathEnd[index] ?? 0))
      this.policies.add(digestText(list, index))
    const algorithm = list.algorithm[index] ?? 0
    if (HASH_ALGORITHMS[algorithm]?.accepted !== true) return "ERR_IMA_ALGORITHM"
    const mismatch = this.#files === null ? null : this.#mismatch(index, algorithm, this.#files)
    // A signature does not tell versions apart; that this one was replaced is known.
    if (mismatch === "ERR_IMA_OLD_VERSION") return mismatch
    return mismatch === null || this.#signed.accept(list, index) ? null : mismatch
  }

  #keepData(index: number): null {
    this.#measuredData += 1
    if (this.#dataNames.size < MAX_DATA_NAMES)
      this.#dataNames.add(measurementEntry(this.#list, index).path.slice(0, MAX_DATA_NAME))
    return null
  }

  #mismatch(index: number, algorithm: number, files: FileHashIndex): Problem | null {
    const { bytes, pathAt, pathEnd, digestAt } = this.#list
    const path = pathAt[index] ?? 0
    const end = pathEnd[index] ?? 0
    const digest = digestAt[index] ?? 0
    const digestEnd = digest + digestSize(this.#list, index)
    // The root of a tree is never the digest of a content, even where the bytes are equal.
    const isContent = this.#list.content[index] === CONTENT.file
    const comparable = isContent && (this.#inSnapshot[algorithm] ?? false)
    const found = files.find(bytes, path, end, digest, digestEnd)
    if (found === "match" && comparable) {
      this.#noteNewer(path, end, index)
      this.#known += 1
      return null
    }
    const listed = this.#whitelist.files.find(bytes, path, end, digest, digestEnd)
    if (listed === "match" && isContent && BARE[algorithm]) {
      this.#whitelisted += 1
      return null
    }
    const ruled = this.#askRules(index)
    if (ruled.accepted?.digest != null) {
      this.#whitelisted += 1
      return null
    }
    // Whoever accepts any content under a path did not mean the one that is known to be replaced.
    if (comparable && this.#superseded.find(bytes, path, end, digest, digestEnd) === "match")
      return "ERR_IMA_OLD_VERSION"
    if (ruled.accepted !== null) {
      this.#whitelisted += 1
      this.#anyContent += 1
      return null
    }
    if (found === "unknown" && listed === "unknown" && !ruled.otherDigest) return "ERR_IMA_UNKNOWN_FILE"
    return found !== "unknown" && !comparable ? "ERR_IMA_ALGORITHM" : "ERR_IMA_CHANGED_FILE"
  }

  #askRules(index: number) {
    const list = this.#list
    const isContent = list.content[index] === CONTENT.file
    const algorithm = HASH_ALGORITHMS[list.algorithm[index] ?? 0]?.name ?? ""
    const file = { algorithm, digest: fileDigest(list, index), isContent }
    return this.#whitelist.ask(pathBytes(list, index), file, this.#at)
  }

  #finding(code: Problem, index: number): Finding {
    const described = fileFindingOf(this.#list, index, STATES[code], this.#reference)
    const file = { ...described, position: this.#first + index }
    return { ...this.#described(code, index, file), ...(code === "ERR_IMA_BOOT_AGGREGATE" ? {} : { file }) }
  }

  #described(code: Problem, index: number, file: FileFinding): Finding {
    const subject = measurementEntry(this.#list, index).path
    const signature = this.#signed.whyNot(this.#list, index)
    const { expired } = this.#askRules(index)
    const found = [
      digestText(this.#list, index),
      ...(signature === null ? [] : [`its signature: ${signature}`]),
      ...(expired === null ? [] : [expiredText(expired)]),
    ].join("; ")
    switch (code) {
      case "ERR_IMA_UNKNOWN_FILE":
        return {
          code,
          subject,
          expected: "a file of the snapshot or of the whitelist",
          found,
          meaning:
            "a program, library or kernel module ran that was not on the machine when the snapshot was taken",
          remedy: `if you installed it, add the line \`path digest\` to a whitelist (--whitelist) or take a new snapshot; else ${DISTRUST}`,
        }
      case "ERR_IMA_CHANGED_FILE":
        return {
          code,
          subject,
          expected: this.#knownDigests(index),
          found,
          meaning:
            "the file that ran is not the one of the snapshot: it was updated, rolled back or tampered with",
          remedy: `if you updated ${updateOf(file)}; else ${DISTRUST}`,
        }
      case "ERR_IMA_OLD_VERSION":
        return { code, subject, expected: this.#knownDigests(index), found, ...oldVersionText(file.state) }
      case "ERR_IMA_ALGORITHM":
        if (this.#list.content[index] === CONTENT.verity)
          return {
            code,
            subject,
            expected: "the digest of the file's content",
            found,
            meaning:
              "the kernel logged the root of the file's fs-verity tree: nothing says what its content is",
            remedy:
              "remove digest_type=verity from the rules of the IMA policy, or sign the file and name the key with --ima-key",
          }
        return {
          code,
          subject,
          expected: this.#reference?.hash_algorithm ?? "SHA-1 or SHA-2",
          found,
          meaning:
            "the kernel hashed this file with an algorithm that the reference values are not made with",
          remedy: `boot with the ima_hash= of the snapshot (sha256 where there is none yet), or ${RETAKE}`,
        }
      case "ERR_IMA_VIOLATION":
        return {
          code,
          subject,
          meaning:
            "the file was open for writing while it was measured, or was written while in use: what ran is not known",
          remedy:
            "measure executables only (the IMA policy of the package does) and reboot to start a new list; the file's name is as the VM says. A policy may say otherwise (--violations, [ima])",
        }
      case "ERR_IMA_NO_DIGEST":
        return {
          code,
          subject,
          found,
          meaning:
            "the kernel logged the file with zeros because it could not read it: what ran is not known",
          remedy: "move the file to a file system that IMA can read",
        }
      case "ERR_IMA_BOOT_AGGREGATE":
        return {
          code,
          subject: `${BOOT_AGGREGATE}, entry ${this.#first + index}`,
          expected: "one entry of that name, the first",
          found,
          meaning:
            "another kernel was started from the running one (kexec): the TPM did not measure what booted",
          remedy: "reboot through the firmware",
        }
    }
  }

  /** Remembers when files ran of which older versions are known; there are no more of them than the snapshot names. */
  #noteNewer(start: number, end: number, index: number): void {
    if (this.#superseded.length === 0) return
    const path = this.#list.bytes.subarray(start, end)
    const known = this.#superseded.positionsOf(path)
    if (known.start === known.end) return
    const text = pathToText(path)
    if (!this.#newerSince.has(text)) this.#newerSince.set(text, this.#first + index)
  }

  /** Now that all entries were seen: whether older versions ran before the newer ones or after them. */
  #orderOld({ file, ...finding }: Finding): Finding {
    if (file?.state !== "old-version") return { ...finding, ...(file === undefined ? {} : { file }) }
    const newer = this.#newerSince.get(file.path)
    const [digest = ""] = (finding.found ?? "").split("; ")
    const last = this.#lastOld.get(`${file.path}\0${digest}`) ?? file.position
    if (newer === undefined) return { ...finding, file }
    const state = newer < last ? "rolled-back" : "before-update"
    return { ...finding, ...oldVersionText(state), file: { ...file, position: last, state } }
  }

  /** Some of the digests that would have been accepted, as `hex or hex`. */
  #knownDigests(index: number): string {
    const path = pathBytes(this.#list, index)
    const known = this.#files?.digestsOf(path, 3) ?? []
    const listed = this.#whitelist.files.digestsOf(path, 3)
    return [...known, ...listed].join(" or ") || "the digest in the whitelist"
  }
}

/** Source for what the kernel lists once: Linux 6.12, security/integrity/ima/ima_queue.c, ima_add_template_entry. */
function oldVersionText(state: FileState): Pick<Finding, "meaning" | "remedy"> {
  switch (state) {
    case "rolled-back":
      return {
        meaning: "the file was put back: this older version ran after the version of the snapshot had run",
        remedy: DISTRUST,
      }
    case "before-update":
      return {
        meaning:
          "an older version ran in this boot, before that of the snapshot; as the kernel lists each content once, it may have been put back since",
        remedy:
          "reboot the VM to begin a new list; until then, snapshot update --keep-old accepts both versions",
      }
    default:
      return {
        meaning: "an older version ran, and that of the snapshot did not: not updated yet, or put back",
        remedy: `install the version of the snapshot and reboot; if it was installed, ${DISTRUST}`,
      }
  }
}

const NO_LIST = parseMeasurementList(new Uint8Array(0))

/** A line that somebody forgot to renew is told apart from one that was never there. */
function expiredText({ line, until, reason }: WhitelistRule): string {
  const why = reason === null ? "" : ` (${reason})`
  return `line ${line} of the whitelist accepted it until ${until}${why}`
}

/** Whether an entry is the kernel's own. Data of that name, which a program can cause, is not. */
export function isBootAggregate(list: MeasurementList, index: number): boolean {
  if (list.content[index] !== CONTENT.file) return false
  const start = list.pathAt[index] ?? 0
  if ((list.pathEnd[index] ?? 0) - start !== BOOT_AGGREGATE.length) return false
  for (let offset = 0; offset < BOOT_AGGREGATE.length; offset++)
    if (list.bytes[start + offset] !== BOOT_AGGREGATE.charCodeAt(offset)) return false
  return true
}

export function isZeroDigest(list: MeasurementList, index: number): boolean {
  const start = list.digestAt[index] ?? 0
  const end = start + digestSize(list, index)
  for (let at = start; at < end; at++) if (list.bytes[at] !== 0) return false
  return true
}

/** By algorithm: whether a digest without a name, known by its size alone, is taken for one of it. */
const BARE = HASH_ALGORITHMS.map(({ name, size }) => hashAlgorithmOfSize(size)?.name === name)
