import { VerifyError } from "../errors.ts"
import { shortHex } from "../formats/hex.ts"
import { type MeasurementList, prefixOf } from "../formats/ima/measurement-list.ts"
import { entryPlace, IMA_PCR, PcrReplay, same } from "./ima-replay.ts"
import { markVerified, type Verified } from "./verified.ts"

/** The part of a measurement list that a TPM vouches for. */
export interface QuotedMeasurements {
  /** The quoted entries and no other. */
  readonly list: MeasurementList
  /** Entries that came after the quote: measured while the evidence was collected. They say nothing yet. */
  readonly notYetQuoted: number
}

/**
 * Finds the prefix of the list that gives the quoted PCR 10, recomputing every template digest from the template data.
 * @param quotedPcr10 SHA-256 bank, 32 bytes, from a verified quote (`verifyQuote`).
 * @throws VerifyError ERR_IMA_PCR, ERR_IMA_TEMPLATE_DIGEST, ERR_IMA_REPLAY.
 */
export function verifyMeasurementList(
  list: MeasurementList,
  quotedPcr10: Uint8Array,
): Verified<QuotedMeasurements> {
  const count = quotedPrefix(list, quotedPcr10)
  return markVerified({ list: prefixOf(list, count), notYetQuoted: list.count - count })
}

/** Number of entries after which the SHA-256 bank holds the quoted value. */
function quotedPrefix(list: MeasurementList, quoted: Uint8Array): number {
  const replay = new PcrReplay("sha256")
  for (let index = 0; index < list.count; index++) {
    if (same(replay.value, quoted)) return index
    if (list.pcr[index] !== IMA_PCR) throw wrongPcr(list, index)
    replay.extend(list, index)
  }
  if (same(replay.value, quoted)) return list.count
  throw new VerifyError("ERR_IMA_REPLAY", {
    at: `measurement list of ${list.count} entries`,
    expected: `PCR 10 ${shortHex(quoted)}`,
    found: `PCR 10 ${shortHex(replay.value)} at its end`,
    hint: "an entry was removed, added, changed or moved, or the list is of another boot or machine: do not trust it",
  })
}

function wrongPcr(list: MeasurementList, index: number): VerifyError<"ERR_IMA_PCR"> {
  return new VerifyError("ERR_IMA_PCR", {
    at: entryPlace(list, index),
    expected: `PCR ${IMA_PCR}`,
    found: `PCR ${list.pcr[index]}`,
    hint: "remove pcr= from the rules of the IMA policy: only PCR 10 is quoted and replayed",
  })
}
