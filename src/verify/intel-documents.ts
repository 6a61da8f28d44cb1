import { VerifyError } from "../errors.ts"
import { bytesEqual, toHex } from "../formats/hex.ts"
import type { IntelCollateral } from "../formats/intel/collateral.ts"
import type { DocumentDates } from "../formats/intel/document.ts"
import type { PckPlatform } from "../formats/intel/pck-extension.ts"
import { parseQeIdentity, type QeIdentity } from "../formats/intel/qe-identity.ts"
import { parseTcbInfo, type TcbInfo } from "../formats/intel/tcb-info.ts"
import type { Certificate } from "../formats/x509/certificate.ts"
import { placeOf } from "./certificate-chain.ts"
import { type IntelAnchor, verifyTcbSigner } from "./intel-chain.ts"
import { isSignedByP256, keyOfSpki } from "./p256.ts"
import { remembered } from "./remembered.ts"

const readTcbInfo = remembered(parseTcbInfo)
const readQeIdentity = remembered(parseQeIdentity)

/** Intel's documents about a platform, with signatures and dates checked. */
export interface IntelDocuments {
  readonly tcbInfo: TcbInfo
  readonly qeIdentity: QeIdentity
  /** Certificates of those who signed; their revocation is for the caller to check. */
  readonly signers: readonly Certificate[]
}

/** The kind of TEE, as Intel's documents name it, with the quoting enclave that belongs to it. */
export type IntelTee = "SGX" | "TDX"
const QE_OF = { SGX: "QE", TDX: "TD_QE" } as const

/**
 * Verifies TCB info and QE identity: signed by Intel's key for that under `anchor`, in force at `at`, for this kind of TEE
 * and platform.
 * @param platform of a chain that was verified up to the same anchor.
 * @throws ParseError where a document or certificate is malformed
 * @throws VerifyError ERR_COLLATERAL_*, ERR_CERT_*
 */
export function verifyIntelDocuments(
  collateral: IntelCollateral,
  tee: IntelTee,
  platform: PckPlatform,
  anchor: IntelAnchor,
  at: Date,
): IntelDocuments {
  const tcbSigner = verifyTcbSigner(collateral.tcbInfoIssuerChain, anchor, at, "TCB info")
  verifySignature(collateral.tcbInfo, collateral.tcbInfoSignature, tcbSigner, "TCB info")
  const qeSigner = sameChain(collateral)
    ? tcbSigner
    : verifyTcbSigner(collateral.qeIdentityIssuerChain, anchor, at, "QE identity")
  verifySignature(collateral.qeIdentity, collateral.qeIdentitySignature, qeSigner, "QE identity")
  const tcbInfo = readTcbInfo(collateral.tcbInfo)
  const qeIdentity = readQeIdentity(collateral.qeIdentity)
  verifyDates(tcbInfo, "TCB info", at)
  verifyDates(qeIdentity, "QE identity", at)
  requireEqual("TCB info, id", tee, tcbInfo.id)
  requireEqual("QE identity, id", QE_OF[tee], qeIdentity.id)
  requireEqual("TCB info, fmspc", toHex(platform.fmspc), toHex(tcbInfo.fmspc))
  requireEqual("TCB info, pceId", toHex(platform.pceId), toHex(tcbInfo.pceId))
  return { tcbInfo, qeIdentity, signers: qeSigner === tcbSigner ? [tcbSigner] : [tcbSigner, qeSigner] }
}

/** Intel signs both documents with one key, and what was checked for one chain holds for the same bytes. */
function sameChain({ tcbInfoIssuerChain: a, qeIdentityIssuerChain: b }: IntelCollateral): boolean {
  return a.length === b.length && a.every((der, index) => bytesEqual(der, b[index] ?? new Uint8Array()))
}

function verifySignature(document: Uint8Array, signature: Uint8Array, signer: Certificate, at: string): void {
  const key = keyOfSpki(signer.spki)
  if (key === null || !isSignedByP256(document, key, signature))
    throw new VerifyError("ERR_COLLATERAL_SIGNATURE", {
      at,
      expected: `a signature by the key of ${placeOf(signer)} over these very bytes`,
      found: "another one",
      hint: "the document was altered or written anew: fetch it again from Intel",
    })
}

function verifyDates({ issueDate, nextUpdate }: DocumentDates, place: string, at: Date): void {
  if (at < issueDate)
    throw new VerifyError("ERR_COLLATERAL_NOT_YET_VALID", {
      at: place,
      expected: `issueDate on or before ${at.toISOString()}`,
      found: issueDate.toISOString(),
      hint: "check this machine's clock",
    })
  if (at > nextUpdate)
    throw new VerifyError("ERR_COLLATERAL_EXPIRED", {
      at: place,
      expected: `nextUpdate on or after ${at.toISOString()}`,
      found: nextUpdate.toISOString(),
      hint: "fetch the current collateral from Intel, or check this machine's clock",
    })
}

function requireEqual(at: string, expected: string, found: string): void {
  if (expected !== found)
    throw new VerifyError("ERR_COLLATERAL_PLATFORM", {
      at,
      expected,
      found,
      hint: "fetch the collateral that belongs to this quote",
    })
}
