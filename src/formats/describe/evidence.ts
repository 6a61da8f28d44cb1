import { ParseError } from "../../errors.ts"
import { isHclReport } from "../azure/hcl.ts"
import { TEE_TYPE } from "../intel/quote.ts"
import { parsePem } from "../pem.ts"
import { parseSnpReportFile } from "../snp/report-file.ts"
import { parseJsonRecord } from "../strict-json.ts"
import { TPM_GENERATED } from "../tpm/attest.ts"
import { inside, single, TAG } from "../x509/der.ts"
import { describeHcl } from "./azure.ts"
import { describeCertificate, describeCrl } from "./certificates.ts"
import { describeAsciiList, describeBinaryList } from "./ima.ts"
import { describeCollateral, describeSgxQuote, describeTdxQuote } from "./intel.ts"
import type { ShownRecord } from "./shown.ts"
import { describeSnpFile } from "./snp.ts"
import { describeAttest } from "./tpm.ts"

/** What a file can be, with its name for people and what shows it. */
const KINDS = {
  "snp-report": {
    title: "SEV-SNP attestation report",
    describe: (b) => describeSnpFile(parseSnpReportFile(b)),
  },
  "tdx-quote": { title: "TDX quote", describe: describeTdxQuote },
  "sgx-quote": { title: "SGX quote", describe: describeSgxQuote },
  "hcl-report": { title: "Azure HCL report", describe: describeHcl },
  "tpm-attest": { title: "TPM quote (TPMS_ATTEST)", describe: describeAttest },
  "ima-binary": { title: "IMA measurement list", describe: describeBinaryList },
  "ima-ascii": { title: "IMA measurement list (text)", describe: describeAsciiList },
  certificate: { title: "X.509 certificate", describe: describeCertificate },
  "certificate-chain": { title: "X.509 certificates (PEM)", describe: describeCertificates },
  crl: { title: "X.509 certificate revocation list", describe: (b) => describeCrl(derOf(b)) },
  "intel-collateral": { title: "Intel collateral", describe: describeCollateral },
} as const satisfies Record<string, { title: string; describe: (bytes: Uint8Array) => ShownRecord }>

export type EvidenceFileKind = keyof typeof KINDS

/** A file of evidence or endorsements, decoded. Nothing in it is verified. */
export interface DescribedFile {
  readonly kind: EvidenceFileKind
  readonly title: string
  readonly fields: ShownRecord
}

/** Larger documents in JSON are refused before they are looked into. */
const MAX_JSON = 8 * 1024 * 1024

/**
 * Finds out by its structure what a file is, and decodes it.
 * @throws ParseError ERR_UNSUPPORTED where it is nothing known, and whatever the decoder of its kind throws
 */
export function describeEvidence(bytes: Uint8Array): DescribedFile {
  const kind = detectEvidence(bytes)
  const { title, describe } = KINDS[kind]
  return { kind, title, fields: describe(bytes) }
}

/** What a file is, by its first bytes and its inner structure; its name plays no part. @throws ParseError ERR_UNSUPPORTED */
export function detectEvidence(bytes: Uint8Array): EvidenceFileKind {
  const kind = binaryKind(bytes) ?? textKind(bytes)
  if (kind !== null) return kind
  throw new ParseError("ERR_UNSUPPORTED", {
    at: "file",
    expected: Object.values(KINDS)
      .map(({ title }) => title)
      .join(", "),
    found: bytes.length === 0 ? "nothing" : `${bytes.length} bytes of another kind`,
  })
}

function binaryKind(bytes: Uint8Array): EvidenceFileKind | null {
  if (bytes.length < 8) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (isHclReport(bytes)) return "hcl-report"
  if (view.getUint32(0, false) === TPM_GENERATED) return "tpm-attest"
  const der = derKind(bytes)
  if (der !== null) return der
  if (isMeasurementList(view)) return "ima-binary"
  const [version, keyType, tee] = [view.getUint16(0, true), view.getUint16(2, true), view.getUint32(4, true)]
  // A quote's version and key type together, where an SNP report has a version alone.
  if (keyType !== 0 && keyType <= 3 && version <= 16) return tee === TEE_TYPE.tdx ? "tdx-quote" : "sgx-quote"
  // A report begins with its version. One that is cut short is told so, and not that it is nothing known.
  const number = view.getUint32(0, true)
  if (number > 0 && number <= 0xff) return "snp-report"
  return null
}

/** A PCR, 20 bytes of digest, and the name of a template with its length: SNP reports have an identifier there. */
function isMeasurementList(view: DataView): boolean {
  if (view.byteLength < 32 || view.getUint32(0, true) > 31) return false
  const length = view.getUint32(24, true)
  if (length === 0 || length > 64 || view.byteLength < 28 + length) return false
  for (let at = 28; at < 28 + length; at++)
    if (!/[a-z0-9|-]/.test(String.fromCharCode(view.getUint8(at)))) return false
  return true
}

/** Certificate or revocation list: the one begins with its version in a tag of its own, the other with a number or algorithm. */
function derKind(bytes: Uint8Array): "certificate" | "crl" | null {
  if (bytes[0] !== TAG.sequence || (bytes[1] ?? 0) < 0x81) return null
  const outer = inside(single(bytes, TAG.sequence, "DER"))
  const first = inside(outer.next(TAG.sequence, "signed part")).peek()
  return first === 0xa0 ? "certificate" : first === TAG.integer || first === TAG.sequence ? "crl" : null
}

function textKind(bytes: Uint8Array): EvidenceFileKind | null {
  const start = Buffer.from(bytes.subarray(0, 200)).toString("latin1").trimStart()
  if (start.startsWith("{")) return jsonKind(bytes)
  if (/^ ?[0-9]{1,2} [0-9a-f]{40} [a-z]/.test(start)) return "ima-ascii"
  const label = /^-----BEGIN ([A-Z0-9 ]+)-----/m.exec(start)?.[1]
  if (label === "X509 CRL") return "crl"
  return label === "CERTIFICATE" ? "certificate-chain" : null
}

function jsonKind(bytes: Uint8Array): "intel-collateral" | null {
  const names = parseJsonRecord("file", bytes, MAX_JSON).names()
  return names.includes("tcb_info") && names.includes("qe_identity") ? "intel-collateral" : null
}

function describeCertificates(bytes: Uint8Array): ShownRecord {
  return {
    certificates: parsePem(Buffer.from(bytes).toString("latin1")).map(({ der }) => describeCertificate(der)),
  }
}

/** DER of a list that is DER already, or in PEM. */
function derOf(bytes: Uint8Array): Uint8Array {
  if (bytes[0] === TAG.sequence) return bytes
  const [only, ...others] = parsePem(Buffer.from(bytes).toString("latin1"))
  if (only !== undefined && others.length === 0) return only.der
  throw new ParseError("ERR_MALFORMED", { at: "PEM", expected: "one list", found: `${others.length + 1}` })
}
