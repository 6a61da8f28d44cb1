import { ParseError } from "../../errors.ts"

/** Little-endian; never past the end. */
export class LogReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #name: string
  at = 0

  constructor(bytes: Uint8Array, name = "event log") {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#name = name
  }

  take(size: number, what: string): Uint8Array {
    const start = this.at
    if (size > this.#bytes.length - start)
      throw new ParseError("ERR_TRUNCATED", {
        at: `${this.#name}, ${what}`,
        expected: `${size} bytes at offset ${start}`,
        found: `${this.#bytes.length - start}`,
      })
    this.at += size
    return this.#bytes.subarray(start, this.at)
  }

  get left(): number {
    return this.#bytes.length - this.at
  }

  u16(what: string): number {
    this.take(2, what)
    return this.#view.getUint16(this.at - 2, true)
  }

  u32(what: string): number {
    this.take(4, what)
    return this.#view.getUint32(this.at - 4, true)
  }

  /** @throws ParseError ERR_MALFORMED where no JavaScript number holds it: no count of anything here is so high. */
  u64(what: string): number {
    const low = this.u32(what)
    const value = this.u32(what) * 2 ** 32 + low
    if (Number.isSafeInteger(value)) return value
    throw new ParseError("ERR_MALFORMED", { at: `${this.#name}, ${what}`, expected: "less than 2^53" })
  }
}
