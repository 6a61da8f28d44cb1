import { UsageError } from "../errors.ts"
import { HASH_ALGORITHMS, hashAlgorithm, hashAlgorithmOfSize } from "../formats/hash-algorithms.ts"
import { fromHex } from "../formats/hex.ts"
import { pathToText, printable, textToPath } from "../formats/path-text.ts"
import { FileHashIndex, FileHashIndexBuilder } from "./file-hashes.ts"
import { PathPattern } from "./path-pattern.ts"

/** A line of a whitelist that is more than a path and a digest. */
export interface WhitelistRule {
  readonly pattern: PathPattern
  /** As it stands in the file. May hold anything: neutralise before showing. */
  readonly text: string
  /** Number of the line. */
  readonly line: number
  /** What the file has to be; null: anything. */
  readonly digest: { readonly algorithm: string; readonly bytes: Uint8Array } | null
  /** The last day on which the line counts, `2027-01-31`; null: for ever. */
  readonly until: string | null
  readonly reason: string | null
}

/** What the rules say about a file. */
export interface RuleAnswer {
  /** The rule that accepts it, by its digest rather than as any content; null: none does. */
  readonly accepted: WhitelistRule | null
  /** One that would, if its time were not over. */
  readonly expired: WhitelistRule | null
  /** One fits the path, with another digest. */
  readonly otherDigest: boolean
}

/** Files that are accepted beside those of the snapshot. */
export class Whitelist {
  /** Plain lines. A bare digest is SHA-1 or SHA-2, by its length. */
  readonly files: FileHashIndex
  readonly rules: readonly WhitelistRule[]

  constructor(files: FileHashIndex, rules: readonly WhitelistRule[]) {
    this.files = files
    this.rules = rules
  }

  /** @param digest of the content, or of an fs-verity tree where `isContent` is false: only a rule for any content takes that. */
  ask(
    path: Uint8Array,
    { algorithm, digest, isContent }: { algorithm: string; digest: Uint8Array; isContent: boolean },
    at: Date,
  ): RuleAnswer {
    let open: WhitelistRule | null = null
    let expired: WhitelistRule | null = null
    let otherDigest = false
    for (const rule of this.rules) {
      if (!rule.pattern.matches(path)) continue
      const fits =
        rule.digest === null ||
        (isContent && rule.digest.algorithm === algorithm && Buffer.compare(rule.digest.bytes, digest) === 0)
      if (!fits) otherDigest = true
      else if (isExpired(rule, at)) expired ??= rule
      else if (rule.digest === null) open ??= rule
      else return { accepted: rule, expired: null, otherDigest: false }
    }
    return open === null
      ? { accepted: null, expired, otherDigest }
      : { accepted: open, expired: null, otherDigest: false }
  }

  /** Rules by which some paths may hold anything, as of a time. */
  openRules(at: Date): WhitelistRule[] {
    return this.rules.filter((rule) => rule.digest === null && !isExpired(rule, at))
  }
}

/** Whether the day after the last one has begun, in UTC. */
function isExpired({ until }: WhitelistRule, at: Date): boolean {
  return until !== null && at.toISOString().slice(0, 10) > until
}

/** Nothing is accepted beside the snapshot. */
export const EMPTY_WHITELIST = new Whitelist(FileHashIndex.EMPTY, [])

/** Cap of a whitelist file. */
export const MAX_WHITELIST_BYTES = 64 * 1024 * 1024
/** Each of them is held against each file that is not otherwise known. */
const MAX_RULES = 1000
const MAX_PATTERN_BYTES = 4096
const MAX_REASON = 1000

const NEWLINE = 0x0a
const CARRIAGE_RETURN = 0x0d
const SPACE = 0x20
const TAB = 0x09
const HASH_SIGN = 0x23

/**
 * Reads a whitelist. A line that ends in a digest without a name is plain, whatever stands before it:
 *
 *   PATH HEX        the digest is what follows the last space or tab, so a path may hold spaces; a path is bytes and need
 *                   not be UTF-8, and `*` in it is an asterisk
 *
 * Every other line is a rule, which cannot end so:
 *
 *   PATTERN ALGORITHM:HEX|any [until=YYYY-MM-DD] [reason="…"]
 *
 * with a pattern as in path-pattern.ts, in double quotes where it holds spaces. `any` accepts whatever the file holds, and
 * needs a reason. Empty lines and lines that begin with `#` are skipped. Every other line must parse.
 * @param name the file, for messages.
 * @throws UsageError ERR_WHITELIST_LINE with the line number; ERR_TOO_LARGE.
 */
export function parseWhitelist(bytes: Uint8Array, name = "whitelist"): Whitelist {
  if (bytes.length > MAX_WHITELIST_BYTES)
    throw new UsageError("ERR_TOO_LARGE", {
      at: name,
      expected: `at most ${MAX_WHITELIST_BYTES} bytes`,
      found: `${bytes.length}`,
    })
  const builder = new FileHashIndexBuilder()
  const rules: WhitelistRule[] = []
  for (let start = 0, number = 1; start < bytes.length; number++) {
    const newline = bytes.indexOf(NEWLINE, start)
    const end = newline < 0 ? bytes.length : newline
    const line = trimmed(bytes.subarray(start, end))
    const skipped = line.length === 0 || line[0] === HASH_SIGN
    if (!skipped && !addPlain(builder, line)) rules.push(parseRule(line, number, `${name}, line ${number}`))
    start = end + 1
  }
  if (rules.length > MAX_RULES)
    throw new UsageError("ERR_TOO_LARGE", {
      at: name,
      expected: `at most ${MAX_RULES} lines with a pattern`,
      found: `${rules.length}`,
      hint: "lines of path and digest, without the algorithm's name, may be any number",
    })
  return new Whitelist(builder.build(), rules)
}

/** False where the line is not plain. */
function addPlain(builder: FileHashIndexBuilder, line: Uint8Array): boolean {
  const separator = Math.max(line.lastIndexOf(SPACE), line.lastIndexOf(TAB))
  const path = separator < 0 ? line.subarray(0, 0) : trimmed(line.subarray(0, separator))
  const digest = fromHex(pathToText(line.subarray(separator + 1)))
  if (path.length === 0 || path.includes(0) || digest === null) return false
  if (hashAlgorithmOfSize(digest.length) === null) return false
  builder.add(path, digest)
  return true
}

const RULE =
  /^(?:"((?:[^"\\]|\\.)*)"|([^\s"]\S*))[ \t]+(any|[a-z0-9-]+:[0-9A-Fa-f]+)((?:[ \t]+[a-z]+=(?:"[^"]*"|[^\s"]\S*))*)$/su
const OPTION = /([a-z]+)=(?:"([^"]*)"|(\S+))/gsu

function parseRule(line: Uint8Array, number: number, at: string): WhitelistRule {
  const wrong = (expected: string, found: string, hint?: string) =>
    new UsageError("ERR_WHITELIST_LINE", {
      at,
      expected,
      found: printable(found.slice(0, 120)),
      ...(hint === undefined ? {} : { hint }),
    })
  const text = pathToText(line)
  const [, quoted, bare, digestText, options = ""] = RULE.exec(text) ?? []
  const pattern =
    quoted?.replaceAll(/\\(["\\])/g, (all, escaped: string) => (escaped === '"' ? '"' : all)) ?? bare
  if (pattern === undefined || digestText === undefined)
    throw wrong(
      'a path, a space, a SHA-1 or SHA-2 digest in hex; or PATTERN ALGORITHM:HEX|any [until=YYYY-MM-DD] [reason="…"]',
      text,
      "sha256sum prints the digest first: here it comes last",
    )
  const bytes = textToPath(pattern)
  if (bytes[0] !== 0x2f || bytes.includes(0) || bytes.length > MAX_PATTERN_BYTES)
    throw wrong(`a pattern that begins with /, without NUL, of at most ${MAX_PATTERN_BYTES} bytes`, pattern)
  const digest = digestText === "any" ? null : digestOf(digestText)
  if (digest === undefined) throw wrong(`any, or one of ${ACCEPTED.join(", ")} and its digest`, digestText)
  const { until, reason } = optionsOf(options, wrong)
  if (digest === null && reason === null)
    throw wrong('reason="…", as any content is accepted', text, "say why nothing is to be proven here")
  return { pattern: new PathPattern(bytes), text: pattern, line: number, digest, until, reason }
}

const ACCEPTED = HASH_ALGORITHMS.filter(({ accepted }) => accepted).map(({ name }) => name)

/** Undefined where it is none that is accepted. */
function digestOf(text: string): WhitelistRule["digest"] | undefined {
  const colon = text.indexOf(":")
  const algorithm = hashAlgorithm(text.slice(0, colon))
  const bytes = fromHex(text.slice(colon + 1))
  if (algorithm?.accepted !== true || bytes?.length !== algorithm.size) return undefined
  return { algorithm: algorithm.name, bytes }
}

function optionsOf(
  text: string,
  wrong: (expected: string, found: string) => UsageError,
): Pick<WhitelistRule, "until" | "reason"> {
  const found = new Map<string, string>()
  for (const [, key = "", quoted, bare] of text.matchAll(OPTION)) {
    if ((key !== "until" && key !== "reason") || found.has(key)) throw wrong("until= and reason=, once", key)
    found.set(key, quoted ?? bare ?? "")
  }
  const until = found.get("until") ?? null
  if (until !== null && !isDay(until)) throw wrong("a day, as in until=2027-01-31", until)
  const reason = found.get("reason") ?? null
  if (reason !== null && (reason.trim() === "" || reason.length > MAX_REASON))
    throw wrong(`a reason of 1 to ${MAX_REASON} characters`, reason)
  return { until, reason }
}

function isDay(text: string): boolean {
  if (!/^\d{4}-\d\d-\d\d$/.test(text)) return false
  const time = new Date(`${text}T00:00:00Z`)
  return !Number.isNaN(time.getTime()) && time.toISOString().startsWith(text)
}

/** Without white space at its end (a carriage return among it: files edited on Windows). */
function trimmed(line: Uint8Array): Uint8Array {
  let end = line.length
  while (end > 0) {
    const byte = line[end - 1]
    if (byte !== SPACE && byte !== TAB && byte !== CARRIAGE_RETURN) break
    end -= 1
  }
  return line.subarray(0, end)
}
