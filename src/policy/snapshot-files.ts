import { toHex } from "../formats/hex.ts"
import { pathToText, textToPath } from "../formats/path-text.ts"
import type { JsonCursor } from "../formats/strict-json.ts"
import { type FileHashIndex, FileHashIndexBuilder } from "./file-hashes.ts"

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const NEWLINE = 0x0a
const OPENING = 0x5b
const CLOSING = 0x5d
/** Value of a hex digit by its character code; 255 for other bytes. */
const HEX = Uint8Array.from({ length: 256 }, (_, code) => {
  const digit = "0123456789abcdef".indexOf(String.fromCharCode(code).toLowerCase())
  return digit < 0 ? 255 : digit
})
/** Hex digits of the longest digest, SHA-512. */
const MAX_DIGEST_CHARACTERS = 128

/**
 * Reads `[["/path","hex"],…]` from the cursor into an index builder, without making a string for each path and digest:
 * a snapshot has some hundred thousand of them.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED.
 */
export function readFileHashes(cursor: JsonCursor): FileHashIndexBuilder {
  const builder = new FileHashIndexBuilder()
  cursor.items("[", "]", () => {
    cursor.expect("[")
    const pathEnd = readPath(cursor, builder)
    cursor.expect(",")
    const digestEnd = readDigest(cursor, builder)
    cursor.expect("]")
    builder.end(pathEnd, digestEnd)
    readPlainPairs(cursor, builder)
  })
  return builder
}

/** Longest path that is read the quick way: that of Linux, and what holds it. */
const MAX_PLAIN_PATH = 4200
/** By character code: 1 for what stands for itself in a JSON string. */
const PLAIN = Uint8Array.from({ length: 256 }, (_, code) =>
  code >= 0x20 && code !== QUOTE && code !== BACKSLASH ? 1 : 0,
)

/**
 * Pairs that follow one, in the form in which they are written here: `,`, perhaps a line break, `["path","hex"]`. The same as
 * the general way makes of them, in a third of the time; whatever is otherwise is left to that.
 */
function readPlainPairs(cursor: JsonCursor, builder: FileHashIndexBuilder): void {
  const { bytes } = cursor
  for (let at = cursor.at; bytes[at] === COMMA; cursor.moveTo(at)) {
    let from = bytes[at + 1] === NEWLINE ? at + 2 : at + 1
    if (bytes[from] !== OPENING || bytes[from + 1] !== QUOTE) return
    from += 2
    builder.reserve(MAX_PLAIN_PATH, MAX_DIGEST_CHARACTERS / 2)
    const { paths, digests } = builder
    let path = builder.pathBytes
    for (const end = path + MAX_PLAIN_PATH; path < end; path++, from++) {
      const byte = bytes[from] ?? 0
      if (PLAIN[byte] === 0) break
      paths[path] = byte
    }
    const closed = bytes[from] === QUOTE && bytes[from + 1] === COMMA && bytes[from + 2] === QUOTE
    if (!closed || path === builder.pathBytes) return
    from += 3
    let digest = builder.digestBytes
    for (const end = digest + MAX_DIGEST_CHARACTERS / 2; digest < end; digest++, from += 2) {
      const high = HEX[bytes[from] ?? 0] ?? 255
      const low = HEX[bytes[from + 1] ?? 0] ?? 255
      if ((high | low) > 15) break
      digests[digest] = high * 16 + low
    }
    if (bytes[from] !== QUOTE || bytes[from + 1] !== CLOSING || digest === builder.digestBytes) return
    builder.end(path, digest)
    at = from + 2
  }
}

/** Copies the path's bytes into the builder; gives the end there. */
export function readPath(cursor: JsonCursor, builder: FileHashIndexBuilder): number {
  cursor.expect('"')
  const { bytes, at: start } = cursor
  const end = bytes.indexOf(QUOTE, start)
  if (end === start) throw cursor.malformed("a path")
  if (end > start) {
    builder.reserve(end - start, 0)
    const { paths, pathBytes } = builder
    let at = start
    for (; at < end; at++) {
      const byte = bytes[at] ?? 0
      if (byte === BACKSLASH || byte < 0x20) break
      paths[pathBytes + at - start] = byte
    }
    if (at === end) {
      cursor.moveTo(end + 1)
      return pathBytes + end - start
    }
  }
  // Escapes, a control character, or no end: the general reader decides.
  cursor.moveTo(start - 1)
  const text = cursor.string()
  if (text.includes("\0")) {
    cursor.moveTo(start)
    throw cursor.malformed("a path without NUL")
  }
  const path = textToPath(text)
  builder.reserve(path.length, 0)
  builder.paths.set(path, builder.pathBytes)
  return builder.pathBytes + path.length
}

/** Copies the digest's bytes into the builder; gives the end there. */
function readDigest(cursor: JsonCursor, builder: FileHashIndexBuilder): number {
  cursor.expect('"')
  const { bytes, at: start } = cursor
  builder.reserve(0, MAX_DIGEST_CHARACTERS / 2)
  const { digests, digestBytes } = builder
  let out = digestBytes
  let at = start
  for (; at < start + MAX_DIGEST_CHARACTERS; at += 2) {
    const high = HEX[bytes[at] ?? 0] ?? 255
    const low = HEX[bytes[at + 1] ?? 0] ?? 255
    if (high > 15 || low > 15) break
    digests[out] = high * 16 + low
    out += 1
  }
  if (bytes[at] !== QUOTE || at === start) {
    cursor.moveTo(at)
    throw cursor.malformed("a digest in hex")
  }
  cursor.moveTo(at + 1)
  return out
}

/**
 * Appends `[["/path","hex"],…]` to `before`, a line for each pair, and then `after`. Most paths need no escape and are copied as
 * bytes.
 */
export function writeFileHashes(before: Uint8Array, index: FileHashIndex, after: Uint8Array): Uint8Array {
  const out = new Output(before.length + after.length + index.length * 160)
  out.append(before)
  out.append(TEXT.encode(index.length === 0 ? "[]" : "[\n"))
  for (let at = 0; at < index.length; at++) {
    const path = index.pathAt(at)
    const digest = index.digestAt(at)
    if (needsEscape(path)) {
      out.append(TEXT.encode(JSON.stringify([pathToText(path), toHex(digest)])))
    } else {
      out.append(OPEN_PAIR)
      out.append(path)
      out.append(BETWEEN)
      out.appendHex(digest)
      out.append(CLOSE_PAIR)
    }
    out.append(at + 1 < index.length ? NEXT_LINE : LAST_LINE)
  }
  out.append(after)
  return out.written()
}

const TEXT = new TextEncoder()
const [OPEN_PAIR, BETWEEN, CLOSE_PAIR] = [TEXT.encode('["'), TEXT.encode('","'), TEXT.encode('"]')]
const [NEXT_LINE, LAST_LINE] = [TEXT.encode(",\n"), TEXT.encode("\n]")]
const HEX_DIGITS = TEXT.encode("0123456789abcdef")

/** Whether a JSON string of the path may be something else than its bytes. */
function needsEscape(path: Uint8Array): boolean {
  for (let at = 0; at < path.length; at++) {
    const byte = path[at] ?? 0
    if (byte < 0x20 || byte > 0x7e || byte === QUOTE || byte === BACKSLASH) return true
  }
  return false
}

/** Bytes that are appended to; room is doubled. */
class Output {
  #bytes: Uint8Array
  #length = 0

  constructor(size: number) {
    this.#bytes = new Uint8Array(size)
  }

  append(bytes: Uint8Array): void {
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
  }

  appendHex(bytes: Uint8Array): void {
    this.#reserve(bytes.length * 2)
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at] ?? 0
      this.#bytes[this.#length++] = HEX_DIGITS[byte >> 4] ?? 0
      this.#bytes[this.#length++] = HEX_DIGITS[byte & 15] ?? 0
    }
  }

  written(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + count))
    grown.set(this.written())
    this.#bytes = grown
  }
}
