import { ParseError } from "../../errors.ts"
import { HASH_ALGORITHMS } from "../hash-algorithms.ts"
import { toHex } from "../hex.ts"
import { pathToText } from "../path-text.ts"
import { type ListOrigin, ListReader } from "./list-reader.ts"
import {
  CONTENT,
  CONTENT_NAMES,
  type Content,
  type ImaField,
  type ImaTemplate,
  TEMPLATE_DIGEST_BYTES,
} from "./template.ts"

/**
 * IMA measurement list as the kernel shows it in `binary_runtime_measurements`: integers are u32, little-endian here.
 *
 *   u32 PCR | template digest (zeros: a violation) | u32 length, template name
 *   other templates: u32 length of template data | template data = fields, each u32 length, bytes
 *   template "ima":  20 bytes file digest | u32 length, path without NUL, at most 255 bytes
 *
 * The template digest is SHA-1 whatever the bank, 20 bytes. In `binary_runtime_measurements_sha256` and its like, which
 * newer kernels have beside that file, it is the digest of the name.
 * Which fields a template has, and what they hold, is in template.ts.
 * Source: Linux 6.12, security/integrity/ima/ima_fs.c (ima_measurements_show) and ima_template.c.
 */

/** Cap of a list: a kernel that has measured a million files has one of about 150 MB. */
export const MAX_LIST_BYTES = 256 * 1024 * 1024
/** Cap of entries in a list. */
export const MAX_LIST_ENTRIES = 2_000_000

/**
 * A parsed list: for each entry the places of its parts in `bytes`. A hundred thousand entries are a few arrays; text is
 * made by {@link measurementEntry} for those entries that are shown.
 */
export interface MeasurementList {
  readonly bytes: Uint8Array
  /** Number of entries. The arrays may be longer. */
  readonly count: number
  readonly pcr: Uint32Array
  /** Size of each template digest: 20 but in a list for one bank. */
  readonly templateDigestBytes: number
  /** Offset of the stored template digest. */
  readonly templateDigestAt: Uint32Array
  /** Templates that occur. */
  readonly templates: readonly ImaTemplate[]
  /** Index into `templates`. */
  readonly template: Uint8Array
  /** A value of {@link CONTENT}. */
  readonly content: Uint8Array
  /** Template data: [dataAt, dataEnd). For template "ima": file digest, length, path. */
  readonly dataAt: Uint32Array
  readonly dataEnd: Uint32Array
  /** Index into HASH_ALGORITHMS. */
  readonly algorithm: Uint8Array
  /** Offset of the file digest; its size is the algorithm's. */
  readonly digestAt: Uint32Array
  /** Path: [pathAt, pathEnd), without NUL. */
  readonly pathAt: Uint32Array
  readonly pathEnd: Uint32Array
}

/** One entry, with text. */
export interface MeasurementEntry {
  readonly pcr: number
  /** Name of the template, or its fields with `|` between them. */
  readonly template: string
  readonly content: Content
  /** As stored; all zero in a violation. */
  readonly templateDigest: Uint8Array
  /** Kernel's name of the file digest's algorithm. */
  readonly algorithm: string
  readonly digest: Uint8Array
  /** As `path-text.ts` makes text of it. May hold anything: neutralise before showing. */
  readonly path: string
  /** `security.ima` signature; null in other templates, empty where the file has none. */
  readonly signature: Uint8Array | null
  /** Content of the fields that are none of the above. */
  readonly fields: Readonly<Partial<Record<ImaField, Uint8Array>>>
}

export interface ListOptions {
  readonly maxBytes?: number
  readonly maxEntries?: number
  /** 20 where absent. */
  readonly templateDigestBytes?: number
  /** Where the bytes stand in a list that is read in parts. */
  readonly origin?: ListOrigin
}

/**
 * Reads a binary list. Only its form is checked: digests are for `verify/ima.ts`.
 * @throws ParseError ERR_TRUNCATED, ERR_MALFORMED, ERR_TOO_LARGE, ERR_IMA_TEMPLATE, ERR_IMA_ALGORITHM; each with the
 * index of the entry and the offset.
 */
export function parseMeasurementList(bytes: Uint8Array, limits: ListOptions = {}): MeasurementList {
  const maxBytes = limits.maxBytes ?? MAX_LIST_BYTES
  const templateDigestBytes = limits.templateDigestBytes ?? TEMPLATE_DIGEST_BYTES
  if (bytes.length > maxBytes)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "measurement list",
      expected: `at most ${maxBytes} bytes`,
      found: `${bytes.length}`,
    })
  const reader = new ListReader(bytes, templateDigestBytes, limits.origin)
  const frames = reader.frames(limits.maxEntries ?? MAX_LIST_ENTRIES)
  const count = frames.dataEnd.length
  const list = {
    bytes,
    count,
    pcr: new Uint32Array(count),
    templateDigestBytes,
    templateDigestAt: new Uint32Array(count),
    templates: reader.templates,
    content: new Uint8Array(count),
    ...frames,
    algorithm: new Uint8Array(count),
    digestAt: new Uint32Array(count),
    pathAt: new Uint32Array(count),
    pathEnd: new Uint32Array(count),
  } satisfies MeasurementList
  reader.fill(list)
  return list
}

/** The first `count` entries of a list, as a list. */
export function prefixOf(list: MeasurementList, count: number): MeasurementList {
  return { ...list, count: Math.min(count, list.count) }
}

/** Whether an entry stands for a violation: the kernel could not vouch for what the file held while it was in use. */
export function isViolation(list: MeasurementList, index: number): boolean {
  const at = list.templateDigestAt[index] ?? 0
  for (let offset = 0; offset < list.templateDigestBytes; offset++)
    if (list.bytes[at + offset] !== 0) return false
  return true
}

/** Size in bytes of an entry's file digest. */
export function digestSize(list: MeasurementList, index: number): number {
  return HASH_ALGORITHMS[list.algorithm[index] ?? 0]?.size ?? 0
}

/** An entry's path as bytes. */
export function pathBytes(list: MeasurementList, index: number): Uint8Array {
  return list.bytes.subarray(list.pathAt[index], list.pathEnd[index])
}

/** An entry's file digest. */
export function fileDigest(list: MeasurementList, index: number): Uint8Array {
  const at = list.digestAt[index] ?? 0
  return list.bytes.subarray(at, at + digestSize(list, index))
}

/** Entry `index`, from 0. @throws RangeError where there is none. */
export function measurementEntry(list: MeasurementList, index: number): MeasurementEntry {
  const pcr = list.pcr[index]
  const template = list.templates[list.template[index] ?? -1]
  const content = CONTENT_NAMES[list.content[index] ?? -1]
  const algorithm = HASH_ALGORITHMS[list.algorithm[index] ?? -1]
  const known = template !== undefined && content !== undefined && algorithm !== undefined
  if (index >= list.count || pcr === undefined || !known)
    throw new RangeError(`no entry ${index} in a list of ${list.count}`)
  const at = list.templateDigestAt[index] ?? 0
  return {
    pcr,
    template: template.name,
    content,
    templateDigest: list.bytes.subarray(at, at + list.templateDigestBytes),
    algorithm: algorithm.name,
    digest: fileDigest(list, index),
    path: pathToText(pathBytes(list, index)),
    signature: fieldBytes(list, index, "sig"),
    fields: otherFields(list, index, template),
  }
}

/** Content of a field of an entry: null where its template has no such field. */
export function fieldBytes(list: MeasurementList, index: number, field: ImaField): Uint8Array | null {
  const template = list.templates[list.template[index] ?? 0]
  const place = template === undefined || template.unframed ? -1 : template.fields.indexOf(field)
  return place < 0 ? null : fieldAt(list, index, place)
}

function otherFields(
  list: MeasurementList,
  index: number,
  template: ImaTemplate,
): MeasurementEntry["fields"] {
  if (template.unframed) return {}
  const other: Partial<Record<ImaField, Uint8Array>> = {}
  for (const [place, field] of template.fields.entries())
    if (place !== template.digestField && place !== template.nameField && field !== "sig")
      other[field] = fieldAt(list, index, place)
  return other
}

/** The lengths were checked when the list was parsed. */
function fieldAt(list: MeasurementList, index: number, place: number): Uint8Array {
  const view = new DataView(list.bytes.buffer, list.bytes.byteOffset, list.bytes.byteLength)
  let at = list.dataAt[index] ?? 0
  for (let before = 0; before < place; before++) at += 4 + view.getUint32(at, true)
  return list.bytes.subarray(at + 4, at + 4 + view.getUint32(at, true))
}

/** `algorithm:hex` of an entry's file digest; `verity:algorithm:hex` where that is not the digest of a content. */
export function digestText(list: MeasurementList, index: number): string {
  const verity = list.content[index] === CONTENT.verity ? "verity:" : ""
  return `${verity}${HASH_ALGORITHMS[list.algorithm[index] ?? 0]?.name}:${toHex(fileDigest(list, index))}`
}
