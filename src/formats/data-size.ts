import { UsageError } from "../errors.ts"

/** Factors by unit: SI (kB, MB, …), IEC (KiB, MiB, …), and single letters, which fallocate(1) reads as IEC. */
const UNITS: Readonly<Record<string, bigint>> = {
  "": 1n,
  b: 1n,
  ...Object.fromEntries(
    ["k", "m", "g", "t", "p"].flatMap((letter, index) => [
      [letter, 1024n ** BigInt(index + 1)],
      [`${letter}ib`, 1024n ** BigInt(index + 1)],
      [`${letter}b`, 1000n ** BigInt(index + 1)],
    ]),
  ),
}

/** Sizes above this are a slip of the hand: 8 PiB. */
const MAX_BYTES = 8n * 1024n ** 5n

/**
 * A size as people write it, in bytes: `100GB` (SI), `100GiB` (IEC), `100G` (IEC, as fallocate(1) has it), `1.5TB`, `4096`.
 * Upper and lower case are the same. A fraction of a byte is cut off.
 * @param at the option or setting, for messages.
 * @throws UsageError ERR_BAD_VALUE
 */
export function parseDataSize(text: string, at: string): number {
  const [, whole = "", fraction = "", unit = ""] =
    /^([0-9]{1,15})(?:\.([0-9]{1,9}))?\s*([A-Za-z]{0,3})$/.exec(text.trim()) ?? []
  const factor = Object.hasOwn(UNITS, unit.toLowerCase()) ? UNITS[unit.toLowerCase()] : undefined
  const scale = 10n ** BigInt(fraction.length)
  const bytes = factor === undefined || whole === "" ? null : (BigInt(whole + fraction) * factor) / scale
  if (bytes !== null && bytes > 0n && bytes <= MAX_BYTES) return Number(bytes)
  throw new UsageError("ERR_BAD_VALUE", {
    at,
    expected: "a size such as 100GB (powers of 1000) or 100GiB (powers of 1024), at most 8 PiB",
    found: JSON.stringify(text),
  })
}

/** `500 MB`, `1.5 GiB` where that is exact to one digit, else in SI to one digit. */
export function formatDataSize(bytes: number): string {
  for (const [base, units] of [
    [1024, ["KiB", "MiB", "GiB", "TiB"]],
    [1000, ["kB", "MB", "GB", "TB"]],
  ] as const) {
    for (let power = units.length; power >= 1; power--) {
      const tenths = (bytes * 10) / base ** power
      if (tenths >= 10 && Number.isInteger(tenths)) return `${tenths / 10} ${units[power - 1]}`
    }
  }
  const power = Math.min(4, Math.floor(Math.log10(Math.max(1, bytes)) / 3))
  if (power === 0) return `${bytes} B`
  return `${(bytes / 1000 ** power).toFixed(1)} ${["kB", "MB", "GB", "TB"][power - 1]}`
}
