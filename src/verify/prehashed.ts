import { constants, createECDH, type KeyObject, publicDecrypt } from "node:crypto"
import { bytesEqual } from "../formats/hex.ts"
import { inside, integerBytes, single, TAG } from "../formats/x509/der.ts"

/**
 * Signatures over a digest that is already there, where the signed bytes are not: the library hashes what it is given.
 */

/** What PKCS #1 v1.5 puts before a digest. Source: RFC 8017, section 9.2, note 1. */
const DIGEST_INFO: ReadonlyMap<string, Buffer> = new Map([
  ["sha224", Buffer.from("302d300d06096086480165030402040500041c", "hex")],
  ["sha256", Buffer.from("3031300d060960864801650304020105000420", "hex")],
  ["sha384", Buffer.from("3041300d060960864801650304020205000430", "hex")],
  ["sha512", Buffer.from("3051300d060960864801650304020305000440", "hex")],
])

/** Algorithms whose digests can be under a signature. SHA-1 is not: collisions can be made to order. */
export const SIGNED_HASHES: readonly string[] = [...DIGEST_INFO.keys()]

/** Whether an RSA key signed the digest, by RSASSA-PKCS1-v1_5. @param algorithm one of {@link SIGNED_HASHES} */
export function isRsaSigned(
  algorithm: string,
  digest: Uint8Array,
  key: KeyObject,
  signature: Uint8Array,
): boolean {
  const info = DIGEST_INFO.get(algorithm)
  const size = (key.asymmetricKeyDetails?.modulusLength ?? 0) / 8
  if (info === undefined || signature.length !== size) return false
  // The whole block is made and compared, so that there is nothing in it to read wrongly.
  const padding = size - 3 - info.length - digest.length
  if (padding < 8) return false
  const expected = Buffer.concat([Buffer.of(0, 1), Buffer.alloc(padding, 0xff), Buffer.of(0), info, digest])
  try {
    return bytesEqual(publicDecrypt({ key, padding: constants.RSA_NO_PADDING }, signature), expected)
  } catch {
    // A number that is not below the modulus: no signature by this key.
    return false
  }
}

interface Curve {
  /** Name that the library has for it. */
  readonly name: string
  /** Bytes of a coordinate. */
  readonly size: number
  readonly prime: bigint
  readonly order: bigint
}

/** By their names in JWK. The factor a is -3 in each. Source: NIST SP 800-186, section 3.2.1. */
const CURVES: ReadonlyMap<string, Curve> = new Map([
  [
    "P-256",
    {
      name: "prime256v1",
      size: 32,
      prime: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
      order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
    },
  ],
  [
    "P-384",
    {
      name: "secp384r1",
      size: 48,
      prime: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
      order:
        0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
    },
  ],
  [
    "P-521",
    {
      name: "secp521r1",
      size: 66,
      prime: 2n ** 521n - 1n,
      order: BigInt(`0x1${"f".repeat(64)}fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409`),
    },
  ],
])

/** Whether {@link isEcdsaSigned} can check with the key: one on P-256, P-384 or P-521. */
export function isEcdsaKey(key: KeyObject): boolean {
  const name = key.asymmetricKeyDetails?.namedCurve
  return key.asymmetricKeyType === "ec" && [...CURVES.values()].some((curve) => curve.name === name)
}

/**
 * Whether a key signed the digest, by ECDSA. With T = (e/r)·G, the point that has to have r as its x is s⁻¹·r·(Q + T): the
 * library multiplies points, and only the one addition is left to do here. All numbers are public.
 * @param signature DER of r and s. @throws ParseError as the DER reader, where it is none
 */
export function isEcdsaSigned(digest: Uint8Array, key: KeyObject, signature: Uint8Array): boolean {
  const { crv, x, y } = key.export({ format: "jwk" })
  const curve = CURVES.get(crv ?? "")
  if (curve === undefined) return false
  const numbers = inside(single(signature, TAG.sequence, "ECDSA signature"))
  const r = positive(integerBytes(numbers.next(TAG.integer, "r")))
  const s = positive(integerBytes(numbers.next(TAG.integer, "s")))
  numbers.end()
  const { order, size } = curve
  if (r === 0n || s === 0n || r >= order || s >= order) return false
  const e = leftmostBits(digest, order)
  const q = { x: number(Buffer.from(x ?? "", "base64url")), y: number(Buffer.from(y ?? "", "base64url")) }
  const factor = (e * inverse(r, order)) % order
  const sum = factor === 0n ? q : add(q, timesGenerator(factor, curve), curve.prime)
  if (sum === null) return false
  const ecdh = createECDH(curve.name)
  ecdh.setPrivateKey(bytes((r * inverse(s, order)) % order, size))
  const found = ecdh.computeSecret(Buffer.concat([Buffer.of(4), bytes(sum.x, size), bytes(sum.y, size)]))
  return number(found) % order === r
}

interface Point {
  readonly x: bigint
  readonly y: bigint
}

function timesGenerator(factor: bigint, { name, size }: Curve): Point {
  const ecdh = createECDH(name)
  ecdh.setPrivateKey(bytes(factor, size))
  const point = ecdh.getPublicKey()
  return { x: number(point.subarray(1, 1 + size)), y: number(point.subarray(1 + size)) }
}

/** The sum of two points; null: the point at infinity. */
function add(a: Point, b: Point, prime: bigint): Point | null {
  if (a.x === b.x && a.y !== b.y) return null
  const slope =
    a.x === b.x
      ? modulo((3n * a.x * a.x - 3n) * inverse(2n * a.y, prime), prime)
      : modulo((b.y - a.y) * inverse(modulo(b.x - a.x, prime), prime), prime)
  const x = modulo(slope * slope - a.x - b.x, prime)
  return { x, y: modulo(slope * (a.x - x) - a.y, prime) }
}

/** The digest as a number, of no more bits than the order has. Source: FIPS 186-5, section 6.4.2. */
function leftmostBits(digest: Uint8Array, order: bigint): bigint {
  const extra = digest.length * 8 - order.toString(2).length
  const value = number(digest)
  return (extra > 0 ? value >> BigInt(extra) : value) % order
}

/** By Euclid's algorithm; the modulus is prime and `value` no multiple of it. */
function inverse(value: bigint, modulus: bigint): bigint {
  let [low, high] = [modulo(value, modulus), modulus]
  let [x, y] = [1n, 0n]
  while (low > 1n) {
    const quotient = high / low
    ;[high, low] = [low, high - quotient * low]
    ;[y, x] = [x, y - quotient * x]
  }
  return modulo(x, modulus)
}

function modulo(value: bigint, modulus: bigint): bigint {
  const rest = value % modulus
  return rest < 0n ? rest + modulus : rest
}

/** An integer in DER; zero for a negative one, which is out of range as zero is. */
function positive(integer: Uint8Array): bigint {
  return (integer[0] ?? 0) > 0x7f || integer.length > 67 ? 0n : number(integer)
}

function number(big: Uint8Array): bigint {
  return big.length === 0 ? 0n : BigInt(`0x${Buffer.from(big).toString("hex")}`)
}

function bytes(value: bigint, size: number): Buffer {
  return Buffer.from(value.toString(16).padStart(size * 2, "0"), "hex")
}
