import { ParseError } from "../errors.ts"
import { fromBase64 } from "../formats/hex.ts"
import { isArray, JsonRecord, parseJsonRecord } from "../formats/strict-json.ts"
import type { VendorDocument } from "./resource.ts"

/** A document as it is kept: in the cache one to a file, in an export all in one. */
export interface CacheEntry extends VendorDocument {
  /** As `keyOf` makes it. */
  readonly key: string
  /** Where it was fetched from. */
  readonly url: string
  readonly fetchedAt: Date
  /** Validators for asking whether it changed; null where the service gave none. */
  readonly etag: string | null
  readonly lastModified: string | null
}

/** Larger entries are refused before they are read; the largest document has 2 MiB. */
export const MAX_ENTRY_BYTES = 4 * 1024 * 1024
export const MAX_EXPORT_BYTES = 64 * 1024 * 1024
const FORMAT = 1

/** JSON text of one entry. */
export function encodeEntry(entry: CacheEntry): string {
  return `${JSON.stringify({ format: FORMAT, ...membersOf(entry) }, null, 1)}\n`
}

/** @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_DUPLICATE_KEY, ERR_TOO_LARGE, ERR_UNSUPPORTED */
export function parseEntry(bytes: Uint8Array): CacheEntry {
  const record = parseJsonRecord("cache entry", bytes, MAX_ENTRY_BYTES)
  requireFormat(record)
  return readMembers(record)
}

/** JSON text of several entries: what `collateral export` writes. The same entries give the same text. */
export function encodeExport(entries: readonly CacheEntry[]): string {
  const inOrder = [...entries].sort((a, b) => (a.key < b.key ? -1 : 1))
  return `${JSON.stringify({ format: FORMAT, kind: EXPORT_KIND, entries: inOrder.map(membersOf) }, null, 1)}\n`
}

/** @throws ParseError as parseEntry */
export function parseExport(bytes: Uint8Array): CacheEntry[] {
  const record = parseJsonRecord("collateral export", bytes, MAX_EXPORT_BYTES)
  requireFormat(record)
  const kind = record.string("kind")
  if (kind !== EXPORT_KIND) throw record.wrong("kind", JSON.stringify(EXPORT_KIND), kind)
  const found = record.take("entries")
  if (!isArray(found)) throw record.wrong("entries", "an array", found)
  record.finish()
  return found.map((item) => {
    if (!(item instanceof JsonRecord)) throw record.wrong("entries", "objects", item)
    return readMembers(item)
  })
}

const EXPORT_KIND = "cosmian_vm collateral"

function membersOf(entry: CacheEntry): Record<string, string | null> {
  return {
    key: entry.key,
    url: entry.url,
    fetched_at: entry.fetchedAt.toISOString(),
    etag: entry.etag,
    last_modified: entry.lastModified,
    issuer_chain: entry.issuerChain,
    body: Buffer.from(entry.body).toString("base64"),
  }
}

function requireFormat(record: JsonRecord): void {
  const format = record.count("format", 1000)
  if (format !== FORMAT)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: record.place("format"),
      expected: `${FORMAT}`,
      found: `${format}`,
      hint: "use a newer cosmian_vm",
    })
}

function readMembers(record: JsonRecord): CacheEntry {
  const body = fromBase64(record.string("body"))
  const fetchedAt = new Date(record.string("fetched_at"))
  if (body === null || body.length === 0) throw record.wrong("body", "base64", "something else")
  if (Number.isNaN(fetchedAt.getTime())) throw record.wrong("fetched_at", "a time", "something else")
  const entry = {
    key: record.string("key"),
    url: record.string("url"),
    fetchedAt,
    etag: record.stringOrNull("etag"),
    lastModified: record.stringOrNull("last_modified"),
    issuerChain: record.stringOrNull("issuer_chain"),
    body,
  }
  record.finish()
  return entry
}
