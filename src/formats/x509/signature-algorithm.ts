import { ParseError } from "../../errors.ts"
import {
  contextTag,
  type DerElement,
  encodeDer,
  encodeInteger,
  encodeOid,
  inside,
  oidText,
  single,
  smallInteger,
  TAG,
} from "./der.ts"

export type HashName = "sha1" | "sha256" | "sha384" | "sha512"

/** A certificate's signature algorithm, decoded: different encodings of the same parameters are the same value. */
export type SignatureAlgorithm =
  | {
      readonly scheme: "rsassa-pss"
      readonly hash: HashName
      readonly mgfHash: HashName
      /** Bytes. */
      readonly saltLength: number
    }
  | { readonly scheme: "rsassa-pkcs1"; readonly hash: HashName }
  | { readonly scheme: "ecdsa"; readonly hash: HashName }

const OID_RSASSA_PSS = "1.2.840.113549.1.1.10"
const OID_MGF1 = "1.2.840.113549.1.1.8"

const HASHES: Readonly<Record<string, HashName>> = {
  "1.3.14.3.2.26": "sha1",
  "2.16.840.1.101.3.4.2.1": "sha256",
  "2.16.840.1.101.3.4.2.2": "sha384",
  "2.16.840.1.101.3.4.2.3": "sha512",
}

/** Algorithms whose identifier says all. Source: RFC 4055, section 5 and RFC 5758, section 3.2. */
const PLAIN: Readonly<Record<string, SignatureAlgorithm>> = {
  "1.2.840.113549.1.1.11": { scheme: "rsassa-pkcs1", hash: "sha256" },
  "1.2.840.113549.1.1.12": { scheme: "rsassa-pkcs1", hash: "sha384" },
  "1.2.840.113549.1.1.13": { scheme: "rsassa-pkcs1", hash: "sha512" },
  "1.2.840.10045.4.3.2": { scheme: "ecdsa", hash: "sha256" },
  "1.2.840.10045.4.3.3": { scheme: "ecdsa", hash: "sha384" },
  "1.2.840.10045.4.3.4": { scheme: "ecdsa", hash: "sha512" },
}

/**
 * Reads an AlgorithmIdentifier of a signature. Source: RFC 5280, section 4.1.1.2; RFC 4055, section 3.1 (RSASSA-PSS-params).
 * @throws ParseError ERR_UNSUPPORTED, ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES
 */
export function parseSignatureAlgorithm(element: DerElement): SignatureAlgorithm {
  const reader = inside(element)
  const id = oidText(reader.next(TAG.oid, "algorithm"))
  if (id === OID_RSASSA_PSS) {
    const parameters = reader.next(TAG.sequence, "RSASSA-PSS parameters")
    reader.end()
    return parsePssParameters(parameters)
  }
  const plain = PLAIN[id]
  if (plain === undefined)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: element.place,
      expected: "RSASSA-PSS, RSA or ECDSA with SHA-2",
      found: id,
    })
  if (reader.optional(TAG.null, "parameters") !== null && plain.scheme === "ecdsa")
    throw new ParseError("ERR_MALFORMED", { at: element.place, expected: "no parameters", found: "NULL" })
  reader.end()
  return plain
}

function parsePssParameters(parameters: DerElement): SignatureAlgorithm {
  const reader = inside(parameters)
  const hash = reader.optional(contextTag(0), "hashAlgorithm")
  const mask = reader.optional(contextTag(1), "maskGenAlgorithm")
  const salt = reader.optional(contextTag(2), "saltLength")
  const trailer = reader.optional(contextTag(3), "trailerField")
  reader.end()
  // AMD's older certificates write the trailer field's default value out, which DER forbids; its value is what counts.
  const trailerField =
    trailer === null ? 1 : smallInteger(single(trailer.content, TAG.integer, trailer.place))
  if (trailerField !== 1)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: parameters.place,
      expected: "trailer field 1",
      found: `${trailerField}`,
    })
  return {
    scheme: "rsassa-pss",
    hash: hash === null ? "sha1" : parseHash(single(hash.content, TAG.sequence, hash.place)),
    mgfHash: mask === null ? "sha1" : parseMgf1(single(mask.content, TAG.sequence, mask.place)),
    saltLength: salt === null ? 20 : smallInteger(single(salt.content, TAG.integer, salt.place)),
  }
}

function parseHash(element: DerElement): HashName {
  const reader = inside(element)
  const id = oidText(reader.next(TAG.oid, "hash"))
  reader.optional(TAG.null, "parameters")
  reader.end()
  const hash = HASHES[id]
  if (hash === undefined)
    throw new ParseError("ERR_UNSUPPORTED", { at: element.place, expected: "SHA-1 or SHA-2", found: id })
  return hash
}

function parseMgf1(element: DerElement): HashName {
  const reader = inside(element)
  const id = oidText(reader.next(TAG.oid, "mask generation function"))
  if (id !== OID_MGF1)
    throw new ParseError("ERR_UNSUPPORTED", { at: element.place, expected: "MGF1", found: id })
  const hash = parseHash(reader.next(TAG.sequence, "hash"))
  reader.end()
  return hash
}

/** AlgorithmIdentifier of AMD's certificates: RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes. */
export function encodePssSha384(): Uint8Array {
  const sha384 = encodeDer(TAG.sequence, encodeOid("2.16.840.1.101.3.4.2.2"), encodeDer(TAG.null))
  const parameters = encodeDer(
    TAG.sequence,
    encodeDer(contextTag(0), sha384),
    encodeDer(contextTag(1), encodeDer(TAG.sequence, encodeOid(OID_MGF1), sha384)),
    encodeDer(contextTag(2), encodeInteger(48)),
  )
  return encodeDer(TAG.sequence, encodeOid(OID_RSASSA_PSS), parameters)
}
