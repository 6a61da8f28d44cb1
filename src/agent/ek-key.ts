import type { Tpm } from "../native/ports.ts"
import { bareKey } from "../verify/tpm-signature.ts"

/**
 * An endorsement key as the TPM is asked for it.
 * @param spki DER SubjectPublicKeyInfo. @throws VerifyError ERR_TPM_AK_KEY for anything but RSA, P-256, P-384
 */
export function ekKeyOf(spki: Uint8Array): Parameters<Tpm["activateCredential"]>[0]["ek"] {
  const key = bareKey(spki, { scheme: 0, hash: null })
  if (key.type === "rsa") return { type: "rsa", modulus: key.modulus }
  return { type: "ecc", curveId: key.curveId, x: key.x, y: key.y }
}
