import { createHash } from "node:crypto"
import { bytesEqual } from "../formats/hex.ts"
import type { FileMetadata } from "../formats/ima/metadata.ts"
import { HASH_NUMBERS, parseFileSignature } from "../formats/ima/signature.ts"
import {
  fileIdDigest,
  type ImaKey,
  type MeasuredDigest,
  type SignedFile,
  verifyHeld,
  wrongSignature,
} from "./ima-signature.ts"
import { SIGNED_HASHES } from "./prehashed.ts"
import type { Verified } from "./verified.ts"

/** First byte of `security.ima` where that is a digest with its algorithm. Source: Linux 6.12, integrity.h, IMA_XATTR_DIGEST_NG. */
const DIGEST_NG = 0x04
/** Size of what is hashed after the attributes: u64 inode and u32 generation, both 0; u32 uid; u32 gid; u16 mode; 2 zeros. */
const MISC_BYTES = 24

/**
 * Verifies a portable signature of EVM, as `security.evm` holds it and a field `evmsig` repeats it. It is over a file's metadata, and
 * says something of the content only by `security.ima` among them: that has to be the measured digest itself.
 * Source: Linux 6.12, security/integrity/evm/evm_crypto.c (evm_calc_hmac_or_hash, hmac_add_misc), of 64-bit machines; version 3:
 * the linux-integrity tree of March 2026, digsig_asymmetric.c (calc_file_id_hash).
 * @param measured digest of the entry that signature and metadata are in
 * @throws ParseError as parseFileSignature; VerifyError ERR_IMA_SIGNATURE, ERR_IMA_SIGNATURE_KEY
 */
export function verifyEvmSignature(
  signature: Uint8Array,
  metadata: FileMetadata,
  measured: MeasuredDigest,
  keys: readonly ImaKey[],
): Verified<SignedFile> {
  const { kind, version, hashAlgorithm, keyId, signature: value } = parseFileSignature(signature)
  if (kind !== "evm-portable") throw wrongSignature("a portable signature of EVM", `kind ${kind}`)
  const algorithm = HASH_NUMBERS[hashAlgorithm] ?? `number ${hashAlgorithm}`
  if (!SIGNED_HASHES.includes(algorithm)) throw wrongSignature(SIGNED_HASHES.join(", "), algorithm)
  if (!isDigestOf(metadata.ima, measured))
    throw wrongSignature("the measured digest in security.ima", "another, or none")
  const hashed = new Uint8Array(
    createHash(algorithm).update(metadata.values).update(miscellaneous(metadata)).digest(),
  )
  const digest = version === 2 ? hashed : fileIdDigest(kind, algorithm, hashAlgorithm, hashed)
  const trusted = keys.filter(({ signs }) => signs === "metadata")
  return verifyHeld({ keyId, value, algorithm, digest }, trusted, "--evm-key")
}

/** Whether `security.ima` is the entry's digest. SHA-1 is not counted: collisions can be made to order. */
function isDigestOf(ima: Uint8Array, { algorithm, digest, content }: MeasuredDigest): boolean {
  return (
    content === "file" &&
    SIGNED_HASHES.includes(algorithm) &&
    ima[0] === DIGEST_NG &&
    HASH_NUMBERS[ima[1] ?? -1] === algorithm &&
    bytesEqual(ima.subarray(2), digest)
  )
}

function miscellaneous({ uid, gid, mode }: FileMetadata): Uint8Array {
  const out = new DataView(new ArrayBuffer(MISC_BYTES))
  out.setUint32(12, uid, true)
  out.setUint32(16, gid, true)
  out.setUint16(20, mode, true)
  return new Uint8Array(out.buffer)
}
