import { ParseError } from "../../errors.ts"
import { twoDigits, utcTime } from "../utc-time.ts"

/** Universal tags that certificates use. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** Context-specific tag, constructed (explicit) or primitive (implicit). */
export const contextTag = (number: number, constructed = true): number => (constructed ? 0xa0 : 0x80) | number

/** One element: its tag, its content, and all its bytes. Views are made when they are asked for: most never are. */
export class DerElement {
  readonly tag: number
  /** Where it is, for errors. */
  readonly place: string
  /** What it stands in, and the offsets there of itself, its content and its end. */
  readonly source: Uint8Array
  readonly start: number
  readonly contentStart: number
  readonly end: number

  constructor(source: Uint8Array, start: number, contentStart: number, end: number, place: string) {
    this.tag = source[start] ?? 0
    this.source = source
    this.start = start
    this.contentStart = contentStart
    this.end = end
    this.place = place
  }

  get content(): Uint8Array {
    return this.source.subarray(this.contentStart, this.end)
  }

  get raw(): Uint8Array {
    return this.source.subarray(this.start, this.end)
  }
}

/**
 * Reads DER elements one after the other. Strict: definite lengths in their shortest form, single-byte tags, nothing past
 * the end. Nesting is bounded because each level is a call that the caller writes down.
 * Source: ITU-T X.690 (02/2021), section 10.
 */
export class DerReader {
  readonly #bytes: Uint8Array
  readonly #place: string
  readonly #start: number
  readonly #end: number
  #at: number

  /** @param start @param end of what is read, where that is a part of `bytes`. */
  constructor(bytes: Uint8Array, place: string, start = 0, end = bytes.length) {
    this.#bytes = bytes
    this.#place = place
    this.#start = start
    this.#end = end
    this.#at = start
  }

  get atEnd(): boolean {
    return this.#at === this.#end
  }

  /** The next element's tag, or null at the end. */
  peek(): number | null {
    return this.atEnd ? null : (this.#bytes[this.#at] ?? null)
  }

  /** The next element, which must have this tag. @throws ParseError ERR_TRUNCATED, ERR_MALFORMED */
  next(tag: number, what: string): DerElement {
    const place = `${this.#place}, ${what}`
    const found = this.peek()
    if (found !== tag)
      throw new ParseError(found === null ? "ERR_TRUNCATED" : "ERR_MALFORMED", {
        at: place,
        expected: `DER tag 0x${tag.toString(16)}`,
        found: found === null ? "the end" : `0x${found.toString(16)}`,
      })
    const start = this.#at
    const contentStart = this.#contentStart(place)
    const end = contentStart + this.#lengthBefore(contentStart, place)
    if (end > this.#end)
      throw new ParseError("ERR_TRUNCATED", {
        at: place,
        expected: `${end - start} bytes`,
        found: `${this.#end - start}`,
      })
    this.#at = end
    return new DerElement(this.#bytes, start, contentStart, end, place)
  }

  /** The next element if it has this tag, else null. */
  optional(tag: number, what: string): DerElement | null {
    return this.peek() === tag ? this.next(tag, what) : null
  }

  /** @throws ParseError ERR_TRAILING_BYTES */
  end(): void {
    if (!this.atEnd)
      throw new ParseError("ERR_TRAILING_BYTES", {
        at: this.#place,
        expected: `${this.#at - this.#start} bytes`,
        found: `${this.#end - this.#start}`,
      })
  }

  /** Where the content of the element at the cursor begins: behind its tag and the bytes of its length. */
  #contentStart(place: string): number {
    const at = this.#at + 1
    const first = at < this.#end ? this.#bytes[at] : undefined
    if (first === undefined)
      throw new ParseError("ERR_TRUNCATED", { at: place, found: "a tag without length" })
    if (first < 0x80) return at + 1
    const count = first & 0x7f
    // Three length bytes are 16 MiB: nothing here comes near.
    if (count === 0 || count > 3)
      throw new ParseError("ERR_MALFORMED", {
        at: place,
        expected: "a definite length of up to 3 bytes",
        found: `0x${first.toString(16)}`,
      })
    if (at + 1 + count > this.#end)
      throw new ParseError("ERR_TRUNCATED", { at: place, found: "part of a length" })
    return at + 1 + count
  }

  /** The length that stands between the cursor's tag and `contentStart`. */
  #lengthBefore(contentStart: number, place: string): number {
    const first = this.#at + 1
    const count = contentStart - first - 1
    if (count === 0) return this.#bytes[first] ?? 0
    let length = 0
    for (let at = first + 1; at < contentStart; at++) length = length * 256 + (this.#bytes[at] ?? 0)
    if (length < 0x80 || length < 256 ** (count - 1))
      throw new ParseError("ERR_MALFORMED", {
        at: place,
        expected: "the shortest form of a length",
        found: `${length} in ${count} bytes`,
      })
    return length
  }
}

/** Reader over an element's content. */
export function inside({ source, place, contentStart, end }: DerElement): DerReader {
  return new DerReader(source, place, contentStart, end)
}

/** The only element of `bytes`. @throws ParseError ERR_TRUNCATED, ERR_MALFORMED, ERR_TRAILING_BYTES */
export function single(bytes: Uint8Array, tag: number, place: string): DerElement {
  const reader = new DerReader(bytes, place)
  const element = reader.next(tag, "content")
  reader.end()
  return new DerElement(bytes, element.start, element.contentStart, element.end, place)
}

/** A non-negative INTEGER below 2^31. @throws ParseError ERR_MALFORMED */
export function smallInteger(element: DerElement): number {
  const content = integerBytes(element)
  if ((content[0] ?? 0) >= 0x80 || content.length > 4)
    throw malformed(element, "an integer of 0 to 2147483647", `${content.length} bytes`)
  return content.reduce((sum, byte) => sum * 256 + byte, 0)
}

/** A non-negative INTEGER below 2^64. @throws ParseError ERR_MALFORMED */
export function uint64Value(element: DerElement): bigint {
  const content = integerBytes(element)
  const [first = 0] = content
  // In nine bytes, the first has to be the zero that keeps the sign.
  if (first >= 0x80 || content.length > 9 || (content.length === 9 && first !== 0))
    throw malformed(element, "an integer of 0 to 2^64-1", `${content.length} bytes`)
  return content.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
}

/** Content of an INTEGER, checked to be in shortest form. @throws ParseError ERR_MALFORMED */
export function integerBytes(element: DerElement): Uint8Array {
  const { content } = element
  // Not by destructuring: an iterator costs more here than all the rest.
  const first = content[0]
  const second = content[1]
  if (first === undefined) throw malformed(element, "an integer", "0 bytes")
  const padded =
    second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))
  if (padded) throw malformed(element, "the shortest form of an integer", "a padded one")
  return content
}

/** A BOOLEAN. @throws ParseError ERR_MALFORMED */
export function booleanValue(element: DerElement): boolean {
  const { content } = element
  const value = content[0]
  if (content.length !== 1 || (value !== 0 && value !== 0xff))
    throw malformed(element, "a DER boolean", `${content.length} bytes`)
  return value === 0xff
}

/** Dotted text of an OBJECT IDENTIFIER. @throws ParseError ERR_MALFORMED */
export function oidText(element: DerElement): string {
  const { source, contentStart, end } = element
  let text = ""
  let arc = 0
  let started = false
  for (let at = contentStart; at < end; at++) {
    const byte = source[at] ?? 0
    if (!started && byte === 0x80) throw malformed(element, "the shortest form of an arc", "a padded one")
    arc = arc * 128 + (byte & 0x7f)
    if (arc > Number.MAX_SAFE_INTEGER / 128) throw malformed(element, "arcs below 2^46", "a larger one")
    started = byte >= 0x80
    if (!started) {
      text += text === "" ? firstArcs(arc) : `.${arc}`
      arc = 0
    }
  }
  if (started || text === "") throw malformed(element, "an object identifier", "part of one")
  return text
}

/** The first number of an identifier stands for its first two arcs. */
function firstArcs(first: number): string {
  const top = Math.min(2, Math.floor(first / 40))
  return `${top}.${first - 40 * top}`
}

/** Bytes of a BIT STRING that is a whole number of bytes. @throws ParseError ERR_MALFORMED */
export function wholeBits(element: DerElement): Uint8Array {
  const { content } = element
  if (content[0] !== 0) throw malformed(element, "no unused bits", `${content[0] ?? "nothing"}`)
  return content.subarray(1)
}

/** Positions of the bits that are set in a BIT STRING of named bits; bit 0 is the first. @throws ParseError ERR_MALFORMED */
export function namedBits(element: DerElement): ReadonlySet<number> {
  const [unused, ...octets] = element.content
  if (unused === undefined || unused > 7 || (octets.length === 0 && unused !== 0) || octets.length > 4)
    throw malformed(element, "a bit string of named bits", `${element.content.length} bytes`)
  const set = new Set<number>()
  octets.forEach((octet, index) => {
    for (let bit = 0; bit < 8; bit++) if ((octet & (0x80 >> bit)) !== 0) set.add(8 * index + bit)
  })
  const last = octets.length * 8 - unused
  if ([...set].some((bit) => bit >= last)) throw malformed(element, "unused bits that are zero", "others")
  return set
}

/** A UTCTime or GeneralizedTime in the form that RFC 5280 allows, in UTC with seconds. @throws ParseError ERR_MALFORMED */
export function timeValue(element: DerElement): Date {
  const { source, contentStart, end, tag } = element
  // The year has two digits, or two more before these.
  const from = contentStart + (tag === TAG.utcTime ? 2 : 4)
  const short = twoDigits(source, from - 2)
  const century = tag === TAG.utcTime ? (short >= 50 ? 19 : 20) : twoDigits(source, contentStart)
  const part = (index: number) => twoDigits(source, from + 2 * index)
  const shape = end === from + 11 && source[end - 1] === 0x5a
  const time = shape ? utcTime(century * 100 + short, part(0), part(1), part(2), part(3), part(4)) : null
  if (time === null) {
    const text = Buffer.from(element.content).toString("latin1")
    throw malformed(element, "a time in UTC with seconds", JSON.stringify(text))
  }
  return time
}

/** Text of a UTF8String, PrintableString or IA5String. @throws ParseError ERR_MALFORMED */
export function stringValue(element: DerElement): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(element.content)
  } catch (cause) {
    throw new ParseError("ERR_MALFORMED", { at: element.place, expected: "UTF-8 text", cause })
  }
}

/** One element of this tag around the given contents. */
export function encodeDer(tag: number, ...contents: readonly Uint8Array[]): Uint8Array {
  const length = contents.reduce((sum, content) => sum + content.length, 0)
  const header = [tag]
  if (length < 0x80) header.push(length)
  else if (length < 0x100) header.push(0x81, length)
  else if (length < 0x10000) header.push(0x82, length >> 8, length & 0xff)
  else throw new ParseError("ERR_TOO_LARGE", { at: "DER", expected: "below 65536 bytes", found: `${length}` })
  const out = new Uint8Array(header.length + length)
  out.set(header)
  let at = header.length
  for (const content of contents) {
    out.set(content, at)
    at += content.length
  }
  return out
}

/** OBJECT IDENTIFIER of dotted text. */
export function encodeOid(text: string): Uint8Array {
  const [top = 0, second = 0, ...rest] = text.split(".").map(Number)
  const octets = [top * 40 + second, ...rest].flatMap((arc) => {
    const groups = [arc & 0x7f]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      groups.unshift((left & 0x7f) | 0x80)
    return groups
  })
  return encodeDer(TAG.oid, Uint8Array.from(octets))
}

/** INTEGER of a number from 0 to 2^31-1. */
export function encodeInteger(value: number): Uint8Array {
  const octets = [value & 0xff]
  for (let left = Math.floor(value / 256); left > 0; left = Math.floor(left / 256))
    octets.unshift(left & 0xff)
  if ((octets[0] ?? 0) >= 0x80) octets.unshift(0)
  return encodeDer(TAG.integer, Uint8Array.from(octets))
}

function malformed(element: DerElement, expected: string, found: string): ParseError {
  return new ParseError("ERR_MALFORMED", { at: element.place, expected, found })
}
