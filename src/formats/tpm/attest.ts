import { ParseError } from "../../errors.ts"
import { PCR_SELECTIONS } from "./pcr-selection.ts"
import { encodeWire, sized, struct, u16, u32, u64, type Wire, WireReader, yesNo } from "./wire.ts"

/** First bytes of everything that a TPM signs about itself. Source: TPM 2.0 Part 2, rev. 1.59, table "TPM_GENERATED". */
export const TPM_GENERATED = 0xff544347
/** Source: TPM 2.0 Part 2, rev. 1.59, table "TPM_ST". */
export const ST_ATTEST_QUOTE = 0x8018

/** TPMS_ATTEST up to its union. Source: TPM 2.0 Part 2, rev. 1.59, table "TPMS_ATTEST" and "TPMS_CLOCK_INFO". */
const ATTEST_HEAD = struct({
  qualifiedSigner: sized(66),
  /** What the caller of the quote asked to be signed with it. */
  extraData: sized(66),
  /** Milliseconds that the TPM has been powered, over all boots. */
  clock: u64,
  /** TPM resets: boots. */
  resetCount: u32,
  /** TPM restarts and resumes since the last reset: suspends. */
  restartCount: u32,
  /** False where the clock may have shown a higher value before (no orderly shutdown). */
  safe: yesNo,
  firmwareVersion: u64,
})

/** TPMS_QUOTE_INFO. Source: TPM 2.0 Part 2, rev. 1.59, table of this name. */
const QUOTE_INFO = struct({ pcrSelect: PCR_SELECTIONS, pcrDigest: sized(64) })

type Read<W> = W extends Wire<infer T> ? T : never

/** TPMS_ATTEST of a quote. */
export type QuoteAttest = Read<typeof ATTEST_HEAD> & Read<typeof QUOTE_INFO>

/**
 * Parses a TPMS_ATTEST, which has to be a quote.
 * @throws ParseError ERR_TPM_MAGIC, ERR_TPM_ATTEST_TYPE, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE, ERR_MALFORMED
 */
export function parseAttest(bytes: Uint8Array): QuoteAttest {
  const from = new WireReader("TPMS_ATTEST", bytes)
  const magic = u32.read(from)
  if (magic !== TPM_GENERATED)
    throw new ParseError("ERR_TPM_MAGIC", {
      at: "TPMS_ATTEST magic",
      expected: hex(TPM_GENERATED),
      found: hex(magic),
    })
  const type = u16.read(from)
  if (type !== ST_ATTEST_QUOTE)
    throw new ParseError("ERR_TPM_ATTEST_TYPE", {
      at: "TPMS_ATTEST type",
      expected: `${hex(ST_ATTEST_QUOTE)} (quote)`,
      found: hex(type),
    })
  const value = { ...ATTEST_HEAD.read(from), ...QUOTE_INFO.read(from) }
  from.end()
  return value
}

/** Bytes of the TPMS_ATTEST of a quote. */
export function encodeAttest(attest: QuoteAttest): Uint8Array {
  return new Uint8Array(
    Buffer.concat([
      encodeWire(u32, TPM_GENERATED),
      encodeWire(u16, ST_ATTEST_QUOTE),
      encodeWire(ATTEST_HEAD, attest),
      encodeWire(QUOTE_INFO, attest),
    ]),
  )
}

function hex(value: number): string {
  return `0x${value.toString(16)}`
}
