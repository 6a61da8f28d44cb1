import { ParseError } from "../../errors.ts"

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

/** One element: its tag, its content, and all its bytes. */
export interface DerElement {
  readonly tag: number
  readonly content: Uint8Array
  readonly raw: Uint8Array
  /** Where it is, for errors. */
  readonly place: string
}

/**
 * Reads DER elements one after the other. Strict: definite lengths in their shortest form, single-byte tags, nothing past
 * the end. Nesting is bounded because each level is a call that the caller writes down.
 * Source: ITU-T X.690 (02/2021), section 10.
 */
export class DerReader {
  readonly #bytes: Uint8Array
  readonly #place: string
  #at = 0

  constructor(bytes: Uint8Array, place: string) {
    this.#bytes = bytes
    this.#place = place
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  /** The next element's tag, or null at the end. */
  peek(): number | null {
    return this.#bytes[this.#at] ?? null
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
    const { length, header } = this.#length(place)
    const end = start + header + length
    if (end > this.#bytes.length)
      throw new ParseError("ERR_TRUNCATED", {
        at: place,
        expected: `${end} bytes`,
        found: `${this.#bytes.length}`,
      })
    this.#at = end
    const content = this.#bytes.subarray(start + header, end)
    return { tag, content, raw: this.#bytes.subarray(start, end), place }
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
        expected: `${this.#at} bytes`,
        found: `${this.#bytes.length}`,
      })
  }

  /** Length of the element at the cursor, and of its tag and length bytes. */
  #length(place: string): { length: number; header: number } {
    const first = this.#bytes[this.#at + 1]
    if (first === undefined)
      throw new ParseError("ERR_TRUNCATED", { at: place, found: "a tag without length" })
    if (first < 0x80) return { length: first, header: 2 }
    const count = first & 0x7f
    // Three length bytes are 16 MiB: nothing here comes near.
    if (count === 0 || count > 3)
      throw new ParseError("ERR_MALFORMED", {
        at: place,
        expected: "a definite length of up to 3 bytes",
        found: `0x${first.toString(16)}`,
      })
    if (this.#at + 2 + count > this.#bytes.length)
      throw new ParseError("ERR_TRUNCATED", { at: place, found: "part of a length" })
    let length = 0
    for (let index = 0; index < count; index++)
      length = length * 256 + (this.#bytes[this.#at + 2 + index] ?? 0)
    if (length < 0x80 || length < 256 ** (count - 1))
      throw new ParseError("ERR_MALFORMED", {
        at: place,
        expected: "the shortest form of a length",
        found: `${length} in ${count} bytes`,
      })
    return { length, header: 2 + count }
  }
}

/** Reader over an element's content. */
export function inside(element: DerElement): DerReader {
  return new DerReader(element.content, element.place)
}

/** The only element of `bytes`. @throws ParseError ERR_TRUNCATED, ERR_MALFORMED, ERR_TRAILING_BYTES */
export function single(bytes: Uint8Array, tag: number, place: string): DerElement {
  const reader = new DerReader(bytes, place)
  const element = reader.next(tag, "content")
  reader.end()
  return { ...element, place }
}

/** A non-negative INTEGER below 2^31. @throws ParseError ERR_MALFORMED */
export function smallInteger(element: DerElement): number {
  const content = integerBytes(element)
  if ((content[0] ?? 0) >= 0x80 || content.length > 4)
    throw malformed(element, "an integer of 0 to 2147483647", `${content.length} bytes`)
  return content.reduce((sum, byte) => sum * 256 + byte, 0)
}

/** Content of an INTEGER, checked to be in shortest form. @throws ParseError ERR_MALFORMED */
export function integerBytes(element: DerElement): Uint8Array {
  const [first, second] = element.content
  if (first === undefined) throw malformed(element, "an integer", "0 bytes")
  const padded =
    second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))
  if (padded) throw malformed(element, "the shortest form of an integer", "a padded one")
  return element.content
}

/** A BOOLEAN. @throws ParseError ERR_MALFORMED */
export function booleanValue(element: DerElement): boolean {
  const [value] = element.content
  if (element.content.length !== 1 || (value !== 0 && value !== 0xff))
    throw malformed(element, "a DER boolean", `${element.content.length} bytes`)
  return value === 0xff
}

/** Dotted text of an OBJECT IDENTIFIER. @throws ParseError ERR_MALFORMED */
export function oidText(element: DerElement): string {
  const arcs: number[] = []
  let arc = 0
  let started = false
  for (const byte of element.content) {
    if (!started && byte === 0x80) throw malformed(element, "the shortest form of an arc", "a padded one")
    arc = arc * 128 + (byte & 0x7f)
    if (arc > Number.MAX_SAFE_INTEGER / 128) throw malformed(element, "arcs below 2^46", "a larger one")
    started = byte >= 0x80
    if (!started) {
      arcs.push(arc)
      arc = 0
    }
  }
  const [first, ...rest] = arcs
  if (started || first === undefined) throw malformed(element, "an object identifier", "part of one")
  const top = Math.min(2, Math.floor(first / 40))
  return [top, first - 40 * top, ...rest].join(".")
}

/** Bytes of a BIT STRING that is a whole number of bytes. @throws ParseError ERR_MALFORMED */
export function wholeBits(element: DerElement): Uint8Array {
  if (element.content[0] !== 0)
    throw malformed(element, "no unused bits", `${element.content[0] ?? "nothing"}`)
  return element.content.subarray(1)
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
  const text = Buffer.from(element.content).toString("latin1")
  const form = element.tag === TAG.utcTime ? /^(\d{2})(\d{10})Z$/ : /^(\d{4})(\d{10})Z$/
  const parts = form.exec(text)
  const [, year = "", rest = ""] = parts ?? []
  const fullYear = year.length === 4 ? year : `${Number(year) >= 50 ? "19" : "20"}${year}`
  const [month, day, hour, minute, second] = rest.match(/../g) ?? []
  const iso = `${fullYear}-${month}-${day}T${hour}:${minute}:${second}.000Z`
  const time = new Date(iso)
  // A date that rolls over (31 February) or is no date at all does not come back as it went in.
  if (parts === null || Number.isNaN(time.getTime()) || time.toISOString() !== iso)
    throw malformed(element, "a time in UTC with seconds", JSON.stringify(text))
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
