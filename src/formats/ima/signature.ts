import { ParseError } from "../../errors.ts"
import { toHex } from "../hex.ts"

/** Kinds of signature that a `sig` field holds, with their first byte. Source: Linux 6.12, integrity.h, enum evm_ima_xattr_type. */
export const KIND_NUMBERS = { ima: 0x03, "evm-portable": 0x05, verity: 0x06 } as const
const KINDS = ["ima", "evm-portable", "verity"] as const satisfies readonly (keyof typeof KIND_NUMBERS)[]

/**
 * Names of hash algorithms by the kernel's numbers.
 * Source: Linux 6.12, include/uapi/linux/hash_info.h, enum hash_algo, and crypto/hash_info.c.
 */
export const HASH_NUMBERS: readonly string[] = [
  "md4",
  "md5",
  "sha1",
  "rmd160",
  "sha256",
  "sha384",
  "sha512",
  "sha224",
  "rmd128",
  "rmd256",
  "rmd320",
  "wp256",
  "wp384",
  "wp512",
  "tgr128",
  "tgr160",
  "tgr192",
  "sm3",
  "streebog256",
  "streebog512",
  "sha3-256",
  "sha3-384",
  "sha3-512",
]

/** The signature of a file: content of `security.ima` as measured by template ima-sig. */
export interface FileSignature {
  readonly kind: keyof typeof KIND_NUMBERS
  /** 2: over the bare digest; 3: over the digest with what it is of, as always for fs-verity. */
  readonly version: number
  /** Kernel's number of the hash algorithm (`enum hash_algo`). */
  readonly hashAlgorithm: number
  /** Last 4 bytes of the key's subject key identifier, hex. */
  readonly keyId: string
  readonly signature: Uint8Array
}

const HEADER_BYTES = 9

/**
 * Reads a non-empty `sig` field: kind, version, hash algorithm, 4 bytes of key identifier, big-endian u16 length, that
 * many bytes. The kernel logs what the file carries, sound or not, so a list with a broken one is still a list.
 * Source: Linux 6.12, security/integrity/integrity.h, struct signature_v2_hdr.
 * @throws ParseError ERR_TRUNCATED, ERR_UNSUPPORTED, ERR_MALFORMED.
 */
export function parseFileSignature(bytes: Uint8Array): FileSignature {
  const [type, version, hashAlgorithm] = bytes
  if (
    bytes.length < HEADER_BYTES ||
    type === undefined ||
    version === undefined ||
    hashAlgorithm === undefined
  )
    throw new ParseError("ERR_TRUNCATED", {
      at: "file signature",
      expected: `a header of ${HEADER_BYTES} bytes`,
      found: `${bytes.length}`,
    })
  const kind = KINDS.find((name) => KIND_NUMBERS[name] === type)
  if (kind === undefined || version < 2 || version > 3)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "file signature",
      expected: "type 3, 5 or 6, version 2 or 3",
      found: `type ${type}, version ${version}`,
    })
  const length = (bytes[7] ?? 0) * 256 + (bytes[8] ?? 0)
  if (length === 0 || length !== bytes.length - HEADER_BYTES)
    throw new ParseError("ERR_MALFORMED", {
      at: "file signature",
      expected: `${length} bytes, as its length field says`,
      found: `${bytes.length - HEADER_BYTES}`,
    })
  return {
    kind,
    version,
    hashAlgorithm,
    keyId: toHex(bytes.subarray(3, 7)),
    signature: bytes.subarray(HEADER_BYTES),
  }
}
