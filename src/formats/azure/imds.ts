import { ParseError } from "../../errors.ts"
import { fromHex } from "../hex.ts"
import { parsePem } from "../pem.ts"
import { type JsonRecord, parseJsonRecord } from "../strict-json.ts"
import { TD_REPORT_SIZE } from "./td-report.ts"

/** Azure's metadata service: a link-local address that each VM reaches and nobody else. */
export const IMDS_URL = "http://169.254.169.254"
/** Longest answer of the metadata service that is read: certificates are some 6 kB, a quote is 7 kB. */
export const MAX_IMDS_ANSWER = 256 * 1024
const MAX_CERTIFICATES = 8
const MAX_QUOTE = 64 * 1024

/** Certificates for the SEV-SNP report of this VM, as Azure's cache gives them. Hints: they are verified like any others. */
export interface ThimCertificates {
  /** DER. */
  readonly vcek: Uint8Array
  /** DER of ASK and ARK, in the order given. */
  readonly chain: readonly Uint8Array[]
  /** The TCB that the VCEK is for, in the byte order of a report's TCB_VERSION; null where it is not said. */
  readonly tcb: Uint8Array | null
}

/**
 * Reads the answer to `GET /metadata/THIM/amd/certification`: `{"vcekCert": PEM, "tcbm": "DB18000000000004",
 * "certificateChain": PEM, "cacheControl": …}`. Members that are not known are passed over: the service is not ours.
 * Source: Microsoft, "Trusted Hardware Identity Management", section "How do I request collateral in a confidential VM".
 * @throws ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY, ERR_TOO_LARGE, ERR_TRUNCATED, ERR_TRAILING_BYTES
 */
export function parseThimCertificates(answer: Uint8Array): ThimCertificates {
  const root = parseJsonRecord("THIM certificates", answer, MAX_IMDS_ANSWER)
  const [vcek, ...others] = certificates(root, "vcekCert")
  if (vcek === undefined || others.length > 0)
    throw new ParseError("ERR_MALFORMED", {
      at: root.place("vcekCert"),
      expected: "one certificate",
      found: `${others.length + (vcek === undefined ? 0 : 1)}`,
    })
  return { vcek, chain: certificates(root, "certificateChain"), tcb: parseTcbm(root) }
}

function certificates(root: JsonRecord, name: string): Uint8Array[] {
  const blocks = parsePem(root.string(name))
  if (blocks.length > MAX_CERTIFICATES)
    throw new ParseError("ERR_TOO_LARGE", {
      at: root.place(name),
      expected: `at most ${MAX_CERTIFICATES} certificates`,
      found: `${blocks.length}`,
    })
  return blocks.map(({ label, der }) => {
    if (label === "CERTIFICATE") return der
    throw new ParseError("ERR_MALFORMED", { at: root.place(name), expected: "certificates", found: label })
  })
}

/** The TCB as one number in hex, most significant byte first. */
function parseTcbm(root: JsonRecord): Uint8Array | null {
  const text = root.stringOrNull("tcbm")
  if (text === null) return null
  const number = fromHex(text)
  if (number?.length === 8) return number.toReversed()
  throw new ParseError("ERR_MALFORMED", {
    at: root.place("tcbm"),
    expected: "16 hex digits",
    found: `${text.length} characters`,
  })
}

/**
 * Body of `POST /acc/tdquote`: asks for a quote over this report.
 * @param tdReport TDREPORT, 1024 bytes. @throws ParseError ERR_MALFORMED
 */
export function encodeTdQuoteRequest(tdReport: Uint8Array): string {
  if (tdReport.length !== TD_REPORT_SIZE)
    throw new ParseError("ERR_MALFORMED", {
      at: "TDREPORT",
      expected: `${TD_REPORT_SIZE} bytes`,
      found: `${tdReport.length}`,
    })
  return JSON.stringify({ report: Buffer.from(tdReport).toString("base64url") })
}

/**
 * Reads the answer to `POST /acc/tdquote`: `{"quote": base64url}`.
 * @returns the TDX quote; the service fills it up with zeros.
 * @throws ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY, ERR_TOO_LARGE, ERR_TRUNCATED, ERR_TRAILING_BYTES
 */
export function parseTdQuoteAnswer(answer: Uint8Array): Uint8Array {
  const root = parseJsonRecord("TD quote", answer, MAX_IMDS_ANSWER)
  const text = root.string("quote").replace(/={1,2}$/, "")
  const quote = Buffer.from(text, "base64url")
  if (quote.length === 0 || quote.length > MAX_QUOTE || quote.toString("base64url") !== text)
    throw new ParseError("ERR_MALFORMED", {
      at: root.place("quote"),
      expected: `base64url of 1 to ${MAX_QUOTE} bytes`,
      found: `${text.length} characters`,
    })
  return Uint8Array.from(quote)
}
