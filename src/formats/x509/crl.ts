import { ParseError } from "../../errors.ts"
import { bytesEqual, toHex } from "../hex.ts"
import { type Extension, parseExtensionList, parseExtensions, parseTime } from "./certificate.ts"
import {
  contextTag,
  type DerElement,
  type DerReader,
  inside,
  integerBytes,
  single,
  smallInteger,
  TAG,
  timeValue,
} from "./der.ts"
import { type DistinguishedName, parseName } from "./name.ts"
import { readSigned, requireSameAlgorithm, type SignedObject } from "./signed.ts"

/** An X.509 certificate revocation list. Nothing in it is verified. */
export interface Crl extends SignedObject {
  readonly issuer: DistinguishedName
  readonly thisUpdate: Date
  /** Null where the list does not say until when it holds. */
  readonly nextUpdate: Date | null
  /** Revoked serial numbers, as hex of the DER INTEGER's content. */
  readonly revoked: ReadonlySet<string>
  /** Of the list itself, by object identifier. */
  readonly extensions: ReadonlyMap<string, Extension>
  /** Object identifiers of critical extensions of single entries. */
  readonly criticalEntryExtensions: ReadonlySet<string>
  /** The number that grows with each list, two's complement, big-endian; null where there is none. */
  readonly number: Uint8Array | null
}

/** Source: RFC 5280, section 5.2. */
export const CRL_OID = {
  authorityKeyIdentifier: "2.5.29.35",
  number: "2.5.29.20",
  deltaIndicator: "2.5.29.27",
  issuingDistributionPoint: "2.5.29.28",
} as const

/** The largest list of Intel's today has 8 KiB. */
export const MAX_CRL_BYTES = 1024 * 1024

/**
 * Reads one DER CRL of version 1 or 2. Source: RFC 5280, section 5.1.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_MALFORMED, ERR_TOO_LARGE, ERR_UNSUPPORTED (version, algorithm)
 */
export function parseCrl(der: Uint8Array): Crl {
  const { object, signed, algorithm } = readSigned(der, "CRL", MAX_CRL_BYTES)
  return { ...object, ...parseTbs(signed, algorithm) }
}

function parseTbs(tbs: DerElement, outerAlgorithm: DerElement): Omit<Crl, keyof SignedObject> {
  const reader = inside(tbs)
  const version = reader.optional(TAG.integer, "version")
  if (version !== null && smallInteger(version) !== 1)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: version.place,
      expected: "version 2",
      found: `version ${smallInteger(version) + 1}`,
    })
  requireSameAlgorithm(reader, outerAlgorithm, "CRL")
  const issuer = parseName(reader.next(TAG.sequence, "issuer"))
  const thisUpdate = parseTime(reader, "thisUpdate")
  const nextUpdate = atTime(reader) ? parseTime(reader, "nextUpdate") : null
  const entries = parseEntries(reader.optional(TAG.sequence, "revokedCertificates"))
  const extensions = parseExtensions(reader.optional(contextTag(0), "crlExtensions"))
  reader.end()
  if (version === null && (extensions.size > 0 || entries.criticalEntryExtensions.size > 0))
    throw new ParseError("ERR_MALFORMED", {
      at: "CRL",
      expected: "version 2, as there are extensions",
      found: "version 1",
    })
  const number = extensions.get(CRL_OID.number)
  return {
    issuer,
    thisUpdate,
    nextUpdate,
    ...entries,
    extensions,
    number:
      number === undefined
        ? null
        : integerBytes(single(number.value, TAG.integer, "CRL, crlExtensions, number")),
  }
}

function atTime(reader: DerReader): boolean {
  const tag = reader.peek()
  return tag === TAG.utcTime || tag === TAG.generalizedTime
}

function parseEntries(list: DerElement | null): Pick<Crl, "revoked" | "criticalEntryExtensions"> {
  const revoked = new Set<string>()
  const criticalEntryExtensions = new Set<string>()
  if (list === null) return { revoked, criticalEntryExtensions }
  const reader = inside(list)
  // Dates and reasons of neighbours are mostly the same: the same bytes are read once.
  let dateSeen: Uint8Array = new Uint8Array(0)
  let extensionsSeen: Uint8Array = new Uint8Array(0)
  while (!reader.atEnd) {
    const entry = inside(reader.next(TAG.sequence, "entry"))
    revoked.add(toHex(integerBytes(entry.next(TAG.integer, "userCertificate"))))
    const date = entry.next(timeTag(entry), "revocationDate")
    const extensions = entry.optional(TAG.sequence, "crlEntryExtensions")
    entry.end()
    if (!bytesEqual(date.raw, dateSeen)) timeValue(date)
    dateSeen = date.raw
    if (extensions === null || bytesEqual(extensions.raw, extensionsSeen)) continue
    extensionsSeen = extensions.raw
    for (const [oid, { critical }] of parseExtensionList(extensions))
      if (critical) criticalEntryExtensions.add(oid)
  }
  return { revoked, criticalEntryExtensions }
}

function timeTag(reader: DerReader): number {
  return reader.peek() === TAG.generalizedTime ? TAG.generalizedTime : TAG.utcTime
}
