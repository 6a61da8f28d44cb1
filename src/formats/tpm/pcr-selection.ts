import { ParseError } from "../../errors.ts"
import { algorithmText } from "./algorithms.ts"
import { list, shortSized, struct, u16, type Wire } from "./wire.ts"

/** PCRs of one bank. */
export interface PcrSelection {
  /** Hash algorithm of the bank. */
  readonly hash: number
  /** Bit map, least significant bit of the first byte is PCR 0; 3 bytes for a TPM with 24 PCRs. */
  readonly pcrSelect: Uint8Array
}

/** TPML_PCR_SELECTION. Source: TPM 2.0 Part 2, rev. 1.59, tables "TPMS_PCR_SELECTION" and "TPML_PCR_SELECTION". */
export const PCR_SELECTIONS: Wire<readonly PcrSelection[]> = list(
  struct({ hash: u16, pcrSelect: shortSized(4) }),
  16,
)

/** A selection of PCRs 0–23 in one bank. @throws ParseError ERR_MALFORMED for other numbers */
export function selectPcrs(hash: number, pcrs: readonly number[]): PcrSelection {
  const pcrSelect = new Uint8Array(3)
  for (const pcr of pcrs) {
    if (!Number.isInteger(pcr) || pcr < 0 || pcr > 23)
      throw new ParseError("ERR_MALFORMED", {
        at: "PCR selection",
        expected: "PCRs 0 to 23",
        found: `${pcr}`,
      })
    const index = pcr >> 3
    pcrSelect[index] = (pcrSelect[index] ?? 0) | (1 << (pcr & 7))
  }
  return { hash, pcrSelect }
}

/** The PCR numbers of a selection, ascending. */
export function selectedPcrs(selection: PcrSelection): number[] {
  return [...selection.pcrSelect].flatMap((byte, index) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte >> bit) & 1).map((bit) => index * 8 + bit),
  )
}

/** Selections for people: `sha256:0,1,10`. */
export function selectionText(selections: readonly PcrSelection[]): string {
  if (selections.length === 0) return "none"
  return selections
    .map((each) => `${algorithmText(each.hash)}:${selectedPcrs(each).join(",") || "none"}`)
    .join("+")
}
