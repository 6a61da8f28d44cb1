import { UsageError } from "../errors.ts"
import { fromBase64, fromHex } from "../formats/hex.ts"
import { isArray, JsonRecord, type JsonValue } from "../formats/strict-json.ts"
import { isPlaceholder } from "./attestation-policy.ts"

/**
 * A protobuf message in JSON. Each field has two spellings, `snake_case` and `camelCase`; null and an absent field are the
 * same. Beyond the specification, what Cocos' tools have written over the years is read: byte strings in hex and as arrays of
 * integers, and wrapped numbers as `{"value": n}`.
 * Source: Protocol Buffers, "ProtoJSON Format".
 */
export class ProtoMessage {
  readonly #record: JsonRecord
  readonly #path: string
  readonly #file: string
  readonly #taken = new Set<string>()

  constructor(record: JsonRecord, path: string, file: string) {
    this.#record = record
    this.#path = path
    this.#file = file
  }

  /** A field by its snake_case name; null where it is absent. @throws UsageError ERR_POLICY where both spellings are there */
  take(name: string): JsonValue {
    const spellings = [...new Set([name, camelCase(name)])]
    const present = this.#record.names().filter((candidate) => spellings.includes(candidate))
    for (const spelling of spellings) this.#taken.add(spelling)
    if (present.length > 1) throw this.fault(name, "one spelling of the field", present.join(" and "))
    return present[0] === undefined ? null : this.#record.take(present[0])
  }

  /** Whether a field is there and not null. */
  has(name: string): boolean {
    return this.take(name) !== null
  }

  message(name: string): ProtoMessage | null {
    const value = this.take(name)
    if (value === null) return null
    if (!(value instanceof JsonRecord)) throw this.fault(name, "an object", kindOf(value))
    return new ProtoMessage(value, this.#at(name), this.#file)
  }

  /** Fields of a map, each with its key. */
  entries(): [string, JsonValue][] {
    return this.#record.names().map((key) => {
      this.#taken.add(key)
      return [key, this.#record.take(key)]
    })
  }

  boolean(name: string): boolean | null {
    const value = this.take(name)
    if (value === null || typeof value === "boolean") return value
    throw this.fault(name, "true or false", kindOf(value))
  }

  string(name: string): string | null {
    const value = this.take(name)
    if (value === null || typeof value === "string") return value
    throw this.fault(name, "a string", kindOf(value))
  }

  /** An unsigned integer up to `max`, as a number or in a string. */
  integer(name: string, max: number): number | null {
    const value = this.unsigned(name, BigInt(max))
    return value === null ? null : Number(value)
  }

  /** As {@link integer}, for 64 bits. */
  unsigned(name: string, max: bigint = 2n ** 64n - 1n): bigint | null {
    const value = this.take(name)
    return value === null ? null : this.#unsigned(name, value, max)
  }

  /** A number that is there or not: also `{"value": n}`. */
  wrapped(name: string, max: bigint): bigint | null {
    const value = this.take(name)
    if (!(value instanceof JsonRecord)) return value === null ? null : this.#unsigned(name, value, max)
    const wrapper = new ProtoMessage(value, this.#at(name), this.#file)
    const inner = wrapper.unsigned("value", max)
    wrapper.finish()
    return inner ?? 0n
  }

  /**
   * A byte string of one of these sizes; null where it is absent or empty. A single zero in an array is how Cocos' tools
   * write a value that nobody filled in: it is given as it is, so that it fits nothing.
   */
  bytes(name: string, ...sizes: readonly number[]): Uint8Array | null {
    const value = this.take(name)
    return value === null ? null : this.#bytes(name, value, sizes)
  }

  /** The byte strings of an array, null for empty ones; null where the field is absent or the array empty. */
  repeatedBytes(name: string, ...sizes: readonly number[]): (Uint8Array | null)[] | null {
    const values = this.#array(name)
    if (values.length === 0) return null
    return values.map((value, index) => this.#bytes(`${name}[${index}]`, value, sizes))
  }

  strings(name: string): string[] {
    return this.#array(name).map((value, index) => {
      if (typeof value === "string") return value
      throw this.fault(`${name}[${index}]`, "a string", kindOf(value))
    })
  }

  /** A byte string that stands in a map. */
  decode(name: string, value: JsonValue, ...sizes: readonly number[]): Uint8Array | null {
    return value === null ? null : this.#bytes(name, value, sizes)
  }

  /** @throws UsageError ERR_POLICY for a field that is not known */
  finish(): void {
    for (const name of this.#record.names())
      if (!this.#taken.has(name))
        throw this.fault(
          name,
          `one of ${[...this.#taken].filter((known) => known !== camelCase(known) || !known.includes("_")).join(", ")}`,
          "a field that is not known",
          "leave it out, or say what it means in a TOML policy",
        )
  }

  fault(name: string, expected: string, found: string, hint?: string): UsageError {
    return new UsageError("ERR_POLICY", {
      at: `${this.#file}: ${this.#at(name)}`,
      expected,
      found: found.slice(0, 120),
      ...(hint === undefined ? {} : { hint }),
    })
  }

  #array(name: string): readonly JsonValue[] {
    const value = this.take(name)
    if (value === null) return []
    if (isArray(value)) return value
    throw this.fault(name, "an array", kindOf(value))
  }

  #unsigned(name: string, value: JsonValue, max: bigint): bigint {
    const expected = `an integer from 0 to ${max}`
    const integer =
      typeof value === "bigint" || (typeof value === "number" && Number.isInteger(value))
        ? BigInt(value)
        : typeof value === "string" && /^\d{1,20}$/.test(value)
          ? BigInt(value)
          : null
    if (integer === null) throw this.fault(name, expected, kindOf(value))
    if (integer < 0n || integer > max) throw this.fault(name, expected, `${integer}`)
    return integer
  }

  #bytes(name: string, value: JsonValue, sizes: readonly number[]): Uint8Array | null {
    const decoded =
      typeof value === "string" ? decodeText(value, sizes) : isArray(value) ? decodeArray(value) : null
    const expected = sizes.length === 0 ? "bytes in base64" : `${sizes.join(" or ")} bytes in base64`
    if (decoded === null) throw this.fault(name, expected, kindOf(value))
    if (decoded.length === 0) return null
    const placeholder = isArray(value) && isPlaceholder(decoded)
    if (sizes.length > 0 && !sizes.includes(decoded.length) && !placeholder)
      throw this.fault(name, expected, `${decoded.length} bytes`)
    return decoded
  }

  #at(name: string): string {
    return this.#path === "" ? name : `${this.#path}.${name}`
  }
}

/** Hex where the text has exactly the digits of a size asked for; else base64 of either alphabet. */
function decodeText(text: string, sizes: readonly number[]): Uint8Array | null {
  if (sizes.some((size) => text.length === 2 * size)) {
    const bytes = fromHex(text)
    if (bytes !== null) return bytes
  }
  return fromBase64(text.replaceAll("-", "+").replaceAll("_", "/"))
}

function decodeArray(values: readonly JsonValue[]): Uint8Array | null {
  const isByte = (value: JsonValue) =>
    typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 255
  return values.every(isByte) ? Uint8Array.from(values, Number) : null
}

function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

function kindOf(value: JsonValue): string {
  if (value === null) return "null"
  if (isArray(value)) return "an array"
  if (value instanceof JsonRecord) return "an object"
  return typeof value === "string" ? JSON.stringify(value) : String(value)
}
