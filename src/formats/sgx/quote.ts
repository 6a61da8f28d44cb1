import { ParseError } from "../../errors.ts"
import {
  encodeQuote,
  encodeSignatureData3,
  parseQuoteHeader,
  parseSignatureData3,
  QUOTE_HEADER,
  type QuoteHeader,
  type QuoteSignature,
  splitSignatureData,
  TEE_TYPE,
  unsupported,
} from "../intel/quote.ts"
import { SGX_REPORT, type SgxReport } from "./report.ts"

/** An SGX quote of version 3. Nothing in it is verified. */
export interface SgxQuote {
  readonly header: QuoteHeader
  /** The enclave's report. */
  readonly body: SgxReport
  readonly bodyBytes: Uint8Array
  readonly signature: QuoteSignature
  /** The bytes under the quote's signature: header and body. */
  readonly signedBytes: Uint8Array
  /** The quote's own bytes, without padding. */
  readonly raw: Uint8Array
  /** Zeros behind the quote, in bytes. */
  readonly padding: number
}

/**
 * Reads an SGX quote. Zeros may follow its end (`padding`), nothing else; each size inside it has to come out even.
 * Source: Intel SGX ECDSA QuoteGenReference, rev. 1.23, appendix A "Version 3 Quote".
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE, ERR_RESERVED_NOT_ZERO, ERR_MALFORMED (PEM),
 *   ERR_UNSUPPORTED (version, TEE type, attestation key type, certification data type)
 */
export function parseSgxQuote(quote: Uint8Array): SgxQuote {
  const { header, afterHeader } = parseQuoteHeader(quote)
  if (header.version !== 3) throw unsupported("version", "3", header.version)
  // In version 3 these four bytes are reserved, which is the same as the later versions' type of SGX.
  if (header.teeType !== TEE_TYPE.sgx) throw unsupported("TEE type", `${TEE_TYPE.sgx} (SGX)`, header.teeType)
  if (afterHeader.length < SGX_REPORT.size)
    throw new ParseError("ERR_TRUNCATED", {
      at: "quote, body",
      expected: `${SGX_REPORT.size} bytes`,
      found: `${afterHeader.length}`,
    })
  const bodyBytes = afterHeader.subarray(0, SGX_REPORT.size)
  const { data, padding } = splitSignatureData(afterHeader.subarray(SGX_REPORT.size))
  return {
    header,
    body: SGX_REPORT.parse(bodyBytes),
    bodyBytes,
    signature: parseSignatureData3(data),
    signedBytes: quote.subarray(0, QUOTE_HEADER.size + SGX_REPORT.size),
    raw: quote.subarray(0, quote.length - padding),
    padding,
  }
}

/** The bytes of a quote, without padding. */
export function encodeSgxQuote(quote: Pick<SgxQuote, "header" | "bodyBytes" | "signature">): Uint8Array {
  return encodeQuote(quote.header, quote.bodyBytes, encodeSignatureData3(quote.signature))
}
