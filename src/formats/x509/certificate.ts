import { ParseError } from "../../errors.ts"
import {
  booleanValue,
  contextTag,
  type DerElement,
  type DerReader,
  inside,
  integerBytes,
  namedBits,
  oidText,
  single,
  smallInteger,
  TAG,
  timeValue,
} from "./der.ts"
import { type DistinguishedName, parseName } from "./name.ts"
import { readSigned, requireSameAlgorithm, type SignedObject } from "./signed.ts"

/** An X.509 version 3 certificate, as far as chain checks need it. Nothing in it is verified. */
export interface Certificate extends SignedObject {
  /** Two's complement, big-endian. */
  readonly serial: Uint8Array
  readonly issuer: DistinguishedName
  readonly subject: DistinguishedName
  readonly notBefore: Date
  readonly notAfter: Date
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array
  /** By object identifier; each occurs once. */
  readonly extensions: ReadonlyMap<string, Extension>
  /** Null where the extension is absent: not a certificate authority. */
  readonly basicConstraints: BasicConstraints | null
  /** Bit numbers (KEY_USAGE); null where the extension is absent: not restricted. */
  readonly keyUsage: ReadonlySet<number> | null
}

export interface Extension {
  readonly critical: boolean
  /** Content of the extension's OCTET STRING. */
  readonly value: Uint8Array
}

export interface BasicConstraints {
  readonly ca: boolean
  /** Authorities that may follow below; null: no limit. */
  readonly pathLength: number | null
}

/** Bits of the key usage extension. Source: RFC 5280, section 4.2.1.3. */
export const KEY_USAGE = {
  digitalSignature: 0,
  keyEncipherment: 2,
  keyAgreement: 4,
  keyCertSign: 5,
  crlSign: 6,
} as const

export const OID_BASIC_CONSTRAINTS = "2.5.29.19"
export const OID_KEY_USAGE = "2.5.29.15"
export const OID_SUBJECT_KEY_ID = "2.5.29.14"
export const OID_SUBJECT_ALT_NAME = "2.5.29.17"
export const OID_EXTENDED_KEY_USAGE = "2.5.29.37"

/** Larger certificates are refused before they are read. */
const MAX_CERTIFICATE = 32 * 1024
const MAX_EXTENSIONS = 64

/**
 * Reads one DER certificate. Source: RFC 5280, section 4.1.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_MALFORMED, ERR_TOO_LARGE, ERR_UNSUPPORTED (version, algorithm)
 */
export function parseCertificate(der: Uint8Array): Certificate {
  const { object, signed, algorithm } = readSigned(der, "certificate", MAX_CERTIFICATE)
  return { ...object, ...parseTbs(signed, algorithm) }
}

function parseTbs(tbs: DerElement, outerAlgorithm: DerElement): Omit<Certificate, keyof SignedObject> {
  const reader = inside(tbs)
  requireVersion3(reader.optional(contextTag(0), "version"))
  const serial = integerBytes(reader.next(TAG.integer, "serialNumber"))
  requireSameAlgorithm(reader, outerAlgorithm, "certificate")
  const issuer = parseName(reader.next(TAG.sequence, "issuer"))
  const validity = inside(reader.next(TAG.sequence, "validity"))
  const notBefore = parseTime(validity, "notBefore")
  const notAfter = parseTime(validity, "notAfter")
  validity.end()
  const subject = parseName(reader.next(TAG.sequence, "subject"))
  const spki = reader.next(TAG.sequence, "subjectPublicKeyInfo").raw
  const extensions = parseExtensions(reader.optional(contextTag(3), "extensions"))
  reader.end()
  return {
    serial,
    issuer,
    subject,
    notBefore,
    notAfter,
    spki,
    extensions,
    basicConstraints: parseBasicConstraints(extensions.get(OID_BASIC_CONSTRAINTS)),
    keyUsage: parseKeyUsage(extensions.get(OID_KEY_USAGE)),
  }
}

function requireVersion3(version: DerElement | null): void {
  const value = version === null ? 0 : smallInteger(single(version.content, TAG.integer, version.place))
  if (value !== 2)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "certificate, version",
      expected: "version 3",
      found: `version ${value + 1}`,
    })
}

/** A UTCTime or GeneralizedTime. @throws ParseError ERR_MALFORMED, ERR_TRUNCATED */
export function parseTime(reader: DerReader, what: string): Date {
  const tag = reader.peek() === TAG.generalizedTime ? TAG.generalizedTime : TAG.utcTime
  return timeValue(reader.next(tag, what))
}

/** Reads the explicitly tagged extensions of a certificate or CRL; null: none. @throws as parseCertificate */
export function parseExtensions(wrapper: DerElement | null): Map<string, Extension> {
  return wrapper === null
    ? new Map()
    : parseExtensionList(single(wrapper.content, TAG.sequence, wrapper.place))
}

/** Reads a sequence of extensions, each of which occurs once. @throws as parseCertificate */
export function parseExtensionList(list: DerElement): Map<string, Extension> {
  const extensions = new Map<string, Extension>()
  const reader = inside(list)
  while (!reader.atEnd) {
    const one = inside(reader.next(TAG.sequence, "extension"))
    const id = oidText(one.next(TAG.oid, "identifier"))
    const critical = one.optional(TAG.boolean, "critical")
    const value = one.next(TAG.octetString, "value").content
    one.end()
    if (extensions.has(id))
      throw new ParseError("ERR_MALFORMED", {
        at: `${list.place}, ${id}`,
        expected: "once",
        found: "twice",
      })
    if (extensions.size === MAX_EXTENSIONS)
      throw new ParseError("ERR_TOO_LARGE", {
        at: list.place,
        expected: `at most ${MAX_EXTENSIONS} extensions`,
      })
    extensions.set(id, { critical: critical !== null && booleanValue(critical), value })
  }
  return extensions
}

function parseBasicConstraints(extension: Extension | undefined): BasicConstraints | null {
  if (extension === undefined) return null
  const reader = inside(single(extension.value, TAG.sequence, "certificate, basicConstraints"))
  const ca = reader.optional(TAG.boolean, "cA")
  const pathLength = reader.optional(TAG.integer, "pathLenConstraint")
  reader.end()
  return {
    ca: ca !== null && booleanValue(ca),
    pathLength: pathLength === null ? null : smallInteger(pathLength),
  }
}

function parseKeyUsage(extension: Extension | undefined): ReadonlySet<number> | null {
  if (extension === undefined) return null
  return namedBits(single(extension.value, TAG.bitString, "certificate, keyUsage"))
}
