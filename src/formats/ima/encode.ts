import { createHash } from "node:crypto"
import { ParseError } from "../../errors.ts"
import { hashAlgorithm } from "../hash-algorithms.ts"
import { textToPath } from "../path-text.ts"
import {
  type Content,
  type ImaField,
  type ImaTemplate,
  imaTemplate,
  MAX_IMA_NAME,
  TEMPLATE_DIGEST_BYTES,
} from "./template.ts"

/** An entry to be written. */
export interface NewEntry {
  /** 10 where absent. */
  readonly pcr?: number
  /** Name of the template, or its fields with `|` between them. */
  readonly template: string
  /** Field d-ngv2 says whether the digest is fs-verity's; that an entry is data shows in its fields. */
  readonly content?: Content
  /** Kernel's name of the algorithm. Template "ima" has no place for it and holds 20 bytes. */
  readonly algorithm: string
  readonly digest: Uint8Array
  readonly path: string
  /** Field `sig`; empty where absent. */
  readonly signature?: Uint8Array | null
  /** Content of other fields than digest, name and signature; empty where absent. */
  readonly fields?: Readonly<Partial<Record<ImaField, Uint8Array>>>
  /** Stored template digest; the right one where absent, zeros for a violation. */
  readonly templateDigest?: Uint8Array
}

/**
 * The bytes that the kernel hashes for an entry, and extends PCR 10 with the hash of, in each bank.
 * @throws ParseError ERR_MALFORMED where the template cannot hold the entry, ERR_IMA_TEMPLATE.
 */
export function templateHashInput(entry: NewEntry): Uint8Array {
  if (entry.template !== "ima") return templateData(entry)
  const out = new Uint8Array(TEMPLATE_DIGEST_BYTES + MAX_IMA_NAME + 1)
  out.set(entry.digest)
  out.set(oldPath(entry), TEMPLATE_DIGEST_BYTES)
  return out
}

/** One entry of a binary list; see measurement-list.ts for the form. @throws ParseError ERR_MALFORMED, ERR_IMA_TEMPLATE. */
export function encodeMeasurementEntry(entry: NewEntry): Uint8Array {
  const name = new TextEncoder().encode(entry.template)
  const data = templateData(entry)
  const digest =
    entry.templateDigest ?? new Uint8Array(createHash("sha1").update(templateHashInput(entry)).digest())
  const parts = [u32(entry.pcr ?? 10), digest, u32(name.length), name]
  return entry.template === "ima" ? concat([...parts, data]) : concat([...parts, u32(data.length), data])
}

/** A binary list. @throws ParseError ERR_MALFORMED, ERR_IMA_TEMPLATE. */
export function encodeMeasurementList(entries: readonly NewEntry[]): Uint8Array {
  return concat(entries.map(encodeMeasurementEntry))
}

function templateData(entry: NewEntry): Uint8Array {
  if (entry.template === "ima") {
    if (entry.digest.length !== TEMPLATE_DIGEST_BYTES) throw unfit(entry, "a digest of 20 bytes")
    const path = oldPath(entry)
    return concat([entry.digest, u32(path.length), path])
  }
  const template = imaTemplate(entry.template, "entry")
  return concat(template.fields.map((name, place) => field(fieldContent(entry, template, name, place))))
}

function fieldContent(entry: NewEntry, template: ImaTemplate, name: ImaField, place: number): Uint8Array {
  if (place === template.digestField) return digestContent(entry, name)
  if (place === template.nameField) {
    const path = textToPath(entry.path)
    if (path.includes(0)) throw unfit(entry, "a path without NUL")
    return concat([path, Uint8Array.of(0)])
  }
  return (name === "sig" ? entry.signature : entry.fields?.[name]) ?? new Uint8Array(0)
}

function digestContent(entry: NewEntry, name: ImaField): Uint8Array {
  if (hashAlgorithm(entry.algorithm)?.size !== entry.digest.length)
    throw unfit(entry, "a digest of the algorithm's size")
  const isVerity = entry.content === "verity"
  if (isVerity && name !== "d-ngv2") throw unfit(entry, "field d-ngv2 for a digest of fs-verity")
  if (name === "d") {
    if (entry.algorithm !== "sha1") throw unfit(entry, "a digest of SHA-1")
    return entry.digest
  }
  const type = name === "d-ngv2" ? (isVerity ? "verity:" : "ima:") : ""
  return concat([new TextEncoder().encode(`${type}${entry.algorithm}:\0`), entry.digest])
}

function oldPath(entry: NewEntry): Uint8Array {
  const path = textToPath(entry.path)
  if (path.length > MAX_IMA_NAME || path.includes(0)) throw unfit(entry, "a path of at most 255 bytes")
  return path
}

function unfit(entry: NewEntry, expected: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at: `entry of template ${entry.template}`, expected })
}

function field(bytes: Uint8Array): Uint8Array {
  return concat([u32(bytes.length), bytes])
}

function u32(value: number): Uint8Array {
  const out = new Uint8Array(4)
  new DataView(out.buffer).setUint32(0, value, true)
  return out
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}
