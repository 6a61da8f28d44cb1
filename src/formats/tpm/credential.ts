import { createHash } from "node:crypto"
import { CURVE, type HashName } from "./algorithms.ts"

/** A secret for one key of one TPM, as TPM2_ActivateCredential takes it. */
export interface Credential {
  /** TPMS_ID_OBJECT: content of the TPM2B_ID_OBJECT. */
  readonly idObject: Uint8Array
  /** TPMU_ENCRYPTED_SECRET: content of the TPM2B_ENCRYPTED_SECRET. */
  readonly encryptedSecret: Uint8Array
}

/** Caps of both parts: an HMAC and an encrypted secret of 64 bytes; an RSA-4096 ciphertext. */
export const MAX_ID_OBJECT = 160
export const MAX_ENCRYPTED_SECRET = 512

/** What an endorsement key's template fixes beside the key. */
export interface EkParameters {
  readonly nameAlg: HashName
  /** AES in CFB mode. */
  readonly keyBits: 128 | 256
}

/**
 * Parameters of an endorsement key by the kind of its key; null where the profile has no template for it. The verifier takes
 * them from here: a TPM with other ones only fails to open what was made for it.
 * Source: TCG EK Credential Profile for TPM Family 2.0, version 2.5, appendix B, templates L-1, L-2, H-1 to H-4, H-6, H-7.
 */
export function ekParameters(
  key: { type: "rsa"; keyBits: number } | { type: "ecc"; curveId: number },
): EkParameters | null {
  const small = key.type === "rsa" ? key.keyBits === 2048 : key.curveId === CURVE.p256
  if (small) return { nameAlg: "sha256", keyBits: 128 }
  const large = key.type === "rsa" ? key.keyBits === 3072 || key.keyBits === 4096 : key.curveId === CURVE.p384
  return large ? { nameAlg: "sha384", keyBits: 256 } : null
}

/**
 * What the agent answers for the secret in a credential, 32 bytes. Not the secret itself, so that nobody can have credentials
 * opened that were made for another purpose; and for the TLS key of the connection over which it was asked.
 */
export function credentialProof(secret: Uint8Array, tlsSpki: Uint8Array): Uint8Array {
  const key = createHash("sha256").update(tlsSpki).digest()
  const proof = createHash("sha256").update("cosmian-vm/credential/v1\0").update(key).update(secret).digest()
  return new Uint8Array(proof)
}
