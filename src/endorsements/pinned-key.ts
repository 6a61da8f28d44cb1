import { createHash } from "node:crypto"
import { EndorsementError } from "../errors.ts"
import { fromBase64, toHex } from "../formats/hex.ts"

/** A root key as it stands in the source, with the fingerprint by which a reader can compare it with the vendor's. */
export interface PinnedKey {
  /** SHA-256 of the DER SubjectPublicKeyInfo. */
  readonly fingerprint: string
  /** DER SubjectPublicKeyInfo, base64. */
  readonly spki: string
}

/**
 * A slip in the constants must not become another trust anchor: the fingerprint is checked when they are read.
 * @throws EndorsementError ERR_INTERNAL
 */
export function decodePinnedKey(name: string, { spki, fingerprint }: PinnedKey): Uint8Array {
  const bytes = fromBase64(spki)
  const found = bytes === null ? "no base64" : toHex(createHash("sha256").update(bytes).digest())
  if (bytes === null || found !== fingerprint)
    throw new EndorsementError("ERR_INTERNAL", { at: name, expected: fingerprint, found })
  return bytes
}
