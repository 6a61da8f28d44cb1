import { ParseError } from "../../errors.ts"
import { fromHex } from "../hex.ts"
import { JsonRecord, type JsonValue, parseJsonRecord } from "../strict-json.ts"
import { utcTime } from "../utc-time.ts"

/** What TCB info and enclave identity have in common. Source: Intel PCS API, version 4. */

/** Larger documents are refused. The largest today has 12 KB. */
export const MAX_DOCUMENT_BYTES = 1024 * 1024
const MAX_LEVELS = 512
const MAX_ADVISORIES = 1024

/** From when until when a document holds, and how new the knowledge in it is. */
export interface DocumentDates {
  readonly issueDate: Date
  readonly nextUpdate: Date
  /** Grows when Intel publishes a new TCB recovery. */
  readonly tcbEvaluationDataNumber: number
}

/** What Intel says about a TCB level. */
export interface TcbVerdict<S extends string> {
  readonly status: S
  /** Fixes up to this day are in the level. */
  readonly date: Date
  /** Known weaknesses of the level: `INTEL-SA-00615`. */
  readonly advisories: readonly string[]
}

/** A level of an enclave or of the TDX module: all versions from this SVN on, up to the next level. */
export interface SvnLevel extends TcbVerdict<SvnStatus> {
  readonly isvSvn: number
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/
const ADVISORY = /^[A-Za-z0-9-]{1,64}$/

export const SVN_STATUSES = ["UpToDate", "OutOfDate", "Revoked"] as const
export type SvnStatus = (typeof SVN_STATUSES)[number]

/**
 * Reads a signed document. Members that are not known are passed over: Intel adds some without a new version, and they
 * are under Intel's signature.
 * @throws ParseError as strict JSON does, and ERR_UNSUPPORTED
 */
export function parseDocument(name: string, bytes: Uint8Array, version: number): JsonRecord {
  const record = parseJsonRecord(name, bytes, MAX_DOCUMENT_BYTES)
  const found = record.count("version", 1000)
  if (found !== version)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: record.place("version"),
      expected: `${version}`,
      found: `${found}`,
    })
  return record
}

export function parseDates(record: JsonRecord): DocumentDates {
  return {
    issueDate: time(record, "issueDate"),
    nextUpdate: time(record, "nextUpdate"),
    tcbEvaluationDataNumber: record.count("tcbEvaluationDataNumber", 2 ** 31),
  }
}

/** `tcbStatus`, `tcbDate` and `advisoryIDs` of a level. */
export function parseVerdict<S extends string>(level: JsonRecord, statuses: readonly S[]): TcbVerdict<S> {
  return {
    status: oneOf(level, "tcbStatus", statuses),
    date: time(level, "tcbDate"),
    advisories: parseAdvisories(level),
  }
}

/** `tcbLevels` of an enclave identity or module identity, in the order of the document: the newest first. */
export function parseSvnLevels(record: JsonRecord): SvnLevel[] {
  return records(record, "tcbLevels", MAX_LEVELS).map((level) => ({
    isvSvn: level.record("tcb").count("isvsvn", 0xffff),
    ...parseVerdict(level, SVN_STATUSES),
  }))
}

/** The objects of an array. */
export function records(record: JsonRecord, name: string, max = MAX_LEVELS): JsonRecord[] {
  const values = record.array(name)
  if (values.length > max)
    throw new ParseError("ERR_TOO_LARGE", {
      at: record.place(name),
      expected: `at most ${max} elements`,
      found: `${values.length}`,
    })
  return values.map((value, index) => {
    if (value instanceof JsonRecord) return value
    throw record.wrong(`${name}[${index}]`, "an object", value)
  })
}

/** Bytes of a hex string of that size, in either case. */
export function hexBytes(record: JsonRecord, name: string, size: number): Uint8Array {
  const text = record.string(name)
  const bytes = fromHex(text)
  if (bytes?.length === size) return bytes
  throw record.wrong(name, `${size} bytes in hex`, text.slice(0, 80))
}

/** A string that is one of these. A value that is not known is refused: guessing what it means would be worse. */
export function oneOf<S extends string>(record: JsonRecord, name: string, known: readonly S[]): S {
  const text = record.string(name)
  const found = known.find((candidate) => candidate === text)
  if (found !== undefined) return found
  throw new ParseError("ERR_UNSUPPORTED", {
    at: record.place(name),
    expected: known.join(", "),
    found: JSON.stringify(text.slice(0, 80)),
    hint: "use a newer cosmian_vm",
  })
}

function parseAdvisories(level: JsonRecord): string[] {
  if (level.take("advisoryIDs") === null) return []
  const values: readonly JsonValue[] = level.array("advisoryIDs")
  if (values.length > MAX_ADVISORIES)
    throw new ParseError("ERR_TOO_LARGE", {
      at: level.place("advisoryIDs"),
      expected: `at most ${MAX_ADVISORIES}`,
      found: `${values.length}`,
    })
  return values.map((value, index) => {
    // These go to terminals and are compared with a policy's: nothing but the form that Intel uses.
    if (typeof value === "string" && ADVISORY.test(value)) return value
    throw level.wrong(`advisoryIDs[${index}]`, "an advisory's identifier", value)
  })
}

/** A time in UTC with seconds: `2025-06-19T10:16:03Z`. */
function time(record: JsonRecord, name: string): Date {
  const text = record.string(name)
  const part = (from: number) => Number(text.slice(from, from + 2))
  const date = TIME.test(text)
    ? utcTime(100 * part(0) + part(2), part(5), part(8), part(11), part(14), part(17))
    : null
  if (date === null) throw record.wrong(name, "a time in UTC with seconds", text.slice(0, 40))
  return date
}
