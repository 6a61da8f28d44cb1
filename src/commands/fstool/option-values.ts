import { NativeError, UsageError } from "../../errors.ts"
import { parseDataSize } from "../../formats/data-size.ts"
import { advisePcrs } from "../../policy/pcr-advice.ts"
import type { FstoolMachine } from "./machine.ts"

const SECTOR = 4096

/** Rounded up to whole sectors. */
export function wholeSectors(text: string): number {
  return Math.ceil(parseDataSize(text, "--size") / SECTOR) * SECTOR
}

/** @throws UsageError ERR_BAD_VALUE */
export function parsePcrs(text: string | null): number[] {
  if (text === null || text === "" || text === "none") return []
  const pcrs = text.split(/[,+]/).map((part) => (/^[0-9]{1,2}$/.test(part) ? Number(part) : Number.NaN))
  if (pcrs.every((pcr) => pcr <= 23)) return [...new Set(pcrs)].sort((a, b) => a - b)
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--pcrs",
    expected: "numbers from 0 to 23 with commas between them, such as 7 or 4,7,9",
    found: JSON.stringify(text),
  })
}

/** Says what sealing to these PCRs means. @throws UsageError ERR_BAD_VALUE for those that make no sense */
export async function advise(pcrs: readonly number[], machine: FstoolMachine): Promise<void> {
  if (pcrs.length === 0 || machine.tpm === null) return
  const advice = advisePcrs(pcrs, await machine.tpm.pcrs(pcrs))
  for (const { pcr, weight, text } of advice)
    if (weight === "refuse")
      throw new UsageError("ERR_BAD_VALUE", {
        at: "--pcrs",
        expected: "PCRs that hold what booted",
        found: `${pcr}`,
        hint: text,
      })
  for (const { weight, text } of advice) machine.talk(`${weight}: ${text}`)
}

export function noTpm(machine: FstoolMachine, at: string): NativeError {
  return new NativeError("ERR_NO_TPM", { at, found: machine.tpmAbsence ?? "none" })
}
