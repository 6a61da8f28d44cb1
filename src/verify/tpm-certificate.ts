import { VerifyError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import {
  type Certificate,
  KEY_USAGE,
  OID_EXTENDED_KEY_USAGE,
  OID_SUBJECT_ALT_NAME,
  parseCertificate,
} from "../formats/x509/certificate.ts"
import { extendedKeyUsage } from "../formats/x509/extended-key-usage.ts"
import { OID_GCE_INSTANCE } from "../formats/x509/gce-instance.ts"
import { isSignedBy, placeOf, publicKeyOf, verifyChain } from "./certificate-chain.ts"
import { markVerified, type Verified } from "./verified.ts"

/** Whom the verifier believes when they say that a key is in a TPM: the user's directory of certificates. */
export interface TpmAuthorities {
  /** Certificates that signed themselves: each is trusted. */
  readonly roots: readonly Certificate[]
  /** Certificates of authorities below; they count where they lead to a root. */
  readonly intermediates: readonly Certificate[]
}

/** A certificate about a TPM's key, and the root that it rests on. */
export interface TpmCertificate {
  readonly certificate: Certificate
  readonly root: Certificate
}

/**
 * Source: TCG EK Credential Profile for TPM Family 2.0, version 2.5, section "Extended Key Usage"; TCG OID registry,
 * "tcg-kp-EKCertificate" and "tcg-kp-AIKCertificate".
 */
const OID_EK_CERTIFICATE = "2.23.133.8.1"
const OID_AK_CERTIFICATE = "2.23.133.8.3"

/** TPM makers name the TPM there, and mark it critical where the subject is empty. Nothing is decided by it. */
const UNDERSTOOD: ReadonlySet<string> = new Set([OID_SUBJECT_ALT_NAME, OID_EXTENDED_KEY_USAGE])
/** Authorities between a TPM's key and its root. */
const MAX_DEPTH = 6

/**
 * Verifies a certificate about an endorsement key: chain to one of the user's roots at `at`, and that it is for a key which
 * decrypts inside a TPM. It does not say which attestation key is in that TPM.
 * @param der of the certificate. @param hints DER of authorities that came with it.
 * @throws ParseError where a certificate is malformed; VerifyError ERR_CERT_*
 */
export function verifyEkCertificate(
  der: Uint8Array,
  hints: readonly Uint8Array[],
  authorities: TpmAuthorities,
  at: Date,
): Verified<TpmCertificate> {
  const certificate = parseCertificate(der)
  const key = publicKeyOf(certificate.spki, placeOf(certificate))
  const bit = key.asymmetricKeyType === "rsa" ? KEY_USAGE.keyEncipherment : KEY_USAGE.keyAgreement
  const purposes = extendedKeyUsage(certificate)
  // An authority that signs for other purposes too has to say which this one is.
  if (purposes === null ? certificate.keyUsage === null : !purposes.includes(OID_EK_CERTIFICATE))
    throw otherPurpose(certificate, "a certificate for an endorsement key (2.23.133.8.1)", purposes)
  return markVerified({ certificate, root: verifyPath(certificate, hints, authorities, at, bit) })
}

/**
 * Verifies a certificate about an attestation key: chain to one of the user's roots at `at`, for a key which signs inside a
 * TPM, and that this key is the one that signed the quote.
 * @param akSpki DER SubjectPublicKeyInfo of the key of the quote.
 * @throws as verifyEkCertificate, ERR_TPM_AK_CERTIFICATE
 */
export function verifyAkCertificate(
  der: Uint8Array,
  hints: readonly Uint8Array[],
  authorities: TpmAuthorities,
  akSpki: Uint8Array,
  at: Date,
): Verified<TpmCertificate> {
  const certificate = parseCertificate(der)
  // Google's certificates for attestation keys name no purpose, or that of endorsement keys; its own extension tells them.
  const purposes = extendedKeyUsage(certificate)
  const named =
    purposes?.includes(OID_AK_CERTIFICATE) === true || certificate.extensions.has(OID_GCE_INSTANCE)
  if (!named || certificate.keyUsage === null)
    throw otherPurpose(certificate, "a certificate for an attestation key (2.23.133.8.3)", purposes)
  const root = verifyPath(certificate, hints, authorities, at, KEY_USAGE.digitalSignature)
  if (!bytesEqual(certificate.spki, akSpki))
    throw new VerifyError("ERR_TPM_AK_CERTIFICATE", {
      at: placeOf(certificate),
      expected: `the key that signed the quote, ${shortHex(akSpki.subarray(-16), 16)}`,
      found: shortHex(certificate.spki.subarray(-16), 16),
      hint: "the certificate is that of another key: the quote was signed by a key that nobody vouches for",
    })
  return markVerified({ certificate, root })
}

function verifyPath(
  certificate: Certificate,
  hints: readonly Uint8Array[],
  authorities: TpmAuthorities,
  at: Date,
  keyUsage: number,
): Certificate {
  const candidates = [...authorities.intermediates, ...hints.map((der) => parseCertificate(der))]
  const found = pathFrom([certificate], new Set(candidates), authorities.roots)
  if (found === null)
    throw new VerifyError("ERR_CERT_UNTRUSTED", {
      at: placeOf(certificate),
      expected: "a chain to a root in the directory of --tpm-ca",
      found: `issuer ${JSON.stringify(certificate.issuer.commonName ?? "without common name")}`,
      hint: "add the certificates of the TPM's maker to the directory, root included; if they are there, this is no TPM of that maker",
    })
  verifyChain(found.path, found.root, at, new Set(found.path), { keyUsage, understood: UNDERSTOOD })
  return found.root
}

interface Path {
  readonly path: readonly Certificate[]
  readonly root: Certificate
}

/**
 * A way up by names and signatures; whether the authorities on it may sign is not looked at.
 * @param candidates authorities not tried yet: each is tried once, so that a circle of them costs nothing.
 */
function pathFrom(
  path: readonly Certificate[],
  candidates: Set<Certificate>,
  roots: readonly Certificate[],
): Path | null {
  const last = path.at(-1)
  if (last === undefined) return null
  const root = roots.find((candidate) => isIssuer(candidate, last))
  if (root !== undefined) return { path, root }
  if (path.length > MAX_DEPTH) return null
  for (const next of candidates) {
    if (!isIssuer(next, last)) continue
    candidates.delete(next)
    const found = pathFrom([...path, next], candidates, roots)
    if (found !== null) return found
  }
  return null
}

function isIssuer(issuer: Certificate, certificate: Certificate): boolean {
  if (!bytesEqual(issuer.subject.der, certificate.issuer.der)) return false
  try {
    return isSignedBy(certificate, issuer.spki)
  } catch (error) {
    // A key that may not sign here is no issuer; another one of this name may be.
    if (error instanceof VerifyError && error.code === "ERR_CERT_ALGORITHM") return false
    throw error
  }
}

function otherPurpose(
  certificate: Certificate,
  expected: string,
  purposes: readonly string[] | null,
): VerifyError<"ERR_CERT_KEY_USAGE"> {
  return new VerifyError("ERR_CERT_KEY_USAGE", {
    at: placeOf(certificate),
    expected,
    found: purposes === null ? "no purpose" : purposes.join(", "),
  })
}
