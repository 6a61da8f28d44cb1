import { isUtf8 } from "node:buffer"
import { ParseError } from "../errors.ts"

/**
 * JSON where every ambiguity is an error: names that an object holds twice, invalid UTF-8, integers that a double
 * cannot hold, text after the end, deep nesting. Two readers of one file must not see two different files.
 * Source: RFC 8259; RFC 7493 (I-JSON) for what is refused.
 */

/** A value as read. Objects are records that keep the place they came from. */
export type JsonValue = null | boolean | number | bigint | string | readonly JsonValue[] | JsonRecord

export interface JsonOptions {
  /** Integers that a double cannot hold become bigints, instead of being refused. */
  readonly bigIntegers?: boolean
  /** Members and elements in all, as each of them takes memory many times its text; absent: any number. */
  readonly maxValues?: number
  /** Gives back memory of no more use. Called now and then: by itself the engine lets it grow to what is in use. */
  readonly collect?: () => void
}

const MAX_DEPTH = 32
const QUOTE = 0x22
const BACKSLASH = 0x5c
const TEXT = new TextDecoder("utf-8", { ignoreBOM: true })
/** Short texts that are kept, to be found again. */
const KNOWN_TEXTS = 64
const MAX_KNOWN_TEXT = 40
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y

/** Reads JSON from bytes, value by value. The caller that knows a large member reads it without making values. */
export class JsonCursor {
  readonly bytes: Uint8Array
  readonly #latin1: Buffer
  /** Short texts that were read, by a hash of their bytes. */
  readonly #known: ({ start: number; end: number; text: string } | undefined)[] = []
  readonly #name: string
  readonly #bigIntegers: boolean
  readonly #collect: () => void
  /** Members and elements that may still follow. */
  #values: number
  #at = 0
  #depth = 0

  /**
   * @param name what the text is, for messages: `snapshot`.
   * @throws ParseError ERR_TOO_LARGE over `maxBytes`; ERR_MALFORMED where the bytes are not UTF-8.
   */
  constructor(name: string, bytes: Uint8Array, maxBytes: number, options: JsonOptions = {}) {
    if (bytes.length > maxBytes)
      throw new ParseError("ERR_TOO_LARGE", {
        at: name,
        expected: `at most ${maxBytes} bytes`,
        found: `${bytes.length} bytes`,
      })
    if (!isUtf8(bytes)) throw new ParseError("ERR_MALFORMED", { at: name, expected: "UTF-8 text" })
    this.bytes = bytes
    this.#latin1 = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#name = name
    this.#bigIntegers = options.bigIntegers === true
    this.#collect = options.collect ?? (() => undefined)
    this.#values = options.maxValues ?? Number.POSITIVE_INFINITY
  }

  /** Offset of the next byte. A caller that scanned `bytes` itself moves it with {@link moveTo}. */
  get at(): number {
    return this.#at
  }

  moveTo(at: number): void {
    this.#at = at
  }

  /** The next significant byte, not taken; 0 at the end. */
  peek(): number {
    const { bytes } = this
    let at = this.#at
    for (; ; at++) {
      const byte = bytes[at]
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) break
    }
    this.#at = at
    return bytes[at] ?? 0
  }

  /** Takes `character`, or throws. */
  expect(character: string): void {
    if (this.peek() !== character.charCodeAt(0)) throw this.malformed(`"${character}"`)
    this.#at += 1
  }

  /** Nothing but white space may follow. */
  end(): void {
    this.peek()
    if (this.#at < this.bytes.length)
      throw new ParseError("ERR_TRAILING_BYTES", { at: this.place(), expected: "the end of the text" })
  }

  value(path = ""): JsonValue {
    switch (this.peek()) {
      case 0x7b:
        return this.record(path)
      case 0x5b:
        return this.#array(path)
      case QUOTE:
        return this.string()
      case 0x74:
        return this.#word("true", true)
      case 0x66:
        return this.#word("false", false)
      case 0x6e:
        return this.#word("null", null)
      default:
        return this.#number()
    }
  }

  /** An object. `member` may read a member itself (and return its value) or return undefined to have it read. */
  record(path: string, member?: (name: string) => JsonValue | undefined): JsonRecord {
    const members = new Members()
    this.items("{", "}", () => {
      if (this.peek() !== QUOTE) throw this.malformed("a member name")
      const start = this.#at
      const name = this.string()
      if (members.has(name)) throw this.#duplicate(name, start)
      this.#count()
      this.expect(":")
      const special = member?.(name)
      members.add(name, special === undefined ? this.#member(path, name) : special)
    })
    return new JsonRecord(this.#name, path, members)
  }

  /** The comma-separated items between `open` and `close`, each read by `item`. */
  items(open: string, close: string, item: () => void): void {
    this.expect(open)
    this.#depth += 1
    if (this.#depth > MAX_DEPTH)
      throw new ParseError("ERR_TOO_LARGE", { at: this.place(), expected: `at most ${MAX_DEPTH} levels` })
    const closing = close.charCodeAt(0)
    if (this.peek() === closing) this.#at += 1
    else
      for (;;) {
        item()
        const byte = this.peek()
        if (byte === closing) {
          this.#at += 1
          break
        }
        if (byte !== 0x2c) throw this.malformed(`"," or "${close}"`)
        this.#at += 1
      }
    this.#depth -= 1
  }

  string(): string {
    this.expect('"')
    const { bytes } = this
    const start = this.#at
    let escaped = false
    let ascii = true
    let hash = 0
    for (let at = start; ; at++) {
      const byte = bytes[at] ?? 0
      if (byte >= 0x80) ascii = false
      hash = (hash * 31 + byte) & 0xffff
      if (byte === QUOTE) {
        this.#at = at + 1
        if (ascii && !escaped) return this.#asciiText(start, at, hash)
        const raw = TEXT.decode(bytes.subarray(start, at))
        return escaped ? this.#unescape(raw, start) : raw
      }
      if (byte < 0x20) {
        this.#at = at
        throw this.malformed("the end of a string")
      }
      if (byte === BACKSLASH) {
        escaped = true
        at += 1
      }
    }
  }

  /**
   * The bytes of a string of base64 without padding, decoded where the text stands: that part of the text is used up, and a list
   * of hundreds of megabytes is there once and not four times.
   * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED; ERR_TOO_LARGE over `maxBytes`.
   */
  base64InPlace(maxBytes: number): Uint8Array {
    this.expect('"')
    const { bytes } = this
    const start = this.#at
    const end = bytes.indexOf(QUOTE, start)
    const length = (end < 0 ? bytes.length : end) - start
    if (length > Math.ceil((maxBytes * 4) / 3))
      throw new ParseError("ERR_TOO_LARGE", {
        at: this.place(),
        expected: `at most ${maxBytes} bytes`,
        found: `${length} characters of base64`,
      })
    // What ends too early is told so, and not decoded: there may be no base64 in it.
    this.#at = end < 0 ? bytes.length : start
    if (end < 0) throw this.malformed("the end of a string")
    const decoded = decodeInPlace(bytes.subarray(start, end), this.#collect)
    if (decoded === null) throw this.malformed("base64 without padding")
    this.#at = end + 1
    return decoded
  }

  /** An error at the current place. */
  malformed(expected: string): ParseError<"ERR_MALFORMED" | "ERR_TRUNCATED"> {
    const byte = this.bytes[this.#at]
    if (byte === undefined) return new ParseError("ERR_TRUNCATED", { at: this.place(), expected })
    return new ParseError("ERR_MALFORMED", {
      at: this.place(),
      expected,
      found: byte > 0x20 && byte < 0x7f ? `"${String.fromCharCode(byte)}"` : `byte 0x${byte.toString(16)}`,
    })
  }

  /** Name, line and column of an offset. */
  place(offset = this.#at): string {
    let line = 1
    let lineStart = 0
    for (let at = this.bytes.indexOf(0x0a); at >= 0 && at < offset; at = this.bytes.indexOf(0x0a, at + 1)) {
      line += 1
      lineStart = at + 1
    }
    return `${this.#name}, line ${line}, column ${offset - lineStart + 1}`
  }

  #array(path: string): JsonValue[] {
    const values: JsonValue[] = []
    this.items("[", "]", () => {
      this.#count()
      values.push(this.value(this.#atNested() ? `${path}[${values.length}]` : ""))
    })
    return values
  }

  #count(): void {
    this.#values -= 1
    if (this.#values < 0)
      throw new ParseError("ERR_TOO_LARGE", { at: this.place(), expected: "fewer members and elements" })
  }

  #member(path: string, name: string): JsonValue {
    if (!this.#atNested()) return this.value()
    return this.value(path === "" ? name : `${path}.${name}`)
  }

  /** Only what has members or elements of its own needs to know its path. */
  #atNested(): boolean {
    const byte = this.peek()
    return byte === 0x7b || byte === 0x5b
  }

  #word<T extends boolean | null>(word: string, value: T): T {
    for (let index = 0; index < word.length; index++)
      if (this.bytes[this.#at + index] !== word.charCodeAt(index)) throw this.malformed(`"${word}"`)
    this.#at += word.length
    return value
  }

  #number(): number | bigint {
    const short = this.#shortNumber()
    if (short !== null) return short
    // No number that a double holds needs more characters than this.
    const text = TEXT.decode(this.bytes.subarray(this.#at, this.#at + 64))
    NUMBER.lastIndex = 0
    const match = NUMBER.exec(text)
    if (match === null) throw this.malformed("a value")
    const value = Number(match[0])
    const integer = match[1] === undefined && match[2] === undefined
    if (this.#bigIntegers && integer && !Number.isSafeInteger(value) && match[0].length < 64) {
      this.#at += match[0].length
      return BigInt(match[0])
    }
    if (!Number.isFinite(value) || (integer && !Number.isSafeInteger(value)) || match[0].length === 64)
      throw new ParseError("ERR_MALFORMED", {
        at: this.place(),
        expected: "a number below 2^53",
        found: match[0],
      })
    this.#at += match[0].length
    return value
  }

  /** Member names and many values repeat: to compare bytes is cheaper than to make a text of them once more. */
  #asciiText(start: number, end: number, hash: number): string {
    const slot = hash % KNOWN_TEXTS
    const known = this.#known[slot]
    if (known !== undefined && this.#sameBytes(known.start, known.end, start, end)) return known.text
    const text = this.#latin1.toString("latin1", start, end)
    if (end - start <= MAX_KNOWN_TEXT) this.#known[slot] = { start, end, text }
    return text
  }

  #sameBytes(aStart: number, aEnd: number, bStart: number, bEnd: number): boolean {
    const size = aEnd - aStart
    if (size !== bEnd - bStart) return false
    for (let index = 0; index < size; index++)
      if (this.bytes[aStart + index] !== this.bytes[bStart + index]) return false
    return true
  }

  /** A number of up to nine digits and nothing else, as most are; null, and nothing taken, where the next is another. */
  #shortNumber(): number | null {
    const start = this.#at
    let value = 0
    for (let at = start; at < start + 10; at++) {
      const digit = (this.bytes[at] ?? 0) - 0x30
      if (digit >= 0 && digit <= 9) {
        value = value * 10 + digit
        continue
      }
      const next = this.bytes[at]
      const ends = next === 0x2c || next === 0x7d || next === 0x5d
      const padded = this.bytes[start] === 0x30 && at > start + 1
      if (!ends || at === start || padded) return null
      this.#at = at
      return value
    }
    return null
  }

  /** The escapes of one string. JSON's grammar for a string literal is what JSON.parse takes, and nothing else. */
  #unescape(raw: string, start: number): string {
    try {
      const value: unknown = JSON.parse(`"${raw}"`)
      if (typeof value === "string") return value
      throw new SyntaxError("not a string")
    } catch (cause) {
      throw new ParseError("ERR_MALFORMED", { at: this.place(start), expected: "a JSON string", cause })
    }
  }

  #duplicate(name: string, at: number): ParseError<"ERR_DUPLICATE_KEY"> {
    return new ParseError("ERR_DUPLICATE_KEY", {
      at: this.place(at),
      found: JSON.stringify(name.slice(0, 80)),
      hint: "the file was edited or made to be read in two ways: take a new one",
    })
  }
}

/** Characters of base64 that are decoded at once: whole groups of four. */
const BASE64_PART = 1 << 20
/** Parts after which their texts are given back. */
const PARTS_KEPT = 16

/** What is written never overtakes what is read. Null where the text is not the one that the bytes are encoded as. */
function decodeInPlace(text: Uint8Array, collect: () => void): Uint8Array | null {
  const characters = Buffer.from(text.buffer, text.byteOffset, text.byteLength)
  let out = 0
  for (let at = 0; at < text.length; at += BASE64_PART) {
    const part = characters.toString("latin1", at, Math.min(at + BASE64_PART, text.length))
    const size = Math.floor((part.length * 3) / 4)
    if (!decodesTo(part, text.subarray(out, out + size))) return null
    out += size
    if ((at / BASE64_PART) % PARTS_KEPT === PARTS_KEPT - 1) collect()
  }
  return text.subarray(0, out)
}

/** False where the text is not base64 without padding of exactly so many bytes: white space and padding give fewer. */
function decodesTo(text: string, bytes: Uint8Array): boolean {
  const padded = text.padEnd(Math.ceil(text.length / 4) * 4, "=")
  try {
    const { read, written } = bytes.setFromBase64(padded, { lastChunkHandling: "strict" })
    return read === padded.length && written === bytes.length
  } catch {
    return false
  }
}

/** From this size on members are found by a map. Most objects are smaller, and there are many of them. */
const MAPPED_MEMBERS = 12

/** Names and values of an object's members, in order; each name once. */
class Members {
  readonly names: string[] = []
  readonly #values: JsonValue[] = []
  #index: Map<string, number> | null = null

  has(name: string): boolean {
    return this.#indexOf(name) >= 0
  }

  get(name: string): JsonValue | undefined {
    return this.#values[this.#indexOf(name)]
  }

  add(name: string, value: JsonValue): void {
    this.#index?.set(name, this.names.length)
    this.names.push(name)
    this.#values.push(value)
    if (this.names.length === MAPPED_MEMBERS)
      this.#index = new Map(this.names.map((known, index) => [known, index]))
  }

  #indexOf(name: string): number {
    return this.#index === null ? this.names.indexOf(name) : (this.#index.get(name) ?? -1)
  }
}

/** An object as read: members are taken by name and kind, and {@link finish} refuses those that nobody took. */
export class JsonRecord {
  readonly #name: string
  readonly #path: string
  readonly #members: Members
  /** Names in the order in which they were taken; some of them more than once. */
  readonly #taken: string[] = []

  constructor(name: string, path: string, members: Members) {
    this.#name = name
    this.#path = path
    this.#members = members
  }

  names(): string[] {
    return [...this.#members.names]
  }

  /** A member, or null where it is null or absent. */
  take(name: string): JsonValue {
    this.#taken.push(name)
    return this.#members.get(name) ?? null
  }

  stringOrNull(name: string): string | null {
    const value = this.take(name)
    if (value === null || typeof value === "string") return value
    throw this.wrong(name, "a string or null", value)
  }

  string(name: string): string {
    return this.#present(name, this.stringOrNull(name), "a string")
  }

  /** A whole number from 0 to `max`. */
  countOrNull(name: string, max: number): number | null {
    const value = this.take(name)
    if (value === null) return value
    if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= max) return value
    throw this.wrong(name, `a whole number from 0 to ${max}, or null`, value)
  }

  count(name: string, max: number): number {
    return this.#present(name, this.countOrNull(name, max), `a whole number from 0 to ${max}`)
  }

  recordOrNull(name: string): JsonRecord | null {
    const value = this.take(name)
    if (value === null || value instanceof JsonRecord) return value
    throw this.wrong(name, "an object or null", value)
  }

  record(name: string): JsonRecord {
    return this.#present(name, this.recordOrNull(name), "an object")
  }

  array(name: string): readonly JsonValue[] {
    const value = this.take(name)
    if (isArray(value)) return value
    throw this.wrong(name, "an array", value)
  }

  /** @throws ParseError ERR_MALFORMED for a member that was not taken. */
  finish(): void {
    const taken = new Set(this.#taken)
    for (const name of this.#members.names)
      if (!taken.has(name))
        throw new ParseError("ERR_MALFORMED", {
          at: this.place(name.slice(0, 80)),
          expected: `only ${[...taken].join(", ")}`,
          found: "an unknown member",
        })
  }

  /** A plain object with the same members. */
  toPlain(): Record<string, unknown> {
    // Without a prototype, so that a member named __proto__ is a member.
    const out: Record<string, unknown> = Object.create(null)
    for (const name of this.#members.names) out[name] = plain(this.take(name))
    return out
  }

  place(name: string): string {
    return `${this.#name}: ${this.#path === "" ? name : `${this.#path}.${name}`}`
  }

  wrong(name: string, expected: string, found: JsonValue): ParseError<"ERR_MALFORMED"> {
    return new ParseError("ERR_MALFORMED", { at: this.place(name), expected, found: kindOf(found) })
  }

  #present<T>(name: string, value: T | null, expected: string): T {
    if (value === null) throw this.wrong(name, expected, null)
    return value
  }
}

/** The one object that a text consists of. Arguments as for {@link JsonCursor}. */
export function parseJsonRecord(
  name: string,
  bytes: Uint8Array,
  maxBytes: number,
  options: JsonOptions = {},
): JsonRecord {
  const cursor = new JsonCursor(name, bytes, maxBytes, options)
  const record = cursor.record("")
  cursor.end()
  return record
}

export function isArray(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value)
}

function plain(value: JsonValue): unknown {
  if (isArray(value)) return value.map(plain)
  return value instanceof JsonRecord ? value.toPlain() : value
}

function kindOf(value: JsonValue): string {
  if (value === null) return "nothing"
  if (isArray(value)) return "an array"
  if (value instanceof JsonRecord) return "an object"
  return typeof value === "string" ? "a string" : String(value)
}
