import { ParseError } from "../../errors.ts"
import {
  guidToText,
  MAX_CERTIFICATE_TABLE,
  MAX_SNP_CERTIFICATES,
  type SnpCertificateEntry,
} from "./certificate-table.ts"

const GUID_SIZE = 16
/** Kind (u32), length of the GUID (u64), the GUID, length of the certificate (u64). */
const HEADER_SIZE = 4 + 8 + GUID_SIZE + 8

/** Whether what follows a report is certificates in the form of {@link parseBincodeCertificates}. */
export function looksBincode(rest: Uint8Array): boolean {
  if (rest.length < 8 + HEADER_SIZE) return false
  const view = viewOf(rest)
  const count = view.getBigUint64(0, true)
  return count > 0n && count <= BigInt(MAX_SNP_CERTIFICATES) && view.getBigUint64(12, true) === 16n
}

/**
 * Certificates as older versions of the predecessor's library write them behind a report: their number (u64), and for each a
 * number for its kind (u32), its GUID and its DER, both with their length (u64) before them. Integers are little-endian.
 * Source: files of Cosmian tee-tools, which serialises `CertTableEntry` of the crate sev by bincode.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE, ERR_MALFORMED
 */
export function parseBincodeCertificates(rest: Uint8Array): SnpCertificateEntry[] {
  const view = viewOf(rest)
  const place = "certificates after the report"
  const need = (end: number) => {
    if (end > rest.length)
      throw new ParseError("ERR_TRUNCATED", { at: place, expected: `${end} bytes`, found: `${rest.length}` })
  }
  need(8)
  const count = view.getBigUint64(0, true)
  if (count > BigInt(MAX_SNP_CERTIFICATES)) throw tooLarge(place, MAX_SNP_CERTIFICATES, count)
  const certificates: SnpCertificateEntry[] = []
  let at = 8
  for (let index = 0; index < Number(count); index++) {
    need(at + HEADER_SIZE)
    const guidSize = view.getBigUint64(at + 4, true)
    if (guidSize !== BigInt(GUID_SIZE))
      throw new ParseError("ERR_MALFORMED", {
        at: place,
        expected: "a GUID of 16 bytes",
        found: `${guidSize}`,
      })
    const guid = guidToText(rest.subarray(at + 12, at + 12 + GUID_SIZE))
    const size = view.getBigUint64(at + 12 + GUID_SIZE, true)
    if (size > BigInt(MAX_CERTIFICATE_TABLE)) throw tooLarge(place, MAX_CERTIFICATE_TABLE, size)
    const start = at + HEADER_SIZE
    at = start + Number(size)
    need(at)
    certificates.push({ guid, der: rest.subarray(start, at) })
  }
  if (at !== rest.length)
    throw new ParseError("ERR_TRAILING_BYTES", {
      at: place,
      expected: `${at} bytes`,
      found: `${rest.length}`,
    })
  return certificates
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function tooLarge(at: string, limit: number, found: bigint): ParseError {
  return new ParseError("ERR_TOO_LARGE", { at, expected: `at most ${limit}`, found: `${found}` })
}
