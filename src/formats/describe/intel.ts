import { toHex } from "../hex.ts"
import { type IntelCollateral, parseCollateralBundle } from "../intel/collateral.ts"
import type { QuoteHeader, QuoteSignature } from "../intel/quote.ts"
import { parseSgxQuote } from "../sgx/quote.ts"
import { SGX_FLAG, type SgxReport } from "../sgx/report.ts"
import { parseJsonRecord } from "../strict-json.ts"
import { TD_ATTRIBUTE, type TdBody } from "../tdx/body.ts"
import { parseTdxQuote } from "../tdx/quote.ts"
import { describeCertificate, describeCrl } from "./certificates.ts"
import { flags, plainFields, type Shown, type ShownRecord, shownJson } from "./shown.ts"

/**
 * Processor features that a TD or enclave may use: bits of XFAM and XFRM, as in XCR0 and IA32_XSS.
 * Source: Intel SDM, volume 1, section 13.1, "XSAVE-Supported Features and State-Component Bitmaps".
 */
const FEATURES = {
  x87: 0,
  sse: 1,
  avx: 2,
  mpx_bndregs: 3,
  mpx_bndcsr: 4,
  avx512_opmask: 5,
  avx512_zmm_hi256: 6,
  avx512_hi16_zmm: 7,
  pt: 8,
  pkru: 9,
  pasid: 10,
  cet_u: 11,
  cet_s: 12,
  hdc: 13,
  uintr: 14,
  lbr: 15,
  hwp: 16,
  amx_tilecfg: 17,
  amx_tiledata: 18,
} as const

/** A TDX quote, each field decoded. @throws ParseError as parseTdxQuote */
export function describeTdxQuote(bytes: Uint8Array): ShownRecord {
  const { header, body, signature, raw, padding } = parseTdxQuote(bytes)
  return {
    header: describeHeader(header),
    body: describeTdBody(body),
    signature: describeSignature(signature),
    size: raw.length,
    padding,
  }
}

/** The body of a TDX quote. */
export function describeTdBody(body: TdBody): ShownRecord {
  const { rtmrs: _, raw: __, ...fields } = body
  return {
    ...plainFields(fields),
    version: body.version,
    td_attributes: describeTdAttributes(body.tdAttributes),
    xfam: flags(body.xfam, FEATURES),
  }
}

/** ATTRIBUTES of a TD. */
export function describeTdAttributes(attributes: bigint): ShownRecord {
  return flags(attributes, TD_ATTRIBUTE)
}

/** XFAM of a TD. */
export function describeXfam(xfam: bigint): ShownRecord {
  return flags(xfam, FEATURES)
}

/** An SGX quote, each field decoded. @throws ParseError as parseSgxQuote */
export function describeSgxQuote(bytes: Uint8Array): ShownRecord {
  const { header, body, signature, raw, padding } = parseSgxQuote(bytes)
  return {
    header: describeHeader(header),
    body: describeSgxReport(body),
    signature: describeSignature(signature),
    size: raw.length,
    padding,
  }
}

function describeHeader(header: QuoteHeader): ShownRecord {
  const tee = header.teeType === 0x81 ? "TDX" : "SGX"
  return {
    ...plainFields(header),
    tee_type: `0x${header.teeType.toString(16)} (${tee})`,
    attestation_key_type: `${header.attestationKeyType} (ECDSA P-256)`,
  }
}

function describeSgxReport(report: SgxReport): ShownRecord {
  const view = new DataView(report.attributes.buffer, report.attributes.byteOffset, report.attributes.length)
  return {
    ...plainFields(report),
    attributes: {
      flags: flags(view.getBigUint64(0, true), SGX_FLAG),
      xfrm: flags(view.getBigUint64(8, true), FEATURES),
    },
  }
}

function describeSignature(signature: QuoteSignature): ShownRecord {
  return {
    signature: toHex(signature.signature),
    attestation_key: toHex(signature.attestationKey),
    qe_report: describeSgxReport(signature.qeReport),
    qe_report_signature: toHex(signature.qeReportSignature),
    qe_auth_data: toHex(signature.qeAuthData),
    certificates: signature.certificates.map(describeCertificate),
  }
}

/** A collateral bundle: documents as Intel wrote them, chains and lists decoded. @throws ParseError as parseCollateralBundle */
export function describeCollateral(bytes: Uint8Array): ShownRecord {
  const collateral: IntelCollateral = parseCollateralBundle(bytes)
  const crl = (der: Uint8Array | null) => (der === null ? null : describeCrl(der))
  return {
    tcb_info: documentOf("tcb_info", collateral.tcbInfo),
    tcb_info_signature: toHex(collateral.tcbInfoSignature),
    tcb_info_issuer_chain: collateral.tcbInfoIssuerChain.map(describeCertificate),
    qe_identity: documentOf("qe_identity", collateral.qeIdentity),
    qe_identity_signature: toHex(collateral.qeIdentitySignature),
    qe_identity_issuer_chain: collateral.qeIdentityIssuerChain.map(describeCertificate),
    pck_crl: crl(collateral.pckCrl),
    pck_crl_issuer_chain: collateral.pckCrlIssuerChain.map(describeCertificate),
    root_ca_crl: crl(collateral.rootCaCrl),
  }
}

function documentOf(name: string, document: Uint8Array): Shown {
  return shownJson(parseJsonRecord(name, document, document.length).toPlain())
}
