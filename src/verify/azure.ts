import { createHash } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { type HclEnvelope, type HclKind, parseHclEnvelope } from "../formats/azure/hcl.ts"
import { parseRuntimeClaims, type RsaJwk, type RuntimeClaims } from "../formats/azure/runtime-claims.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { parseSignature, type TpmSignature } from "../formats/tpm/signature.ts"
import type { SnpAttestation } from "./snp.ts"
import type { TdxAttestation } from "./tdx.ts"
import { type BareKeyStatement, type QuoteExpectation, verifyBareKeyQuote } from "./tpm.ts"
import { type SignatureKey, spkiOf } from "./tpm-signature.ts"
import { markVerified, type Verified } from "./verified.ts"

/** The verified hardware report that vouches for an HCL report. */
export type HclHardware =
  | { readonly kind: "snp"; readonly attestation: Verified<SnpAttestation> }
  /** The quote over the TDREPORT of the HCL report: a TDREPORT alone cannot be verified away from its processor. */
  | { readonly kind: "tdx"; readonly attestation: Verified<TdxAttestation> }

/**
 * What the firmware between hardware and VM states, and the hardware vouches for. That this firmware is Azure's paravisor is
 * not proven here: it is the measurement in `hardware` that says so, and that is for appraisal.
 */
export interface AzureClaims extends RuntimeClaims {
  readonly kind: HclKind
  readonly hardware: HclHardware
  /** The exact bytes that the claims were read from. */
  readonly runtimeData: Uint8Array
  /** DER SubjectPublicKeyInfo of `akPublicKey`. */
  readonly akSpki: Uint8Array
  /**
   * What shows that the report was made for this verification. `not-checked`: the caller gave no user data, and then only
   * a TPM quote for a fresh nonce can show it.
   */
  readonly freshness: "user-data" | "not-checked"
}

/**
 * What Azure's virtual TPM stated. The attributes of its key come with no quote: that the key is restricted to what the TPM
 * itself states, and never leaves it, rests on the paravisor, which names the key in the claims, and so on its measurement.
 */
export interface AzureTpmAttestation extends BareKeyStatement {
  readonly akVouchedBy: "paravisor"
  /** DER SubjectPublicKeyInfo of the attestation key. */
  readonly akSpki: Uint8Array
}

/**
 * Verifies that a verified hardware report vouches for the claims of an HCL report.
 * @param input.hardware from `verifySnp` over the hardware report inside `blob`, or from `verifyTdx` over a quote.
 * @param input.userData what was written into NV index 0x01400002 for this verification: at most 64 bytes, zeros follow;
 *   null leaves `freshness` at `not-checked`.
 * @throws ParseError as parseHclEnvelope and parseRuntimeClaims
 * @throws VerifyError ERR_AZURE_HARDWARE_REPORT, ERR_TEE_VMPL, ERR_AZURE_RUNTIME_DATA, ERR_AZURE_USER_DATA, ERR_TPM_AK_KEY
 */
export function verifyHcl(input: {
  blob: Uint8Array
  hardware: HclHardware
  userData: Uint8Array | null
}): Verified<AzureClaims> {
  const envelope = parseHclEnvelope(input.blob)
  verifyHardware(envelope, input.hardware)
  verifyRuntimeData(envelope)
  const claims = parseRuntimeClaims(envelope.runtimeData)
  const akSpki = spkiOf(signatureKeyOf(claims.akPublicKey))
  if (input.userData !== null) verifyUserData(claims, input.userData)
  return markVerified({
    ...claims,
    kind: envelope.kind,
    hardware: input.hardware,
    runtimeData: envelope.runtimeData,
    akSpki,
    freshness: input.userData === null ? "not-checked" : "user-data",
  })
}

/**
 * That the report data of the hardware report is the hash of the runtime claims, and zeros. Alone this proves nothing: whoever
 * writes the claims can write the report.
 * @throws VerifyError ERR_AZURE_RUNTIME_DATA
 */
export function verifyRuntimeData({ hash, runtimeData, reportData }: HclEnvelope): void {
  const expected = new Uint8Array(reportData.length)
  expected.set(createHash(hash).update(runtimeData).digest())
  if (!bytesEqual(reportData, expected))
    throw new VerifyError("ERR_AZURE_RUNTIME_DATA", {
      at: "hardware report, report data",
      expected: `${shortHex(expected)} (${hash} of the claims, then zeros)`,
      found: shortHex(reportData),
      hint: "the claims were changed, or belong to another report",
    })
}

/**
 * Verifies a quote by the attestation key that the claims name: RSASSA with SHA-256, whatever the signature says of itself.
 * @param evidence.signature TPMT_SIGNATURE, or the bare signature as long as the key's modulus.
 * @param evidence.akSpki the key that the attester says signed, DER SubjectPublicKeyInfo; null where it does not say. It decides
 *   nothing: the quote is verified by the claims' key in any case.
 * @throws ParseError, VerifyError as verifyQuote, and ERR_AZURE_AK
 */
export function verifyAzureQuote(
  claims: Verified<AzureClaims>,
  evidence: {
    quote: Uint8Array
    signature: Uint8Array
    pcrs: readonly Uint8Array[]
    akSpki: Uint8Array | null
  },
  expected: QuoteExpectation,
): Verified<AzureTpmAttestation> {
  if (evidence.akSpki !== null && !bytesEqual(evidence.akSpki, claims.akSpki))
    throw new VerifyError("ERR_AZURE_AK", {
      at: "attestation key",
      expected: `HCLAkPub, SHA-256 ${fingerprint(claims.akSpki)}`,
      found: `SHA-256 ${fingerprint(evidence.akSpki)}`,
      hint: "the quote was made by another TPM or key than the one inside the TEE",
    })
  const key = signatureKeyOf(claims.akPublicKey)
  const signature = signatureOf(evidence.signature, claims.akPublicKey.modulus.length)
  const { quote, pcrs } = evidence
  const statement = verifyBareKeyQuote({ quote, signature, pcrs }, key, expected)
  return markVerified({ ...statement, akVouchedBy: "paravisor", akSpki: claims.akSpki })
}

function verifyHardware(envelope: HclEnvelope, hardware: HclHardware): void {
  if (hardware.kind !== envelope.kind)
    throw new VerifyError("ERR_AZURE_HARDWARE_REPORT", {
      at: "hardware report",
      expected: `one of kind ${envelope.kind}, as in the HCL report`,
      found: hardware.kind,
    })
  if (hardware.kind === "snp") verifySnpHardware(envelope, hardware.attestation)
  else if (!bytesEqual(hardware.attestation.quote.body.reportData, envelope.reportData))
    throw new VerifyError("ERR_AZURE_HARDWARE_REPORT", {
      at: "TDX quote, report data",
      expected: `${shortHex(envelope.reportData)}, as in the HCL report`,
      found: shortHex(hardware.attestation.quote.body.reportData),
      hint: "the quote was made over another report than the one that is shown",
    })
}

/** Only the most privileged level, where the paravisor runs, states claims. The VM below it could state anything. */
function verifySnpHardware(envelope: HclEnvelope, { report }: SnpAttestation): void {
  if (!bytesEqual(report.raw, envelope.hardwareReport))
    throw new VerifyError("ERR_AZURE_HARDWARE_REPORT", {
      at: "hardware report",
      expected: "the SEV-SNP report inside the HCL report",
      found: "another one",
    })
  if (report.vmpl !== 0)
    throw new VerifyError("ERR_TEE_VMPL", {
      at: "snp-report.vmpl",
      expected: "0, where the paravisor runs",
      found: `${report.vmpl}`,
      hint: "the report was asked for by the VM itself, which can write claims of its own",
    })
}

function verifyUserData({ userData }: RuntimeClaims, wanted: Uint8Array): void {
  const expected = new Uint8Array(64)
  const fits = wanted.length <= expected.length
  if (fits) expected.set(wanted)
  if (!fits || userData === null || !bytesEqual(userData, expected))
    throw new VerifyError("ERR_AZURE_USER_DATA", {
      at: "runtime claims, user-data",
      expected: fits ? shortHex(expected) : "at most 64 bytes",
      found: fits ? (userData === null ? "nothing" : shortHex(userData)) : `${wanted.length}`,
      hint: "an old report, or one made for another verification, is being shown",
    })
}

/** The claims hold the bare key: its scheme is the one of Azure's virtual TPM, fixed here. */
function signatureKeyOf({ modulus, exponent }: RsaJwk): SignatureKey {
  return {
    type: "rsa",
    scheme: { scheme: ALG.rsassa, hash: ALG.sha256 },
    keyBits: 8 * modulus.length,
    exponent: exponent.reduce((sum, byte) => sum * 256 + byte, 0),
    modulus,
  }
}

function signatureOf(bytes: Uint8Array, modulusSize: number): TpmSignature {
  if (bytes.length === modulusSize) return { scheme: "rsassa", hash: ALG.sha256, signature: bytes }
  return parseSignature(bytes)
}

function fingerprint(spki: Uint8Array): string {
  return shortHex(createHash("sha256").update(spki).digest())
}
