import { ParseError } from "../../errors.ts"

/**
 * The TPM's wire form: integers big-endian, sized buffers, counted lists. A structure is declared once, as a `Wire`, and
 * both parsed and encoded from that declaration.
 * Source: TCG TPM 2.0 Library, Part 1, section "Canonical Structure Format", and Part 2 "Structures", revision 1.59.
 */
export interface Wire<T> {
  read(from: WireReader): T
  write(value: T, to: WireWriter): void
}

/** Reads a byte string from the front. Views, no copies; never past the end. */
export class WireReader {
  readonly #name: string
  readonly #bytes: Uint8Array
  #offset = 0

  /** @param name of the structure, for error places. */
  constructor(name: string, bytes: Uint8Array) {
    this.#name = name
    this.#bytes = bytes
  }

  /** Name of the structure and offset of the next byte: the place for an error about what comes next. */
  get place(): string {
    return `${this.#name}, offset ${this.#offset}`
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset
  }

  take(size: number): Uint8Array {
    if (size > this.remaining)
      throw new ParseError("ERR_TRUNCATED", {
        at: this.place,
        expected: `${size} more bytes`,
        found: `${this.remaining}`,
      })
    this.#offset += size
    return this.#bytes.subarray(this.#offset - size, this.#offset)
  }

  /** An unsigned integer of 1, 2 or 4 bytes. */
  uint(size: 1 | 2 | 4): number {
    let value = 0
    for (const byte of this.take(size)) value = value * 256 + byte
    return value
  }

  /** @throws ParseError ERR_TRAILING_BYTES */
  end(): void {
    if (this.remaining !== 0)
      throw new ParseError("ERR_TRAILING_BYTES", {
        at: this.place,
        expected: "the end",
        found: `${this.remaining} more bytes`,
      })
  }
}

/** Collects the bytes of a structure. */
export class WireWriter {
  readonly #parts: Uint8Array[] = []

  put(bytes: Uint8Array): void {
    this.#parts.push(bytes)
  }

  uint(size: 1 | 2 | 4, value: number): void {
    const limit = 256 ** size
    if (!Number.isInteger(value) || value < 0 || value >= limit)
      throw new ParseError("ERR_TOO_LARGE", { expected: `an integer below ${limit}`, found: String(value) })
    const bytes = new Uint8Array(size)
    for (let index = size - 1, rest = value; index >= 0; index--, rest = Math.floor(rest / 256))
      bytes[index] = rest % 256
    this.put(bytes)
  }

  bytes(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#parts))
  }
}

function unsigned(size: 1 | 2 | 4): Wire<number> {
  return { read: (from) => from.uint(size), write: (value, to) => to.uint(size, value) }
}

export const u8 = unsigned(1)
export const u16 = unsigned(2)
export const u32 = unsigned(4)
export const u64: Wire<bigint> = {
  read: (from) => BigInt(from.uint(4)) * 0x1_0000_0000n + BigInt(from.uint(4)),
  write(value, to) {
    if (value < 0n)
      throw new ParseError("ERR_TOO_LARGE", { expected: "an unsigned integer", found: `${value}` })
    to.uint(4, Number(value / 0x1_0000_0000n))
    to.uint(4, Number(value % 0x1_0000_0000n))
  },
}

/** TPMI_YES_NO: one byte, 0 or 1. */
export const yesNo: Wire<boolean> = {
  read(from) {
    const { place } = from
    const value = from.uint(1)
    if (value > 1) throw new ParseError("ERR_MALFORMED", { at: place, expected: "0 or 1", found: `${value}` })
    return value === 1
  },
  write: (value, to) => to.uint(1, value ? 1 : 0),
}

/** A TPM2B: 16-bit size, then that many bytes, at most `limit`. */
export function sized(limit: number): Wire<Uint8Array> {
  return {
    read(from) {
      const { place } = from
      const size = from.uint(2)
      capped(size, limit, "bytes", place)
      return from.take(size)
    },
    write(value, to) {
      capped(value.length, limit, "bytes", "TPM2B")
      to.uint(2, value.length)
      to.put(value)
    },
  }
}

/** A buffer with an 8-bit size, at most `limit`. */
export function shortSized(limit: number): Wire<Uint8Array> {
  return {
    read(from) {
      const { place } = from
      const size = from.uint(1)
      capped(size, limit, "bytes", place)
      return from.take(size)
    },
    write(value, to) {
      capped(value.length, limit, "bytes", "sized buffer")
      to.uint(1, value.length)
      to.put(value)
    },
  }
}

/** A TPML: 32-bit count, then that many elements, at most `limit`. */
export function list<T>(element: Wire<T>, limit: number): Wire<readonly T[]> {
  return {
    read(from) {
      const { place } = from
      const count = from.uint(4)
      capped(count, limit, "elements", place)
      return Array.from({ length: count }, () => element.read(from))
    },
    write(values, to) {
      capped(values.length, limit, "elements", "TPML")
      to.uint(4, values.length)
      for (const value of values) element.write(value, to)
    },
  }
}

type Fields = Readonly<Record<string, Wire<unknown>>>
type Struct<F extends Fields> = { readonly [K in keyof F]: F[K] extends Wire<infer T> ? T : never }

/** A structure: its fields, one after the other, in the order of declaration. */
export function struct<F extends Fields>(fields: F): Wire<Struct<F>> {
  const entries = Object.entries(fields)
  return {
    read(from) {
      const value: Record<string, unknown> = {}
      for (const [name, field] of entries) value[name] = field.read(from)
      return value as Struct<F>
    },
    write(value, to) {
      for (const [name, field] of entries) field.write(value[name], to)
    },
  }
}

/** Parses all of `bytes` as one structure. @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, and the structure's own */
export function parseWire<T>(name: string, wire: Wire<T>, bytes: Uint8Array): T {
  const from = new WireReader(name, bytes)
  const value = wire.read(from)
  from.end()
  return value
}

/** Bytes of a structure. */
export function encodeWire<T>(wire: Wire<T>, value: T): Uint8Array {
  const to = new WireWriter()
  wire.write(value, to)
  return to.bytes()
}

function capped(count: number, limit: number, unit: string, place: string): void {
  if (count > limit)
    throw new ParseError("ERR_TOO_LARGE", {
      at: place,
      expected: `at most ${limit} ${unit}`,
      found: `${count}`,
    })
}
