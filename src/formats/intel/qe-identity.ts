import {
  type DocumentDates,
  hexBytes,
  oneOf,
  parseDates,
  parseDocument,
  parseSvnLevels,
  type SvnLevel,
} from "./document.ts"

/** Which quoting enclave is Intel's: the signed `enclaveIdentity` object, version 2. Nothing in it is verified. */
export interface QeIdentity extends DocumentDates {
  /** `QE` makes SGX quotes, `TD_QE` makes TDX quotes, `QVE` verifies quotes. */
  readonly id: "QE" | "TD_QE" | "QVE"
  /** 4 bytes, in the order of the report. */
  readonly miscSelect: Uint8Array
  readonly miscSelectMask: Uint8Array
  /** 16 bytes. */
  readonly attributes: Uint8Array
  readonly attributesMask: Uint8Array
  /** 32 bytes. */
  readonly mrSigner: Uint8Array
  readonly isvProdId: number
  /** In the order of the document: the newest first. */
  readonly levels: readonly SvnLevel[]
}

/**
 * Reads the exact bytes of an `enclaveIdentity` object. Source: Intel PCS API, version 4, "Get Quoting Enclave Identity",
 * model V2.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_DUPLICATE_KEY, ERR_TOO_LARGE, ERR_UNSUPPORTED
 */
export function parseQeIdentity(bytes: Uint8Array): QeIdentity {
  const record = parseDocument("QE identity", bytes, 2)
  return {
    id: oneOf(record, "id", ["QE", "TD_QE", "QVE"]),
    ...parseDates(record),
    miscSelect: hexBytes(record, "miscselect", 4),
    miscSelectMask: hexBytes(record, "miscselectMask", 4),
    attributes: hexBytes(record, "attributes", 16),
    attributesMask: hexBytes(record, "attributesMask", 16),
    mrSigner: hexBytes(record, "mrsigner", 32),
    isvProdId: record.count("isvprodid", 0xffff),
    levels: parseSvnLevels(record),
  }
}
