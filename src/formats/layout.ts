import { ParseError } from "../errors.ts"

/** One field of a structure: where it is, and how it is read and written. Integers are little-endian. */
export interface Field<T> {
  readonly offset: number
  readonly size: number
  read(bytes: Uint8Array, place: string): T
  write(bytes: Uint8Array, value: T, place: string): void
}

/** Reserved bytes: checked to be zero, and no part of the value. */
export interface Reserved extends Field<undefined> {
  readonly reserved: true
}

type AnyField = Field<number> | Field<bigint> | Field<Uint8Array> | Reserved
type Fields = Readonly<Record<string, AnyField>>

/** The value of a structure: its fields by name, without the reserved ones. */
export type LayoutValue<F extends Fields> = {
  readonly [K in keyof F as F[K] extends Reserved ? never : K]: F[K] extends Field<infer T> ? T : never
}

/** A binary structure of fixed size. */
export interface Layout<F extends Fields> {
  readonly name: string
  /** Bytes. */
  readonly size: number
  /** Field names with their offsets and sizes, for documentation and printing. */
  readonly fields: F
  /**
   * Byte-string fields are views into `bytes`.
   * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_RESERVED_NOT_ZERO
   */
  parse(bytes: Uint8Array): LayoutValue<F>
  /** @throws ParseError ERR_MALFORMED where a value does not fit its field */
  encode(value: LayoutValue<F>): Uint8Array
}

/** Unsigned integer of one byte. */
export const u8 = (offset: number): Field<number> => unsigned(offset, 1)
/** Unsigned integer of two bytes. */
export const u16 = (offset: number): Field<number> => unsigned(offset, 2)
/** Unsigned integer of four bytes. */
export const u32 = (offset: number): Field<number> => unsigned(offset, 4)

/** Unsigned integer of eight bytes, as a bigint. */
export function u64(offset: number): Field<bigint> {
  return {
    offset,
    size: 8,
    read: (bytes) => viewOf(bytes).getBigUint64(offset, true),
    write(bytes, value, place) {
      if (value < 0n || value >= 1n << 64n) throw doesNotFit(place, "an unsigned 64-bit integer", `${value}`)
      viewOf(bytes).setBigUint64(offset, value, true)
    },
  }
}

/** Byte string of fixed length. */
export function bytes(offset: number, size: number): Field<Uint8Array> {
  return {
    offset,
    size,
    read: (source) => source.subarray(offset, offset + size),
    write(target, value, place) {
      if (value.length !== size) throw doesNotFit(place, `${size} bytes`, `${value.length}`)
      target.set(value, offset)
    },
  }
}

/** Reserved bytes that must be zero. */
export function zero(offset: number, size: number): Reserved {
  return {
    offset,
    size,
    reserved: true,
    read(source, place) {
      const at = source.subarray(offset, offset + size).findIndex((byte) => byte !== 0)
      if (at >= 0)
        throw new ParseError("ERR_RESERVED_NOT_ZERO", {
          at: `${place}, byte 0x${(offset + at).toString(16)}`,
          expected: "0",
          found: `${source[offset + at]}`,
        })
      return undefined
    },
    write: () => undefined,
  }
}

/**
 * Declares a structure. The fields must cover each byte exactly once, so that nothing is read twice and nothing is
 * ignored without saying so: a declaration with a gap or an overlap is refused when the module is loaded.
 */
export function layout<F extends Fields>(name: string, size: number, fields: F): Layout<F> {
  checkCoverage(name, size, fields)
  // Once for all: a quote is read in less time than it takes to list its fields.
  const entries = Object.entries(fields).map(([key, field]) => ({ key, field, place: `${name}.${key}` }))
  return {
    name,
    size,
    fields,
    parse(source) {
      if (source.length < size)
        throw new ParseError("ERR_TRUNCATED", {
          at: name,
          expected: `${size} bytes`,
          found: `${source.length}`,
        })
      if (source.length > size)
        throw new ParseError("ERR_TRAILING_BYTES", {
          at: name,
          expected: `${size} bytes`,
          found: `${source.length}`,
        })
      const value: Record<string, unknown> = {}
      for (const { key, field, place } of entries) {
        const read = field.read(source, place)
        if (!("reserved" in field)) value[key] = read
      }
      // Each field's reader gives what the field's type says: this is where the table becomes a type.
      return value as LayoutValue<F>
    },
    encode(value) {
      const target = new Uint8Array(size)
      const given: Readonly<Record<string, unknown>> = value
      for (const { key, field, place } of entries) writeField(target, field, given[key], place)
      return target
    },
  }
}

function writeField(target: Uint8Array, field: AnyField, value: unknown, place: string): void {
  ;(field as Field<unknown>).write(target, value, place)
}

function unsigned(offset: number, size: 1 | 2 | 4): Field<number> {
  return {
    offset,
    size,
    read(source) {
      const view = viewOf(source)
      if (size === 1) return view.getUint8(offset)
      return size === 2 ? view.getUint16(offset, true) : view.getUint32(offset, true)
    },
    write(target, value, place) {
      if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * size))
        throw doesNotFit(place, `an unsigned ${8 * size}-bit integer`, `${value}`)
      const view = viewOf(target)
      if (size === 1) view.setUint8(offset, value)
      else if (size === 2) view.setUint16(offset, value, true)
      else view.setUint32(offset, value, true)
    },
  }
}

function viewOf(source: Uint8Array): DataView {
  return new DataView(source.buffer, source.byteOffset, source.byteLength)
}

function doesNotFit(place: string, expected: string, found: string): ParseError {
  return new ParseError("ERR_MALFORMED", { at: place, expected, found })
}

function checkCoverage(name: string, size: number, fields: Fields): void {
  let next = 0
  const ordered = Object.entries(fields).sort(([, a], [, b]) => a.offset - b.offset)
  for (const [key, field] of ordered) {
    if (field.offset !== next)
      throw new ParseError("ERR_INTERNAL", {
        at: `declaration of ${name}.${key}`,
        expected: `offset 0x${next.toString(16)}`,
        found: `0x${field.offset.toString(16)}`,
      })
    next += field.size
  }
  if (next !== size)
    throw new ParseError("ERR_INTERNAL", {
      at: `declaration of ${name}`,
      expected: `${size} bytes`,
      found: `${next}`,
    })
}
