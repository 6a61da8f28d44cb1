import { constants, createPublicKey, type KeyObject, verify } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { ALG, algorithmText, CURVE, type HashName, hashName } from "../formats/tpm/algorithms.ts"
import {
  type EccPublic,
  hasAttribute,
  type ObjectAttribute,
  type RsaPublic,
  type SchemeParameters,
  type TpmPublic,
} from "../formats/tpm/public.ts"
import type { TpmSignature } from "../formats/tpm/signature.ts"

/** What makes a key an attestation key: it never leaves its TPM, and signs only what that TPM states itself. */
const REQUIRED: readonly ObjectAttribute[] = [
  "fixedTPM",
  "fixedParent",
  "sensitiveDataOrigin",
  "restricted",
  "sign",
]
const FORBIDDEN: readonly ObjectAttribute[] = ["decrypt"]

interface Curve {
  readonly name: "P-256" | "P-384"
  /** Bytes of a coordinate. */
  readonly size: number
  /** Order of the base point. Source: NIST SP 800-186, section 3.2.1. */
  readonly order: bigint
}
const CURVES: Readonly<Record<number, Curve>> = {
  [CURVE.p256]: {
    name: "P-256",
    size: 32,
    order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  },
  [CURVE.p384]: {
    name: "P-384",
    size: 48,
    order:
      0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  },
}
const RSA_MIN_BITS = 2048
const RSA_EXPONENT = 65537

/** What a signature is checked with: the key and its scheme, whatever is known of its attributes. */
export type SignatureKey =
  | Pick<EccPublic, "type" | "scheme" | "curveId" | "x" | "y">
  | Pick<RsaPublic, "type" | "scheme" | "keyBits" | "exponent" | "modulus">
type EccKey = Extract<SignatureKey, { type: "ecc" }>
type RsaKey = Extract<SignatureKey, { type: "rsa" }>

/**
 * That a public area is that of an attestation key. Its attributes are part of its Name; whether that Name belongs to a
 * genuine TPM is for the caller to establish.
 * @throws VerifyError ERR_TPM_AK_ATTRIBUTES
 */
export function verifyAttestationKey(key: TpmPublic): void {
  const missing = REQUIRED.filter((attribute) => !hasAttribute(key, attribute))
  const present = FORBIDDEN.filter((attribute) => hasAttribute(key, attribute))
  if (missing.length + present.length > 0)
    throw new VerifyError("ERR_TPM_AK_ATTRIBUTES", {
      at: "AK objectAttributes",
      expected: `${REQUIRED.join(", ")}, not ${FORBIDDEN.join(", ")}`,
      found: [...missing.map((each) => `no ${each}`), ...present].join(", "),
      hint: "somebody put another key in the place of the TPM's attestation key",
    })
}

/**
 * Verifies a TPM's signature over `message` by scheme and hash of the key itself, which the signature has to name too.
 * @returns the hash algorithm of the signature
 * @throws VerifyError ERR_TPM_SCHEME, ERR_TPM_AK_KEY, ERR_TPM_SIGNATURE
 */
export function verifyTpmSignature(
  key: SignatureKey,
  signature: TpmSignature,
  message: Uint8Array,
): HashName {
  const hash = agreedHash(key, signature)
  const good =
    key.type === "ecc" ? verifyEcc(key, signature, hash, message) : verifyRsa(key, signature, hash, message)
  if (!good)
    throw new VerifyError("ERR_TPM_SIGNATURE", {
      at: `${signature.scheme} ${hash}`,
      hint: "the quote, its signature or the attestation key was changed on the way",
    })
  return hash
}

/**
 * A key of which nothing is known but its SubjectPublicKeyInfo, with the scheme that the verifier demands of it.
 * @param spki DER. @throws VerifyError ERR_TPM_AK_KEY for anything but RSA, P-256, P-384
 */
export function bareKey(spki: Uint8Array, scheme: SchemeParameters): SignatureKey {
  const key = importSpki(spki)
  const { kty, crv, n, x, y } = key.export({ format: "jwk" })
  const { modulusLength: keyBits, publicExponent } = key.asymmetricKeyDetails ?? {}
  if (kty === "RSA" && keyBits !== undefined && publicExponent !== undefined)
    return { type: "rsa", scheme, keyBits, exponent: Number(publicExponent), modulus: bytesOf(n) }
  const curve = Object.entries(CURVES).find(([, { name }]) => name === crv)
  if (kty === "EC" && curve !== undefined)
    return { type: "ecc", scheme, curveId: Number(curve[0]), x: bytesOf(x), y: bytesOf(y) }
  throw new VerifyError("ERR_TPM_AK_KEY", {
    at: "AK",
    expected: "an RSA, P-256 or P-384 key",
    found: `${key.asymmetricKeyType} ${crv ?? ""}`.trim(),
  })
}

/** DER SubjectPublicKeyInfo of a key. @throws VerifyError ERR_TPM_AK_KEY */
export function spkiOf(key: SignatureKey): Uint8Array {
  const publicKey = key.type === "ecc" ? importEcc(key, curveOf(key)) : importRsa(key)
  return Uint8Array.from(publicKey.export({ type: "spki", format: "der" }))
}

function importSpki(spki: Uint8Array): KeyObject {
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" })
    // What follows the key, and other encodings of the same key, are refused.
    if (bytesEqual(key.export({ type: "spki", format: "der" }), spki)) return key
    throw new TypeError("bytes that are no part of the key")
  } catch (cause) {
    throw new VerifyError("ERR_TPM_AK_KEY", {
      at: "AK",
      expected: "a SubjectPublicKeyInfo in DER",
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    })
  }
}

function bytesOf(base64url: string | undefined): Uint8Array {
  return Uint8Array.from(Buffer.from(base64url ?? "", "base64url"))
}

function agreedHash(key: SignatureKey, signature: TpmSignature): HashName {
  const expected = key.scheme === null ? "a scheme" : schemeText(key.scheme.scheme, key.scheme.hash)
  const found = schemeText(ALG[signature.scheme], signature.hash)
  const hash = hashName(signature.hash)
  const same = key.scheme?.scheme === ALG[signature.scheme] && key.scheme.hash === signature.hash
  const fits = (key.type === "ecc") === (signature.scheme === "ecdsa")
  if (!same || !fits) throw new VerifyError("ERR_TPM_SCHEME", { at: "TPMT_SIGNATURE", expected, found })
  if (hash === null || hash === "sha1")
    throw new VerifyError("ERR_TPM_SCHEME", {
      at: "TPMT_SIGNATURE hash",
      expected: "sha256, sha384 or sha512",
      found: algorithmText(signature.hash),
    })
  return hash
}

function schemeText(scheme: number, hash: number | null): string {
  return `${algorithmText(scheme)}${hash === null ? "" : ` ${algorithmText(hash)}`}`
}

function verifyEcc(key: EccKey, signature: TpmSignature, hash: HashName, message: Uint8Array): boolean {
  if (signature.scheme !== "ecdsa") return false
  const curve = curveOf(key)
  const publicKey = importEcc(key, curve)
  const r = inRange(signature.r, curve, "r")
  const s = inRange(signature.s, curve, "s")
  return verify(hash, message, { key: publicKey, dsaEncoding: "ieee-p1363" }, Buffer.concat([r, s]))
}

function curveOf(key: EccKey): Curve {
  const curve = CURVES[key.curveId]
  if (curve !== undefined) return curve
  throw new VerifyError("ERR_TPM_AK_KEY", {
    at: "AK curve",
    expected: "P-256 or P-384",
    found: `0x${key.curveId.toString(16)}`,
  })
}

function importEcc(key: EccKey, curve: Curve): KeyObject {
  return importKey({
    kty: "EC",
    crv: curve.name,
    x: base64url(fixed(key.x, curve.size, "AK x")),
    y: base64url(fixed(key.y, curve.size, "AK y")),
  })
}

/** A signature with r or s of zero, or not below the order, is none. Libraries have got this wrong before. */
function inRange(integer: Uint8Array, curve: Curve, name: string): Uint8Array {
  const value = integer.length === 0 ? 0n : BigInt(`0x${Buffer.from(integer).toString("hex")}`)
  if (value === 0n || value >= curve.order)
    throw new VerifyError("ERR_TPM_SIGNATURE", {
      at: `ecdsa ${name}`,
      expected: `an integer from 1 to below the order of ${curve.name}`,
      found: shortHex(integer),
    })
  return fixed(integer, curve.size, `ecdsa ${name}`)
}

/** Pads to the fixed size: a TPM may leave out leading zeros. */
function fixed(integer: Uint8Array, size: number, at: string): Uint8Array {
  const extra = Math.max(0, integer.length - size)
  if (integer.subarray(0, extra).some((byte) => byte !== 0))
    throw new VerifyError("ERR_TPM_AK_KEY", {
      at,
      expected: `at most ${size} bytes`,
      found: `${integer.length}`,
    })
  const out = new Uint8Array(size)
  out.set(integer.subarray(extra), size - (integer.length - extra))
  return out
}

function verifyRsa(key: RsaKey, signature: TpmSignature, hash: HashName, message: Uint8Array): boolean {
  if (signature.scheme === "ecdsa") return false
  const publicKey = importRsa(key)
  // A signature is exactly as long as the modulus; shorter ones would be padded by some libraries.
  if (signature.signature.length !== key.modulus.length) return false
  const padding =
    signature.scheme === "rsapss" ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING
  // TPMs differ in the salt: as long as the digest, or as long as the key allows. Either is sound.
  const saltLength = constants.RSA_PSS_SALTLEN_AUTO
  return verify(hash, message, { key: publicKey, padding, saltLength }, signature.signature)
}

function importRsa(key: RsaKey): KeyObject {
  checkRsaKey(key)
  return importKey({ kty: "RSA", n: base64url(key.modulus), e: "AQAB" })
}

function checkRsaKey(key: RsaKey): void {
  const exponent = key.exponent === 0 ? RSA_EXPONENT : key.exponent
  if (exponent !== RSA_EXPONENT)
    throw new VerifyError("ERR_TPM_AK_KEY", {
      at: "AK RSA exponent",
      expected: `${RSA_EXPONENT}`,
      found: `${key.exponent}`,
    })
  const [first = 0] = key.modulus
  const bits = key.modulus.length * 8
  if (key.keyBits < RSA_MIN_BITS || bits !== key.keyBits || first < 0x80)
    throw new VerifyError("ERR_TPM_AK_KEY", {
      at: "AK RSA modulus",
      expected: `the declared size, at least ${RSA_MIN_BITS} bits`,
      found: `${bits} bits, declared ${key.keyBits}`,
    })
}

function importKey(key: { kty: string; [member: string]: string }): KeyObject {
  try {
    return createPublicKey({ key, format: "jwk" })
  } catch (cause) {
    throw new VerifyError("ERR_TPM_AK_KEY", {
      at: `AK ${key.kty} key`,
      expected: "a point on the curve, or a modulus",
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    })
  }
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64url")
}
