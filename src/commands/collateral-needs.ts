import type { IntelNeed } from "../endorsements/collateral.ts"
import type { IntelTee } from "../endorsements/intel-pcs.ts"
import { CodedError, ParseError } from "../errors.ts"
import { isHclReport, parseHclReport } from "../formats/azure/hcl.ts"
import { parsePckExtension } from "../formats/intel/pck-extension.ts"
import { parsePem } from "../formats/pem.ts"
import { parseSgxQuote } from "../formats/sgx/quote.ts"
import { parseCertificateTable } from "../formats/snp/certificate-table.ts"
import { parseLegacySnpBlob } from "../formats/snp/legacy-blob.ts"
import { parseSnpReport, SNP_REPORT_SIZE, type SnpReport } from "../formats/snp/report.ts"
import { parseTdxQuote } from "../formats/tdx/quote.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"

/** What a file of evidence needs collateral for. */
export type Needed =
  | {
      readonly kind: "snp"
      readonly report: SnpReport
      /** DER, that came with the report. */
      readonly certificates: readonly Uint8Array[]
    }
  | ({ readonly kind: "intel" } & Pick<IntelNeed, "tee" | "fmspc" | "authority">)

/** The attestation key type of all of Intel's quotes, at offset 2; SEV-SNP reports have a zero there. */
const ECDSA_P256 = 2

/**
 * Reads a SEV-SNP report (alone, with a certificate table or PEM behind it, or in the predecessor's form), a TDX or SGX quote,
 * or an Azure HCL report with a SEV-SNP report in it.
 * @throws ParseError where it is none of these
 */
export function neededBy(evidence: Uint8Array): Needed {
  if (isHclReport(evidence)) return neededByHcl(evidence)
  const version = (evidence[0] ?? 0) + 256 * (evidence[1] ?? 0)
  if (evidence[2] === ECDSA_P256 && version === 3)
    return neededByQuote("sgx", parseSgxQuote(evidence).signature.certificates)
  if (evidence[2] === ECDSA_P256) return neededByQuote("tdx", parseTdxQuote(evidence).signature.certificates)
  const report = parseSnpReport(evidence.subarray(0, SNP_REPORT_SIZE))
  return { kind: "snp", report, certificates: certificatesBehind(evidence) }
}

function neededByHcl(evidence: Uint8Array): Needed {
  const { kind, hardwareReport } = parseHclReport(evidence)
  if (kind === "snp") return { kind: "snp", report: parseSnpReport(hardwareReport), certificates: [] }
  throw new ParseError("ERR_UNSUPPORTED", {
    at: "HCL report",
    expected: "a SEV-SNP report in it",
    found: "a TD report, which names no platform",
    hint: "give the TD quote instead",
  })
}

function neededByQuote(tee: IntelTee, chain: readonly Uint8Array[]): Needed {
  const [first] = chain
  if (first === undefined)
    throw new ParseError("ERR_MALFORMED", {
      at: "quote",
      expected: "the platform's certificate",
      found: "none",
      hint: "name the platform with --fmspc",
    })
  const pck = parseCertificate(first)
  const processor = pck.issuer.commonName === "Intel SGX PCK Processor CA"
  return {
    kind: "intel",
    tee,
    fmspc: parsePckExtension(pck).fmspc,
    authority: processor ? "processor" : "platform",
  }
}

/** What comes with a report only saves requests, so what is in no form that is known counts as nothing. */
function certificatesBehind(evidence: Uint8Array): readonly Uint8Array[] {
  const rest = evidence.subarray(SNP_REPORT_SIZE)
  if (rest.length === 0) return []
  const ders = (entries: readonly { readonly der: Uint8Array }[]) => entries.map(({ der }) => der)
  const text = Buffer.from(rest).toString("latin1")
  const forms = [
    ...(text.includes("-----BEGIN CERTIFICATE-----") ? [() => ders(parsePem(text))] : []),
    () => ders(parseLegacySnpBlob(evidence).certificates),
    () => ders(parseCertificateTable(rest)),
  ]
  for (const read of forms) {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
    }
  }
  return []
}
