import { toHex } from "../formats/hex.ts"
import { pathToText, textToPath } from "../formats/path-text.ts"
import type { JsonCursor } from "../formats/strict-json.ts"
import { HEX_PAIR, PLAIN } from "./file-hash-pairs.ts"
import { type FileHashIndex, FileHashIndexBuilder } from "./file-hashes.ts"

const QUOTE = 0x22
const BACKSLASH = 0x5c
/** Hex digits of the longest digest, SHA-512. */
const MAX_DIGEST_CHARACTERS = 128
/**
 * Reads `[["/path","hex"],…]` from the cursor into an index builder over the cursor's bytes, without making a string for each path
 * and digest: a snapshot has some hundred thousand of them.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED.
 */
export function readFileHashes(cursor: JsonCursor): FileHashIndexBuilder {
  const { bytes } = cursor
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const builder = new FileHashIndexBuilder(bytes)
  cursor.items("[", "]", () => {
    cursor.expect("[")
    const path = readPath(cursor, builder)
    cursor.expect(",")
    const digest = readDigest(cursor, view)
    cursor.expect("]")
    builder.addAt(path.start, path.end, digest.start, digest.end)
    cursor.moveTo(builder.addPlainPairs(cursor.at))
  })
  return builder
}

/** Offsets in the text of an index builder. */
interface Span {
  readonly start: number
  readonly end: number
}

/** End of the pairs of hex digits, as many as a digest has. */
function hexEnd(view: DataView, start: number): number {
  const limit = Math.min(start + MAX_DIGEST_CHARACTERS, view.byteLength - 1)
  let at = start
  while (at < limit && HEX_PAIR[view.getUint16(at)] === 1) at += 2
  return at
}

/** Reads a path, which is in the cursor's bytes, or appended to the builder's copy of them where it is written with escapes. */
export function readPath(cursor: JsonCursor, builder: FileHashIndexBuilder): Span {
  cursor.expect('"')
  const { bytes, at: start } = cursor
  let end = start
  while (PLAIN[bytes[end] ?? 0] === 1) end += 1
  if (bytes[end] === QUOTE) {
    if (end === start) throw cursor.malformed("a path")
    cursor.moveTo(end + 1)
    return { start, end }
  }
  // Escapes, a control character, or no end: the general reader decides.
  cursor.moveTo(start - 1)
  const text = cursor.string()
  if (text.includes("\0")) {
    cursor.moveTo(start)
    throw cursor.malformed("a path without NUL")
  }
  const path = textToPath(text)
  const at = builder.append(path)
  return { start: at, end: at + path.length }
}

function readDigest(cursor: JsonCursor, view: DataView): Span {
  cursor.expect('"')
  const start = cursor.at
  const end = hexEnd(view, start)
  if (cursor.bytes[end] !== QUOTE || end === start) {
    cursor.moveTo(end)
    throw cursor.malformed("a digest in hex")
  }
  cursor.moveTo(end + 1)
  return { start, end }
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
