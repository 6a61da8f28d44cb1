import { verify } from "node:crypto"
import { fromHex, toHex } from "../formats/hex.ts"
import {
  chainOfText,
  crlOfText,
  type IntelCollateral,
  parsePcsDocument,
  type SignedDocument,
} from "../formats/intel/collateral.ts"
import { type DocumentDates, MAX_DOCUMENT_BYTES } from "../formats/intel/document.ts"
import { parseQeIdentity } from "../formats/intel/qe-identity.ts"
import { parseTcbInfo } from "../formats/intel/tcb-info.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { MAX_CRL_BYTES, parseCrl } from "../formats/x509/crl.ts"
import { isSigned, publicKeyOf } from "../verify/certificate-chain.ts"
import {
  DEFAULT_SERVICES,
  type Resource,
  type Services,
  type Validity,
  type VendorDocument,
} from "./resource.ts"
import { asIs, unexpected } from "./service-answer.ts"

/** Whose TCB is asked for: the same platform has different levels as SGX and as TDX platform. */
export type IntelTee = "sgx" | "tdx"
/** Which authority issued the platform's PCK certificate. */
export type PckAuthority = "platform" | "processor"

/** Path of the TCB levels of a kind of platform. @param fmspc 6 bytes. */
export function tcbInfoPath(tee: IntelTee, fmspc: Uint8Array): string {
  return `/${tee}/certification/v4/tcb?fmspc=${toHex(fmspc)}`
}

/** Path of the identity of Intel's quoting enclave. */
export function qeIdentityPath(tee: IntelTee): string {
  return `/${tee}/certification/v4/qe/identity`
}

/** Path of the list of revoked PCK certificates. */
export function pckCrlPath(authority: PckAuthority): string {
  return `/sgx/certification/v4/pckcrl?ca=${authority}&encoding=der`
}

/** Path of the list of revoked authorities, as caching services have it. Intel itself gives it elsewhere. */
export const ROOT_CA_CRL_PATH = "/sgx/certification/v4/rootcacrl"
/** Source: the root certificate's CRL distribution point. */
const INTEL_ROOT_CA_CRL_URL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

/** Header names differ between versions of the service and of caching services; letter case does not count. */
const TCB_CHAIN = ["TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"]
const QE_CHAIN = ["SGX-Enclave-Identity-Issuer-Chain", "Enclave-Identity-Issuer-Chain"]
const CRL_CHAIN = ["SGX-PCK-CRL-Issuer-Chain"]

/**
 * The resource behind a path of Intel's service, or null where there is none.
 * Source: Intel SGX and TDX Provisioning Certification Service API, version 4.
 */
export function pcsResource(path: string, { pcsUrl }: Services): Resource | null {
  const common = { service: "intel", path, url: `${pcsUrl}${path}`, accept: "*/*" } as const
  const tcb = /^\/(sgx|tdx)\/certification\/v4\/tcb\?fmspc=([0-9a-f]{12})$/.exec(path)
  const tee = /^\/(sgx|tdx)\//.exec(path)?.[1] === "tdx" ? "tdx" : "sgx"
  const fmspc = fromHex(tcb?.[2] ?? "")
  if (tcb !== null && fmspc !== null)
    return {
      ...common,
      what: `${tee.toUpperCase()} TCB info of FMSPC ${toHex(fmspc)}`,
      maxBytes: MAX_DOCUMENT_BYTES,
      chainHeaders: TCB_CHAIN,
      decode: asIs,
      inspect: (document) => inspectTcbInfo(document, tee, fmspc),
    }
  if (path === qeIdentityPath(tee))
    return {
      ...common,
      what: `identity of the ${tee.toUpperCase()} quoting enclave`,
      maxBytes: MAX_DOCUMENT_BYTES,
      chainHeaders: QE_CHAIN,
      decode: asIs,
      inspect: (document) => inspectQeIdentity(document, tee),
    }
  for (const authority of ["platform", "processor"] as const)
    if (path === pckCrlPath(authority))
      return {
        ...common,
        what: `revocation list of the PCK ${authority} authority`,
        maxBytes: 2 * MAX_CRL_BYTES,
        chainHeaders: CRL_CHAIN,
        decode: decodeCrl,
        inspect: (document) => inspectPckCrl(document, authority),
      }
  if (path !== ROOT_CA_CRL_PATH) return null
  return {
    ...common,
    url: pcsUrl === DEFAULT_SERVICES.pcsUrl ? INTEL_ROOT_CA_CRL_URL : common.url,
    what: "revocation list of the SGX root",
    maxBytes: 2 * MAX_CRL_BYTES,
    chainHeaders: [],
    decode: decodeCrl,
    inspect: ({ body }) => inspectCrl(body, "Intel SGX Root CA"),
  }
}

/** The four documents of one platform as one value. @throws ParseError */
export function assembleCollateral(documents: {
  readonly tcbInfo: VendorDocument
  readonly qeIdentity: VendorDocument
  /** Null leaves the list out: a verification that is to check revocation then fails. */
  readonly pckCrl: VendorDocument | null
  readonly rootCaCrl: VendorDocument | null
}): IntelCollateral {
  const tcb = parsePcsDocument(documents.tcbInfo.body, "tcbInfo")
  const qe = parsePcsDocument(documents.qeIdentity.body, "enclaveIdentity")
  return {
    tcbInfo: tcb.document,
    tcbInfoSignature: tcb.signature,
    tcbInfoIssuerChain: chainOf(documents.tcbInfo, "TCB info"),
    qeIdentity: qe.document,
    qeIdentitySignature: qe.signature,
    qeIdentityIssuerChain: chainOf(documents.qeIdentity, "QE identity"),
    pckCrl: documents.pckCrl?.body ?? null,
    pckCrlIssuerChain: documents.pckCrl === null ? [] : chainOf(documents.pckCrl, "PCK CRL"),
    rootCaCrl: documents.rootCaCrl?.body ?? null,
  }
}

function chainOf({ issuerChain }: VendorDocument, of: string): Uint8Array[] {
  const place = `issuer chain of the ${of}`
  if (issuerChain === null) throw unexpected(place, "a response header with it", "none")
  return chainOfText(issuerChain, place)
}

function inspectTcbInfo(document: VendorDocument, tee: IntelTee, fmspc: Uint8Array): Validity {
  const place = `TCB info of FMSPC ${toHex(fmspc)}`
  const signed = parsePcsDocument(document.body, "tcbInfo")
  const info = parseTcbInfo(signed.document)
  if (info.id !== tee.toUpperCase()) throw unexpected(place, tee.toUpperCase(), info.id)
  if (toHex(info.fmspc) !== toHex(fmspc)) throw unexpected(place, toHex(fmspc), toHex(info.fmspc))
  verifyBySigner(signed, document, place)
  return validityOf(info)
}

function inspectQeIdentity(document: VendorDocument, tee: IntelTee): Validity {
  const place = "QE identity"
  const signed = parsePcsDocument(document.body, "enclaveIdentity")
  const identity = parseQeIdentity(signed.document)
  const id = tee === "tdx" ? "TD_QE" : "QE"
  if (identity.id !== id) throw unexpected(place, id, identity.id)
  verifyBySigner(signed, document, place)
  return validityOf(identity)
}

function inspectPckCrl(document: VendorDocument, authority: PckAuthority): Validity {
  const name = `Intel SGX PCK ${authority === "platform" ? "Platform" : "Processor"} CA`
  const place = `revocation list of the ${name}`
  const [signer] = chainOf(document, "PCK CRL")
  const validity = inspectCrl(document.body, name)
  if (signer === undefined || !isSigned(parseCrl(document.body), parseCertificate(signer).spki, place))
    throw unexpected(place, "a signature by the first certificate of its chain")
  return validity
}

function inspectCrl(body: Uint8Array, issuer: string): Validity {
  const crl = parseCrl(body)
  if (crl.issuer.commonName !== issuer)
    throw unexpected("revocation list", JSON.stringify(issuer), JSON.stringify(crl.issuer.commonName))
  return { from: crl.thisUpdate, until: crl.nextUpdate ?? crl.thisUpdate }
}

/** That nothing was altered on the way. Whether the signer is Intel is for the verification to tell. */
function verifyBySigner({ document, signature }: SignedDocument, whole: VendorDocument, place: string): void {
  const [signer] = chainOf(whole, place)
  if (signer === undefined) throw unexpected(place, "a signer", "none")
  const key = publicKeyOf(parseCertificate(signer).spki, place)
  const elliptic = key.asymmetricKeyType === "ec"
  if (!elliptic || !verify("sha256", document, { key, dsaEncoding: "ieee-p1363" }, signature))
    throw unexpected(place, "a signature by the first certificate of its chain")
}

function validityOf({ issueDate, nextUpdate }: DocumentDates): Validity {
  return { from: issueDate, until: nextUpdate }
}

/** Caching services answer in hex, whatever encoding was asked for. */
function decodeCrl(body: Uint8Array): Uint8Array {
  const der = body[0] === 0x30 && (body[1] ?? 0) >= 0x80
  return der ? body : crlOfText(Buffer.from(body).toString("latin1"), "revocation list")
}
