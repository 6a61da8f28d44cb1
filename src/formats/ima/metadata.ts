import { ParseError } from "../../errors.ts"

/** Fields of an entry that hold what EVM protects. Null: the template has no such field. */
export interface MetadataFields {
  readonly xattrnames: Uint8Array | null
  readonly xattrlengths: Uint8Array | null
  readonly xattrvalues: Uint8Array | null
  readonly iuid: Uint8Array | null
  readonly igid: Uint8Array | null
  readonly imode: Uint8Array | null
}

/** A file's metadata, as EVM hashes them. */
export interface FileMetadata {
  /** Value of `security.ima`. */
  readonly ima: Uint8Array
  /** Values of all protected attributes, in the kernel's order, without anything between them. */
  readonly values: Uint8Array
  readonly uid: number
  readonly gid: number
  /** With the type of the file. */
  readonly mode: number
}

/** More than a kernel protects; users may add some. */
const MAX_ATTRIBUTES = 64
const MAX_NAMES_BYTES = MAX_ATTRIBUTES * 256

/**
 * Reads the metadata of an entry: names with `|` between them and perhaps a NUL after the last, a little-endian u32 of each length,
 * the values; u32 uid, u32 gid, u16 mode.
 * Source: Linux 6.12, security/integrity/evm/evm_main.c (evm_read_protected_xattrs), ima/ima_template_lib.c.
 * @throws ParseError ERR_MALFORMED where one is missing, or they do not fit each other, or `security.ima` is not there once.
 */
export function parseFileMetadata(fields: MetadataFields): FileMetadata {
  const attributes = attributesOf(fields)
  const own = attributes.filter(({ name }) => name === "security.ima")
  const [ima] = own
  if (ima === undefined || own.length !== 1) throw wrong("security.ima, once", `${own.length}`)
  return {
    ima: ima.value,
    values: fields.xattrvalues ?? new Uint8Array(0),
    uid: integer(fields.iuid, 4, "iuid"),
    gid: integer(fields.igid, 4, "igid"),
    mode: integer(fields.imode, 2, "imode"),
  }
}

function attributesOf({ xattrnames, xattrlengths, xattrvalues }: MetadataFields) {
  if (xattrnames === null || xattrlengths === null || xattrvalues === null)
    throw wrong("fields xattrnames, xattrlengths and xattrvalues", "a template without one")
  if (xattrnames.length > MAX_NAMES_BYTES || xattrlengths.length > MAX_ATTRIBUTES * 4)
    throw wrong(`at most ${MAX_ATTRIBUTES} attributes`, "more")
  const names = Buffer.from(xattrnames).toString("latin1").replace(/\0$/, "").split("|")
  if (xattrlengths.length !== names.length * 4)
    throw wrong(`${names.length} lengths`, `${xattrlengths.length} bytes`)
  const lengths = new DataView(xattrlengths.buffer, xattrlengths.byteOffset, xattrlengths.byteLength)
  let at = 0
  const attributes = names.map((name, index) => {
    const start = at
    at += lengths.getUint32(index * 4, true)
    return { name, value: xattrvalues.subarray(start, at) }
  })
  if (at !== xattrvalues.length) throw wrong(`${at} bytes of values`, `${xattrvalues.length}`)
  return attributes
}

function integer(bytes: Uint8Array | null, size: 2 | 4, name: string): number {
  if (bytes?.length !== size) throw wrong(`${size} bytes of ${name}`, `${bytes?.length ?? "no field"}`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, size)
  return size === 2 ? view.getUint16(0, true) : view.getUint32(0, true)
}

function wrong(expected: string, found: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at: "metadata of a file", expected, found })
}
