import { createHash } from "node:crypto"
import { ParseError } from "../errors.ts"
import { fromBase64, toBase64 } from "./hex.ts"
import { parseJsonRecord } from "./strict-json.ts"

/**
 * Content that only one agent process can open: HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM,
 * one message. The key is made when the agent starts, is never written anywhere, and stands under the TEE report: see
 * {@link sealingNonce}.
 */
export interface SealedContent {
  /** Encapsulated key, 32 bytes. */
  readonly enc: Uint8Array
  /** Ciphertext and 16 bytes of tag. */
  readonly ciphertext: Uint8Array
}

/** Bytes of a sealing key and of an encapsulated key. */
export const SEALING_KEY_BYTES = 32
/** Response header of `GET /v1/evidence?…&sealing=1` with the sealing key, base64 without padding. */
export const SEALING_KEY_HEADER = "cosmian-sealing-key"
const TAG_BYTES = 16
const TEXT = new TextEncoder()

/**
 * The nonce that evidence is made for when it also has to vouch for a sealing key: a report over it was made after the verifier
 * drew its nonce, by a VM that shows this key. It is longer than what anybody may ask evidence for, or else whoever has the TLS key
 * could get it for a sealing key of their own.
 * @param nonce 32 bytes, the verifier's. @param key 32 bytes.
 * @returns 64 bytes: SHA-512("cosmian-vm/sealing/v1\0" ‖ nonce ‖ key).
 */
export function sealingNonce(nonce: Uint8Array, key: Uint8Array): Uint8Array {
  return new Uint8Array(
    createHash("sha512").update("cosmian-vm/sealing/v1\0").update(nonce).update(key).digest(),
  )
}

/** What a sealed content is for (`app-init`, `bootstrap`): sealed for one use, it opens for no other. HPKE's `info`. */
export function sealingInfo(use: string): Uint8Array {
  return TEXT.encode(`cosmian-vm/sealed/v1/${use}`)
}

/** JSON of a sealed content. */
export function encodeSealedContent({ enc, ciphertext }: SealedContent): string {
  return JSON.stringify({ enc: toBase64(enc), ciphertext: toBase64(ciphertext) })
}

/**
 * Reads it back.
 * @param maxBytes cap of the JSON text.
 * @throws ParseError ERR_MALFORMED, ERR_TOO_LARGE, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_DUPLICATE_KEY.
 */
export function parseSealedContent(bytes: Uint8Array, maxBytes: number): SealedContent {
  const root = parseJsonRecord("sealed content", bytes, maxBytes)
  const enc = fromBase64(root.string("enc"))
  const ciphertext = fromBase64(root.string("ciphertext"))
  root.finish()
  if (enc?.length !== SEALING_KEY_BYTES || ciphertext === null || ciphertext.length < TAG_BYTES)
    // What was sent is not repeated.
    throw new ParseError("ERR_MALFORMED", {
      at: "sealed content",
      expected: `enc: ${SEALING_KEY_BYTES} bytes, ciphertext: at least ${TAG_BYTES} bytes, in base64`,
      found: "something else",
    })
  return { enc, ciphertext }
}
