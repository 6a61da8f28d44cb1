import { toHex } from "../hex.ts"
import { parseAsciiMeasurementList } from "../ima/ascii.ts"
import { type MeasurementEntry, measurementEntry, parseMeasurementList } from "../ima/measurement-list.ts"
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
    entries: entries.map((entry) => ({
      pcr: entry.pcr,
      template_digest: toHex(entry.templateDigest),
      template: entry.template,
      ...(entry.content === "file" ? {} : { content: entry.content }),
      digest: `${entry.algorithm}:${toHex(entry.digest)}`,
      path: entry.path,
      ...(entry.signature === null || entry.signature.length === 0
        ? {}
        : { signature: toHex(entry.signature) }),
      ...fieldsOf(entry),
      ...(isViolation(entry) ? { violation: true } : {}),
    })),
  }
}

/** Fields that only some templates have, where they hold something. */
function fieldsOf({ fields }: MeasurementEntry): ShownRecord {
  const filled = Object.entries(fields).filter(([, bytes]) => bytes.length > 0)
  return Object.fromEntries(filled.map(([field, bytes]) => [field, toHex(bytes)]))
}

function isViolation({ templateDigest }: MeasurementEntry): boolean {
  return templateDigest.every((byte) => byte === 0)
}
