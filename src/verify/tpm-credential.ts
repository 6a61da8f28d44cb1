import { timingSafeEqual } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"

/**
 * A secret that only the TPM with a certain endorsement key can open, and only for a certain attestation key that is loaded in it
 * (TPM2_MakeCredential), and what came back. All but `returned` is the verifier's own.
 */
export interface CredentialAnswer {
  /** DER SubjectPublicKeyInfo of the endorsement key that it was encrypted to. */
  readonly ekSpki: Uint8Array
  /** TPM Name of the attestation key that it was made for: its attributes, too. */
  readonly akName: Uint8Array
  /** What whoever opened the secret can derive from it. */
  readonly expected: Uint8Array
  readonly returned: Uint8Array
}

/**
 * That the attestation key is in the TPM of the endorsement key. A Name holds the key's attributes, and with fixedTPM among them
 * the key never leaves its TPM: so this is true of the key once and for all.
 * @param ekSpki of the certificate that was verified. @param akName of the key whose quote and attributes were verified.
 * @throws VerifyError ERR_TPM_CREDENTIAL
 */
export function verifyCredential(answer: CredentialAnswer, ekSpki: Uint8Array, akName: Uint8Array): void {
  const { expected, returned } = answer
  if (!bytesEqual(answer.ekSpki, ekSpki) || !bytesEqual(answer.akName, akName))
    throw new VerifyError("ERR_INTERNAL", { at: "credential", found: "one for other keys" })
  if (expected.length === returned.length && expected.length > 0 && timingSafeEqual(expected, returned))
    return
  throw new VerifyError("ERR_TPM_CREDENTIAL", {
    at: `credential for the key ${shortHex(akName)}`,
    expected: "what the secret in it gives",
    found: returned.length === 0 ? "nothing" : "something else",
    hint: "the key that signs the quotes is not held by the TPM whose certificate is shown: do not trust this VM",
  })
}
