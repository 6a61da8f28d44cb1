import { ParseError } from "../../errors.ts"
import { bytesEqual } from "../hex.ts"
import { type DerElement, type DerReader, inside, single, TAG, wholeBits } from "./der.ts"
import { parseSignatureAlgorithm, type SignatureAlgorithm } from "./signature-algorithm.ts"

/** What certificates and revocation lists have in common: a signed part, and the signature over it. Nothing is verified. */
export interface SignedObject {
  readonly der: Uint8Array
  /** The bytes under the signature. */
  readonly tbs: Uint8Array
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Uint8Array
}

/**
 * Takes a signed object apart. Source: RFC 5280, sections 4.1.1 and 5.1.1.
 * @param name for messages: `certificate`, `CRL`.
 * @returns the object, its signed part, and the outer algorithm for {@link requireSameAlgorithm}.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_MALFORMED, ERR_TOO_LARGE, ERR_UNSUPPORTED (algorithm)
 */
export function readSigned(
  der: Uint8Array,
  name: string,
  maxBytes: number,
): { readonly object: SignedObject; readonly signed: DerElement; readonly algorithm: DerElement } {
  if (der.length > maxBytes)
    throw new ParseError("ERR_TOO_LARGE", {
      at: name,
      expected: `at most ${maxBytes} bytes`,
      found: `${der.length}`,
    })
  const outer = inside(single(der, TAG.sequence, name))
  const signed = outer.next(TAG.sequence, "signed part")
  const algorithm = outer.next(TAG.sequence, "signatureAlgorithm")
  const signature = wholeBits(outer.next(TAG.bitString, "signature"))
  outer.end()
  const signatureAlgorithm = parseSignatureAlgorithm(algorithm)
  return { object: { der, tbs: signed.raw, signatureAlgorithm, signature }, signed, algorithm }
}

/**
 * Reads the algorithm inside the signed part: it has to be the outer one, which is not under the signature.
 * Source: RFC 5280, sections 4.1.1.2 and 5.1.1.2.
 * @throws ParseError ERR_MALFORMED
 */
export function requireSameAlgorithm(reader: DerReader, algorithm: DerElement, name: string): void {
  if (bytesEqual(reader.next(TAG.sequence, "signature").raw, algorithm.raw)) return
  throw new ParseError("ERR_MALFORMED", {
    at: name,
    expected: "one signature algorithm",
    found: "another one outside the signed part",
  })
}
