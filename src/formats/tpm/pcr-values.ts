import { ParseError } from "../../errors.ts"
import { fromHex } from "../hex.ts"
import { parseJsonRecord } from "../strict-json.ts"
import type { HashName } from "./algorithms.ts"

/** PCR values by bank and number. What is in it is claimed by whoever wrote it, until a quote covers it. */
export type PcrValues = { readonly [B in HashName]?: ReadonlyMap<number, Uint8Array> }

/** Cap of a file with PCR values, in bytes. */
const MAX_PCR_FILE = 256 * 1024

/** Bytes of a PCR in each bank. */
const SIZES: Readonly<Record<HashName, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 }
const LAST_PCR = 31

/**
 * Reads PCR values: JSON `{"sha256": {"0": hex, …}, …}`, or `{"0": hex, …}` where the length tells the bank, or what `tpm2_pcrread`
 * prints. Banks of other algorithms are passed over.
 * @throws ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE
 */
export function parsePcrValues(file: Uint8Array): PcrValues {
  const banks = new Banks()
  const first = file.find((byte) => byte > 0x20)
  if (first === 0x7b) readJson(file, banks)
  else readText(file, banks)
  return banks.values()
}

function readJson(file: Uint8Array, banks: Banks): void {
  const record = parseJsonRecord("PCR values", file, MAX_PCR_FILE)
  for (const bank of record.names()) {
    if (/^[0-9]+$/.test(bank)) {
      const hex = record.string(bank)
      banks.add(bankOfSize(hex, record.place(bank)), bank, hex, record.place(bank))
      continue
    }
    const values = record.record(bank)
    for (const pcr of values.names()) banks.add(bank, pcr, values.string(pcr), values.place(pcr))
  }
}

function bankOfSize(hex: string, place: string): HashName {
  const digits = hex.replace(/^0x/i, "").length
  const [bank] = Object.entries(SIZES).find(([, size]) => size * 2 === digits) ?? []
  if (bank !== undefined && isBank(bank)) return bank
  throw malformed(place, "20, 32, 48 or 64 bytes in hex", hex.slice(0, 140))
}

/** `  sha256:` and below it `    0 : 0x…`. */
function readText(file: Uint8Array, banks: Banks): void {
  if (file.length > MAX_PCR_FILE)
    throw new ParseError("ERR_TOO_LARGE", { at: "PCR values", expected: `at most ${MAX_PCR_FILE} bytes` })
  let bank: string | null = null
  for (const [index, line] of Buffer.from(file).toString("latin1").split("\n").entries()) {
    if (line.trim() === "") continue
    const place = `PCR values, line ${index + 1}`
    const heading = /^\s*([a-z0-9_]+)\s*:\s*$/.exec(line)?.[1]
    const [, pcr, hex] = /^\s*([0-9]+)\s*:\s*0x([0-9A-Fa-f]+)\s*$/.exec(line) ?? []
    if (heading !== undefined) bank = heading
    else if (bank !== null && pcr !== undefined && hex !== undefined) banks.add(bank, pcr, hex, place)
    else
      throw malformed(place, "a bank, or a PCR with its value as tpm2_pcrread prints it", line.slice(0, 80))
  }
}

class Banks {
  readonly #banks = new Map<HashName, Map<number, Uint8Array>>()

  add(bank: string, pcr: string, hex: string, place: string): void {
    if (!isBank(bank)) return
    const number = /^(0|[1-9][0-9]?)$/.test(pcr) ? Number(pcr) : LAST_PCR + 1
    if (number > LAST_PCR) throw malformed(place, `a PCR number from 0 to ${LAST_PCR}`, pcr.slice(0, 80))
    const value = fromHex(hex.replace(/^0x/i, ""))
    if (value?.length !== SIZES[bank])
      throw malformed(place, `${SIZES[bank]} bytes in hex`, hex.slice(0, 140))
    const values = this.#banks.get(bank) ?? new Map<number, Uint8Array>()
    if (values.has(number))
      throw new ParseError("ERR_DUPLICATE_KEY", { at: place, found: `${bank} PCR ${number}` })
    this.#banks.set(bank, values.set(number, value))
  }

  values(): PcrValues {
    if (this.#banks.size === 0) throw malformed("PCR values", "values of a bank that is known", "none")
    return Object.fromEntries(this.#banks)
  }
}

function isBank(name: string): name is HashName {
  return Object.hasOwn(SIZES, name)
}

function malformed(at: string, expected: string, found: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at, expected, found })
}
