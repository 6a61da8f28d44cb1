import { ParseError } from "../errors.ts"
import {
  type Evidence,
  type EvidenceText,
  encodeEvidence,
  MAX_EVIDENCE_BYTES,
  MAX_EVIDENCE_VALUES,
  readEvidence,
  takeEvidence,
} from "./evidence.ts"
import { fromBase64, toBase64 } from "./hex.ts"
import {
  encodeCollateralBundle,
  type IntelCollateral,
  MAX_BUNDLE_BYTES,
  parseCollateralBundle,
} from "./intel/collateral.ts"
import { isArray, JsonCursor, type JsonOptions, type JsonRecord, type JsonValue } from "./strict-json.ts"

/** Evidence with everything else that its verdict was made from, to be judged again later, elsewhere, offline. */
export interface SavedEvidence {
  /** `host:port` that was asked. */
  readonly target: string
  /** By the clock of whoever saved it. */
  readonly collectedAt: Date
  /** 32 bytes that the evidence was asked for with. */
  readonly nonce: Uint8Array
  readonly channel: {
    /** DER SubjectPublicKeyInfo that the connection ended at. */
    readonly spki: Uint8Array
    readonly authorized: boolean
    /** Why not, where it was not. */
    readonly reason: string | null
    /** 32 bytes of the connection that the evidence covers; absent: it covers the key alone. */
    readonly exporter?: Uint8Array
  }
  /** As the VM sent it. */
  readonly evidence: Evidence
  readonly documents: SavedDocuments
  /** What applications showed at the same time; `spki` is null where one did not answer. */
  readonly applications: readonly SavedApplication[]
}

/** What hardware vendors say that the VM did not send. Each document carries its own signature. */
export interface SavedDocuments {
  /** DER. */
  readonly certificates: readonly Uint8Array[]
  /** DER revocation list of AMD's root; null: none was at hand, or needed. */
  readonly crl: Uint8Array | null
  readonly intel: IntelCollateral | null
}

export interface SavedApplication {
  readonly target: string
  readonly spki: Uint8Array | null
  readonly failure: string | null
}

/** Cap of the file, uncompressed: the evidence, and documents of some megabytes. */
export const MAX_SAVED_BYTES = MAX_EVIDENCE_BYTES + 16 * 1024 * 1024
const KIND = "cosmian-vm-evidence"
const MAX_TEXT = 1024
const MAX_CERTIFICATES = 16
const MAX_CERTIFICATE_BYTES = 16 * 1024
const MAX_CRL_BYTES = 1024 * 1024
const MAX_SPKI_BYTES = 4096
const MAX_APPLICATIONS = 256
const UTC = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

/** The JSON text; byte strings are base64 without padding. */
export function encodeSavedEvidence(saved: SavedEvidence): string {
  const { channel, documents } = saved
  const head = JSON.stringify({
    kind: KIND,
    version: 1,
    target: saved.target,
    collected_at: saved.collectedAt.toISOString(),
    nonce: toBase64(saved.nonce),
    channel: {
      spki: toBase64(channel.spki),
      authorized: channel.authorized,
      reason: clipped(channel.reason),
      ...(channel.exporter === undefined ? {} : { exporter: toBase64(channel.exporter) }),
    },
    documents: {
      certificates: documents.certificates.map(toBase64),
      crl: documents.crl && toBase64(documents.crl),
      intel: documents.intel && encodeCollateralBundle(documents.intel),
    },
    applications: saved.applications.map(({ target, spki, failure }) => ({
      target,
      spki: spki && toBase64(spki),
      failure: clipped(failure),
    })),
  })
  // The list of a long-running machine has hundreds of megabytes: its text is joined, and not escaped once more.
  return `${head.slice(0, -1)},"evidence":${encodeEvidence(saved.evidence)}}\n`
}

/**
 * Reads that text. Only its form is checked here: nothing in it is proven, and much of it never can be. The bytes are used up, as by
 * `parseEvidence`.
 * @throws ParseError ERR_UNSUPPORTED, ERR_MALFORMED, ERR_DUPLICATE_KEY, ERR_TOO_LARGE, ERR_TRUNCATED, ERR_TRAILING_BYTES.
 */
export function parseSavedEvidence(
  bytes: Uint8Array,
  options: Pick<JsonOptions, "collect"> = {},
): SavedEvidence {
  const cursor = new JsonCursor("saved evidence", bytes, MAX_SAVED_BYTES, {
    ...options,
    maxValues: MAX_EVIDENCE_VALUES,
  })
  let evidence: EvidenceText | null = null
  const root = cursor.record("", (name) => {
    if (name !== "evidence") return undefined
    evidence = takeEvidence(cursor, name)
    return evidence.record
  })
  cursor.end()
  if (root.string("kind") !== KIND || root.count("version", Number.MAX_SAFE_INTEGER) !== 1)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: root.place("kind, version"),
      expected: `${KIND}, 1`,
      hint: "give a file that verify --save-evidence wrote, to a program of its version or a newer one",
    })
  const channel = root.record("channel")
  const documents = root.record("documents")
  const saved: SavedEvidence = {
    target: textOf(root, "target", root.string("target")),
    collectedAt: timeOf(root, "collected_at"),
    nonce: bytes32Of(root, "nonce"),
    channel: {
      spki: bytesOf(channel, "spki", channel.take("spki"), MAX_SPKI_BYTES),
      authorized: flagOf(channel, "authorized"),
      reason: textOrNull(channel, "reason"),
      ...(channel.names().includes("exporter") ? { exporter: bytes32Of(channel, "exporter") } : {}),
    },
    evidence: readEvidence({ record: root.record("evidence"), list: listIn(evidence) }),
    documents: {
      certificates: listOf(documents, "certificates", MAX_CERTIFICATES).map((value) =>
        bytesOf(documents, "certificates", value, MAX_CERTIFICATE_BYTES),
      ),
      crl: bytesOrNull(documents, "crl", MAX_CRL_BYTES),
      intel: intelOf(documents),
    },
    applications: listOf(root, "applications", MAX_APPLICATIONS).map((value) => applicationOf(root, value)),
  }
  channel.finish()
  documents.finish()
  root.finish()
  return saved
}

/** Set while the file was read, which the compiler does not see. */
function listIn(evidence: EvidenceText | null): Uint8Array | null {
  return evidence?.list ?? null
}

/** What others say about a failure is for people only, and may be long. */
function clipped(text: string | null): string | null {
  return text === null ? null : text.slice(0, MAX_TEXT)
}

function applicationOf(root: JsonRecord, value: JsonValue): SavedApplication {
  if (!isRecord(value)) throw root.wrong("applications", "objects", value)
  const application = {
    target: textOf(value, "target", value.string("target")),
    spki: bytesOrNull(value, "spki", MAX_SPKI_BYTES),
    failure: textOrNull(value, "failure"),
  }
  value.finish()
  return application
}

function intelOf(documents: JsonRecord): IntelCollateral | null {
  const text = documents.stringOrNull("intel")
  if (text === null) return null
  if (text.length > MAX_BUNDLE_BYTES) throw tooLarge(documents, "intel", MAX_BUNDLE_BYTES)
  return parseCollateralBundle(new TextEncoder().encode(text))
}

function bytes32Of(record: JsonRecord, name: string): Uint8Array {
  const bytes = bytesOf(record, name, record.take(name), 32)
  if (bytes.length === 32) return bytes
  throw new ParseError("ERR_MALFORMED", {
    at: record.place(name),
    expected: "32 bytes",
    found: `${bytes.length}`,
  })
}

/** One form only: what {@link Date.toISOString} writes. */
function timeOf(root: JsonRecord, name: string): Date {
  const text = root.string(name)
  const time = new Date(UTC.test(text) ? text : Number.NaN)
  if (!Number.isNaN(time.getTime()) && time.toISOString() === text) return time
  throw new ParseError("ERR_MALFORMED", {
    at: root.place(name),
    expected: "a time as 2026-01-31T12:00:00.000Z",
    found: text.slice(0, 40),
  })
}

function flagOf(record: JsonRecord, name: string): boolean {
  const value = record.take(name)
  if (typeof value === "boolean") return value
  throw record.wrong(name, "true or false", value)
}

function listOf(record: JsonRecord, name: string, maxCount: number): readonly JsonValue[] {
  const values = record.array(name)
  if (values.length > maxCount) throw tooLarge(record, name, maxCount)
  return values
}

function textOrNull(record: JsonRecord, name: string): string | null {
  const text = record.stringOrNull(name)
  return text === null ? null : textOf(record, name, text)
}

function textOf(record: JsonRecord, name: string, text: string): string {
  if (text.length > MAX_TEXT) throw tooLarge(record, name, MAX_TEXT)
  return text
}

function bytesOrNull(record: JsonRecord, name: string, maxBytes: number): Uint8Array | null {
  const value = record.take(name)
  return value === null ? null : bytesOf(record, name, value, maxBytes)
}

function bytesOf(record: JsonRecord, name: string, value: JsonValue, maxBytes: number): Uint8Array {
  if (typeof value !== "string") throw record.wrong(name, "base64", value)
  if (value.length > Math.ceil((maxBytes * 4) / 3)) throw tooLarge(record, name, maxBytes)
  const bytes = value.endsWith("=") ? null : fromBase64(value)
  if (bytes !== null) return bytes
  throw new ParseError("ERR_MALFORMED", { at: record.place(name), expected: "base64 without padding" })
}

function isRecord(value: JsonValue): value is JsonRecord {
  return typeof value === "object" && value !== null && !isArray(value)
}

function tooLarge(record: JsonRecord, name: string, limit: number): ParseError<"ERR_TOO_LARGE"> {
  return new ParseError("ERR_TOO_LARGE", { at: record.place(name), expected: `at most ${limit}` })
}
