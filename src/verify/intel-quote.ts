import { createHash } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { bytesEqual, fromHex, shortHex, toHex } from "../formats/hex.ts"
import type { IntelCollateral } from "../formats/intel/collateral.ts"
import type { QeIdentity } from "../formats/intel/qe-identity.ts"
import type { QuoteHeader, QuoteSignature } from "../formats/intel/quote.ts"
import { hasSgxFlag, SGX_FLAG, type SgxReport } from "../formats/sgx/report.ts"
import type { Certificate } from "../formats/x509/certificate.ts"
import { placeOf } from "./certificate-chain.ts"
import { type IntelAnchor, type PckChain, verifyNotRevoked, verifyPckChain } from "./intel-chain.ts"
import { type IntelDocuments, type IntelTee, verifyIntelDocuments } from "./intel-documents.ts"
import { isSignedByP256, keyOfPoint, keyOfSpki } from "./p256.ts"

/** Checks that the user may leave out by name. */
export type IntelCheck = "revocation" | "tcb"

/** What a verification of one of Intel's quotes takes beside the quote. */
export interface IntelInput {
  /** Null where there is none: then `skip` has to name both checks that need it, or the verification fails. */
  readonly collateral: IntelCollateral | null
  readonly anchors: readonly IntelAnchor[]
  /** The time for validity, of everything. */
  readonly at: Date
  /** Left out because the user said so. Absent: nothing. */
  readonly skip?: ReadonlySet<IntelCheck>
}

/** A quote of either kind, parsed. */
export interface IntelQuote {
  readonly header: QuoteHeader
  readonly signature: QuoteSignature
  readonly signedBytes: Uint8Array
}

/** What is proven about a quote before its TCB is looked up. */
export interface ProvenQuote {
  readonly chain: PckChain
  /** Null where the check of the TCB was left out. */
  readonly documents: IntelDocuments | null
  readonly revocation: "checked" | "not-checked"
}

/** Intel's quoting enclaves, as QE vendor. Source: Intel SGX ECDSA QuoteGenReference, rev. 1.23, "QE Vendor ID". */
const INTEL_QE_VENDOR = "939a7233f79c4ca9940a0db3957f0607"

/**
 * Who Intel's quoting enclaves are, for when the user left QE identity out with the TCB: MRSIGNER is the hash of Intel's
 * signing key. The identity says the same and more; this keeps other enclaves of a genuine platform out all the same.
 * Source: `mrsigner` and `isvprodid` at https://api.trustedservices.intel.com/{sgx,tdx}/certification/v4/qe/identity.
 */
const INTEL_QE = {
  SGX: { mrSigner: "8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff", isvProdId: 1 },
  TDX: { mrSigner: "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5", isvProdId: 2 },
} as const

/**
 * Proves that a quoting enclave of Intel's, on a platform that Intel certified, signed a quote.
 * @throws ParseError where a certificate, document or revocation list is malformed
 * @throws VerifyError ERR_QUOTE_*, ERR_QE_*, ERR_PCK_MISSING, ERR_CERT_*, ERR_CRL_*, ERR_REVOCATION_NOT_CHECKED,
 *   ERR_COLLATERAL_*
 */
export function verifyIntelQuote(quote: IntelQuote, tee: IntelTee, input: IntelInput): ProvenQuote {
  const { collateral, anchors, at, skip = new Set() } = input
  verifyVendor(quote.header)
  const chain = verifyPckChain(quote.signature.certificates, anchors, at)
  verifyQeReportSignature(quote.signature, chain.leaf)
  verifyBinding(quote.signature)
  verifyQuoteSignature(quote)
  const documents = skip.has("tcb")
    ? null
    : verifyIntelDocuments(required(collateral), tee, chain.platform, chain.anchor, at)
  if (!skip.has("revocation"))
    verifyNotRevoked(chain, documents?.signers ?? [], collateral ?? { pckCrl: null, rootCaCrl: null }, at)
  if (documents === null) verifyKnownQe(quote.signature.qeReport, tee)
  else verifyQeIdentity(quote.signature.qeReport, documents.qeIdentity)
  return { chain, documents, revocation: skip.has("revocation") ? "not-checked" : "checked" }
}

function required(collateral: IntelCollateral | null): IntelCollateral {
  if (collateral !== null) return collateral
  throw new VerifyError("ERR_COLLATERAL_MISSING", {
    at: "collateral",
    expected: "TCB info and QE identity",
    found: "none",
    hint: "fetch the collateral from Intel, or leave the check out by --skip tcb",
  })
}

function verifyVendor({ qeVendorId }: QuoteHeader): void {
  if (toHex(qeVendorId) !== INTEL_QE_VENDOR)
    throw new VerifyError("ERR_QUOTE_VENDOR", {
      at: "quote-header.qeVendorId",
      expected: INTEL_QE_VENDOR,
      found: toHex(qeVendorId),
    })
}

function verifyQeReportSignature(signature: QuoteSignature, pck: Certificate): void {
  const key = keyOfSpki(pck.spki)
  if (key === null || !isSignedByP256(signature.qeReportBytes, key, signature.qeReportSignature))
    throw new VerifyError("ERR_QE_REPORT_SIGNATURE", {
      at: "QE report",
      expected: `a signature by the key of ${placeOf(pck)}`,
      found: "another one",
      hint: "the quote was altered, or it belongs to another platform",
    })
}

/** The quoting enclave vouches for the attestation key by its own report: SHA-256 of key and authentication data, then zeros. */
function verifyBinding({ attestationKey, qeAuthData, qeReport }: QuoteSignature): void {
  const digest = createHash("sha256").update(attestationKey).update(qeAuthData).digest()
  const expected = Buffer.concat([digest, new Uint8Array(32)])
  if (!bytesEqual(expected, qeReport.reportData))
    throw new VerifyError("ERR_QE_BINDING", {
      at: "QE report, reportData",
      expected: shortHex(expected),
      found: shortHex(qeReport.reportData),
      hint: "the quote was altered: its attestation key is not the quoting enclave's",
    })
}

function verifyQuoteSignature({ signature, signedBytes }: IntelQuote): void {
  const key = keyOfPoint(signature.attestationKey)
  if (key === null || !isSignedByP256(signedBytes, key, signature.signature))
    throw new VerifyError("ERR_QUOTE_SIGNATURE", {
      at: "quote",
      expected: "a signature by its attestation key",
      found: key === null ? "a key that is no point on P-256" : "another one",
      hint: "the quote was altered",
    })
}

function verifyKnownQe(report: SgxReport, tee: IntelTee): void {
  const { mrSigner, isvProdId } = INTEL_QE[tee]
  requireQe("mrSigner", fromHex(mrSigner) ?? new Uint8Array(), report.mrSigner)
  requireQeNumber("isvProdId", isvProdId, report.isvProdId)
  if (hasSgxFlag(report, SGX_FLAG.debug))
    throw new VerifyError("ERR_QE_IDENTITY", {
      at: "QE report, attributes",
      expected: "no debugging",
      found: "DEBUG set",
    })
}

/** Source: Intel PCS API, version 4, "Get Quoting Enclave Identity": how its members are compared. */
function verifyQeIdentity(report: SgxReport, identity: QeIdentity): void {
  requireQe("miscSelect", identity.miscSelect, masked(report.miscSelect, identity.miscSelectMask))
  requireQe("attributes", identity.attributes, masked(report.attributes, identity.attributesMask))
  requireQe("mrSigner", identity.mrSigner, report.mrSigner)
  requireQeNumber("isvProdId", identity.isvProdId, report.isvProdId)
}

function requireQe(field: string, expected: Uint8Array, found: Uint8Array): void {
  if (!bytesEqual(expected, found))
    throw new VerifyError("ERR_QE_IDENTITY", {
      at: `QE report, ${field}`,
      expected: toHex(expected),
      found: toHex(found),
    })
}

function requireQeNumber(field: string, expected: number, found: number): void {
  if (expected !== found)
    throw new VerifyError("ERR_QE_IDENTITY", {
      at: `QE report, ${field}`,
      expected: `${expected}`,
      found: `${found}`,
    })
}

/** What a mask of the same size leaves. */
export function masked(value: Uint8Array, mask: Uint8Array): Uint8Array {
  return value.map((byte, index) => byte & (mask[index] ?? 0))
}
