import { createHash } from "node:crypto"
import { ParseError } from "../../errors.ts"
import { HASH_ALGORITHMS } from "../hash-algorithms.ts"
import { bytesEqual } from "../hex.ts"
import { pathToText, printable } from "../path-text.ts"
import type { MeasurementList } from "./measurement-list.ts"
import {
  CONTENT,
  type FieldForm,
  type ImaTemplate,
  imaTemplate,
  MAX_IMA_NAME,
  MAX_TEMPLATE_NAME,
  TEMPLATE_DIGEST_BYTES,
} from "./template.ts"

/** Longest template data. The kernel has no cap of its own; attributes of a file and measured data are below this. */
const MAX_TEMPLATE_DATA = 1024 * 1024
const SLASH = 0x2f

/** Where bytes stand in a list that is read in parts. */
export interface ListOrigin {
  /** Index of the first entry. */
  readonly entry: number
  readonly offset: number
}
const WHOLE_LIST: ListOrigin = { entry: 0, offset: 0 }
/** Hashes by which data can be recognised. */
const COMPUTED: ReadonlySet<string> = new Set(["sha1", "sha224", "sha256", "sha384", "sha512"])
/** Templates in one list. A kernel has eight of its own and one of `ima_template_fmt=`; kexec may bring another's. */
const MAX_TEMPLATES = 32

/** By entry: index of its template, and where its template data are. */
type Frames = Pick<MeasurementList, "template" | "dataAt" | "dataEnd">
/** Room in the beginning. */
const FEW_ENTRIES = 1024

/** Lengths that come out of the bytes are compared with what is left before they are used. */
export class ListReader {
  /** Templates of the entries read so far, in the order in which they occur. */
  readonly templates: ImaTemplate[] = []
  readonly #bytes: Uint8Array
  readonly #digestBytes: number
  readonly #origin: ListOrigin
  /** Entry being read, for messages. */
  #entry = 0
  /** Template of the last entry. Neighbours mostly share theirs, so that no name is looked up. */
  #last = 0
  /** Where the template data of the last entry begin. */
  #start = 0

  /** @param digestBytes size of each entry's template digest. */
  constructor(
    bytes: Uint8Array,
    digestBytes: number = TEMPLATE_DIGEST_BYTES,
    origin: ListOrigin = WHOLE_LIST,
  ) {
    this.#bytes = bytes
    this.#digestBytes = digestBytes
    this.#origin = origin
  }

  /** Entries that are there to their ends, and the offset behind the last of them: what follows is the beginning of one more. */
  wholeEntries(): { readonly count: number; readonly end: number } {
    let at = 0
    let count = 0
    try {
      for (; at < this.#bytes.length; count++) {
        this.#entry = count
        at = this.#dataEnd(at)
      }
    } catch (error) {
      // The rest is still to come.
      if (!(error instanceof ParseError) || error.code !== "ERR_TRUNCATED") throw error
    }
    return { count, end: at }
  }

  /** Walks over the entries by their outer lengths: there is room only for entries that are there. */
  frames(maxEntries: number): Frames {
    let frames = emptyFrames(FEW_ENTRIES)
    let count = 0
    for (let at = 0; at < this.#bytes.length; count++) {
      if (count >= maxEntries)
        throw new ParseError("ERR_TOO_LARGE", {
          at: "measurement list",
          expected: `at most ${maxEntries} entries`,
          found: "more",
        })
      if (count === frames.dataEnd.length) frames = grown(frames)
      this.#entry = count
      at = this.#dataEnd(at)
      frames.template[count] = this.#last
      frames.dataAt[count] = this.#start
      frames.dataEnd[count] = at
    }
    return {
      template: frames.template.subarray(0, count),
      dataAt: frames.dataAt.subarray(0, count),
      dataEnd: frames.dataEnd.subarray(0, count),
    }
  }

  /** @param list which holds what {@link frames} gave. */
  fill(list: MeasurementList): void {
    let at = 0
    for (let index = 0; index < list.count; index++) {
      this.#entry = index
      const start = list.dataAt[index] ?? 0
      const end = list.dataEnd[index] ?? 0
      const template = this.templates[list.template[index] ?? 0]
      if (template === undefined) throw new RangeError("an entry has a template")
      list.pcr[index] = this.#u32(at)
      list.templateDigestAt[index] = at + 4
      if (template.unframed) this.#fillOld(list, index, start, end)
      else this.#fillFields(list, index, start, end, template)
      at = end
    }
  }

  /** End of the template data of the entry at `at`; sets its template (`#last`) and start. No object for each of a million entries. */
  #dataEnd(at: number): number {
    const nameAt = at + 4 + this.#digestBytes + 4
    this.#need(nameAt, at, "entry header")
    const nameEnd = nameAt + this.#length(nameAt - 4, MAX_TEMPLATE_NAME, "template name")
    const template = this.#template(nameAt, nameEnd)
    if (template.unframed) {
      const pathAt = nameEnd + TEMPLATE_DIGEST_BYTES + 4
      this.#need(pathAt, nameEnd, "file digest and path length")
      this.#start = nameEnd
      return pathAt + this.#length(pathAt - 4, MAX_IMA_NAME, "path")
    }
    this.#need(nameEnd + 4, nameEnd, "length of the template data")
    this.#start = nameEnd + 4
    return this.#start + this.#length(nameEnd, MAX_TEMPLATE_DATA, "template data")
  }

  #template(start: number, end: number): ImaTemplate {
    const last = this.templates[this.#last]
    if (last !== undefined && this.#isName(last.nameBytes, start, end)) return last
    const index = this.templates.findIndex(({ nameBytes }) => this.#isName(nameBytes, start, end))
    const known = this.templates[index]
    if (known !== undefined) {
      this.#last = index
      return known
    }
    if (this.templates.length === MAX_TEMPLATES)
      throw new ParseError("ERR_TOO_LARGE", {
        at: this.#place(start),
        expected: `at most ${MAX_TEMPLATES} templates`,
        found: "one more",
      })
    const template = imaTemplate(pathToText(this.#bytes.subarray(start, end)), this.#place(start))
    this.#last = this.templates.push(template) - 1
    return template
  }

  #isName(name: Uint8Array, start: number, end: number): boolean {
    if (name.length !== end - start) return false
    // Backwards: the names differ at their ends.
    for (let index = name.length - 1; index >= 0; index--)
      if (this.#bytes[start + index] !== name[index]) return false
    return true
  }

  #fillOld(list: MeasurementList, index: number, start: number, end: number): void {
    const pathAt = start + TEMPLATE_DIGEST_BYTES + 4
    if (this.#bytes.subarray(pathAt, end).includes(0)) throw this.#malformed(pathAt, "a path without NUL")
    list.algorithm[index] = SHA1
    list.digestAt[index] = start
    list.pathAt[index] = pathAt
    list.pathEnd[index] = end
  }

  #fillFields(list: MeasurementList, index: number, start: number, end: number, template: ImaTemplate): void {
    const { fields, forms, digestField, nameField } = template
    let at = start
    for (let place = 0; place < fields.length; place++) {
      const from = at + 4
      at = this.#field(at, end, fields[place] ?? "")
      if (place === digestField) this.#fillDigest(list, index, from, at, forms[place])
      else if (place === nameField) {
        this.#checkName(from, at)
        list.pathAt[index] = from
        list.pathEnd[index] = at - 1
      } else {
        this.#checkOther(from, at, forms[place])
        if (fields[place] === "buf" && this.#isMeasuredData(list, index, from, at))
          list.content[index] = CONTENT.data
      }
    }
    if (at !== end) throw this.#malformed(at, "the end of the template data")
  }

  /**
   * Whether an entry is of data in the kernel's memory. The label "buf" proves nothing: it comes from the template's name, which
   * is not under the template digest, and a file's signature could be shown as data to escape the comparison with the
   * snapshot. The kernel's digest of data is that of the very buffer, and its names of data are no paths; an entry that is
   * otherwise is judged as a file.
   */
  #isMeasuredData(list: MeasurementList, index: number, start: number, end: number): boolean {
    const bytes = this.#bytes
    const algorithm = HASH_ALGORITHMS[list.algorithm[index] ?? -1]?.name ?? ""
    const name = bytes.subarray(list.pathAt[index], list.pathEnd[index])
    if (start === end || name.includes(SLASH) || !COMPUTED.has(algorithm)) return false
    const digestAt = list.digestAt[index] ?? 0
    const digest = createHash(algorithm).update(bytes.subarray(start, end)).digest()
    return bytesEqual(digest, bytes.subarray(digestAt, digestAt + digest.length))
  }

  #fillDigest(
    list: MeasurementList,
    index: number,
    start: number,
    end: number,
    form: FieldForm | undefined,
  ): void {
    let from = start
    if (form === "typed-digest") {
      const isVerity = this.#startsWith(VERITY, start, end)
      if (!isVerity && !this.#startsWith(IMA, start, end))
        throw this.#malformed(start, 'a digest that begins with "ima:" or "verity:"')
      from += isVerity ? VERITY.length : IMA.length
      if (isVerity && list.content[index] === CONTENT.file) list.content[index] = CONTENT.verity
    }
    const algorithm = form === "sha1" ? this.#sha1(from, end) : this.#algorithm(from, end)
    list.algorithm[index] = algorithm
    list.digestAt[index] = end - (HASH_ALGORITHMS[algorithm]?.size ?? 0)
  }

  /** Fields that say nothing about what an entry is judged by; a list in which they are damaged is no list. */
  #checkOther(start: number, end: number, form: FieldForm | undefined): void {
    if (form === "name") this.#checkName(start, end)
    else if (form === "sha1") this.#sha1(start, end)
    else if (form === "digest") this.#algorithm(start, end)
    else if (start === end) return
    else if (form === "optional-digest") this.#algorithm(start, end)
    else if (form === "u16" || form === "u32") {
      const size = form === "u16" ? 2 : 4
      if (end - start !== size) throw this.#malformed(start, `${size} bytes`, `${end - start}`)
    }
  }

  #checkName(start: number, end: number): void {
    if (end <= start || this.#bytes.indexOf(0, start) !== end - 1)
      throw this.#malformed(start, "a path that ends in its only NUL")
  }

  #sha1(start: number, end: number): number {
    if (end - start !== TEMPLATE_DIGEST_BYTES)
      throw this.#malformed(start, `${TEMPLATE_DIGEST_BYTES} bytes of digest`, `${end - start}`)
    return SHA1
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
        expected: `${what} up to offset ${this.#origin.offset + end}`,
        found: `a list of ${this.#origin.offset + this.#bytes.length} bytes`,
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
    const { entry, offset } = this.#origin
    return `measurement list, entry ${entry + this.#entry}, offset ${offset + at}`
  }
}

function emptyFrames(room: number): Frames {
  return { template: new Uint8Array(room), dataAt: new Uint32Array(room), dataEnd: new Uint32Array(room) }
}

/** The same with twice the room. */
function grown(frames: Frames): Frames {
  const larger = emptyFrames(2 * frames.dataEnd.length)
  larger.template.set(frames.template)
  larger.dataAt.set(frames.dataAt)
  larger.dataEnd.set(frames.dataEnd)
  return larger
}

const SHA1 = HASH_ALGORITHMS.findIndex((algorithm) => algorithm.name === "sha1")
/** What a d-ng field begins with, by algorithm. */
const PREFIXES = HASH_ALGORITHMS.map((algorithm) => new TextEncoder().encode(`${algorithm.name}:\0`))
/** What a d-ngv2 field begins with. Source: Linux 6.12, ima_template_lib.c, `digest_type_name`. */
const IMA = new TextEncoder().encode("ima:")
const VERITY = new TextEncoder().encode("verity:")
