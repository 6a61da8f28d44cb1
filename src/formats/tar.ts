import { ParseError } from "../errors.ts"
import { pathToText } from "./path-text.ts"

/**
 * Tar archives as a stream: ustar, with GNU's long names and POSIX's extended headers.
 * Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar 1.34 manual, "Basic Tar Format".
 */

/** An entry; what it holds follows as content where it is a file. */
export interface TarEntry {
  readonly kind: "file" | "hard-link" | "symbolic-link" | "directory" | "device"
  /** Absolute, without `.` and `..`; text form as `formats/path-text.ts` has it. */
  readonly path: string
  /** Where a link leads: for a hard link a path as above, for a symbolic link as it is. Null for others. */
  readonly target: string | null
  /** Bytes of content. */
  readonly size: number
}

export interface TarReceiver {
  entry(entry: TarEntry): void
  /** The next bytes of the last entry, which is a file. A view that is only valid during the call. */
  content(bytes: Uint8Array): void
  /** The content of the last entry, a file, is complete. */
  end(): void
}

const BLOCK = 512
const MAX_ENTRIES = 1_000_000
/** Of a name or an extended header. */
const MAX_EXTENDED = 1024 * 1024
const MAX_PATH = 4096
const KINDS: Readonly<Record<string, TarEntry["kind"]>> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  "1": "hard-link",
  "2": "symbolic-link",
  "3": "device",
  "4": "device",
  "5": "directory",
  "6": "device",
}

/** What an entry's successor is called, as headers before it say. */
interface Overrides {
  path: Uint8Array | null
  target: Uint8Array | null
  size: number | null
}

/** Reads an archive from pieces of any size. Memory does not grow with the archive. */
export class TarReader {
  readonly #to: TarReceiver
  readonly #block = new Uint8Array(BLOCK)
  #filled = 0
  #entries = 0
  #zeroBlocks = 0
  /** Bytes that follow of the last entry: content, then padding. */
  #left = 0
  #padding = 0
  /** Collects the content of an entry that describes the next one. */
  #extended: { readonly kind: string; readonly bytes: Uint8Array; filled: number } | null = null
  #isFile = false
  #next: Overrides = { path: null, target: null, size: null }

  constructor(to: TarReceiver) {
    this.#to = to
  }

  /** @throws ParseError ERR_MALFORMED, ERR_UNSUPPORTED, ERR_TOO_LARGE. */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#left > 0) {
        const piece = bytes.subarray(at, at + this.#left)
        at += piece.length
        this.#left -= piece.length
        this.#take(piece)
        if (this.#left === 0) this.#contentEnds()
      } else if (this.#padding > 0) {
        const skipped = Math.min(this.#padding, bytes.length - at)
        at += skipped
        this.#padding -= skipped
      } else {
        const piece = bytes.subarray(at, at + BLOCK - this.#filled)
        this.#block.set(piece, this.#filled)
        at += piece.length
        this.#filled += piece.length
        if (this.#filled === BLOCK) this.#header()
      }
    }
  }

  /** No more follows. @throws ParseError ERR_TRUNCATED where the archive is not complete. */
  finish(): void {
    if (this.#zeroBlocks >= 2 && this.#filled === 0) return
    throw new ParseError("ERR_TRUNCATED", { at: "tar archive", expected: "two blocks of zeros at its end" })
  }

  #header(): void {
    this.#filled = 0
    if (this.#block.every((byte) => byte === 0)) {
      this.#zeroBlocks += 1
      return
    }
    if (this.#zeroBlocks > 0) throw malformed("nothing but zeros after the end", "an entry")
    this.#entries += 1
    if (this.#entries > MAX_ENTRIES)
      throw new ParseError("ERR_TOO_LARGE", { at: "tar archive", expected: `at most ${MAX_ENTRIES} entries` })
    checkSum(this.#block)
    const type = String.fromCharCode(this.#block[156] ?? 0)
    const stated = numberAt(this.#block, 124, 12)
    if (type === "L" || type === "K" || type === "x" || type === "g") this.#beginExtended(type, stated)
    else this.#begin(type, this.#next.size ?? stated)
  }

  #beginExtended(kind: string, size: number): void {
    if (size > MAX_EXTENDED)
      throw new ParseError("ERR_TOO_LARGE", {
        at: "tar archive",
        expected: `names of at most ${MAX_EXTENDED} bytes`,
        found: `${size}`,
      })
    this.#extended = { kind, bytes: new Uint8Array(size), filled: 0 }
    this.#expect(size)
  }

  #begin(type: string, size: number): void {
    const kind = KINDS[type]
    if (kind === undefined)
      throw new ParseError("ERR_UNSUPPORTED", {
        at: "tar archive",
        found: `an entry of type ${type.charCodeAt(0)}`,
      })
    const prefix = isUstar(this.#block) ? textAt(this.#block, 345, 155) : new Uint8Array(0)
    const name = textAt(this.#block, 0, 100)
    const path = this.#next.path ?? (prefix.length > 0 ? Buffer.concat([prefix, SLASH, name]) : name)
    const target = this.#next.target ?? textAt(this.#block, 157, 100)
    this.#next = { path: null, target: null, size: null }
    const isFile = kind === "file"
    if (!isFile && size > 0) throw malformed("no content in an entry that is no file", `${size} bytes`)
    const isLink = kind === "hard-link" || kind === "symbolic-link"
    this.#isFile = isFile
    this.#to.entry({
      kind,
      path: absolutePath(path),
      target: isLink ? (kind === "hard-link" ? absolutePath(target) : pathToText(target)) : null,
      size,
    })
    this.#expect(size)
  }

  #expect(size: number): void {
    this.#left = size
    this.#padding = (BLOCK - (size % BLOCK)) % BLOCK
    if (size === 0) this.#contentEnds()
  }

  #take(piece: Uint8Array): void {
    if (this.#extended === null) this.#to.content(piece)
    else {
      this.#extended.bytes.set(piece, this.#extended.filled)
      this.#extended.filled += piece.length
    }
  }

  #contentEnds(): void {
    const extended = this.#extended
    this.#extended = null
    if (extended === null) {
      if (this.#isFile) this.#to.end()
      this.#isFile = false
    } else if (extended.kind === "L") this.#next.path = beforeNul(extended.bytes)
    else if (extended.kind === "K") this.#next.target = beforeNul(extended.bytes)
    else if (extended.kind === "x") this.#next = { ...this.#next, ...paxOverrides(extended.bytes) }
    // Global headers that name paths or sizes would apply to all that follows: nobody makes such packages.
    else if (Object.keys(paxOverrides(extended.bytes)).length > 0)
      throw new ParseError("ERR_UNSUPPORTED", {
        at: "tar archive",
        found: "a global header with paths or sizes",
      })
  }
}

const SLASH = new Uint8Array([0x2f])

/** A path from the root. What leads out of it is refused: then it is nothing that can be told. */
function absolutePath(bytes: Uint8Array): string {
  if (bytes.length > MAX_PATH || bytes.includes(0))
    throw malformed(`a path of at most ${MAX_PATH} bytes`, "another")
  const segments = pathToText(bytes)
    .split("/")
    .filter((segment) => segment !== "" && segment !== ".")
  if (segments.includes(".."))
    throw malformed("a path without ..", JSON.stringify(pathToText(bytes).slice(0, 80)))
  return `/${segments.join("/")}`
}

/** Sum of all bytes, those of the field itself counted as spaces. */
function checkSum(block: Uint8Array): void {
  let sum = 8 * 0x20
  for (let at = 0; at < BLOCK; at++) if (at < 148 || at >= 156) sum += block[at] ?? 0
  if (sum !== numberAt(block, 148, 8)) throw malformed("a header with its checksum", "another checksum")
}

/** Octal digits, or GNU's binary form, which begins with the byte 0x80. */
function numberAt(block: Uint8Array, start: number, length: number): number {
  if (block[start] === 0x80) {
    let value = 0
    for (let at = start + 1; at < start + length; at++) value = value * 256 + (block[at] ?? 0)
    if (Number.isSafeInteger(value)) return value
    throw malformed("a size below 2^53", "a larger one")
  }
  const text = Buffer.from(block.subarray(start, start + length))
    .toString("latin1")
    .replace(/[\0 ]+$/, "")
    .trimStart()
  if (!/^[0-7]{1,11}$/.test(text)) throw malformed("an octal number", JSON.stringify(text))
  return Number.parseInt(text, 8)
}

function textAt(block: Uint8Array, start: number, length: number): Uint8Array {
  return beforeNul(block.slice(start, start + length))
}

function beforeNul(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}

/** GNU's magic has spaces, and its headers something else where a prefix would be. */
function isUstar(block: Uint8Array): boolean {
  return Buffer.from(block.subarray(257, 263)).toString("latin1") === "ustar\0"
}

/** Records `length keyword=value\n`; those about paths and sizes are taken. */
function paxOverrides(bytes: Uint8Array): Partial<Overrides> {
  const out: Partial<Overrides> = {}
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(0x20, at)
    const digits = Buffer.from(bytes.subarray(at, Math.max(at, space))).toString("latin1")
    const end = at + Number(digits)
    const equals = bytes.indexOf(0x3d, space)
    if (
      !/^[1-9][0-9]{0,6}$/.test(digits) ||
      end > bytes.length ||
      bytes[end - 1] !== 0x0a ||
      equals < 0 ||
      equals >= end
    )
      throw malformed("records of an extended header", "something else")
    const keyword = Buffer.from(bytes.subarray(space + 1, equals)).toString("utf8")
    const value = bytes.slice(equals + 1, end - 1)
    if (keyword === "path") out.path = value
    else if (keyword === "linkpath") out.target = value
    else if (keyword === "size") out.size = decimal(value)
    else if (keyword.startsWith("GNU.sparse"))
      throw new ParseError("ERR_UNSUPPORTED", { at: "tar archive", found: "a sparse file" })
    at = end
  }
  return out
}

function decimal(bytes: Uint8Array): number {
  const text = Buffer.from(bytes).toString("latin1")
  const value = Number(text)
  if (/^[0-9]{1,16}$/.test(text) && Number.isSafeInteger(value)) return value
  throw malformed("a size", JSON.stringify(text.slice(0, 20)))
}

function malformed(expected: string, found: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at: "tar archive", expected, found })
}
