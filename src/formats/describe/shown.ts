import { toHex } from "../hex.ts"

/**
 * A decoded structure, ready to be shown: what `--json` prints, and what text is made from. Byte strings are hex, 64-bit
 * fields hex with 0x, names those of the specification in snake_case. Strings may hold hostile text.
 */
export type Shown = null | boolean | number | string | readonly Shown[] | ShownRecord
export type ShownRecord = { readonly [name: string]: Shown }

/** Hex with 0x. */
export function hexNumber(value: number | bigint): string {
  return `0x${value.toString(16)}`
}

/** Hex of bytes; null stays null. */
export function hexOrNull(bytes: Uint8Array | null): string | null {
  return bytes === null ? null : toHex(bytes)
}

/** `reportedTcb` as the specification has it: `reported_tcb`. */
export function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/**
 * A field of named bits: its value, each name with whether its bit is set, and the bits that have no name here.
 * @param known bits that hold something else than a flag, and are shown by the caller.
 */
export function flags(
  value: bigint,
  names: Readonly<Record<string, number | bigint>>,
  known = 0n,
): ShownRecord {
  const bits = Object.entries(names).map(([name, bit]) => [snakeCase(name), 1n << BigInt(bit)] as const)
  const unnamed = bits.reduce((left, [, mask]) => left & ~mask, value & ~known)
  return {
    value: hexNumber(value),
    ...Object.fromEntries(bits.map(([name, mask]) => [name, (value & mask) !== 0n])),
    ...(unnamed === 0n ? {} : { unnamed_bits: hexNumber(unnamed) }),
  }
}

/** All byte strings, numbers and flags of a parsed structure under their names; what is neither is left out. */
export function plainFields(value: object): ShownRecord {
  const fields: Record<string, Shown> = {}
  for (const [name, field] of Object.entries(value)) {
    if (field instanceof Uint8Array) fields[snakeCase(name)] = toHex(field)
    else if (typeof field === "bigint") fields[snakeCase(name)] = hexNumber(field)
    else if (typeof field === "number" || typeof field === "boolean" || field === null)
      fields[snakeCase(name)] = field
  }
  return fields
}

/** JSON as parsed, as something to be shown. */
export function shownJson(value: unknown): Shown {
  if (value === null || typeof value === "boolean" || typeof value === "number" || typeof value === "string")
    return value
  if (Array.isArray(value)) return value.map(shownJson)
  if (typeof value !== "object") return String(value)
  // Without a prototype, so that a member named __proto__ is a member.
  const record: Record<string, Shown> = Object.create(null)
  for (const [name, member] of Object.entries(value)) record[name] = shownJson(member)
  return record
}
