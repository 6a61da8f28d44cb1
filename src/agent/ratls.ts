import { createPrivateKey, createPublicKey } from "node:crypto"
import { AgentError, CodedError } from "../errors.ts"
import {
  claimsReportData,
  encodeKeyClaims,
  encodeTaggedQuote,
  encodeWrappedReport,
  RATLS_OID,
  ratlsReportData,
} from "../formats/ratls/evidence.ts"
import { encodeLegacySnpBlob } from "../formats/snp/legacy-blob.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import type { AnyReport, ReportDevice, TeeReport } from "../native/ports.ts"
import {
  type CertificateAndKey,
  type CertificateRequest,
  type ExtensionRequest,
  makeP256Key,
  makeSelfSignedCertificate,
} from "./certificate.ts"

export interface RatlsRequest extends Omit<CertificateRequest, "extensions"> {
  readonly tee: ReportDevice<AnyReport>
  /** At most 32 bytes that the report data hold behind the key's hash; zeros fill them up. */
  readonly extraData: Uint8Array
}

/**
 * Makes a self-signed certificate with evidence in it that its key is in this VM: in the predecessor's extension, and in that of
 * TCG DICE beside it. A TDX VM makes two quotes, because the two forms differ in what the report data are.
 * @throws AgentError ERR_NO_TEE; NativeError of the device
 */
export async function makeRatlsCertificate(request: RatlsRequest): Promise<CertificateAndKey> {
  const privateKey = request.privateKey ?? (await makeP256Key())
  const spki = createPublicKey(createPrivateKey(privateKey)).export({ format: "der", type: "spki" })
  const { extensions, endorsedUntil } = await evidenceFor(request, new Uint8Array(spki))
  const notAfter = earlier(request.notAfter, endorsedUntil)
  return makeSelfSignedCertificate({ ...request, notAfter, privateKey, extensions })
}

/** What is in the certificate, and when the first of those that vouch for it ends; null: it is not known. */
interface RatlsContent {
  readonly extensions: ExtensionRequest[]
  readonly endorsedUntil: Date | null
}

async function evidenceFor({ tee, extraData }: RatlsRequest, spki: Uint8Array): Promise<RatlsContent> {
  const report = await tee.getReport(ratlsReportData(spki, extraData))
  switch (report.kind) {
    case "sev-snp":
      return {
        extensions: [
          { oid: RATLS_OID.snp, value: encodeLegacySnpBlob(report.report, chainOf(report)) },
          { oid: RATLS_OID.dice, value: encodeWrappedReport(report.report) },
        ],
        endorsedUntil: endOf(report),
      }
    case "tdx": {
      const claims = encodeKeyClaims(spki)
      const second = await tee.getReport(claimsReportData(claims))
      if (second.kind !== "tdx") throw noTee(second.kind)
      return {
        extensions: [
          { oid: RATLS_OID.tdx, value: report.quote },
          { oid: RATLS_OID.dice, value: encodeTaggedQuote(second.quote, claims) },
        ],
        endorsedUntil: null,
      }
    }
    default:
      throw noTee(report.kind)
  }
}

/** A revocation list is worth having for verifiers without network, if it is as short as AMD's are. */
const MAX_CRL = 4096

/** What the host gave beside the report, as far as it is of use in a certificate. */
function chainOf({ certificates }: TeeReport): TeeReport["certificates"] {
  return certificates.filter(({ name, der }) => name !== "other" && (name !== "CRL" || der.length <= MAX_CRL))
}

/** A VLEK lives one year, and its certificate may be about to end. */
function endOf({ certificates }: TeeReport): Date | null {
  const leaves = certificates.filter(({ name }) => name === "VCEK" || name === "VLEK")
  return leaves.reduce<Date | null>((end, { der }) => earlierOrNull(end, notAfterOf(der)), null)
}

/** Null for a host's bytes that are no certificate: verifiers will say so. */
function notAfterOf(der: Uint8Array): Date | null {
  try {
    return parseCertificate(der).notAfter
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

function earlierOrNull(a: Date | null, b: Date | null): Date | null {
  return a === null ? b : earlier(a, b)
}

function earlier(a: Date, b: Date | null): Date {
  return b !== null && b < a ? b : a
}

function noTee(found: string): AgentError {
  return new AgentError("ERR_NO_TEE", {
    at: "RA-TLS certificate",
    expected: "a SEV-SNP guest or TDX trust domain that chooses its report data",
    found,
    hint: "behind Azure's paravisor nobody chooses them: verify the VM by its agent instead",
  })
}
