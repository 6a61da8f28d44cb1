import { ParseError } from "../../errors.ts"

/** One certificate that the host gave beside a report. */
export interface SnpCertificateEntry {
  /** Lower-case with dashes. */
  readonly guid: string
  readonly der: Uint8Array
}

/**
 * GUIDs of certificate table entries. An ASVK comes under the ASK's.
 * Source: AMD 56421 rev. 2.03 (GHCB), section "SNP Extended Guest Request".
 */
export const SNP_CERTIFICATE_GUIDS = {
  ARK: "c0b406a4-a803-4952-9743-3fb6014cd0ae",
  ASK: "4ab7b379-bbac-4fe4-a02f-05aef327c782",
  VCEK: "63da758d-e664-4564-adc5-f4b93be8accd",
  VLEK: "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
  CRL: "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
} as const
export type SnpCertificateName = keyof typeof SNP_CERTIFICATE_GUIDS

/** GUID (16, in RFC 4122 byte order), u32 offset from the table's start, u32 length; little-endian. */
const ENTRY_SIZE = 24
const ZERO_GUID = "00000000-0000-0000-0000-000000000000"

/** Certificates in one table or blob: today's hosts give up to five. */
export const MAX_SNP_CERTIFICATES = 16
/** The largest table that Linux hands over is 16 KiB; this leaves room. */
export const MAX_CERTIFICATE_TABLE = 64 * 1024

/** What a GUID stands for, or `other`. */
export function certificateNameOf(guid: string): SnpCertificateName | "other" {
  for (const name of ["ARK", "ASK", "VCEK", "VLEK", "CRL"] as const)
    if (SNP_CERTIFICATE_GUIDS[name] === guid) return name
  return "other"
}

/**
 * Reads the certificate table that SNP_GET_EXT_REPORT and configfs-tsm's auxblob give: entries, a zero entry, then the
 * certificates. The host writes it, so entries must lie behind the table, within the bytes, and must not overlap.
 * Nothing at all, or only zeros, is a table without certificates. Bytes after the last certificate are padding.
 * Source: AMD 56421 rev. 2.03 (GHCB), section "SNP Extended Guest Request".
 * @throws ParseError ERR_TOO_LARGE, ERR_TRUNCATED, ERR_MALFORMED
 */
export function parseCertificateTable(table: Uint8Array): SnpCertificateEntry[] {
  if (table.length > MAX_CERTIFICATE_TABLE) throw tooLarge("bytes", MAX_CERTIFICATE_TABLE, table.length)
  if (table.length === 0) return []
  const { headers, end } = parseHeaders(table)
  const inOrder = [...headers].sort((a, b) => a.offset - b.offset)
  let free = end
  for (const { guid, offset, length } of inOrder) {
    const at = `certificate table, entry ${guid}`
    if (length === 0)
      throw new ParseError("ERR_MALFORMED", { at, expected: "a certificate", found: "0 bytes" })
    if (offset < free)
      throw new ParseError("ERR_MALFORMED", {
        at,
        expected: `offset ${free} or later`,
        found: `${offset}`,
        hint: "entries overlap",
      })
    // Both are below 2^32, so the sum is exact.
    free = offset + length
    if (free > table.length)
      throw new ParseError("ERR_TRUNCATED", { at, expected: `${free} bytes`, found: `${table.length}` })
  }
  return headers.map(({ guid, offset, length }) => ({ guid, der: table.subarray(offset, offset + length) }))
}

/** Bytes of a certificate table. @throws ParseError ERR_TOO_LARGE, ERR_MALFORMED (GUID) */
export function encodeCertificateTable(entries: readonly SnpCertificateEntry[]): Uint8Array {
  if (entries.length > MAX_SNP_CERTIFICATES)
    throw tooLarge("certificates", MAX_SNP_CERTIFICATES, entries.length)
  const start = (entries.length + 1) * ENTRY_SIZE
  const size = entries.reduce((sum, { der }) => sum + der.length, start)
  if (size > MAX_CERTIFICATE_TABLE) throw tooLarge("bytes", MAX_CERTIFICATE_TABLE, size)
  const table = new Uint8Array(size)
  const view = new DataView(table.buffer)
  let offset = start
  entries.forEach(({ guid, der }, index) => {
    table.set(guidToBytes(guid), index * ENTRY_SIZE)
    view.setUint32(index * ENTRY_SIZE + 16, offset, true)
    view.setUint32(index * ENTRY_SIZE + 20, der.length, true)
    table.set(der, offset)
    offset += der.length
  })
  return table
}

/** Text of a GUID's 16 bytes, in RFC 4122 byte order. */
export function guidToText(raw: Uint8Array): string {
  const hex = Buffer.from(raw.buffer, raw.byteOffset, 16).toString("hex")
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-")
}

/** The 16 bytes of a GUID. @throws ParseError ERR_MALFORMED */
export function guidToBytes(text: string): Uint8Array {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text))
    throw new ParseError("ERR_MALFORMED", { at: "GUID", expected: "lower-case hex with dashes", found: text })
  return Uint8Array.from(Buffer.from(text.replaceAll("-", ""), "hex"))
}

interface Header {
  readonly guid: string
  readonly offset: number
  readonly length: number
}

function parseHeaders(table: Uint8Array): { headers: Header[]; end: number } {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  const headers: Header[] = []
  for (let at = 0; ; at += ENTRY_SIZE) {
    if (at + ENTRY_SIZE > table.length)
      throw new ParseError("ERR_TRUNCATED", {
        at: "certificate table",
        expected: "a zero entry at the end of the table",
        found: `${table.length} bytes without one`,
      })
    const guid = guidToText(table.subarray(at, at + 16))
    const offset = view.getUint32(at + 16, true)
    const length = view.getUint32(at + 20, true)
    if (guid === ZERO_GUID && offset === 0 && length === 0) return { headers, end: at + ENTRY_SIZE }
    if (headers.length === MAX_SNP_CERTIFICATES)
      throw tooLarge("certificates", MAX_SNP_CERTIFICATES, headers.length + 1)
    headers.push({ guid, offset, length })
  }
}

function tooLarge(what: string, limit: number, found: number): ParseError {
  return new ParseError("ERR_TOO_LARGE", {
    at: "certificate table",
    expected: `at most ${limit} ${what}`,
    found: `${found}`,
  })
}
