import { createHash } from "node:crypto"
import { ParseError } from "../../errors.ts"
import { ALG, algorithmText, hashName } from "./algorithms.ts"
import { encodeWire, parseWire, sized, struct, u16, u32, type Wire } from "./wire.ts"

/** Object attributes. Source: TPM 2.0 Part 2, rev. 1.59, table "TPMA_OBJECT". */
export const OBJECT = {
  fixedTPM: 1 << 1,
  stClear: 1 << 2,
  fixedParent: 1 << 4,
  sensitiveDataOrigin: 1 << 5,
  userWithAuth: 1 << 6,
  adminWithPolicy: 1 << 7,
  noDA: 1 << 10,
  encryptedDuplication: 1 << 11,
  restricted: 1 << 16,
  decrypt: 1 << 17,
  sign: 1 << 18,
} as const
export type ObjectAttribute = keyof typeof OBJECT

/** Block cipher of a storage or endorsement key; null for keys that protect no children. */
export interface SymmetricParameters {
  readonly algorithm: number
  readonly keyBits: number
  readonly mode: number
}

/** An asymmetric scheme and its hash; null where the key leaves the choice to its user. */
export interface SchemeParameters {
  readonly scheme: number
  /** Identifier of the hash; null for RSAES, which has none. */
  readonly hash: number | null
}

interface CommonParameters {
  readonly nameAlg: number
  /** Bits of `OBJECT`. */
  readonly objectAttributes: number
  readonly authPolicy: Uint8Array
  readonly symmetric: SymmetricParameters | null
  readonly scheme: SchemeParameters | null
}

export interface EccPublic extends CommonParameters {
  readonly type: "ecc"
  readonly curveId: number
  readonly kdf: SchemeParameters | null
  /** Coordinates, big-endian, leading zeros may be left out. */
  readonly x: Uint8Array
  readonly y: Uint8Array
}

export interface RsaPublic extends CommonParameters {
  readonly type: "rsa"
  readonly keyBits: number
  /** 0 stands for 65537. */
  readonly exponent: number
  readonly modulus: Uint8Array
}

/** TPMT_PUBLIC of an asymmetric key: what a key is, and what its TPM lets it do. */
export type TpmPublic = EccPublic | RsaPublic

/** TPMT_SYM_DEF_OBJECT. Source: TPM 2.0 Part 2, rev. 1.59, table of this name. */
const SYMMETRIC: Wire<SymmetricParameters | null> = {
  read(from) {
    const algorithm = u16.read(from)
    return algorithm === ALG.null ? null : { algorithm, keyBits: u16.read(from), mode: u16.read(from) }
  },
  write(value, to) {
    u16.write(value?.algorithm ?? ALG.null, to)
    if (value === null) return
    u16.write(value.keyBits, to)
    u16.write(value.mode, to)
  },
}

/** Schemes whose details are one hash algorithm. ECDAA, with its counter, is not among them. */
const HASH_SCHEMES: ReadonlySet<number> = new Set([ALG.rsassa, ALG.rsapss, ALG.oaep, ALG.ecdsa, ALG.ecdh])
/** Key derivations: MGF1, KDF1 of SP 800-56A, KDF2, KDF1 of SP 800-108. */
const HASH_KDFS: ReadonlySet<number> = new Set([0x0007, 0x0020, 0x0021, 0x0022])

/** TPMT_RSA_SCHEME, TPMT_ECC_SCHEME, TPMT_KDF_SCHEME. Source: TPM 2.0 Part 2, rev. 1.59, tables of these names. */
function scheme(known: ReadonlySet<number>): Wire<SchemeParameters | null> {
  return {
    read(from) {
      const { place } = from
      const algorithm = u16.read(from)
      if (algorithm === ALG.null) return null
      if (algorithm === ALG.rsaes) return { scheme: algorithm, hash: null }
      if (known.has(algorithm)) return { scheme: algorithm, hash: u16.read(from) }
      throw new ParseError("ERR_UNSUPPORTED", {
        at: place,
        expected: "a scheme with a hash algorithm, or none",
        found: algorithmText(algorithm),
      })
    },
    write(value, to) {
      u16.write(value?.scheme ?? ALG.null, to)
      if (value !== null && value.hash !== null) u16.write(value.hash, to)
    },
  }
}

/** Source: TPM 2.0 Part 2, rev. 1.59, table "TPMT_PUBLIC". */
const COMMON = struct({ nameAlg: u16, objectAttributes: u32, authPolicy: sized(64) })
/** Source: TPM 2.0 Part 2, rev. 1.59, tables "TPMS_ECC_PARMS" and "TPMS_ECC_POINT". */
const ECC = struct({
  symmetric: SYMMETRIC,
  scheme: scheme(HASH_SCHEMES),
  curveId: u16,
  kdf: scheme(HASH_KDFS),
  x: sized(66),
  y: sized(66),
})
/** Source: TPM 2.0 Part 2, rev. 1.59, tables "TPMS_RSA_PARMS" and "TPM2B_PUBLIC_KEY_RSA". */
const RSA = struct({
  symmetric: SYMMETRIC,
  scheme: scheme(HASH_SCHEMES),
  keyBits: u16,
  exponent: u32,
  modulus: sized(512),
})

const PUBLIC: Wire<TpmPublic> = {
  read(from) {
    const { place } = from
    const type = u16.read(from)
    if (type === ALG.ecc) return { type: "ecc", ...COMMON.read(from), ...ECC.read(from) }
    if (type === ALG.rsa) return { type: "rsa", ...COMMON.read(from), ...RSA.read(from) }
    throw new ParseError("ERR_UNSUPPORTED", {
      at: place,
      expected: "an rsa or ecc key",
      found: algorithmText(type),
    })
  },
  write(value, to) {
    u16.write(ALG[value.type], to)
    COMMON.write(value, to)
    if (value.type === "ecc") ECC.write(value, to)
    else RSA.write(value, to)
  },
}

/**
 * Parses a TPMT_PUBLIC.
 * @throws ParseError ERR_UNSUPPORTED for other key types and schemes, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE
 */
export function parsePublic(bytes: Uint8Array): TpmPublic {
  return parseWire("TPMT_PUBLIC", PUBLIC, bytes)
}

/** Parses a TPM2B_PUBLIC: a TPMT_PUBLIC with its size before it. @throws as parsePublic */
export function parseSizedPublic(bytes: Uint8Array): TpmPublic {
  return parsePublic(parseWire("TPM2B_PUBLIC", sized(0xffff), bytes))
}

/** Bytes of a TPMT_PUBLIC. Parsing is exact, so this gives back the very bytes that were parsed. */
export function encodePublic(publicArea: TpmPublic): Uint8Array {
  return encodeWire(PUBLIC, publicArea)
}

/** Whether an object attribute is set. */
export function hasAttribute(publicArea: TpmPublic, attribute: ObjectAttribute): boolean {
  return (publicArea.objectAttributes & OBJECT[attribute]) !== 0
}

/**
 * The TPM Name of a key: 2 bytes of hash algorithm, then the digest of its public area. It names the key *and* its attributes.
 * Source: TPM 2.0 Part 1, rev. 1.59, section "Names".
 * @throws ParseError ERR_UNSUPPORTED where the name algorithm is not SHA-256, SHA-384 or SHA-512
 */
export function tpmName(publicArea: TpmPublic): Uint8Array {
  const hash = hashName(publicArea.nameAlg)
  if (hash === null || hash === "sha1")
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "TPMT_PUBLIC nameAlg",
      expected: "sha256, sha384 or sha512",
      found: algorithmText(publicArea.nameAlg),
    })
  const digest = createHash(hash).update(encodePublic(publicArea)).digest()
  return new Uint8Array(Buffer.concat([encodeWire(u16, publicArea.nameAlg), digest]))
}
