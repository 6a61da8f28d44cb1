import { ParseError } from "../../errors.ts"
import type { Certificate } from "../x509/certificate.ts"
import { type DerElement, type DerReader, inside, oidText, single, smallInteger, TAG } from "../x509/der.ts"

/**
 * Object identifiers inside Intel's extension of PCK certificates.
 * Source: Intel SGX PCK Certificate and Certificate Revocation List Profile Specification, rev. 1.5,
 * section 1.3.5 "SGX Extensions".
 */
export const PCK_OID = {
  extension: "1.2.840.113741.1.13.1",
  ppid: "1.2.840.113741.1.13.1.1",
  tcb: "1.2.840.113741.1.13.1.2",
  pceId: "1.2.840.113741.1.13.1.3",
  fmspc: "1.2.840.113741.1.13.1.4",
  sgxType: "1.2.840.113741.1.13.1.5",
  platformInstanceId: "1.2.840.113741.1.13.1.6",
  configuration: "1.2.840.113741.1.13.1.7",
} as const

/** What a PCK certificate says about the platform. */
export interface PckPlatform {
  /** 16 bytes: the platform provisioning identifier. */
  readonly ppid: Uint8Array
  /** SVNs of the 16 SGX TCB components. */
  readonly components: readonly number[]
  readonly pceSvn: number
  /** 16 bytes: the raw form of the components. */
  readonly cpuSvn: Uint8Array
  /** 2 bytes. */
  readonly pceId: Uint8Array
  /** 6 bytes: family, model, stepping, platform type and custom SKU, by which TCB info is found. */
  readonly fmspc: Uint8Array
}

const COMPONENTS = 16
const ENUMERATED = 0x0a

/**
 * Reads Intel's extension. Members for platforms with several packages (instance identifier, configuration) say nothing
 * about the TCB and are only checked to be well-formed.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES
 */
export function parsePckExtension(certificate: Certificate): PckPlatform {
  const place = "PCK certificate, SGX extensions"
  const extension = certificate.extensions.get(PCK_OID.extension)
  if (extension === undefined)
    throw new ParseError("ERR_MALFORMED", {
      at: place,
      expected: `extension ${PCK_OID.extension}`,
      found: "none",
    })
  const members = parseMembers(single(extension.value, TAG.sequence, place))
  const take = (oid: string, tag: number) => required(members, oid, tag, place)
  take(PCK_OID.sgxType, ENUMERATED)
  return {
    ppid: octets(take(PCK_OID.ppid, TAG.octetString), 16),
    pceId: octets(take(PCK_OID.pceId, TAG.octetString), 2),
    fmspc: octets(take(PCK_OID.fmspc, TAG.octetString), 6),
    ...parseTcb(take(PCK_OID.tcb, TAG.sequence)),
  }
}

function parseTcb(sequence: DerElement): Pick<PckPlatform, "components" | "pceSvn" | "cpuSvn"> {
  const members = parseMembers(sequence)
  const svn = (number: number, max: number) =>
    boundedSvn(required(members, `${PCK_OID.tcb}.${number}`, TAG.integer, sequence.place), max)
  return {
    components: Array.from({ length: COMPONENTS }, (_, index) => svn(index + 1, 0xff)),
    pceSvn: svn(COMPONENTS + 1, 0xffff),
    cpuSvn: octets(required(members, `${PCK_OID.tcb}.18`, TAG.octetString, sequence.place), 16),
  }
}

/** A sequence of pairs of identifier and value; each identifier once. */
function parseMembers(sequence: DerElement): ReadonlyMap<string, DerElement> {
  const members = new Map<string, DerElement>()
  const reader = inside(sequence)
  while (!reader.atEnd) {
    const pair = inside(reader.next(TAG.sequence, "member"))
    const oid = oidText(pair.next(TAG.oid, "identifier"))
    if (members.has(oid))
      throw new ParseError("ERR_MALFORMED", {
        at: `${sequence.place}, ${oid}`,
        expected: "once",
        found: "twice",
      })
    members.set(oid, any(pair))
    pair.end()
  }
  return members
}

function any(reader: DerReader): DerElement {
  return reader.next(reader.peek() ?? 0, "value")
}

function required(
  members: ReadonlyMap<string, DerElement>,
  oid: string,
  tag: number,
  place: string,
): DerElement {
  const element = members.get(oid)
  if (element?.tag !== tag)
    throw new ParseError("ERR_MALFORMED", {
      at: `${place}, ${oid}`,
      expected: `DER tag 0x${tag.toString(16)}`,
      found: element === undefined ? "no such member" : `0x${element.tag.toString(16)}`,
    })
  return element
}

function octets({ content, place }: DerElement, size: number): Uint8Array {
  if (content.length !== size)
    throw new ParseError("ERR_MALFORMED", {
      at: place,
      expected: `${size} bytes`,
      found: `${content.length}`,
    })
  return content
}

function boundedSvn(element: DerElement, max: number): number {
  const svn = smallInteger(element)
  if (svn > max)
    throw new ParseError("ERR_MALFORMED", { at: element.place, expected: `0 to ${max}`, found: `${svn}` })
  return svn
}
