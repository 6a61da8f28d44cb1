import { ParseError } from "../errors.ts"

/** Major types. Source: RFC 8949, section 3.1. */
const MAJOR = { unsigned: 0, bytes: 2, text: 3, array: 4, map: 5, tag: 6 } as const
type Major = keyof typeof MAJOR

/** Strings and counts above this are refused before anything is made of them. */
const MAX_LENGTH = 64 * 1024

/**
 * Reads CBOR items one after the other: integers, strings, arrays, maps and tags of definite length with their length in the
 * shortest form, which is what evidence is written in; everything else is refused. `pairs` alone takes an
 * indefinite length too. Nesting is bounded because each level is a call that the caller writes down. Source: RFC 8949, sections 3 and 4.2.1.
 */
export class CborReader {
  readonly #bytes: Uint8Array
  readonly #place: string
  #at = 0

  constructor(bytes: Uint8Array, place: string) {
    this.#bytes = bytes
    this.#place = place
  }

  /** Whether the next item is of this type; false at the end. */
  isNext(major: Major): boolean {
    const first = this.#bytes[this.#at]
    return first !== undefined && first >> 5 === MAJOR[major]
  }

  /** A non-negative integer below 2^32. @throws ParseError ERR_MALFORMED, ERR_TRUNCATED */
  unsigned(what: string): number {
    return this.#head("unsigned", what)
  }

  /** A non-negative integer below 2^64, in its shortest form. @throws as unsigned */
  unsigned64(what: string): bigint {
    if (this.#bytes[this.#at] !== 0x1b) return BigInt(this.unsigned(what))
    const octets = this.#bytes.subarray(this.#at + 1, this.#at + 9)
    if (octets.length < 8) throw this.#truncated(what, 8, octets.length)
    const value = new DataView(octets.buffer, octets.byteOffset).getBigUint64(0)
    if (value < 0x1_0000_0000n) throw this.#notShortest(what)
    this.#at += 9
    return value
  }

  /** Passes over `null` where it is next, and says whether it was. */
  null(): boolean {
    if (this.#bytes[this.#at] !== 0xf6) return false
    this.#at += 1
    return true
  }

  /** A tag's number; the tagged item is read next. */
  tag(what: string): number {
    return this.#head("tag", what)
  }

  /** How many items follow. @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_LARGE */
  array(what: string): number {
    return this.#bounded(this.#head("array", what), what)
  }

  /** How many pairs follow. @throws as array */
  map(what: string): number {
    return this.#bounded(this.#head("map", what), what)
  }

  /**
   * A map of definite or of indefinite length, for documents whose makers write both.
   * @param pair reads one key and its value. @param max pairs that the map may have.
   * @throws as array, and what `pair` throws. Source: RFC 8949, section 3.2.2.
   */
  pairs(what: string, max: number, pair: () => void): void {
    const open = this.#bytes[this.#at] === 0xbf
    if (open) this.#at += 1
    const count = open ? Number.POSITIVE_INFINITY : this.map(what)
    for (let read = 0; read < count; read += 1) {
      if (open && this.#bytes[this.#at] === 0xff) {
        this.#at += 1
        return
      }
      if (read === max)
        throw new ParseError("ERR_TOO_LARGE", {
          at: `${this.#place}, ${what}`,
          expected: `at most ${max} pairs`,
          found: "more",
        })
      pair()
    }
  }

  /** @throws as array */
  bytes(what: string): Uint8Array {
    return this.#content("bytes", what)
  }

  /** @throws as array */
  text(what: string): string {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.#content("text", what))
    } catch (cause) {
      if (cause instanceof ParseError) throw cause
      throw new ParseError("ERR_MALFORMED", { at: `${this.#place}, ${what}`, expected: "UTF-8 text", cause })
    }
  }

  /** @throws ParseError ERR_TRAILING_BYTES */
  end(): void {
    if (this.#at !== this.#bytes.length)
      throw new ParseError("ERR_TRAILING_BYTES", {
        at: this.#place,
        expected: `${this.#at} bytes`,
        found: `${this.#bytes.length}`,
      })
  }

  #content(major: "bytes" | "text", what: string): Uint8Array {
    const length = this.#bounded(this.#head(major, what), what)
    const content = this.#bytes.subarray(this.#at, this.#at + length)
    if (content.length < length) throw this.#truncated(what, length, content.length)
    this.#at += length
    return content
  }

  #head(major: Major, what: string): number {
    const first = this.#bytes[this.#at]
    if (first === undefined) throw this.#truncated(what, 1, 0)
    if (first >> 5 !== MAJOR[major])
      throw new ParseError("ERR_MALFORMED", {
        at: `${this.#place}, ${what}`,
        expected: `CBOR of type ${MAJOR[major]} (${major})`,
        found: `type ${first >> 5}`,
      })
    this.#at += 1
    const info = first & 0x1f
    if (info < 24) return info
    const size = info <= 26 ? 2 ** (info - 24) : 0
    // Values of 2^32 and more, and indefinite lengths.
    if (size === 0) throw this.#notShortest(what)
    const octets = this.#bytes.subarray(this.#at, this.#at + size)
    if (octets.length < size) throw this.#truncated(what, size, octets.length)
    this.#at += size
    const value = octets.reduce((sum, octet) => sum * 256 + octet, 0)
    if (value < (size === 1 ? 24 : 256 ** (size / 2))) throw this.#notShortest(what)
    return value
  }

  #bounded(length: number, what: string): number {
    if (length <= MAX_LENGTH) return length
    throw new ParseError("ERR_TOO_LARGE", {
      at: `${this.#place}, ${what}`,
      expected: `at most ${MAX_LENGTH}`,
      found: `${length}`,
    })
  }

  #truncated(what: string, expected: number, found: number): ParseError {
    return new ParseError("ERR_TRUNCATED", {
      at: `${this.#place}, ${what}`,
      expected: `${expected} bytes`,
      found: `${found}`,
    })
  }

  #notShortest(what: string): ParseError {
    return new ParseError("ERR_MALFORMED", {
      at: `${this.#place}, ${what}`,
      expected: "a definite value below 2^32 in its shortest form",
      found: "another form",
    })
  }
}

/** CBOR in the form that {@link CborReader} reads. Containers are the concatenation of a head and their items. */
export const cbor = {
  unsigned: (value: number): Uint8Array => head("unsigned", value),
  bytes: (content: Uint8Array): Uint8Array => join(head("bytes", content.length), content),
  text: (content: string): Uint8Array => {
    const encoded = new TextEncoder().encode(content)
    return join(head("text", encoded.length), encoded)
  },
  array: (...items: readonly Uint8Array[]): Uint8Array => join(head("array", items.length), ...items),
  /** @param pairs keys and values in turn, in the order in which they are to be written. */
  map: (...pairs: readonly Uint8Array[]): Uint8Array => join(head("map", pairs.length / 2), ...pairs),
  tag: (number: number, item: Uint8Array): Uint8Array => join(head("tag", number), item),
} as const

function head(major: Major, value: number): Uint8Array {
  const type = MAJOR[major] << 5
  if (value < 24) return Uint8Array.of(type | value)
  if (value < 0x100) return Uint8Array.of(type | 24, value)
  if (value < 0x10000) return Uint8Array.of(type | 25, value >> 8, value & 0xff)
  const octets = new Uint8Array(5)
  octets[0] = type | 26
  new DataView(octets.buffer).setUint32(1, value)
  return octets
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}
