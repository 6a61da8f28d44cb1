import { ParseError } from "../../errors.ts"
import {
  guidToBytes,
  guidToText,
  MAX_CERTIFICATE_TABLE,
  MAX_SNP_CERTIFICATES,
  type SnpCertificateEntry,
} from "./certificate-table.ts"
import { SNP_REPORT_SIZE } from "./report.ts"

const GUID_SIZE = 16

/**
 * The predecessor's form of a SEV-SNP quote, answered on `/quote/tee`: the report (1184 bytes), the number of certificates
 * (u32), and for each its length (u32; counts the GUID too), its GUID (16) and its DER. Integers are little-endian.
 * Source: answers of Cosmian VM 1.3.
 * @throws ParseError ERR_MALFORMED where `report` is not 1184 bytes, ERR_TOO_LARGE
 */
export function encodeLegacySnpBlob(
  report: Uint8Array,
  certificates: readonly SnpCertificateEntry[],
): Uint8Array {
  if (report.length !== SNP_REPORT_SIZE)
    throw new ParseError("ERR_MALFORMED", {
      at: "snp-report",
      expected: `${SNP_REPORT_SIZE} bytes`,
      found: `${report.length}`,
    })
  if (certificates.length > MAX_SNP_CERTIFICATES)
    throw tooLarge(`${MAX_SNP_CERTIFICATES} certificates`, certificates.length)
  const size = certificates.reduce((sum, { der }) => sum + 4 + GUID_SIZE + der.length, SNP_REPORT_SIZE + 4)
  const blob = new Uint8Array(size)
  const view = new DataView(blob.buffer)
  blob.set(report)
  view.setUint32(SNP_REPORT_SIZE, certificates.length, true)
  let at = SNP_REPORT_SIZE + 4
  for (const { guid, der } of certificates) {
    view.setUint32(at, GUID_SIZE + der.length, true)
    blob.set(guidToBytes(guid), at + 4)
    blob.set(der, at + 4 + GUID_SIZE)
    at += 4 + GUID_SIZE + der.length
  }
  return blob
}

/**
 * Reads the predecessor's form. The report's own fields are not looked at.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE, ERR_MALFORMED
 */
export function parseLegacySnpBlob(blob: Uint8Array): {
  report: Uint8Array
  certificates: SnpCertificateEntry[]
} {
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength)
  const need = (end: number) => {
    if (end > blob.length)
      throw new ParseError("ERR_TRUNCATED", {
        at: "SNP quote",
        expected: `${end} bytes`,
        found: `${blob.length}`,
      })
  }
  need(SNP_REPORT_SIZE + 4)
  const count = view.getUint32(SNP_REPORT_SIZE, true)
  if (count > MAX_SNP_CERTIFICATES) throw tooLarge(`${MAX_SNP_CERTIFICATES} certificates`, count)
  const certificates: SnpCertificateEntry[] = []
  let at = SNP_REPORT_SIZE + 4
  for (let index = 0; index < count; index++) {
    need(at + 4)
    const length = view.getUint32(at, true)
    if (length <= GUID_SIZE)
      throw new ParseError("ERR_MALFORMED", {
        at: `SNP quote, certificate ${index}`,
        expected: `more than ${GUID_SIZE} bytes`,
        found: `${length}`,
      })
    if (length > MAX_CERTIFICATE_TABLE) throw tooLarge(`${MAX_CERTIFICATE_TABLE} bytes`, length)
    need(at + 4 + length)
    const der = blob.subarray(at + 4 + GUID_SIZE, at + 4 + length)
    certificates.push({ guid: guidToText(blob.subarray(at + 4, at + 4 + GUID_SIZE)), der })
    at += 4 + length
  }
  if (at !== blob.length)
    throw new ParseError("ERR_TRAILING_BYTES", {
      at: "SNP quote",
      expected: `${at} bytes`,
      found: `${blob.length}`,
    })
  return { report: blob.subarray(0, SNP_REPORT_SIZE), certificates }
}

function tooLarge(limit: string, found: number): ParseError {
  return new ParseError("ERR_TOO_LARGE", {
    at: "SNP quote",
    expected: `at most ${limit}`,
    found: `${found}`,
  })
}
