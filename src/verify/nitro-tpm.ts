import { createHash, verify } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { type NitroDocument, parseNitroDocument } from "../formats/nitro/document.ts"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import { placeOf, publicKeyOf, verifyAuthorityItself, verifyChain } from "./certificate-chain.ts"
import { markVerified, type Verified } from "./verified.ts"

/** A root that documents may rest on. */
export interface NitroAnchor {
  /** SHA-256 of the certificate's DER, lower-case hex. */
  readonly fingerprint: string
  /** It is not AWS's. */
  readonly simulated: boolean
}

export interface NitroTpmInput {
  readonly document: Uint8Array
  /** SHA-256 of the DER of each root that is trusted, lower-case hex. */
  readonly roots: ReadonlySet<string>
  /** What the document has to repeat; null: not compared. */
  readonly nonce: Uint8Array | null
  readonly at: Date
}

/**
 * What AWS's hypervisor signed: the PCRs of an instance's NitroTPM when the document was made. Whoever is root in the instance
 * may ask for one with any `nonce`, `userData` and `publicKey`, so that none of these says which key is in the TPM.
 */
export interface NitroTpmStatement {
  readonly document: NitroDocument
  /** The leaf, whose key signed. */
  readonly signer: Certificate
  readonly root: Certificate
  /** SHA-256 of the root's DER, lower-case hex. */
  readonly rootFingerprint: string
  readonly freshness: "nonce" | "not-checked"
}

/**
 * Verifies a NitroTPM attestation document: chain from its certificate through its bundle to a trusted root at `at`, ES384
 * signature, nonce. Revocation is not looked at: AWS says that it must not be.
 * Source: Amazon EC2 User Guide, "Validate a NitroTPM Attestation Document".
 * @throws ParseError where the document or a certificate is malformed; VerifyError ERR_CERT_*, ERR_NITRO_SIGNATURE,
 *   ERR_NITRO_NONCE
 */
export function verifyNitroTpm(input: NitroTpmInput): Verified<NitroTpmStatement> {
  const document = parseNitroDocument(input.document)
  const chain = verifyNitroChain(document, input.roots, input.at)
  verifySignature(document, chain.signer)
  return markVerified({ document, ...chain, freshness: verifyNonce(document, input.nonce) })
}

function verifyNitroChain(
  { certificate, caBundle }: NitroDocument,
  roots: ReadonlySet<string>,
  at: Date,
): Pick<NitroTpmStatement, "signer" | "root" | "rootFingerprint"> {
  const [rootDer = new Uint8Array(0), ...below] = caBundle
  const rootFingerprint = createHash("sha256").update(rootDer).digest("hex")
  if (!roots.has(rootFingerprint))
    throw new VerifyError("ERR_CERT_UNTRUSTED", {
      at: "NitroTPM document, cabundle",
      expected: `the root certificate ${[...roots].map((root) => root.slice(0, 16)).join(" or ")}`,
      found: rootFingerprint.slice(0, 16),
      hint: "this is no document of AWS's commercial regions; another partition has a root of its own",
    })
  const root = parseCertificate(rootDer)
  verifyAuthorityItself(root)
  const signer = parseCertificate(certificate)
  verifyChain([signer, ...below.map((der) => parseCertificate(der)).reverse()], root, at)
  return { signer, root, rootFingerprint }
}

function verifySignature({ signed, signature }: NitroDocument, signer: Certificate): void {
  const key = publicKeyOf(signer.spki, placeOf(signer))
  // The names of P-384 in OpenSSL.
  if (key.asymmetricKeyType !== "ec" || key.asymmetricKeyDetails?.namedCurve !== "secp384r1")
    throw new VerifyError("ERR_CERT_ALGORITHM", {
      at: placeOf(signer),
      expected: "a key on P-384",
      found: `${key.asymmetricKeyType} ${key.asymmetricKeyDetails?.namedCurve ?? ""}`.trim(),
    })
  if (!verify("sha384", signed, { key, dsaEncoding: "ieee-p1363" }, signature))
    throw new VerifyError("ERR_NITRO_SIGNATURE", {
      at: "NitroTPM document",
      expected: `a signature by ${placeOf(signer)}`,
      found: "another one",
      hint: "the document was altered or made by somebody else",
    })
}

function verifyNonce({ nonce }: NitroDocument, expected: Uint8Array | null): NitroTpmStatement["freshness"] {
  if (expected === null) return "not-checked"
  if (nonce !== null && bytesEqual(nonce, expected)) return "nonce"
  throw new VerifyError("ERR_NITRO_NONCE", {
    at: "NitroTPM document, nonce",
    expected: shortHex(expected, 32),
    found: nonce === null ? "none" : shortHex(nonce, 32),
    hint: "it was not made for this request: ask for a new document, with this nonce",
  })
}
