import { createPublicKey, type KeyObject, sign, verify } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { type DetachedEnvelope, preAuthEncoding } from "../formats/dsse.ts"
import { keyIdOf } from "./ed25519-key.ts"

/** What the signature says the signed bytes are: a signature over something else is none over a snapshot. */
export const SNAPSHOT_PAYLOAD_TYPE = "application/vnd.cosmian.snapshot+json"
const SIGNATURE_BYTES = 64

/** Signs the JSON text of a snapshot with an Ed25519 key. */
export function signSnapshot(json: Uint8Array, key: KeyObject): DetachedEnvelope {
  const signature = sign(null, preAuthEncoding(SNAPSHOT_PAYLOAD_TYPE, json), key)
  const keyId = keyIdOf(createPublicKey(key))
  return {
    payloadType: SNAPSHOT_PAYLOAD_TYPE,
    signatures: [{ keyId, signature: new Uint8Array(signature) }],
  }
}

/**
 * Proves that the holder of the key signed the JSON text of a snapshot. One signature by this key is enough; what the envelope
 * says about keys is not looked at.
 * @param key from `parseVerifyingKey`.
 * @returns the identifier of the key.
 * @throws VerifyError ERR_SNAPSHOT_SIGNATURE.
 */
export function verifySnapshotSignature(
  json: Uint8Array,
  envelope: DetachedEnvelope,
  key: KeyObject,
): string {
  const keyId = keyIdOf(key)
  if (envelope.payloadType !== SNAPSHOT_PAYLOAD_TYPE)
    throw new VerifyError("ERR_SNAPSHOT_SIGNATURE", {
      at: "payloadType",
      expected: SNAPSHOT_PAYLOAD_TYPE,
      found: JSON.stringify(envelope.payloadType.slice(0, 80)),
      hint: "this signature was made for something else than a snapshot",
    })
  const signed = preAuthEncoding(SNAPSHOT_PAYLOAD_TYPE, json)
  for (const { signature } of envelope.signatures)
    if (signature.length === SIGNATURE_BYTES && verify(null, signed, key, signature)) return keyId
  throw new VerifyError("ERR_SNAPSHOT_SIGNATURE", {
    expected: `a signature by key ${keyId}`,
    found: `none that verifies among ${envelope.signatures.length} (${envelope.signatures
      .map((each) => (each.keyId === "" ? "key not named" : each.keyId.slice(0, 80)))
      .join(", ")})`,
    hint: "the snapshot was changed after it was signed, or another key signed it: do not use it",
  })
}
