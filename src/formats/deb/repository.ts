import { ParseError } from "../../errors.ts"
import { type Paragraph, parseParagraph } from "./paragraphs.ts"

/**
 * What a Debian repository says about its packages: a signed Release file names lists by digest, a list names packages by digest.
 * Source: Debian Wiki, "DebianRepository/Format"; apt-secure(8).
 */

export interface Release {
  /** `Debian 12 bookworm`, as far as it is told; for people. */
  readonly name: string
  /** Milliseconds. */
  readonly date: number
  /** Null: it names no time until which it holds. */
  readonly validUntil: number | null
  /** Files that it vouches for, by SHA-256 in hex; the paths are those below it. */
  readonly files: ReadonlyMap<string, { readonly size: number; readonly path: string }>
}

/** @throws ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY */
export function parseRelease(text: string): Release {
  const fields = parseParagraph("Release", text)
  const until = fields.get("valid-until")
  const name = ["origin", "version", "codename", "suite"].flatMap((field) => fields.get(field) ?? [])
  return {
    name: [...new Set(name)].join(" "),
    date: timeOf("Date", fields.get("date") ?? ""),
    validUntil: until === undefined ? null : timeOf("Valid-Until", until),
    files: filesOf(fields),
  }
}

function filesOf(fields: Paragraph): Release["files"] {
  const lines = fields.get("sha256")?.split("\n").filter(Boolean) ?? []
  const files = new Map<string, { size: number; path: string }>()
  for (const line of lines) {
    const [, digest, size, path] = /^([0-9a-f]{64}) +([0-9]{1,15}) (\S+)$/.exec(line) ?? []
    if (digest === undefined || path === undefined)
      throw new ParseError("ERR_MALFORMED", {
        at: "Release: SHA256",
        expected: "lines of digest, size and path",
      })
    // Empty lists have one digest, whatever they are of.
    if (!files.has(digest)) files.set(digest, { size: Number(size), path })
  }
  if (files.size > 0) return files
  throw new ParseError("ERR_MALFORMED", { at: "Release", expected: "SHA256 digests", found: "none" })
}

function timeOf(field: string, text: string): number {
  // `Sat, 17 May 2025 09:11:34 UTC`; +0000 and GMT occur too.
  const shape =
    /^[A-Z][a-z]{2}, +[0-9]{1,2} [A-Z][a-z]{2} [0-9]{4} [0-9]{1,2}:[0-9]{2}:[0-9]{2} (UTC|GMT|\+0000)$/
  const time = shape.test(text)
    ? Date.parse(text.replace(/\+0000$/, "GMT").replace(/UTC$/, "GMT"))
    : Number.NaN
  if (!Number.isNaN(time)) return time
  throw new ParseError("ERR_MALFORMED", {
    at: `Release: ${field}`,
    expected: "a date in UTC",
    found: text.slice(0, 60),
  })
}

/** A package as a list of a repository names it. */
export interface ListedPackage {
  readonly name: string
  readonly version: string
  readonly architecture: string
}

/**
 * The entry of a list (`Packages`) for a package with that digest; null where there is none.
 * @param sha256 hex.
 * @throws ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY
 */
export function findInPackages(list: Uint8Array, sha256: string): ListedPackage | null {
  // Lists have some fifty megabytes: the digest is looked for first, and only its paragraph is made text of.
  const bytes = Buffer.from(list.buffer, list.byteOffset, list.byteLength)
  const at = bytes.indexOf(`\nSHA256: ${sha256}\n`)
  if (at < 0) return null
  const before = bytes.lastIndexOf("\n\n", at)
  const after = bytes.indexOf("\n\n", at)
  const start = before < 0 ? 0 : before + 2
  const text = bytes.toString("utf8", start, after < 0 ? bytes.length : after + 1)
  const fields = parseParagraph("Packages", text)
  if (fields.get("sha256") !== sha256) return null
  return listedPackage("Packages", fields)
}

/** Who a package says that it is. @throws ParseError ERR_MALFORMED */
export function listedPackage(at: string, fields: Paragraph): ListedPackage {
  const field = (name: string, shape: RegExp) => {
    const value = fields.get(name) ?? ""
    if (shape.test(value)) return value
    throw new ParseError("ERR_MALFORMED", {
      at: `${at}: ${name}`,
      expected: `a package's ${name}`,
      found: value.slice(0, 80),
    })
  }
  return {
    name: field("package", /^[a-z0-9][a-z0-9+.-]+$/),
    version: field("version", /^[A-Za-z0-9.+~:-]{1,200}$/),
    architecture: field("architecture", /^[a-z0-9-]{1,40}$/),
  }
}
