import { VerifyError } from "../errors.ts"
import { shortHex } from "../formats/hex.ts"
import { type MeasurementList, prefixOf } from "../formats/ima/measurement-list.ts"
import type { HashName } from "../formats/tpm/algorithms.ts"
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
 * @param later a statement about the same PCR that was made after the quote: then the prefix is the one that gives it, and has to hold
 *   that of the quote.
 * @throws VerifyError ERR_IMA_PCR, ERR_IMA_TEMPLATE_DIGEST, ERR_IMA_REPLAY.
 */
export function verifyMeasurementList(
  list: MeasurementList,
  quotedPcr10: Uint8Array,
  later: LaterPcr | null = null,
): Verified<QuotedMeasurements> {
  const quoted = quotedPrefix(list, "sha256", quotedPcr10)
  const count = later === null ? quoted : laterPrefix(list, later, quoted)
  return markVerified({ list: prefixOf(list, count), notYetQuoted: list.count - count })
}

/** PCR 10 of another bank, from a verified statement. */
export interface LaterPcr {
  readonly bank: HashName
  readonly value: Uint8Array
  /** Whose statement it is, for messages. */
  readonly by: string
}

/** @throws VerifyError ERR_IMA_REPLAY */
function laterPrefix(list: MeasurementList, { bank, value, by }: LaterPcr, quoted: number): number {
  const count = quotedPrefix(list, bank, value)
  if (count >= quoted) return count
  throw new VerifyError("ERR_IMA_REPLAY", {
    at: `measurement list of ${list.count} entries`,
    expected: `${quoted} entries or more in PCR 10 of the ${by}, as in the quote before it`,
    found: `${count}`,
    hint: "the two are of different machines, or were not made one after the other: do not trust them",
  })
}

/** Number of entries after which the bank holds the quoted value. */
function quotedPrefix(list: MeasurementList, bank: HashName, quoted: Uint8Array): number {
  const prefix = new QuotedPrefix(bank, quoted)
  const { count } = prefix.take(list)
  prefix.finish()
  return count
}

/**
 * The same search in a list that comes in parts, in any bank. The parts that it gives are quoted if {@link QuotedPrefix.finish}
 * ends without an error, and until then nothing of them is proven.
 */
export class QuotedPrefix {
  /** Entries beyond the prefix. */
  notYetQuoted = 0
  readonly #quoted: Uint8Array
  readonly #replay: PcrReplay
  /** Entries so far. */
  #entries = 0
  #found: boolean

  /** @param quoted PCR 10 of that bank, from a verified quote. */
  constructor(bank: HashName, quoted: Uint8Array) {
    this.#quoted = quoted
    this.#replay = new PcrReplay(bank)
    this.#found = same(this.#replay.value, quoted)
  }

  /** Those of the next entries that are still in the prefix. @throws VerifyError ERR_IMA_PCR, ERR_IMA_TEMPLATE_DIGEST */
  take(list: MeasurementList): MeasurementList {
    let index = 0
    for (; index < list.count && !this.#found; index++) {
      if (list.pcr[index] !== IMA_PCR) throw wrongPcr(list, index, this.#entries)
      this.#replay.extend(list, index, this.#entries)
      this.#found = same(this.#replay.value, this.#quoted)
    }
    this.#entries += list.count
    this.notYetQuoted += list.count - index
    return prefixOf(list, index)
  }

  /** @throws VerifyError ERR_IMA_REPLAY where no prefix gives the quoted value */
  finish(): void {
    if (this.#found) return
    throw new VerifyError("ERR_IMA_REPLAY", {
      at: `measurement list of ${this.#entries} entries`,
      expected: `PCR 10 ${shortHex(this.#quoted)}`,
      found: `PCR 10 ${shortHex(this.#replay.value)} at its end`,
      hint: "an entry was removed, added, changed or moved, or the list is of another boot or machine: do not trust it",
    })
  }
}

function wrongPcr(list: MeasurementList, index: number, first: number): VerifyError<"ERR_IMA_PCR"> {
  return new VerifyError("ERR_IMA_PCR", {
    at: entryPlace(list, index, first),
    expected: `PCR ${IMA_PCR}`,
    found: `PCR ${list.pcr[index]}`,
    hint: "remove pcr= from the rules of the IMA policy: only PCR 10 is quoted and replayed",
  })
}
