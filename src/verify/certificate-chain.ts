import { createPublicKey, constants as cryptoConstants, type KeyObject, verify } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import {
  type Certificate,
  KEY_USAGE,
  OID_BASIC_CONSTRAINTS,
  OID_KEY_USAGE,
} from "../formats/x509/certificate.ts"

/** A public key that is trusted because it is pinned, and the name under which it signs. */
export interface AnchorKey {
  /** Common name of the anchor: the issuer of the topmost certificate. */
  readonly name: string
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array
}

/** What a chain may end at: a pinned key, or the certificate of a root that the user named. */
export type Anchor = AnchorKey | Pick<Certificate, "subject" | "spki">

const NONE: ReadonlySet<Certificate> = new Set()
const NOTHING_ELSE: ReadonlySet<string> = new Set()

/** What the certificate at the bottom of a chain has to be, where that is not a key which signs reports. */
export interface LeafRules {
  /** Bit of the key usage (KEY_USAGE) that it needs where it is restricted at all. */
  readonly keyUsage: number
  /** Critical extensions that the caller takes into account, beside those that every check does. */
  readonly understood: ReadonlySet<string>
}

const SIGNS_REPORTS: LeafRules = { keyUsage: KEY_USAGE.digitalSignature, understood: new Set() }

/** Critical extensions that the checks below take into account. Any other makes a certificate unusable. */
const UNDERSTOOD: ReadonlySet<string> = new Set([OID_BASIC_CONSTRAINTS, OID_KEY_USAGE])

/**
 * Verifies a chain from a device's certificate up to a pinned key, by RFC 5280, section 6.1: names, signatures,
 * validity at `at`, CA bits, path lengths, key usage, critical extensions. Revocation is not looked at.
 * @param path the device's certificate first; the last one is signed by the anchor. The anchor's own certificate is not
 *   part of it: an anchor is a key, and what a certificate says about that key adds nothing.
 * @param signed those of the path whose signature by the next one (or the anchor) the caller has just checked with
 *   `isSignedBy`; it is not checked twice.
 * @param leaf what the device's certificate is for; absent: it signs reports.
 * @throws VerifyError ERR_CERT_*
 */
export function verifyChain(
  path: readonly Certificate[],
  anchor: Anchor,
  at: Date,
  signed: ReadonlySet<Certificate> = NONE,
  leaf: LeafRules = SIGNS_REPORTS,
): void {
  path.forEach((certificate, index) => {
    const place = placeOf(certificate)
    verifyValidity(certificate, place, at)
    verifyExtensions(certificate, place, index === 0 ? leaf.understood : NOTHING_ELSE)
    if (index === 0) verifyDeviceCertificate(certificate, place, leaf.keyUsage)
    else verifyAuthority(certificate, place, index - 1)
    verifyIssuer(certificate, place, path[index + 1] ?? anchor, signed.has(certificate))
  })
}

/**
 * That a root certificate is a certificate authority and signed itself: that its file was read whole and is what it looks
 * like. It says nothing about trust.
 * @throws VerifyError ERR_CERT_*
 */
export function verifyAuthorityItself(root: Certificate): void {
  const place = placeOf(root)
  verifyExtensions(root, place, NOTHING_ELSE)
  verifyAuthority(root, place, 0)
  verifyIssuer(root, place, root, false)
}

/** The common name, for messages: certificates come from the other side, so it is quoted. */
export function placeOf(certificate: Certificate): string {
  return `certificate ${JSON.stringify(certificate.subject.commonName ?? "without common name")}`
}

/** @throws VerifyError ERR_CERT_EXPIRED, ERR_CERT_NOT_YET_VALID */
function verifyValidity({ notBefore, notAfter }: Certificate, place: string, at: Date): void {
  if (Number.isNaN(at.getTime()))
    throw new VerifyError("ERR_INTERNAL", { at: "time of verification", found: "not a time" })
  if (at < notBefore)
    throw new VerifyError("ERR_CERT_NOT_YET_VALID", {
      at: place,
      expected: `notBefore on or before ${at.toISOString()}`,
      found: notBefore.toISOString(),
      hint: "check this machine's clock",
    })
  if (at > notAfter)
    throw new VerifyError("ERR_CERT_EXPIRED", {
      at: place,
      expected: `notAfter on or after ${at.toISOString()}`,
      found: notAfter.toISOString(),
      hint: "get the current certificate from the vendor, or check this machine's clock",
    })
}

function verifyExtensions({ extensions }: Certificate, place: string, more: ReadonlySet<string>): void {
  for (const [oid, { critical }] of extensions)
    if (critical && !UNDERSTOOD.has(oid) && !more.has(oid))
      throw new VerifyError("ERR_CERT_EXTENSION", {
        at: place,
        expected: "critical extensions that are understood",
        found: oid,
      })
}

function verifyDeviceCertificate(
  { basicConstraints, keyUsage }: Certificate,
  place: string,
  bit: number,
): void {
  if (basicConstraints?.ca === true)
    throw new VerifyError("ERR_CERT_IS_CA", { at: place, expected: "CA false", found: "CA true" })
  if (keyUsage?.has(bit) === false)
    throw new VerifyError("ERR_CERT_KEY_USAGE", {
      at: place,
      expected: Object.entries(KEY_USAGE).find(([, value]) => value === bit)?.[0] ?? `bit ${bit}`,
      found: `bits ${[...keyUsage].join(", ")}`,
    })
}

/** @param below how many authorities stand between this one and the device's certificate. */
function verifyAuthority({ basicConstraints, keyUsage }: Certificate, place: string, below: number): void {
  if (basicConstraints?.ca !== true)
    throw new VerifyError("ERR_CERT_NOT_CA", { at: place, expected: "CA true", found: "CA false" })
  if (basicConstraints.pathLength !== null && below > basicConstraints.pathLength)
    throw new VerifyError("ERR_CERT_PATH_LENGTH", {
      at: place,
      expected: `at most ${basicConstraints.pathLength} authorities below`,
      found: `${below}`,
    })
  // Absent means unrestricted: RFC 5280, section 6.1.4 (n).
  if (keyUsage?.has(KEY_USAGE.keyCertSign) === false)
    throw new VerifyError("ERR_CERT_KEY_USAGE", {
      at: place,
      expected: "keyCertSign",
      found: `bits ${[...keyUsage].join(", ")}`,
    })
}

function verifyIssuer(certificate: Certificate, place: string, issuer: Anchor, signed: boolean): void {
  const named =
    "name" in issuer
      ? certificate.issuer.commonName === issuer.name
      : bytesEqual(certificate.issuer.der, issuer.subject.der)
  const issuerName = "name" in issuer ? issuer.name : issuer.subject.commonName
  if (!named)
    throw new VerifyError("ERR_CERT_NAME", {
      at: place,
      expected: `issuer ${JSON.stringify(issuerName)}`,
      found: JSON.stringify(certificate.issuer.commonName),
    })
  if (!signed && !isSignedBy(certificate, issuer.spki))
    throw new VerifyError("ERR_CERT_SIGNATURE", {
      at: place,
      expected: `a signature by ${JSON.stringify(issuerName)}`,
      found: "another one",
      hint: "the certificate was altered or made by somebody else",
    })
}

/**
 * Whether the key signed the certificate, by the scheme that the certificate names.
 * @throws VerifyError ERR_CERT_ALGORITHM where key and scheme do not fit or are too weak
 */
export function isSignedBy(certificate: Certificate, spki: Uint8Array): boolean {
  return isSigned(certificate, spki, placeOf(certificate))
}

/** As `isSignedBy`, for anything that an authority signs. @param place for messages. */
export function isSigned(
  signed: Pick<Certificate, "signatureAlgorithm" | "tbs" | "signature">,
  spki: Uint8Array,
  place: string,
): boolean {
  const { signatureAlgorithm: algorithm, tbs, signature } = signed
  const key = publicKeyOf(spki, `${place}, issuer`)
  if (algorithm.scheme === "ecdsa") {
    requireKind(key.asymmetricKeyType === "ec", place, "an EC key", key)
    return safely(() => verify(algorithm.hash, tbs, { key, dsaEncoding: "der" }, signature))
  }
  requireKind(isStrongRsa(key), place, "an RSA key of 2048 bits or more with exponent 65537", key)
  if (algorithm.scheme === "rsassa-pkcs1") {
    const padding = cryptoConstants.RSA_PKCS1_PADDING
    return safely(() => verify(algorithm.hash, tbs, { key, padding }, signature))
  }
  const { hash, mgfHash, saltLength } = algorithm
  // The library takes one hash for both, so two different ones cannot be checked.
  if (hash === "sha1" || hash !== mgfHash)
    throw new VerifyError("ERR_CERT_ALGORITHM", {
      at: place,
      expected: "RSASSA-PSS with one SHA-2 hash",
      found: `${hash} with MGF1 ${mgfHash}`,
    })
  const padding = cryptoConstants.RSA_PKCS1_PSS_PADDING
  return safely(() => verify(hash, tbs, { key, padding, saltLength }, signature))
}

/** A public key from SubjectPublicKeyInfo. @throws VerifyError ERR_CERT_ALGORITHM */
export function publicKeyOf(spki: Uint8Array, place: string): KeyObject {
  try {
    return createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" })
  } catch (cause) {
    throw new VerifyError("ERR_CERT_ALGORITHM", { at: place, expected: "a public key", found: "none", cause })
  }
}

function isStrongRsa({ asymmetricKeyType, asymmetricKeyDetails: details }: KeyObject): boolean {
  return (
    asymmetricKeyType === "rsa" && (details?.modulusLength ?? 0) >= 2048 && details?.publicExponent === 65537n
  )
}

function requireKind(fits: boolean, at: string, expected: string, key: KeyObject): void {
  if (!fits)
    throw new VerifyError("ERR_CERT_ALGORITHM", {
      at,
      expected,
      found: `${key.asymmetricKeyType} ${key.asymmetricKeyDetails?.modulusLength ?? ""}`.trim(),
    })
}

/** A signature that the library refuses to look at (wrong length, no DER) is one that does not verify. */
function safely(check: () => boolean): boolean {
  try {
    return check()
  } catch {
    return false
  }
}
