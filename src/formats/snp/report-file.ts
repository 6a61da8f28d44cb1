import { ParseError } from "../../errors.ts"
import { parsePem } from "../pem.ts"
import { looksBincode, parseBincodeCertificates } from "./bincode-blob.ts"
import {
  certificateNameOf,
  parseCertificateTable,
  type SnpCertificateEntry,
  type SnpCertificateName,
} from "./certificate-table.ts"
import { parseLegacySnpBlob } from "./legacy-blob.ts"
import { SNP_REPORT_SIZE } from "./report.ts"

/** How a report and its certificates are put together in one file. */
export type SnpFileForm =
  | "report"
  | "report with certificate table"
  | "predecessor's blob"
  | "predecessor's library's blob"
  | "report with PEM"

/** A SEV-SNP report and what stands beside it in the same file. */
export interface SnpReportFile {
  readonly form: SnpFileForm
  /** ATTESTATION_REPORT, 1184 bytes; not looked at. */
  readonly report: Uint8Array
  /** What the host gave: hints, never anchors. */
  readonly certificates: readonly {
    readonly name: SnpCertificateName | "other"
    /** Null where the form has none. */
    readonly guid: string | null
    readonly der: Uint8Array
  }[]
}

/** A list of certificates in the predecessor's blob, or in Cocos' and ours, is far below this. */
const MAX_LEGACY_COUNT = 16
const PEM_BEGINS = Buffer.from("-----BEGIN ")

/**
 * Reads a file that begins with a SEV-SNP report: the report alone, or followed by the certificate table of
 * SNP_GET_EXT_REPORT, by the predecessor's list, or by PEM.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE, ERR_MALFORMED
 */
export function parseSnpReportFile(bytes: Uint8Array): SnpReportFile {
  const report = bytes.subarray(0, SNP_REPORT_SIZE)
  const rest = bytes.subarray(SNP_REPORT_SIZE)
  if (report.length < SNP_REPORT_SIZE)
    throw new ParseError("ERR_TRUNCATED", {
      at: "snp-report",
      expected: `${SNP_REPORT_SIZE} bytes`,
      found: `${report.length}`,
    })
  if (rest.length === 0) return { form: "report", report, certificates: [] }
  if (startsWith(rest, PEM_BEGINS)) {
    const blocks = parsePem(Buffer.from(rest).toString("latin1"))
    const certificates = blocks.map(({ der }) => ({ name: "other" as const, guid: null, der }))
    return { form: "report with PEM", report, certificates }
  }
  const [form, entries] = entriesOf(bytes, rest)
  return {
    form,
    report,
    certificates: entries.map(({ guid, der }) => ({ name: certificateNameOf(guid), guid, der })),
  }
}

function entriesOf(bytes: Uint8Array, rest: Uint8Array): readonly [SnpFileForm, SnpCertificateEntry[]] {
  if (looksBincode(rest)) return ["predecessor's library's blob", parseBincodeCertificates(rest)]
  if (looksLegacy(rest)) return ["predecessor's blob", parseLegacySnpBlob(bytes).certificates]
  return ["report with certificate table", tableOf(rest)]
}

/** A table begins with a GUID, and no known GUID reads as a count of certificates followed by a length that fits. */
function looksLegacy(rest: Uint8Array): boolean {
  if (rest.length < 4) return false
  const view = new DataView(rest.buffer, rest.byteOffset, rest.byteLength)
  const count = view.getUint32(0, true)
  if (count === 0) return rest.length === 4
  return count <= MAX_LEGACY_COUNT && rest.length >= 8 && view.getUint32(4, true) <= rest.length - 8
}

/** What is neither zero nor a table is something behind a report that does not belong there. */
function tableOf(rest: Uint8Array): ReturnType<typeof parseCertificateTable> {
  const entries = parseCertificateTable(rest)
  if (entries.length > 0 || rest.every((byte) => byte === 0)) return entries
  throw new ParseError("ERR_TRAILING_BYTES", {
    at: "snp-report",
    expected: `${SNP_REPORT_SIZE} bytes, or certificates behind them`,
    found: `${rest.length} more bytes`,
  })
}

function startsWith(bytes: Uint8Array, beginning: Uint8Array): boolean {
  return Buffer.compare(bytes.subarray(0, beginning.length), beginning) === 0
}
