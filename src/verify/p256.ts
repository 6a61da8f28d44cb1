import { createPublicKey, type KeyObject, verify } from "node:crypto"

/** DER of a SubjectPublicKeyInfo for an uncompressed point on P-256, up to the point. Source: RFC 5480, section 2. */
const SPKI_HEADER = Buffer.from("3059301306072a8648ce3d020106082a8648ce3d03010703420004", "hex")
const POINT = 64

/** Whether a DER SubjectPublicKeyInfo holds an uncompressed point on P-256. */
export function isP256(spki: Uint8Array): boolean {
  return (
    spki.length === SPKI_HEADER.length + POINT &&
    Buffer.compare(spki.subarray(0, SPKI_HEADER.length), SPKI_HEADER) === 0
  )
}

/** The key of x and y, 32 bytes each, big-endian; null where they are no point on the curve. */
export function keyOfPoint(point: Uint8Array): KeyObject | null {
  return keyOfSpki(Buffer.concat([SPKI_HEADER, point]))
}

/** The key of a DER SubjectPublicKeyInfo; null where it holds none on P-256. */
export function keyOfSpki(spki: Uint8Array): KeyObject | null {
  if (!isP256(spki)) return null
  try {
    const key = Buffer.from(spki.buffer, spki.byteOffset, spki.byteLength)
    return createPublicKey({ key, format: "der", type: "spki" })
  } catch {
    // The library refuses points that are not on the curve; there is nothing else that can be wrong here.
    return null
  }
}

/** Whether the key signed the bytes, by ECDSA with SHA-256. @param signature r and s, 32 bytes each, big-endian. */
export function isSignedByP256(signed: Uint8Array, key: KeyObject, signature: Uint8Array): boolean {
  return signature.length === POINT && verify("sha256", signed, { key, dsaEncoding: "ieee-p1363" }, signature)
}
