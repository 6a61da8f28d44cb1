import { ParseError } from "../../errors.ts"
import { bytes, layout, u32, zero } from "../layout.ts"
import { parseSnpReport, SNP_REPORT_SIZE } from "../snp/report.ts"
import { parseRuntimeClaims, type RuntimeClaims } from "./runtime-claims.ts"
import { isTdReport, parseTdReport, TD_REPORT_SIZE } from "./td-report.ts"

/** "HCLA" */
const SIGNATURE = 0x414c_4348
/** Room for a hardware report: the larger of the two kinds. A TDREPORT is followed by zeros. */
const REPORT_ROOM = SNP_REPORT_SIZE
/** What the structure was made for: the certificate of the attestation key. The one kind that guests get to see. */
const REQUEST_AK_CERTIFICATE = 2
/** The NV index has 2600 bytes today and had 2048; the rest is zero. */
const MAX_HCL_REPORT = 8192

/**
 * Azure's paravisor (HCL, OpenHCL) keeps this in NV index 0x01400001 of the virtual TPM: a header, the hardware report, the
 * request data, the runtime claims. Integers are little-endian; nothing but hardware report and claims is measured.
 * Source: OpenHCL, openhcl_attestation_protocol, `IgvmAttestRequestHeader` (32 bytes) and `IgvmAttestRequestData` (20).
 */
const HEADER = layout("HCL header", 32, {
  signature: u32(0),
  version: u32(4),
  reportSize: u32(8), // of all that follows the header's start, without padding
  requestType: u32(12),
  status: u32(16),
  _reserved: zero(20, 12),
})
const REQUEST_DATA = layout("HCL request data", 20, {
  dataSize: u32(0), // of this structure and the claims
  version: u32(4),
  reportType: u32(8),
  hashType: u32(12),
  variableDataSize: u32(16), // of the claims
})
const FRAME = layout("HCL report", HEADER.size + REPORT_ROOM + REQUEST_DATA.size, {
  header: bytes(0, HEADER.size),
  hardwareReport: bytes(HEADER.size, REPORT_ROOM),
  requestData: bytes(HEADER.size + REPORT_ROOM, REQUEST_DATA.size),
})

/** IgvmAttestReportType: those of the kinds that exist on confidential hardware and are understood. */
const REPORT_TYPES = { snp: 2, tdx: 4 } as const
export type HclKind = keyof typeof REPORT_TYPES

/** IgvmAttestHashType. */
const HASH_TYPES = { sha256: 1, sha384: 2, sha512: 3 } as const
export type HclHash = keyof typeof HASH_TYPES

/** An HCL report whose claims have not been looked at: whose they are is not known before their hash is checked. */
export interface HclEnvelope {
  /** Which hardware report it holds: by its header and by the report itself. */
  readonly kind: HclKind
  /** Of the header: 1 or 2. */
  readonly version: number
  /** ATTESTATION_REPORT (1184 bytes) or TDREPORT (1024 bytes). */
  readonly hardwareReport: Uint8Array
  /** The hardware report's report data: 64 bytes. */
  readonly reportData: Uint8Array
  /** Hash over the claims that the report data is said to begin with. */
  readonly hash: HclHash
  /** The exact bytes of the claims: what the hash is over. */
  readonly runtimeData: Uint8Array
}

/** An HCL report with its claims. */
export interface HclReport extends HclEnvelope {
  readonly claims: RuntimeClaims
}

/**
 * Reads an HCL report, claims included. Structure only.
 * @throws ParseError as parseHclEnvelope and parseRuntimeClaims
 */
export function parseHclReport(blob: Uint8Array): HclReport {
  const envelope = parseHclEnvelope(blob)
  return { ...envelope, claims: parseRuntimeClaims(envelope.runtimeData) }
}

/**
 * Reads an HCL report without its claims. Each size that is written in it has to agree with the others, the padding after
 * it has to be zero, and the hardware report has to be of the kind that the request data names.
 * @throws ParseError ERR_HCL_SIGNATURE, ERR_HCL_REPORT_TYPE, ERR_UNSUPPORTED, ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES,
 *   ERR_TOO_LARGE, ERR_RESERVED_NOT_ZERO
 */
export function parseHclEnvelope(blob: Uint8Array): HclEnvelope {
  const { header, request, room } = parseFrame(blob)
  const size = request.variableDataSize
  const end = FRAME.size + size
  if (end > blob.length)
    throw new ParseError("ERR_TRUNCATED", {
      at: "HCL report, runtime data",
      expected: `${end} bytes`,
      found: `${blob.length}`,
    })
  agree("HCL request data, dataSize", request.dataSize, REQUEST_DATA.size + size)
  agree("HCL header, reportSize", header.reportSize, end)
  if (blob.subarray(end).some((byte) => byte !== 0))
    throw new ParseError("ERR_TRAILING_BYTES", {
      at: "HCL report",
      expected: `zeros after byte ${end}`,
      found: "others",
    })
  return {
    ...parseHardwareReport(room, request.reportType),
    version: header.version,
    hash: hashOf(request.hashType),
    runtimeData: blob.subarray(FRAME.size, end),
  }
}

/** Whether these bytes begin as an HCL report does. */
export function isHclReport(blob: Uint8Array): boolean {
  return blob.length >= 4 && HEADER.fields.signature.read(blob, "HCL header") === SIGNATURE
}

function parseFrame(blob: Uint8Array) {
  if (blob.length > MAX_HCL_REPORT)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "HCL report",
      expected: `at most ${MAX_HCL_REPORT} bytes`,
      found: `${blob.length}`,
    })
  // Bytes of another kind are told so before their length is.
  if (blob.length >= 4 && !isHclReport(blob))
    throw new ParseError("ERR_HCL_SIGNATURE", {
      at: "HCL header",
      expected: '"HCLA"',
      found: `0x${Buffer.from(blob.subarray(0, 4)).toString("hex")}`,
    })
  const frame = FRAME.parse(blob.subarray(0, FRAME.size))
  const header = HEADER.parse(frame.header)
  const request = REQUEST_DATA.parse(frame.requestData)
  supported("HCL header, version", header.version, [1, 2])
  supported("HCL header, requestType", header.requestType, [REQUEST_AK_CERTIFICATE])
  agree("HCL header, status", header.status, 0)
  // Version 2 of the request data has more in front of the claims, and is not what guests get to see.
  supported("HCL request data, version", request.version, [1])
  return { header, request, room: frame.hardwareReport }
}

/** The type is written outside of what the hardware signs, so the report itself has to say the same. */
function parseHardwareReport(
  room: Uint8Array,
  reportType: number,
): Pick<HclEnvelope, "kind" | "hardwareReport" | "reportData"> {
  const named = reportType === REPORT_TYPES.snp ? "snp" : reportType === REPORT_TYPES.tdx ? "tdx" : null
  if (named === null)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "HCL request data, reportType",
      expected: "2 (SEV-SNP) or 4 (TDX)",
      found: `${reportType}`,
    })
  // An SNP report begins with its version, which no processor will count up to a TDREPORT's type.
  const kind = isTdReport(room) ? "tdx" : "snp"
  if (kind !== named)
    throw new ParseError("ERR_HCL_REPORT_TYPE", {
      at: "HCL request data, reportType",
      expected: `${REPORT_TYPES[kind]} for the ${kind === "snp" ? "SEV-SNP" : "TDX"} report that follows the header`,
      found: `${reportType}`,
    })
  if (kind === "snp") return { kind, hardwareReport: room, reportData: parseSnpReport(room).reportData }
  const hardwareReport = room.subarray(0, TD_REPORT_SIZE)
  if (room.subarray(TD_REPORT_SIZE).some((byte) => byte !== 0))
    throw new ParseError("ERR_RESERVED_NOT_ZERO", { at: "HCL report, behind the TDREPORT", expected: "0" })
  return { kind, hardwareReport, reportData: parseTdReport(hardwareReport).reportData }
}

function hashOf(hashType: number): HclHash {
  for (const hash of ["sha256", "sha384", "sha512"] as const) if (HASH_TYPES[hash] === hashType) return hash
  throw new ParseError("ERR_UNSUPPORTED", {
    at: "HCL request data, hashType",
    expected: "1 (SHA-256), 2 (SHA-384) or 3 (SHA-512)",
    found: `${hashType}`,
  })
}

function supported(at: string, found: number, expected: readonly number[]): void {
  if (!expected.includes(found))
    throw new ParseError("ERR_UNSUPPORTED", { at, expected: expected.join(" or "), found: `${found}` })
}

function agree(at: string, found: number, expected: number): void {
  if (found !== expected)
    throw new ParseError("ERR_MALFORMED", { at, expected: `${expected}`, found: `${found}` })
}

/**
 * Bytes of an HCL report, padded with zeros to `size`. The inverse of {@link parseHclEnvelope}, for tests and simulations.
 * @throws ParseError ERR_MALFORMED where something does not fit
 */
export function encodeHclReport(
  { kind, version, hardwareReport, hash, runtimeData }: Omit<HclEnvelope, "reportData">,
  size: number,
): Uint8Array {
  const room = new Uint8Array(REPORT_ROOM)
  if (hardwareReport.length > room.length || FRAME.size + runtimeData.length > size)
    throw new ParseError("ERR_MALFORMED", { at: "HCL report", found: "parts that do not fit" })
  room.set(hardwareReport)
  const blob = new Uint8Array(size)
  blob.set(
    FRAME.encode({
      header: HEADER.encode({
        signature: SIGNATURE,
        version,
        reportSize: FRAME.size + runtimeData.length,
        requestType: REQUEST_AK_CERTIFICATE,
        status: 0,
      }),
      hardwareReport: room,
      requestData: REQUEST_DATA.encode({
        dataSize: REQUEST_DATA.size + runtimeData.length,
        version: 1,
        reportType: REPORT_TYPES[kind],
        hashType: HASH_TYPES[hash],
        variableDataSize: runtimeData.length,
      }),
    }),
  )
  blob.set(runtimeData, FRAME.size)
  return blob
}
