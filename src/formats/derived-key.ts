import { createECDH, createPrivateKey, createPublicKey, hkdfSync, type KeyObject } from "node:crypto"
import { encodeDer, encodeInteger, encodeOid, TAG } from "./x509/der.ts"

/** Kinds of keys that can be derived. */
export const DERIVED_KEY_TYPES = ["x25519", "p256", "ed25519"] as const
export type DerivedKeyType = (typeof DERIVED_KEY_TYPES)[number]

export interface DerivedKeyInput {
  /** At least 32 bytes that nobody else has. */
  readonly secret: Uint8Array
  readonly type: DerivedKeyType
  /** Any bytes; empty: none. */
  readonly salt: Uint8Array
  /** What the key is for. Another purpose gives another key, which tells nothing about this one. */
  readonly purpose: string
}

/** A private key in the forms that programs take. */
export interface DerivedKey {
  /** PKCS #8, PEM. */
  readonly privatePem: string
  /** SubjectPublicKeyInfo, PEM. */
  readonly publicPem: string
  /** 32 bytes: the X25519 scalar, the Ed25519 seed, or the P-256 scalar, big-endian. */
  readonly privateRaw: Uint8Array
  /** 32 bytes, or the P-256 point uncompressed (65 bytes). */
  readonly publicRaw: Uint8Array
}

/** First of what HKDF's info holds, so that a later version can do otherwise. */
const LABEL = "cosmian-vm/derived-key/v1"
const OID = { x25519: "1.3.101.110", ed25519: "1.3.101.112" } as const
/** The order of P-256. Source: SEC 2, version 2.0, section 2.4.2. */
const P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
/** 64 bits and more above the order's length, so that the remainder has no bias worth the name. */
const P256_BYTES = 48

/**
 * Derives a private key from a secret by HKDF-SHA256, whose info is the label, the type, the purpose and the length of the salt in
 * decimal, each ended by a zero byte. Without the length, salts that differ in zeros at their end would be the same one: HMAC fills
 * its key up with zeros.
 *
 * X25519 and Ed25519 take 32 bytes as they are; P-256 takes 48 bytes as an integer modulo n-1, plus 1.
 * Source: RFC 5869; RFC 7748, section 5; RFC 8032, section 5.1.5; FIPS 186-5, appendix A.2.1.
 */
export function expandKey({ secret, type, salt, purpose }: DerivedKeyInput): DerivedKey {
  const info = Buffer.from(`${LABEL}\0${type}\0${purpose}\0${salt.length}\0`)
  const length = type === "p256" ? P256_BYTES : 32
  const bytes = new Uint8Array(hkdfSync("sha256", secret, salt, info, length))
  return type === "p256" ? p256KeyOf(bytes) : curveKeyOf(type, bytes)
}

/** Source: RFC 8410, section 7. */
function curveKeyOf(type: "x25519" | "ed25519", seed: Uint8Array): DerivedKey {
  const der = encodeDer(
    TAG.sequence,
    encodeInteger(0),
    encodeDer(TAG.sequence, encodeOid(OID[type])),
    encodeDer(TAG.octetString, encodeDer(TAG.octetString, seed)),
  )
  const key = createPrivateKey({ key: Buffer.from(der), format: "der", type: "pkcs8" })
  const { x = "" } = createPublicKey(key).export({ format: "jwk" })
  return { ...pemOf(key), privateRaw: seed, publicRaw: new Uint8Array(Buffer.from(x, "base64url")) }
}

function p256KeyOf(bytes: Uint8Array): DerivedKey {
  const wide = BigInt(`0x${Buffer.from(bytes).toString("hex")}`)
  const scalar = (wide % (P256_ORDER - 1n)) + 1n
  const privateRaw = new Uint8Array(Buffer.from(scalar.toString(16).padStart(64, "0"), "hex"))
  const ecdh = createECDH("prime256v1")
  ecdh.setPrivateKey(privateRaw)
  const publicRaw = new Uint8Array(ecdh.getPublicKey())
  const coordinate = (from: number) => Buffer.from(publicRaw.subarray(from, from + 32)).toString("base64url")
  const key = createPrivateKey({
    format: "jwk",
    key: {
      kty: "EC",
      crv: "P-256",
      d: Buffer.from(privateRaw).toString("base64url"),
      x: coordinate(1),
      y: coordinate(33),
    },
  })
  return { ...pemOf(key), privateRaw, publicRaw }
}

function pemOf(key: KeyObject): Pick<DerivedKey, "privatePem" | "publicPem"> {
  return {
    privatePem: key.export({ format: "pem", type: "pkcs8" }).toString(),
    publicPem: createPublicKey(key).export({ format: "pem", type: "spki" }).toString(),
  }
}
