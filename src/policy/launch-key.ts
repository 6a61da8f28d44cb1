import { createHash, createPublicKey, type KeyObject } from "node:crypto"
import { ParseError } from "../errors.ts"
import { bytes, layout, u32, zero } from "../formats/layout.ts"

/**
 * Public key of an ID key or author key, as the firmware takes and hashes it. Coordinates are little-endian.
 * Source: AMD 56860 rev. 1.58, section "SNP_LAUNCH_FINISH", Table "ECDSA P-384 public key format".
 */
const LAUNCH_KEY = layout("launch-key", 0x404, {
  curve: u32(0), // 2: P-384
  x: bytes(0x004, 72),
  y: bytes(0x04c, 72),
  _reserved: zero(0x094, 880),
})
const P384 = 2

/**
 * The digest under which a report names the key (ID_KEY_DIGEST, AUTHOR_KEY_DIGEST): SHA-384, 48 bytes.
 * @param spki DER SubjectPublicKeyInfo.
 * @throws ParseError ERR_UNSUPPORTED where it is no EC key on P-384
 */
export function snpKeyDigest(spki: Uint8Array): Uint8Array {
  const jwk = publicKey(spki)?.export({ format: "jwk" })
  if (jwk?.kty !== "EC" || jwk.crv !== "P-384" || jwk.x === undefined || jwk.y === undefined)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "key that signs launches",
      expected: "an EC key on P-384",
      found: `${jwk?.crv ?? jwk?.kty ?? "something else"}`,
    })
  const key = LAUNCH_KEY.encode({ curve: P384, x: coordinate(jwk.x), y: coordinate(jwk.y) })
  return new Uint8Array(createHash("sha384").update(key).digest())
}

function publicKey(spki: Uint8Array): KeyObject | null {
  try {
    return createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" })
  } catch {
    return null // not a key: told by the caller
  }
}

function coordinate(base64url: string): Uint8Array {
  const target = new Uint8Array(72)
  target.set(Buffer.from(base64url, "base64url").reverse())
  return target
}
