import { createPrivateKey, X509Certificate } from "node:crypto"
import { AcmeError, CodedError } from "../errors.ts"
import { encodePem, parsePem } from "../formats/pem.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { contextTag, inside, single, TAG } from "../formats/x509/der.ts"

/** A certificate as issued, checked to be the one that was asked for. */
export interface IssuedCertificate {
  /** Leaf first, ending where the authority ended it. Nothing but certificates. */
  readonly chainPem: string
  readonly notBefore: Date
  readonly notAfter: Date
  /** Hex, as tools show it. */
  readonly serial: string
  /** How renewal information names it; null where the certificate does not say who issued it. */
  readonly renewalId: string | null
}

const MAX_CHAIN = 10
const OID_AUTHORITY_KEY_ID = "2.5.29.35"

/**
 * Reads a chain as an authority sent it, and requires that it is for this key and for exactly these names, in date, and that each
 * certificate is signed by the next. Whether anybody trusts the last one is not judged here: that is up to those who connect.
 * @throws AcmeError ERR_ACME_CERTIFICATE
 */
export function requireIssued(
  pem: string,
  privateKeyPem: string,
  names: readonly string[],
  now: Date,
): IssuedCertificate {
  const ders = dersOf(pem)
  const [leaf, ...authorities] = ders.map(certificateOf)
  if (leaf === undefined || ders.length > MAX_CHAIN)
    throw wrong(`1 to ${MAX_CHAIN} certificates`, `${ders.length}`)
  if (!leaf.checkPrivateKey(createPrivateKey(privateKeyPem)))
    throw wrong("a certificate for our key", "another key")
  const found = dnsNamesOf(leaf)
  if ([...names].sort().join() !== [...found].sort().join()) throw wrong(names.join(", "), found.join(", "))
  const issued = issuedOf(leaf, ders)
  if (issued.notAfter.getTime() <= now.getTime())
    throw wrong(`one that holds after ${now.toISOString()}`, `until ${issued.notAfter.toISOString()}`)
  for (const [index, authority] of authorities.entries()) {
    const subject = index === 0 ? leaf : authorities[index - 1]
    if (subject?.checkIssued(authority) !== true || !subject.verify(authority.publicKey))
      throw wrong("each certificate signed by the next", `certificate ${index + 1} is not`)
  }
  return issued
}

/**
 * Reads a chain that was checked when it was issued.
 * @throws AcmeError ERR_ACME_CERTIFICATE
 */
export function readIssued(pem: string): IssuedCertificate {
  const ders = dersOf(pem)
  const leaf = ders[0]
  if (leaf === undefined) throw wrong("a certificate", "none")
  return issuedOf(certificateOf(leaf), ders)
}

function issuedOf(leaf: X509Certificate, ders: readonly Uint8Array[]): IssuedCertificate {
  return {
    chainPem: ders.map((der) => encodePem("CERTIFICATE", der)).join(""),
    notBefore: new Date(leaf.validFrom),
    notAfter: new Date(leaf.validTo),
    serial: leaf.serialNumber.toLowerCase(),
    renewalId: renewalIdOf(new Uint8Array(leaf.raw)),
  }
}

/**
 * Key identifier of the issuer and serial number, in base64url, joined by a dot. Source: RFC 9773, section 4.1.
 */
export function renewalIdOf(der: Uint8Array): string | null {
  try {
    const { extensions, serial } = parseCertificate(der)
    const value = extensions.get(OID_AUTHORITY_KEY_ID)?.value
    if (value === undefined) return null
    const keyId = inside(single(value, TAG.sequence, "authorityKeyIdentifier")).optional(
      contextTag(0, false),
      "keyIdentifier",
    )
    if (keyId === null) return null
    return [keyId.content, serial].map((bytes) => Buffer.from(bytes).toString("base64url")).join(".")
  } catch (error) {
    // Of a kind that our own reader does not know: such a certificate is renewed by its dates.
    if (error instanceof CodedError) return null
    throw error
  }
}

function dnsNamesOf(leaf: X509Certificate): string[] {
  const entries = (leaf.subjectAltName ?? "").split(", ").filter(Boolean)
  return entries.map((entry) => (entry.startsWith("DNS:") ? entry.slice(4).toLowerCase() : entry))
}

function dersOf(pem: string): Uint8Array[] {
  const blocks = attempt(() => parsePem(pem))
  const other = blocks.find(({ label }) => label !== "CERTIFICATE")
  if (other !== undefined) throw wrong("certificates alone", other.label)
  return blocks.map(({ der }) => der)
}

function certificateOf(der: Uint8Array): X509Certificate {
  return attempt(() => new X509Certificate(der))
}

function attempt<T>(read: () => T): T {
  try {
    return read()
  } catch (cause) {
    throw new AcmeError("ERR_ACME_CERTIFICATE", {
      expected: "a chain of PEM certificates",
      found: "something else",
      hint: "try again; where it happens again, tell the authority",
      cause,
    })
  }
}

function wrong(expected: string, found: string): AcmeError<"ERR_ACME_CERTIFICATE"> {
  return new AcmeError("ERR_ACME_CERTIFICATE", {
    expected,
    found,
    hint: "the certificate is not installed; try again, and tell the authority where it happens again",
  })
}
