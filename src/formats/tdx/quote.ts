import { ParseError } from "../../errors.ts"
import {
  encodeQuote,
  encodeSignatureData4,
  parseQuoteHeader,
  parseSignatureData4,
  QUOTE_HEADER,
  type QuoteHeader,
  type QuoteSignature,
  splitSignatureData,
  TEE_TYPE,
  unsigned,
  unsupported,
} from "../intel/quote.ts"
import { type BodyVersion, parseTdBody, TD_BODY, type TdBody } from "./body.ts"

/** A TDX quote of version 4 or 5. Nothing in it is verified. */
export interface TdxQuote {
  readonly header: QuoteHeader
  readonly body: TdBody
  readonly signature: QuoteSignature
  /** The bytes under the quote's signature: header, the body's type and size in version 5, body. */
  readonly signedBytes: Uint8Array
  /** The quote's own bytes, without padding. */
  readonly raw: Uint8Array
  /** Zeros behind the quote, in bytes. */
  readonly padding: number
}

/** Body types of version 5. Source: Intel TDX DCAP Quoting Library API, rev. 0.9, section A.4. */
const BODY_TYPES: ReadonlyMap<number, BodyVersion> = new Map([
  [2, "1.0"],
  [3, "1.5"],
])

/**
 * Reads a TDX quote. Zeros may follow its end (`padding`), nothing else; each size inside it has to come out even.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE, ERR_RESERVED_NOT_ZERO, ERR_MALFORMED (PEM),
 *   ERR_UNSUPPORTED (version, TEE type, body type, attestation key type, certification data type)
 */
export function parseTdxQuote(quote: Uint8Array): TdxQuote {
  const { header, afterHeader } = parseQuoteHeader(quote)
  if (header.version !== 4 && header.version !== 5) throw unsupported("version", "4 or 5", header.version)
  if (header.teeType !== TEE_TYPE.tdx) throw unsupported("TEE type", `${TEE_TYPE.tdx} (TDX)`, header.teeType)
  const { version, start, end } = locateBody(header.version, afterHeader)
  const { data, padding } = splitSignatureData(afterHeader.subarray(end))
  return {
    header,
    body: parseTdBody(afterHeader.subarray(start, end), version),
    signature: parseSignatureData4(data),
    signedBytes: quote.subarray(0, QUOTE_HEADER.size + end),
    raw: quote.subarray(0, quote.length - padding),
    padding,
  }
}

/** The bytes of a quote, without padding. */
export function encodeTdxQuote(quote: Pick<TdxQuote, "header" | "body" | "signature">): Uint8Array {
  const { header, body, signature } = quote
  const [type = 0] = [...BODY_TYPES].find(([, version]) => version === body.version) ?? []
  const descriptor = header.version === 4 ? [] : [unsigned(2, type), unsigned(4, TD_BODY[body.version].size)]
  return encodeQuote(header, Buffer.concat([...descriptor, body.raw]), encodeSignatureData4(signature))
}

interface BodyPlace {
  readonly version: BodyVersion
  /** Offsets behind the header. */
  readonly start: number
  readonly end: number
}

/** Version 4 has a body of TDX 1.0 always; version 5 says which one it has, and how long that is. */
function locateBody(quoteVersion: 4 | 5, afterHeader: Uint8Array): BodyPlace {
  if (quoteVersion === 4) return placed("1.0", 0, afterHeader)
  if (afterHeader.length < 6)
    throw new ParseError("ERR_TRUNCATED", {
      at: "quote, body type and size",
      expected: "6 bytes",
      found: `${afterHeader.length}`,
    })
  const view = new DataView(afterHeader.buffer, afterHeader.byteOffset, 6)
  const type = view.getUint16(0, true)
  const version = BODY_TYPES.get(type)
  if (version === undefined) throw unsupported("body type", "2 (TDX 1.0) or 3 (TDX 1.5)", type)
  const size = view.getUint32(2, true)
  if (size !== TD_BODY[version].size)
    throw new ParseError("ERR_MALFORMED", {
      at: "quote, body size",
      expected: `${TD_BODY[version].size} bytes`,
      found: `${size}`,
    })
  return placed(version, 6, afterHeader)
}

function placed(version: BodyVersion, start: number, afterHeader: Uint8Array): BodyPlace {
  const end = start + TD_BODY[version].size
  if (afterHeader.length < end)
    throw new ParseError("ERR_TRUNCATED", {
      at: "quote, body",
      expected: `${end} bytes`,
      found: `${afterHeader.length}`,
    })
  return { version, start, end }
}
