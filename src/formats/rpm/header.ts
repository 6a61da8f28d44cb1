import { ParseError } from "../../errors.ts"

/**
 * Headers of RPM packages: an index of tags and the store that they point into, big-endian.
 * Source: RPM 4.18, docs/manual/format_header.md and format_v4.md; lib/header.c.
 */

const MAGIC = [0x8e, 0xad, 0xe8, 0x01] as const
const PREAMBLE_BYTES = 16
const ENTRY_BYTES = 16
const MAX_ENTRIES = 65_535
const MAX_STORE = 256 * 1024 * 1024
/** Elements of a list; a package has some hundred thousand files at most. */
const MAX_ELEMENTS = 2_000_000

const TYPE = { int16: 3, int32: 4, string: 6, binary: 7, stringArray: 8 } as const

interface Entry {
  readonly type: number
  readonly offset: number
  readonly count: number
}

/** A header, whose tags are read as they are asked for. */
export class RpmHeader {
  /** All bytes of the header: what a signature over it covers. */
  readonly bytes: Uint8Array
  readonly #name: string
  readonly #entries: ReadonlyMap<number, Entry>
  readonly #store: Uint8Array
  readonly #view: DataView

  /** Reads the header that begins at an offset. @throws ParseError ERR_TRUNCATED, ERR_MALFORMED, ERR_TOO_LARGE, ERR_DUPLICATE_KEY */
  constructor(name: string, file: Uint8Array, start: number) {
    const at = `rpm ${name}`
    const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
    if (start + PREAMBLE_BYTES > file.length) throw truncated(at)
    if (MAGIC.some((byte, index) => file[start + index] !== byte) || view.getUint32(start + 4) !== 0)
      throw new ParseError("ERR_MALFORMED", { at, expected: "an RPM header of version 1" })
    const count = view.getUint32(start + 8)
    const size = view.getUint32(start + 12)
    if (count > MAX_ENTRIES || size > MAX_STORE)
      throw new ParseError("ERR_TOO_LARGE", { at, found: `${count} tags with ${size} bytes` })
    const storeAt = start + PREAMBLE_BYTES + count * ENTRY_BYTES
    if (storeAt + size > file.length) throw truncated(at)
    const entries = new Map<number, Entry>()
    for (let index = 0; index < count; index++) {
      const entry = start + PREAMBLE_BYTES + index * ENTRY_BYTES
      const tag = view.getUint32(entry)
      if (entries.has(tag)) throw new ParseError("ERR_DUPLICATE_KEY", { at, found: `tag ${tag}` })
      entries.set(tag, {
        type: view.getUint32(entry + 4),
        offset: view.getUint32(entry + 8),
        count: view.getUint32(entry + 12),
      })
    }
    this.#name = at
    this.#entries = entries
    this.bytes = file.subarray(start, storeAt + size)
    this.#store = file.subarray(storeAt, storeAt + size)
    this.#view = new DataView(file.buffer, file.byteOffset + storeAt, size)
  }

  has(tag: number): boolean {
    return this.#entries.has(tag)
  }

  /** Bytes of a binary tag; null where it is absent. @throws ParseError ERR_MALFORMED */
  binary(tag: number): Uint8Array | null {
    const entry = this.#entry(tag, [TYPE.binary])
    if (entry === null) return null
    this.#check(tag, entry, 1)
    return this.#store.subarray(entry.offset, entry.offset + entry.count)
  }

  /** Bytes of a tag's text; null where it is absent. @throws ParseError ERR_MALFORMED */
  string(tag: number): Uint8Array | null {
    const entry = this.#entry(tag, [TYPE.string])
    return entry === null ? null : (this.#strings(tag, { ...entry, count: 1 })[0] ?? null)
  }

  /** A list of texts; empty where it is absent. @throws ParseError ERR_MALFORMED, ERR_TOO_LARGE */
  strings(tag: number): Uint8Array[] {
    const entry = this.#entry(tag, [TYPE.stringArray])
    return entry === null ? [] : this.#strings(tag, entry)
  }

  /** A list of numbers; empty where it is absent. @throws ParseError ERR_MALFORMED, ERR_TOO_LARGE */
  numbers(tag: number): number[] {
    const entry = this.#entry(tag, [TYPE.int16, TYPE.int32])
    if (entry === null) return []
    const size = entry.type === TYPE.int16 ? 2 : 4
    this.#check(tag, entry, size)
    return Array.from({ length: entry.count }, (_, index) => {
      const at = entry.offset + index * size
      return size === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at)
    })
  }

  #entry(tag: number, types: readonly number[]): Entry | null {
    const entry = this.#entries.get(tag)
    if (entry === undefined) return null
    if (entry.count > MAX_ELEMENTS && entry.type !== TYPE.binary)
      throw new ParseError("ERR_TOO_LARGE", {
        at: this.#name,
        found: `${entry.count} elements of tag ${tag}`,
      })
    if (types.includes(entry.type)) return entry
    throw new ParseError("ERR_MALFORMED", {
      at: this.#name,
      expected: `tag ${tag} of type ${types.join(" or ")}`,
      found: `type ${entry.type}`,
    })
  }

  #strings(tag: number, { offset, count }: Entry): Uint8Array[] {
    const out: Uint8Array[] = []
    let at = offset
    for (let index = 0; index < count; index++) {
      const end = at < this.#store.length ? this.#store.indexOf(0, at) : -1
      if (end < 0)
        throw new ParseError("ERR_MALFORMED", {
          at: this.#name,
          expected: `${count} texts of tag ${tag}`,
          found: `${index}`,
        })
      out.push(this.#store.subarray(at, end))
      at = end + 1
    }
    return out
  }

  #check(tag: number, { offset, count }: Entry, size: number): void {
    if (offset + count * size > this.#store.length)
      throw new ParseError("ERR_MALFORMED", { at: this.#name, expected: `tag ${tag} inside of the header` })
  }
}

function truncated(at: string): ParseError<"ERR_TRUNCATED"> {
  return new ParseError("ERR_TRUNCATED", { at, expected: "a whole header" })
}
