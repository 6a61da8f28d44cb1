import { fromHex } from "../formats/hex.ts"
import type { TomlTable } from "../formats/toml-table.ts"
import type { OneOf } from "./attestation-policy.ts"

/** One value in hex or several; null where the key is absent. */
export function hexList(table: TomlTable, key: string, ...sizes: readonly number[]): OneOf {
  const texts = table.strings(key)
  if (texts === null) return null
  return texts.map((text) => {
    const bytes = fromHex(text)
    if (bytes !== null && sizes.includes(bytes.length)) return bytes
    const found = bytes === null ? JSON.stringify(text) : `${bytes.length} bytes`
    throw table.fault(key, `${sizes.join(" or ")} bytes in hex`, found)
  })
}

/** A 64-bit field as an integer, or as a string with 0x where TOML's integers end. */
export function bits(table: TomlTable, key: string): bigint | null {
  const value = table.raw(key)
  if (value === undefined) return null
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) return BigInt(value)
  if (typeof value === "string" && /^0x[0-9a-fA-F]{1,16}$/.test(value)) return BigInt(value)
  throw table.fault(key, "an integer, or a string such as 0x8000000010000000", String(value))
}
