import { ParseError } from "../../errors.ts"
import { bytes, type LayoutValue, layout, u16, u32 } from "../layout.ts"
import { parsePem } from "../pem.ts"
import { SGX_REPORT, type SgxReport } from "../sgx/report.ts"

/**
 * What all of Intel's quotes have in common: the header before the body, and the signature data behind it.
 * Source: Intel TDX DCAP Quoting Library API, rev. 0.9, section A.3 "Version 4 Quote" and A.4 "Version 5 Quote";
 * Intel SGX ECDSA QuoteGenReference, rev. 1.23, appendix A "Version 3 Quote". Integers are little-endian.
 */

/** 48 bytes. The two SVNs are of version 3; revisions of the later versions call these bytes reserved. */
export const QUOTE_HEADER = layout("quote-header", 48, {
  version: u16(0),
  attestationKeyType: u16(2),
  teeType: u32(4),
  qeSvn: u16(8),
  pceSvn: u16(10),
  qeVendorId: bytes(12, 16),
  userData: bytes(28, 20),
})
export type QuoteHeader = LayoutValue<typeof QUOTE_HEADER.fields>

/** TEE types of the header. */
export const TEE_TYPE = { sgx: 0x00, tdx: 0x81 } as const

/** ECDSA with P-256 and SHA-256, the only attestation key type that Intel issues quotes with. */
const KEY_TYPE_ECDSA_P256 = 2

/** Kinds of certification data. Source: as above, table "QE Certification Data". */
const CERTIFICATION = { pckChain: 5, qeReport: 6 } as const

/** The largest quote that is looked at. Real ones have 5 KB; buffers for them are often 8 KB or 16 KB. */
export const MAX_QUOTE_BYTES = 128 * 1024
const MAX_CERTIFICATES = 8

/** The signature data of a quote. Byte strings are views. */
export interface QuoteSignature {
  /** r and s of the quote's ECDSA signature, 32 bytes each, big-endian. */
  readonly signature: Uint8Array
  /** x and y of the attestation key on P-256, 32 bytes each, big-endian. */
  readonly attestationKey: Uint8Array
  readonly qeReport: SgxReport
  /** The 384 bytes under `qeReportSignature`. */
  readonly qeReportBytes: Uint8Array
  /** r and s of the signature by the platform's PCK. */
  readonly qeReportSignature: Uint8Array
  /** Hashed together with the attestation key into the QE report. */
  readonly qeAuthData: Uint8Array
  /** The PEM text of the certificates as it stands in the quote, NULs at its end included. */
  readonly pckChain: Uint8Array
  /** DER of the certificates, in the order of the quote: PCK, its authority, the root. Nothing in them is verified. */
  readonly certificates: readonly Uint8Array[]
}

/** Reads from the front. Views, no copies; never past the end. */
class Reader {
  readonly #bytes: Uint8Array
  readonly #name: string
  #at = 0

  constructor(bytes: Uint8Array, name: string) {
    this.#bytes = bytes
    this.#name = name
  }

  take(size: number, what: string): Uint8Array {
    const found = this.#bytes.length - this.#at
    if (size > found)
      throw new ParseError("ERR_TRUNCATED", {
        at: `${this.#name}, ${what}`,
        expected: `${size} bytes`,
        found: `${found}`,
      })
    this.#at += size
    return this.#bytes.subarray(this.#at - size, this.#at)
  }

  uint(size: 2 | 4, what: string): number {
    return this.take(size, what).reduceRight((value, byte) => value * 256 + byte, 0)
  }

  rest(): Uint8Array {
    return this.#bytes.subarray(this.#at)
  }

  end(): void {
    if (this.rest().length !== 0)
      throw new ParseError("ERR_TRAILING_BYTES", {
        at: this.#name,
        expected: `${this.#at} bytes`,
        found: `${this.#bytes.length}`,
      })
  }
}

/** Where the parts of a quote are, before its body is understood. */
export interface QuoteParts {
  readonly header: QuoteHeader
  /** The body, with its type and size in version 5. */
  readonly afterHeader: Uint8Array
}

/**
 * Reads the header. What depends on the version is left to the caller.
 * @throws ParseError ERR_TRUNCATED, ERR_TOO_LARGE, ERR_UNSUPPORTED (attestation key type)
 */
export function parseQuoteHeader(quote: Uint8Array): QuoteParts {
  if (quote.length > MAX_QUOTE_BYTES)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "quote",
      expected: `at most ${MAX_QUOTE_BYTES} bytes`,
      found: `${quote.length}`,
    })
  const reader = new Reader(quote, "quote")
  const header = QUOTE_HEADER.parse(reader.take(QUOTE_HEADER.size, "header"))
  if (header.attestationKeyType !== KEY_TYPE_ECDSA_P256)
    throw unsupported(
      "attestation key type",
      `${KEY_TYPE_ECDSA_P256} (ECDSA P-256)`,
      header.attestationKeyType,
    )
  return { header, afterHeader: reader.rest() }
}

/**
 * Splits what follows the body: the size of the signature data, that many bytes, and padding. Quotes are handed around in
 * buffers that are larger than they are, so zeros may follow; they are no part of the quote and prove nothing. Any other
 * byte behind the declared end is refused, and so is a quote that ends before it.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES
 */
export function splitSignatureData(afterBody: Uint8Array): { data: Uint8Array; padding: number } {
  const reader = new Reader(afterBody, "quote")
  const data = reader.take(reader.uint(4, "signature data size"), "signature data")
  const padding = reader.rest()
  const stray = padding.findIndex((byte) => byte !== 0)
  if (stray >= 0)
    throw new ParseError("ERR_TRAILING_BYTES", {
      at: "quote, padding",
      expected: "zeros",
      found: `0x${(padding[stray] ?? 0).toString(16)} at ${stray} bytes behind the end`,
    })
  return { data, padding: padding.length }
}

/** Signature data of version 3: the QE's report stands in it directly. @throws ParseError */
export function parseSignatureData3(data: Uint8Array): QuoteSignature {
  const reader = new Reader(data, "quote signature")
  const own = parseOwn(reader)
  return { ...own, ...parseQeCertification(reader.rest()) }
}

/** Signature data of versions 4 and 5: the QE's report stands inside certification data of type 6. @throws ParseError */
export function parseSignatureData4(data: Uint8Array): QuoteSignature {
  const reader = new Reader(data, "quote signature")
  const own = parseOwn(reader)
  const inner = parseCertification(reader, CERTIFICATION.qeReport, "QE report")
  return { ...own, ...parseQeCertification(inner) }
}

function parseOwn(reader: Reader): Pick<QuoteSignature, "signature" | "attestationKey"> {
  return { signature: reader.take(64, "signature"), attestationKey: reader.take(64, "attestation key") }
}

function parseQeCertification(data: Uint8Array): Omit<QuoteSignature, "signature" | "attestationKey"> {
  const reader = new Reader(data, "QE certification data")
  const qeReportBytes = reader.take(SGX_REPORT.size, "QE report")
  const qeReportSignature = reader.take(64, "QE report signature")
  const qeAuthData = reader.take(reader.uint(2, "QE authentication data size"), "QE authentication data")
  const pckChain = parseCertification(reader, CERTIFICATION.pckChain, "PCK certificate chain")
  return {
    qeReport: SGX_REPORT.parse(qeReportBytes),
    qeReportBytes,
    qeReportSignature,
    qeAuthData,
    pckChain,
    certificates: parseChain(pckChain),
  }
}

/** Type, size, data, and then the end. Each kind is expected in one place only. */
function parseCertification(reader: Reader, expected: number, name: string): Uint8Array {
  const type = reader.uint(2, "certification data type")
  if (type !== expected) throw unsupported("certification data type", `${expected} (${name})`, type)
  const data = reader.take(reader.uint(4, "certification data size"), name)
  reader.end()
  return data
}

/** Intel's library counts a C string's NUL as part of the PEM text, others write several. */
function parseChain(pckChain: Uint8Array): Uint8Array[] {
  const size = pckChain.findLastIndex((byte) => byte !== 0) + 1
  const blocks = parsePem(Buffer.from(pckChain.subarray(0, size)).toString("latin1"))
  const certificates = blocks.filter(({ label }) => label === "CERTIFICATE")
  if (blocks.length > MAX_CERTIFICATES)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "PCK certificate chain",
      expected: `at most ${MAX_CERTIFICATES} certificates`,
      found: `${blocks.length}`,
    })
  return certificates.map(({ der }) => der)
}

/** Signature data from its parts, as {@link parseSignatureData4} reads it. */
export function encodeSignatureData4(parts: Omit<QuoteSignature, "qeReport" | "certificates">): Uint8Array {
  return concat(
    parts.signature,
    parts.attestationKey,
    certification(CERTIFICATION.qeReport, encodeQeCertification(parts)),
  )
}

/** Signature data from its parts, as {@link parseSignatureData3} reads it. */
export function encodeSignatureData3(parts: Omit<QuoteSignature, "qeReport" | "certificates">): Uint8Array {
  return concat(parts.signature, parts.attestationKey, encodeQeCertification(parts))
}

/** A quote from header, body (with type and size in version 5) and signature data. */
export function encodeQuote(header: QuoteHeader, body: Uint8Array, signatureData: Uint8Array): Uint8Array {
  return concat(QUOTE_HEADER.encode(header), body, unsigned(4, signatureData.length), signatureData)
}

function encodeQeCertification(parts: Omit<QuoteSignature, "qeReport" | "certificates">): Uint8Array {
  return concat(
    parts.qeReportBytes,
    parts.qeReportSignature,
    unsigned(2, parts.qeAuthData.length),
    parts.qeAuthData,
    certification(CERTIFICATION.pckChain, parts.pckChain),
  )
}

function certification(type: number, data: Uint8Array): Uint8Array {
  return concat(unsigned(2, type), unsigned(4, data.length), data)
}

/** Little-endian. */
export function unsigned(size: 2 | 4, value: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, index) => Math.floor(value / 256 ** index) % 256)
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

/** An error for a number that names something this program does not read. */
export function unsupported(what: string, expected: string, found: number): ParseError<"ERR_UNSUPPORTED"> {
  return new ParseError("ERR_UNSUPPORTED", { at: `quote, ${what}`, expected, found: `${found}` })
}
