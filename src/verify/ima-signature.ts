import { createHash, createPublicKey, type KeyObject } from "node:crypto"
import { ParseError, VerifyError } from "../errors.ts"
import { bytesEqual, toHex } from "../formats/hex.ts"
import {
  type FileSignature,
  HASH_NUMBERS,
  KIND_NUMBERS,
  parseFileSignature,
} from "../formats/ima/signature.ts"
import type { Content } from "../formats/ima/template.ts"
import { parsePem } from "../formats/pem.ts"
import { OID_SUBJECT_KEY_ID, parseCertificate } from "../formats/x509/certificate.ts"
import { inside, single, TAG, wholeBits } from "../formats/x509/der.ts"
import { isEcdsaKey, isEcdsaSigned, isRsaSigned, SIGNED_HASHES } from "./prehashed.ts"
import { markVerified, type Verified } from "./verified.ts"

/** A key that a user trusts to have signed files. */
export interface ImaKey {
  readonly key: KeyObject
  /** What signatures may name it by: last 4 bytes of a key identifier, hex. */
  readonly keyIds: readonly string[]
  /**
   * What it is trusted to have signed. Both kinds of signature are over a bare hash, so that one of a *file* that holds the bytes which
   * EVM hashes is also one of metadata: who signs other people's files must not thereby vouch for metadata. The kernel, too,
   * has a keyring for each.
   */
  readonly signs: "content" | "metadata"
}

/** A digest as a measurement list has it. */
export interface MeasuredDigest {
  /** Kernel's name. */
  readonly algorithm: string
  readonly digest: Uint8Array
  readonly content: Content
}

/** That a key signed a file. Path, version and time are not under the signature. */
export interface SignedFile {
  /** Last 4 bytes of the key's identifier, hex. */
  readonly keyId: string
}

const RSA_MIN_BITS = 2048

/**
 * Reads trusted keys: PEM with any number of certificates and public keys, or one of either in DER. A certificate counts for
 * its key alone: who gave the file vouches for it, and files stay signed when a certificate ends.
 * @throws VerifyError ERR_IMA_KEY; ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_LARGE for a broken PEM file
 */
export function parseImaKeys(file: Uint8Array, signs: ImaKey["signs"] = "content"): ImaKey[] {
  return keysIn(file).map((key) => ({ ...key, signs }))
}

type BareKey = Omit<ImaKey, "signs">

function keysIn(file: Uint8Array): BareKey[] {
  const text = Buffer.from(file.buffer, file.byteOffset, file.byteLength).toString("latin1")
  if (!text.includes("-----BEGIN ")) return [imaKey(file)]
  const blocks = parsePem(text)
  const stranger = blocks.find(({ label }) => label !== "CERTIFICATE" && label !== "PUBLIC KEY")
  if (stranger !== undefined || blocks.length === 0)
    throw unusable("CERTIFICATE or PUBLIC KEY", stranger?.label ?? "no block of PEM")
  return blocks.map(({ der }) => imaKey(der))
}

/** @param der a certificate or a SubjectPublicKeyInfo */
function imaKey(der: Uint8Array): BareKey {
  const key = importSpki(der)
  if (key !== null) return keyOf(key, der, null)
  try {
    const { spki, extensions } = parseCertificate(der)
    const identifier = extensions.get(OID_SUBJECT_KEY_ID)?.value ?? null
    const certified = importSpki(spki)
    if (certified === null) throw unusable("an RSA or elliptic curve key", "a certificate with another key")
    const keyId = identifier === null ? null : single(identifier, TAG.octetString, "subject key identifier")
    return keyOf(certified, spki, keyId?.content ?? null)
  } catch (cause) {
    if (!(cause instanceof ParseError)) throw cause
    throw unusable("a certificate or a public key, PEM or DER", cause.message, cause)
  }
}

function keyOf(key: KeyObject, spki: Uint8Array, identifier: Uint8Array | null): BareKey {
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
  if (key.asymmetricKeyType === "rsa" && (bits < RSA_MIN_BITS || bits % 8 !== 0))
    throw unusable(`RSA of at least ${RSA_MIN_BITS} bits`, `${bits} bits`)
  if (key.asymmetricKeyType !== "rsa" && !isEcdsaKey(key))
    throw unusable("an RSA key, or one on P-256, P-384 or P-521", key.asymmetricKeyType ?? "another")
  const outer = inside(single(spki, TAG.sequence, "public key"))
  outer.next(TAG.sequence, "algorithm")
  const bare = wholeBits(outer.next(TAG.bitString, "key"))
  // Signers name a key by its certificate's identifier, or by SHA-1 over the key. RFC 5280, section 4.2.1.2, has both equal.
  const identifiers = [createHash("sha1").update(bare).digest(), ...(identifier === null ? [] : [identifier])]
  return { key, keyIds: identifiers.map((each) => toHex(each.subarray(-4))) }
}

function importSpki(spki: Uint8Array): KeyObject | null {
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" })
    return bytesEqual(key.export({ type: "spki", format: "der" }), spki) ? key : null
  } catch {
    // Not a public key: the caller tries a certificate, or says so.
    return null
  }
}

function unusable(expected: string, found: string, cause?: unknown): VerifyError<"ERR_IMA_KEY"> {
  return new VerifyError("ERR_IMA_KEY", {
    expected,
    found,
    hint: "name the certificate or public key that belongs to the key files are signed with",
    ...(cause === undefined ? {} : { cause }),
  })
}

/**
 * Verifies a file's signature, as `security.ima` holds it and a `sig` field repeats it, over the measured digest.
 * Source: Linux 6.12, security/integrity/digsig_asymmetric.c and ima_appraise.c (calc_file_id_hash); version 3 of a file's content: the
 * linux-integrity tree of March 2026.
 * @param measured digest of a measurement list that was verified (`verifyMeasurementList`)
 * @throws ParseError as parseFileSignature; VerifyError ERR_IMA_SIGNATURE, ERR_IMA_SIGNATURE_KEY
 */
export function verifyFileSignature(
  signature: Uint8Array,
  measured: MeasuredDigest,
  keys: readonly ImaKey[],
): Verified<SignedFile> {
  const { kind, version, hashAlgorithm, keyId, signature: value } = parseFileSignature(signature)
  const algorithm = HASH_NUMBERS[hashAlgorithm] ?? `number ${hashAlgorithm}`
  const fits =
    (kind === "ima" && measured.content === "file") ||
    (kind === "verity" && version === 3 && measured.content === "verity")
  if (!fits)
    throw wrongSignature(
      "a signature of the measured digest",
      `kind ${kind}, version ${version}, of ${measured.content}`,
    )
  if (!SIGNED_HASHES.includes(algorithm)) throw wrongSignature(SIGNED_HASHES.join(", "), algorithm)
  if (algorithm !== measured.algorithm)
    throw wrongSignature(`a signature over ${measured.algorithm}`, `over ${algorithm}`)
  const digest =
    version === 2 ? measured.digest : fileIdDigest(kind, algorithm, hashAlgorithm, measured.digest)
  const trusted = keys.filter(({ signs }) => signs === "content")
  return verifyHeld({ keyId, value, algorithm, digest }, trusted, "--ima-key")
}

/**
 * A signature over a digest, by one of the keys that its identifier names.
 * @param option that such keys are given by, for messages
 * @throws VerifyError ERR_IMA_SIGNATURE, ERR_IMA_SIGNATURE_KEY
 */
export function verifyHeld(
  signed: {
    readonly keyId: string
    readonly value: Uint8Array
    /** One of {@link SIGNED_HASHES}. */
    readonly algorithm: string
    readonly digest: Uint8Array
  },
  keys: readonly ImaKey[],
  option: string,
): Verified<SignedFile> {
  const { keyId, value, algorithm, digest } = signed
  const candidates = keys.filter(({ keyIds }) => keyIds.includes(keyId))
  if (candidates.length === 0)
    throw new VerifyError("ERR_IMA_SIGNATURE_KEY", {
      at: "file signature",
      expected: keys.flatMap(({ keyIds }) => keyIds).join(", ") || "a key that was given",
      found: keyId,
      hint: `name the signer's certificate with ${option}, if you trust it`,
    })
  if (!candidates.some(({ key }) => isSigned(algorithm, digest, key, value)))
    throw wrongSignature(`a signature by key ${keyId}`, "one that does not verify")
  return markVerified({ keyId })
}

function isSigned(algorithm: string, digest: Uint8Array, key: KeyObject, signature: Uint8Array): boolean {
  return key.asymmetricKeyType === "rsa"
    ? isRsaSigned(algorithm, digest, key, signature)
    : isEcdsaSigned(digest, key, signature)
}

/** What version 3 signs: type of the signature, hash algorithm, digest. Its own hash is the same algorithm. */
export function fileIdDigest(
  kind: FileSignature["kind"],
  algorithm: string,
  number: number,
  digest: Uint8Array,
): Uint8Array {
  return new Uint8Array(
    createHash(algorithm).update(Uint8Array.of(KIND_NUMBERS[kind], number)).update(digest).digest(),
  )
}

export function wrongSignature(expected: string, found: string): VerifyError<"ERR_IMA_SIGNATURE"> {
  return new VerifyError("ERR_IMA_SIGNATURE", {
    at: "file signature",
    expected,
    found,
    hint: "the file is not the one that was signed, or its signature was changed",
  })
}
