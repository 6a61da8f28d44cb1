import { createHash, type KeyObject } from "node:crypto"
import { ParseError, VerifyError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import {
  contextTag,
  type DerElement,
  type DerReader,
  inside,
  oidText,
  single,
  smallInteger,
  TAG,
} from "../formats/x509/der.ts"
import type { ImaKey } from "./ima-signature.ts"
import { isEcdsaSigned, isRsaSigned } from "./prehashed.ts"
import { markVerified, type Verified } from "./verified.ts"

/** A digest as field `d-modsig` has it: of the content without the signature that is appended to it. */
export interface UnsignedDigest {
  /** Kernel's name. */
  readonly algorithm: string
  readonly digest: Uint8Array
}

const OID_DATA = "1.2.840.113549.1.7.1"
const OID_SIGNED_DATA = "1.2.840.113549.1.7.2"
const OID_CONTENT_TYPE = "1.2.840.113549.1.9.3"
const OID_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
const HASHES: Readonly<Record<string, string>> = {
  "2.16.840.1.101.3.4.2.1": "sha256",
  "2.16.840.1.101.3.4.2.2": "sha384",
  "2.16.840.1.101.3.4.2.3": "sha512",
  "2.16.840.1.101.3.4.2.4": "sha224",
}
/** The kernel's tool makes one. */
const MAX_SIGNERS = 8

/**
 * Verifies a signature that is appended to a file, as field `modsig` has it: PKCS #7 SignedData about a content that stands
 * elsewhere. Certificates inside are passed over: who signed has to be one of the given keys.
 * Source: RFC 5652, section 5; Linux 6.12, scripts/sign-file.c.
 * @param measured from the same entry of a verified list, whose template is ima-modsig.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES; VerifyError ERR_IMA_SIGNATURE, ERR_IMA_SIGNATURE_KEY
 */
export function verifyAppendedSignature(
  signature: Uint8Array,
  measured: UnsignedDigest,
  keys: readonly ImaKey[],
): Verified<UnsignedDigest> {
  const trusted = keys.filter(({ signs }) => signs === "content")
  if (signersOf(signature).some((signer) => trusted.some(({ key }) => isSignedBy(signer, measured, key))))
    return markVerified(measured)
  throw new VerifyError("ERR_IMA_SIGNATURE_KEY", {
    at: "appended signature",
    expected: `one by a given key, over ${measured.algorithm} of the content`,
    found: "none",
    hint: "name the signer's certificate with --ima-key, if you trust it",
  })
}

interface Signer {
  /** Kernel's name. */
  readonly algorithm: string
  /** Null: the content's digest itself is signed. */
  readonly attributes: DerElement | null
  readonly signature: Uint8Array
}

function signersOf(der: Uint8Array): Signer[] {
  const info = inside(single(der, TAG.sequence, "appended signature"))
  requireOid(info.next(TAG.oid, "content type"), OID_SIGNED_DATA)
  const wrapped = inside(info.next(contextTag(0), "content"))
  info.end()
  const data = inside(wrapped.next(TAG.sequence, "SignedData"))
  wrapped.end()
  smallInteger(data.next(TAG.integer, "version"))
  data.next(TAG.set, "digestAlgorithms")
  const content = inside(data.next(TAG.sequence, "encapContentInfo"))
  requireOid(content.next(TAG.oid, "eContentType"), OID_DATA)
  // A content of its own would be what is signed, and says nothing about the file.
  content.end()
  data.optional(contextTag(0), "certificates")
  data.optional(contextTag(1), "crls")
  const infos = inside(data.next(TAG.set, "signerInfos"))
  data.end()
  const signers: Signer[] = []
  while (!infos.atEnd && signers.length < MAX_SIGNERS) signers.push(signerOf(infos))
  infos.end()
  return signers
}

function signerOf(infos: DerReader): Signer {
  const info = inside(infos.next(TAG.sequence, "SignerInfo"))
  smallInteger(info.next(TAG.integer, "version"))
  // Issuer and serial number, or key identifier: a hint at the key, and no more.
  if (info.optional(TAG.sequence, "issuerAndSerialNumber") === null)
    info.next(contextTag(0, false), "subjectKeyIdentifier")
  const hash = inside(info.next(TAG.sequence, "digestAlgorithm"))
  const oid = oidText(hash.next(TAG.oid, "algorithm"))
  const algorithm = HASHES[oid]
  if (algorithm === undefined) throw wrong(Object.values(HASHES).join(", "), oid)
  const attributes = info.optional(contextTag(0), "signedAttrs")
  info.next(TAG.sequence, "signatureAlgorithm")
  const signature = info.next(TAG.octetString, "signature").content
  info.optional(contextTag(1), "unsignedAttrs")
  info.end()
  return { algorithm, attributes, signature }
}

/** RSASSA-PKCS1-v1_5 or ECDSA, as the key has it: whatever the signature says of its algorithm chooses nothing. */
function isSignedBy(signer: Signer, measured: UnsignedDigest, key: KeyObject): boolean {
  if (signer.algorithm !== measured.algorithm) return false
  const signed = signedDigest(signer, measured)
  if (signed === null) return false
  if (key.asymmetricKeyType === "rsa") return isRsaSigned(signer.algorithm, signed, key, signer.signature)
  try {
    return isEcdsaSigned(signed, key, signer.signature)
  } catch (error) {
    // Not of the form of one: another of the keys may have made it.
    if (error instanceof ParseError) return false
    throw error
  }
}

/** What the signature is over: the content's digest, or that of attributes that name it. Null where they name another. */
function signedDigest({ algorithm, attributes }: Signer, measured: UnsignedDigest): Uint8Array | null {
  if (attributes === null) return measured.digest
  const values = new Map<string, DerElement>()
  const reader = inside(attributes)
  while (!reader.atEnd) {
    const attribute = inside(reader.next(TAG.sequence, "attribute"))
    const name = oidText(attribute.next(TAG.oid, "type"))
    const value = attribute.next(TAG.set, "values")
    attribute.end()
    if (values.has(name)) return null
    values.set(name, value)
  }
  const type = values.get(OID_CONTENT_TYPE)
  const digest = values.get(OID_MESSAGE_DIGEST)
  if (type === undefined || digest === undefined) return null
  requireOid(single(type.content, TAG.oid, "contentType"), OID_DATA)
  if (!bytesEqual(single(digest.content, TAG.octetString, "messageDigest").content, measured.digest))
    return null
  // Signed as the SET that they are, and not under the tag that they have here.
  return new Uint8Array(
    createHash(algorithm).update(Uint8Array.of(TAG.set)).update(attributes.raw.subarray(1)).digest(),
  )
}

function requireOid(element: DerElement, expected: string): void {
  const found = oidText(element)
  if (found !== expected) throw wrong(expected, found)
}

function wrong(expected: string, found: string): VerifyError<"ERR_IMA_SIGNATURE"> {
  return new VerifyError("ERR_IMA_SIGNATURE", { at: "appended signature", expected, found })
}
