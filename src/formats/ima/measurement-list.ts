import { ParseError } from "../../errors.ts"
import { HASH_ALGORITHMS } from "../hash-algorithms.ts"
import { toHex } from "../hex.ts"
import { pathToText, printable } from "../path-text.ts"

/**
 * IMA measurement list as the kernel shows it in `binary_runtime_measurements`: integers are u32, little-endian here.
 *
 *   u32 PCR | 20 bytes template digest (SHA-1 whatever the bank; zeros: a violation) | u32 length, template name
 *   other templates: u32 length of template data | template data = fields, each u32 length, bytes
 *   template "ima":  20 bytes file digest | u32 length, path without NUL, at most 255 bytes
 *
 * Fields: d-ng = "algorithm:" NUL digest; n-ng = path NUL; sig = signature or nothing.
 * Source: Linux 6.12, security/integrity/ima/ima_fs.c (ima_measurements_show) and ima_template.c.
 */

/** Templates that are read. The index is what {@link MeasurementList.template} holds. */
export const IMA_TEMPLATES = ["ima", "ima-ng", "ima-sig"] as const
export type ImaTemplate = (typeof IMA_TEMPLATES)[number]

/** Size of the template digest in the list. */
export const TEMPLATE_DIGEST_BYTES = 20
/** Cap of a list: a kernel that has measured a million files has one of about 150 MB. */
export const MAX_LIST_BYTES = 256 * 1024 * 1024
/** Cap of entries in a list. */
export const MAX_LIST_ENTRIES = 2_000_000
/** Longest name of a template in the kernel's table, and then some. */
const MAX_TEMPLATE_NAME = 64
/** Longest template data: PATH_MAX, a signature of 64 KiB (the largest xattr), the digest. */
const MAX_TEMPLATE_DATA = 4096 + 65536 + 256
/** Longest path in template "ima". Source: Linux 6.12, security/integrity/ima/ima.h, IMA_EVENT_NAME_LEN_MAX. */
export const MAX_IMA_NAME = 255

/**
 * A parsed list: for each entry the places of its parts in `bytes`. A hundred thousand entries are a few arrays; text is
 * made by {@link measurementEntry} for those entries that are shown.
 */
export interface MeasurementList {
  readonly bytes: Uint8Array
  /** Number of entries. The arrays may be longer. */
  readonly count: number
  readonly pcr: Uint32Array
  /** Offset of the stored template digest, 20 bytes. */
  readonly templateDigestAt: Uint32Array
  /** Index into {@link IMA_TEMPLATES}. */
  readonly template: Uint8Array
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
  readonly template: ImaTemplate
  /** 20 bytes as stored; all zero in a violation. */
  readonly templateDigest: Uint8Array
  /** Kernel's name of the file digest's algorithm. */
  readonly algorithm: string
  readonly digest: Uint8Array
  /** As `path-text.ts` makes text of it. May hold anything: neutralise before showing. */
  readonly path: string
  /** `security.ima` signature; null in other templates, empty where the file has none. */
  readonly signature: Uint8Array | null
}

/**
 * Reads a binary list. Only its form is checked: digests are for `verify/ima.ts`.
 * @throws ParseError ERR_TRUNCATED, ERR_MALFORMED, ERR_TOO_LARGE, ERR_IMA_TEMPLATE, ERR_IMA_ALGORITHM; each with the
 * index of the entry and the offset.
 */
export function parseMeasurementList(
  bytes: Uint8Array,
  limits: { maxBytes?: number; maxEntries?: number } = {},
): MeasurementList {
  const maxBytes = limits.maxBytes ?? MAX_LIST_BYTES
  if (bytes.length > maxBytes)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "measurement list",
      expected: `at most ${maxBytes} bytes`,
      found: `${bytes.length}`,
    })
  const reader = new ListReader(bytes)
  const count = reader.countEntries(limits.maxEntries ?? MAX_LIST_ENTRIES)
  const list = {
    bytes,
    count,
    pcr: new Uint32Array(count),
    templateDigestAt: new Uint32Array(count),
    template: new Uint8Array(count),
    dataAt: new Uint32Array(count),
    dataEnd: new Uint32Array(count),
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
  for (let offset = 0; offset < TEMPLATE_DIGEST_BYTES; offset++)
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
  const template = IMA_TEMPLATES[list.template[index] ?? -1]
  const algorithm = HASH_ALGORITHMS[list.algorithm[index] ?? -1]
  if (index >= list.count || pcr === undefined || template === undefined || algorithm === undefined)
    throw new RangeError(`no entry ${index} in a list of ${list.count}`)
  const at = list.templateDigestAt[index] ?? 0
  return {
    pcr,
    template,
    templateDigest: list.bytes.subarray(at, at + TEMPLATE_DIGEST_BYTES),
    algorithm: algorithm.name,
    digest: fileDigest(list, index),
    path: pathToText(pathBytes(list, index)),
    // Behind the path: its NUL, and the signature's length.
    signature:
      template === "ima-sig"
        ? list.bytes.subarray((list.pathEnd[index] ?? 0) + 5, list.dataEnd[index])
        : null,
  }
}

/** `algorithm:hex` of an entry's file digest. */
export function digestText(list: MeasurementList, index: number): string {
  return `${HASH_ALGORITHMS[list.algorithm[index] ?? 0]?.name}:${toHex(fileDigest(list, index))}`
}

/** Lengths that come out of the bytes are compared with what is left before they are used. */
class ListReader {
  readonly #bytes: Uint8Array
  /** Entry being read, for messages. */
  #entry = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  /** Walks over the entries by their outer lengths, so that the arrays are made once and never for nothing. */
  countEntries(maxEntries: number): number {
    let count = 0
    for (let at = 0; at < this.#bytes.length; count++) {
      if (count >= maxEntries)
        throw new ParseError("ERR_TOO_LARGE", {
          at: "measurement list",
          expected: `at most ${maxEntries} entries`,
          found: "more",
        })
      this.#entry = count
      at = this.#dataRange(at).end
    }
    return count
  }

  fill(list: MeasurementList): void {
    let at = 0
    for (let index = 0; index < list.count; index++) {
      this.#entry = index
      const { template, start, end } = this.#dataRange(at)
      list.pcr[index] = this.#u32(at)
      list.templateDigestAt[index] = at + 4
      list.template[index] = template
      list.dataAt[index] = start
      list.dataEnd[index] = end
      if (template === 0) this.#fillOld(list, index, start, end)
      else this.#fillFields(list, index, start, end, template === 2)
      at = end
    }
  }

  /** Template and extent of the template data of the entry at `at`. */
  #dataRange(at: number): { template: number; start: number; end: number } {
    const nameAt = at + 4 + TEMPLATE_DIGEST_BYTES + 4
    this.#need(nameAt, at, "entry header")
    const nameEnd = nameAt + this.#length(nameAt - 4, MAX_TEMPLATE_NAME, "template name")
    const template = this.#template(nameAt, nameEnd)
    if (template === 0) {
      const pathAt = nameEnd + TEMPLATE_DIGEST_BYTES + 4
      this.#need(pathAt, nameEnd, "file digest and path length")
      return { template, start: nameEnd, end: pathAt + this.#length(pathAt - 4, MAX_IMA_NAME, "path") }
    }
    this.#need(nameEnd + 4, nameEnd, "length of the template data")
    const start = nameEnd + 4
    return { template, start, end: start + this.#length(nameEnd, MAX_TEMPLATE_DATA, "template data") }
  }

  #template(start: number, end: number): number {
    const bytes = this.#bytes
    // "ima", then nothing, "-ng" or "-sig": compared by hand because it is done for each entry.
    if (bytes[start] === 0x69 && bytes[start + 1] === 0x6d && bytes[start + 2] === 0x61) {
      if (end - start === 3) return 0
      if (bytes[start + 3] === 0x2d) {
        if (end - start === 6 && bytes[start + 4] === 0x6e && bytes[start + 5] === 0x67) return 1
        if (
          end - start === 7 &&
          bytes[start + 4] === 0x73 &&
          bytes[start + 5] === 0x69 &&
          bytes[start + 6] === 0x67
        )
          return 2
      }
    }
    const name = printable(pathToText(bytes.subarray(start, end)))
    throw new ParseError("ERR_IMA_TEMPLATE", {
      at: this.#place(start),
      expected: IMA_TEMPLATES.join(", "),
      found: `"${name}"`,
      hint: "boot the VM with the kernel argument ima_template=ima-ng or ima_template=ima-sig",
    })
  }

  #fillOld(list: MeasurementList, index: number, start: number, end: number): void {
    const pathAt = start + TEMPLATE_DIGEST_BYTES + 4
    if (this.#bytes.subarray(pathAt, end).includes(0)) throw this.#malformed(pathAt, "a path without NUL")
    list.algorithm[index] = SHA1
    list.digestAt[index] = start
    list.pathAt[index] = pathAt
    list.pathEnd[index] = end
  }

  #fillFields(list: MeasurementList, index: number, start: number, end: number, signed: boolean): void {
    const bytes = this.#bytes
    const digestField = this.#field(start, end, "d-ng")
    const algorithm = this.#algorithm(start + 4, digestField)
    const nameField = this.#field(digestField, end, "n-ng")
    const pathAt = digestField + 4
    const pathEnd = nameField - 1
    if (pathEnd < pathAt || bytes.indexOf(0, pathAt) !== pathEnd)
      throw this.#malformed(pathAt, "a path that ends in its only NUL")
    const last = signed ? this.#field(nameField, end, "sig") : nameField
    if (last !== end) throw this.#malformed(last, "the end of the template data")
    list.algorithm[index] = algorithm
    list.digestAt[index] = digestField - (HASH_ALGORITHMS[algorithm]?.size ?? 0)
    list.pathAt[index] = pathAt
    list.pathEnd[index] = pathEnd
  }

  /** End of the field whose length is at `at`. */
  #field(at: number, end: number, name: string): number {
    if (at + 4 > end) throw this.#malformed(at, `field ${name}`)
    const length = this.#u32(at)
    if (length > end - at - 4)
      throw new ParseError("ERR_MALFORMED", {
        at: this.#place(at),
        expected: `field ${name} of at most ${end - at - 4} bytes`,
        found: `${length}`,
      })
    return at + 4 + length
  }

  /** Index of the algorithm named at `start`; what follows the name must be exactly one digest of it. */
  #algorithm(start: number, end: number): number {
    for (let index = 0; index < PREFIXES.length; index++) {
      const prefix = PREFIXES[index]
      if (prefix !== undefined && this.#startsWith(prefix, start, end)) {
        const expected = HASH_ALGORITHMS[index]?.size ?? 0
        if (end - start - prefix.length !== expected)
          throw this.#malformed(start, `${expected} bytes of digest`, `${end - start - prefix.length}`)
        return index
      }
    }
    const colon = this.#bytes.subarray(start, end).indexOf(0x3a)
    if (colon < 0 || colon > MAX_TEMPLATE_NAME) throw this.#malformed(start, "algorithm, colon, NUL, digest")
    throw new ParseError("ERR_IMA_ALGORITHM", {
      at: this.#place(start),
      expected: "a hash algorithm of the kernel",
      found: `"${printable(pathToText(this.#bytes.subarray(start, start + colon)))}"`,
      hint: "boot the VM with the kernel argument ima_hash=sha256",
    })
  }

  #startsWith(prefix: Uint8Array, start: number, end: number): boolean {
    if (end - start < prefix.length) return false
    for (let index = 0; index < prefix.length; index++)
      if (this.#bytes[start + index] !== prefix[index]) return false
    return true
  }

  /** The u32 at `at`, as a length of something that begins right behind it. */
  #length(at: number, max: number, what: string): number {
    const length = this.#u32(at)
    if (length > max)
      throw new ParseError("ERR_TOO_LARGE", {
        at: this.#place(at),
        expected: `${what} of at most ${max} bytes`,
        found: `${length}`,
      })
    this.#need(at + 4 + length, at + 4, what)
    return length
  }

  #need(end: number, at: number, what: string): void {
    if (end > this.#bytes.length)
      throw new ParseError("ERR_TRUNCATED", {
        at: this.#place(at),
        expected: `${what} up to offset ${end}`,
        found: `a list of ${this.#bytes.length} bytes`,
      })
  }

  #u32(at: number): number {
    const bytes = this.#bytes
    return (
      ((bytes[at] ?? 0) |
        ((bytes[at + 1] ?? 0) << 8) |
        ((bytes[at + 2] ?? 0) << 16) |
        ((bytes[at + 3] ?? 0) << 24)) >>>
      0
    )
  }

  #malformed(at: number, expected: string, found?: string): ParseError<"ERR_MALFORMED"> {
    return new ParseError("ERR_MALFORMED", {
      at: this.#place(at),
      expected,
      ...(found === undefined ? {} : { found }),
    })
  }

  #place(at: number): string {
    return `measurement list, entry ${this.#entry}, offset ${at}`
  }
}

const SHA1 = HASH_ALGORITHMS.findIndex((algorithm) => algorithm.name === "sha1")
/** What a d-ng field begins with, by algorithm. */
const PREFIXES = HASH_ALGORITHMS.map((algorithm) => new TextEncoder().encode(`${algorithm.name}:\0`))
