import { CodedError } from "../../errors.ts"
import { toHex } from "../hex.ts"
import { parseSnpLeaf } from "../snp/leaf-certificate.ts"
import { parseSnpReport, SNP_PLATFORM_INFO, SNP_POLICY, type SnpReport } from "../snp/report.ts"
import type { SnpReportFile } from "../snp/report-file.ts"
import { parseTcb, type SnpProduct } from "../snp/tcb.ts"
import { parseCertificate } from "../x509/certificate.ts"
import { describeCertificate } from "./certificates.ts"
import { flags, hexNumber, type Shown, type ShownRecord } from "./shown.ts"

/** A report with the certificates beside it, each field decoded. @throws ParseError as parseSnpReport */
export function describeSnpFile({ form, report, certificates }: SnpReportFile): ShownRecord {
  const parsed = parseSnpReport(report)
  const beside = certificates.map(({ name, guid, der }) => ({
    name,
    ...(guid === null ? {} : { guid }),
    ...certificateOrReason(der),
  }))
  return {
    ...describeSnpReport(parsed, parsed.product ?? productOf(certificates.map(({ der }) => der))),
    form,
    certificates: beside,
  }
}

/**
 * A report's fields.
 * @param product in whose layout the TCB versions are shown; null where neither report nor certificate says it: then they are
 *   shown as bytes, for the layout cannot be guessed.
 */
export function describeSnpReport(report: SnpReport, product: SnpProduct | null): ShownRecord {
  const { policy, platformInfo, flags: signerFlags, cpuid } = report
  return {
    version: report.version,
    product,
    cpuid: cpuid && { family: cpuid.family, model: cpuid.model, stepping: cpuid.stepping },
    guest_svn: report.guestSvn,
    policy: {
      abi_minor: Number(policy & 0xffn),
      abi_major: Number((policy >> 8n) & 0xffn),
      ...flags(policy, SNP_POLICY, 0xffffn),
    },
    family_id: toHex(report.familyId),
    image_id: toHex(report.imageId),
    vmpl: report.vmpl,
    signature_algo: report.signatureAlgo === 1 ? "1 (ECDSA P-384 with SHA-384)" : `${report.signatureAlgo}`,
    current_tcb: describeTcb(report.currentTcb, product),
    platform_info: flags(platformInfo, SNP_PLATFORM_INFO),
    flags: {
      value: hexNumber(signerFlags),
      author_key_en: report.authorKeyEnabled,
      mask_chip_key: report.maskChipKey,
      signing_key: report.signingKey,
    },
    report_data: toHex(report.reportData),
    measurement: toHex(report.measurement),
    host_data: toHex(report.hostData),
    id_key_digest: toHex(report.idKeyDigest),
    author_key_digest: toHex(report.authorKeyDigest),
    report_id: toHex(report.reportId),
    report_id_ma: toHex(report.reportIdMa),
    reported_tcb: describeTcb(report.reportedTcb, product),
    chip_id: toHex(report.chipId),
    committed_tcb: describeTcb(report.committedTcb, product),
    current_version: `${report.currentMajor}.${report.currentMinor}.${report.currentBuild}`,
    committed_version: `${report.committedMajor}.${report.committedMinor}.${report.committedBuild}`,
    launch_tcb: describeTcb(report.launchTcb, product),
    launch_mit_vector: report.launchMitVector === null ? null : hexNumber(report.launchMitVector),
    current_mit_vector: report.currentMitVector === null ? null : hexNumber(report.currentMitVector),
    signature: { r: toHex(report.signatureR.toReversed()), s: toHex(report.signatureS.toReversed()) },
  }
}

/** A TCB version: its 8 bytes as they stand, and its components where the layout is known and fits. */
function describeTcb(raw: Uint8Array, product: SnpProduct | null): ShownRecord {
  const bytes = { bytes: toHex(raw) }
  if (product === null) return bytes
  try {
    return { ...bytes, ...Object.fromEntries(Object.entries(parseTcb(raw, product))) }
  } catch (error) {
    // Reserved bytes are set: it is of another layout than the product's, and is shown as it stands.
    if (error instanceof CodedError) return bytes
    throw error
  }
}

/** The product by the first VCEK or VLEK that says it. */
function productOf(certificates: readonly Uint8Array[]): SnpProduct | null {
  for (const der of certificates)
    try {
      return parseSnpLeaf(parseCertificate(der)).product
    } catch (error) {
      // An authority, a revocation list, or something else.
      if (!(error instanceof CodedError)) throw error
    }
  return null
}

/** Hosts put other things than certificates beside a report: what cannot be read is shown with the reason. */
function certificateOrReason(der: Uint8Array): { readonly [name: string]: Shown } {
  try {
    return describeCertificate(der)
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    return { unreadable: error.message, bytes: toHex(der) }
  }
}
