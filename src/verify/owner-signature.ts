import { type KeyObject, sign, verify } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { type OwnerRequest, ownerRequestBytes } from "../formats/owner-request.ts"
import { keyIdOf } from "./ed25519-key.ts"

const SIGNATURE_BYTES = 64

/** Signs a request to the agent with an owner's Ed25519 key. */
export function signOwnerRequest(request: OwnerRequest, key: KeyObject): Uint8Array {
  return new Uint8Array(sign(null, ownerRequestBytes(request), key))
}

/**
 * Proves that the holder of one of the keys signed this very request. That the nonce is the agent's own and was not used before
 * is for the caller to establish.
 * @param keys Ed25519 public keys.
 * @returns the identifier of the key.
 * @throws VerifyError ERR_OWNER_SIGNATURE.
 */
export function verifyOwnerRequest(
  request: OwnerRequest,
  signature: Uint8Array,
  keys: readonly KeyObject[],
): string {
  const signed = ownerRequestBytes(request)
  if (signature.length === SIGNATURE_BYTES)
    for (const key of keys) if (verify(null, signed, key, signature)) return keyIdOf(key)
  throw new VerifyError("ERR_OWNER_SIGNATURE", {
    at: `${request.method} ${request.path}`,
    expected: "a signature over this request and this connection by an owner's key",
    found: "none that verifies",
    hint: "sign with a key whose public half is in [auth] owner_keys; nothing between client and VM may change the request or end its TLS",
  })
}
