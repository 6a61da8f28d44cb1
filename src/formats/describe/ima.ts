import { ParseError } from "../../errors.ts"
import { toHex } from "../hex.ts"
import { parseAsciiMeasurementList } from "../ima/ascii.ts"
import { type MeasurementEntry, measurementEntry, parseMeasurementList } from "../ima/measurement-list.ts"
import { parseFileSignature } from "../ima/signature.ts"
import type { ShownRecord } from "./shown.ts"

/** A measurement list in the kernel's binary form. @throws ParseError as parseMeasurementList */
export function describeBinaryList(bytes: Uint8Array): ShownRecord {
  const list = parseMeasurementList(bytes)
  return describeEntries(Array.from({ length: list.count }, (_, index) => measurementEntry(list, index)))
}

/** A measurement list as text. @throws ParseError as parseAsciiMeasurementList */
export function describeAsciiList(bytes: Uint8Array): ShownRecord {
  return describeEntries(parseAsciiMeasurementList(bytes))
}

function describeEntries(entries: readonly MeasurementEntry[]): ShownRecord {
  return {
    count: entries.length,
    templates: [...new Set(entries.map(({ template }) => template))],
    pcrs: [...new Set(entries.map(({ pcr }) => pcr))],
    violations: entries.filter(isViolation).length,
    entries: entries.map(describeEntry),
  }
}

/** One entry. A file signature that is malformed is told so, beside its bytes. */
export function describeEntry(entry: MeasurementEntry): ShownRecord {
  const malformed = signatureProblem(entry)
  return {
    pcr: entry.pcr,
    template_digest: toHex(entry.templateDigest),
    template: entry.template,
    ...(entry.content === "file" ? {} : { content: entry.content }),
    digest: `${entry.algorithm}:${toHex(entry.digest)}`,
    path: entry.path,
    ...(hasSignature(entry) ? { signature: toHex(entry.signature) } : {}),
    ...(malformed === null ? {} : { signature_malformed: malformed }),
    ...fieldsOf(entry),
    ...(isViolation(entry) ? { violation: true } : {}),
  }
}

/** Why an entry's file signature cannot be read; null where it can, or there is none. */
export function signatureProblem(entry: MeasurementEntry): string | null {
  if (!hasSignature(entry)) return null
  try {
    parseFileSignature(entry.signature)
    return null
  } catch (error) {
    if (error instanceof ParseError) return error.message
    throw error
  }
}

function hasSignature(entry: MeasurementEntry): entry is MeasurementEntry & { signature: Uint8Array } {
  return entry.signature !== null && entry.signature.length > 0
}

/** Fields that only some templates have, where they hold something. */
function fieldsOf({ fields }: MeasurementEntry): ShownRecord {
  const filled = Object.entries(fields).filter(([, bytes]) => bytes.length > 0)
  return Object.fromEntries(filled.map(([field, bytes]) => [field, toHex(bytes)]))
}

function isViolation({ templateDigest }: MeasurementEntry): boolean {
  return templateDigest.every((byte) => byte === 0)
}
