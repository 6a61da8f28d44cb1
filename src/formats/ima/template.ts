import { ParseError } from "../../errors.ts"
import { printable } from "../path-text.ts"

/**
 * How a field holds what it holds, inside its length:
 *
 *   sha1            20 bytes
 *   digest          "algorithm:" NUL digest
 *   typed-digest    "ima:" or "verity:", then as `digest`
 *   optional-digest as `digest`, or nothing
 *   name            bytes and one NUL, the last
 *   text            bytes, with or without NUL at the end, or nothing
 *   bytes           any, or nothing
 *   u16, u32        an integer, or nothing
 */
export type FieldForm =
  | "sha1"
  | "digest"
  | "typed-digest"
  | "optional-digest"
  | "name"
  | "text"
  | "bytes"
  | "u16"
  | "u32"

/**
 * Fields of templates by the kernel's identifiers.
 * Source: Linux 6.12, security/integrity/ima/ima_template.c, `supported_fields`, and ima_template_lib.c.
 */
export const IMA_FIELDS = {
  /** Digest of the content; SHA-1. */
  d: "sha1",
  /** Path, or its last part where the path is longer than 255 bytes. */
  n: "name",
  "d-ng": "digest",
  /** Says also whether the digest is of the content, or the root of its fs-verity tree. */
  "d-ngv2": "typed-digest",
  "n-ng": "name",
  /** `security.ima` where that is a signature. */
  sig: "bytes",
  /** Measured data that is no file: a key, a command line, critical data. */
  buf: "bytes",
  /** Digest of the content without the signature appended to it. */
  "d-modsig": "optional-digest",
  /** The signature appended to the content, PKCS #7. */
  modsig: "bytes",
  /** `security.evm` where that is a portable signature. */
  evmsig: "bytes",
  xattrnames: "text",
  xattrlengths: "bytes",
  xattrvalues: "bytes",
  iuid: "u32",
  igid: "u32",
  imode: "u16",
} as const satisfies Record<string, FieldForm>

export type ImaField = keyof typeof IMA_FIELDS

/** Source: Linux 6.12, security/integrity/ima/ima_template.c, `builtin_templates`. */
export const BUILT_IN_TEMPLATES = {
  ima: "d|n",
  "ima-ng": "d-ng|n-ng",
  "ima-sig": "d-ng|n-ng|sig",
  "ima-ngv2": "d-ngv2|n-ng",
  "ima-sigv2": "d-ngv2|n-ng|sig",
  "ima-buf": "d-ng|n-ng|buf",
  "ima-modsig": "d-ng|n-ng|sig|d-modsig|modsig",
  "evm-sig": "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode",
} as const

/**
 * What an entry's digest is of. `file`: the content of a file. `verity`: the root of a file's fs-verity tree, which is never
 * to be compared with the digest of a content. `data`: something in the kernel's memory that is no file, whatever its name:
 * a key added to a keyring, the command line given to kexec, critical data.
 */
export const CONTENT = { file: 0, verity: 1, data: 2 } as const
export type Content = keyof typeof CONTENT
/** Names of the values of {@link CONTENT}. */
export const CONTENT_NAMES: readonly Content[] = ["file", "verity", "data"]

/** A template: which fields its entries have, in which order. */
export interface ImaTemplate {
  /** As the list has it: the name of a built-in template, or the fields of a kernel with `ima_template_fmt=`. */
  readonly name: string
  readonly nameBytes: Uint8Array
  readonly fields: readonly ImaField[]
  readonly forms: readonly FieldForm[]
  /** Places in `fields` of the digest and the name that an entry is judged by: 0 and 1. */
  readonly digestField: number
  readonly nameField: number
  /** Only template "ima" itself: no lengths around digest and data, and a path without NUL. */
  readonly unframed: boolean
}

/** Size of the template digest in the list of all banks: SHA-1. Template "ima" has digests of files of the same size. */
export const TEMPLATE_DIGEST_BYTES = 20
/** Sizes that a template digest has in lists for one bank, the list of all banks first. */
export const TEMPLATE_DIGEST_SIZES: readonly number[] = [TEMPLATE_DIGEST_BYTES, 32, 48, 64]
/** Longest path in template "ima". Source: Linux 6.12, security/integrity/ima/ima.h, IMA_EVENT_NAME_LEN_MAX. */
export const MAX_IMA_NAME = 255
/** Longest name of a template: 15 fields (IMA_TEMPLATE_NUM_FIELDS_MAX) with their separators fit. */
export const MAX_TEMPLATE_NAME = 256
const MAX_FIELDS = 15

/**
 * What an entry is judged by is its first field, and its second. A template's name is not under the template digest, so a VM may
 * show an entry under another name than the kernel gave it: wherever digest and name are always the same two fields, that
 * gains nothing. All built-in templates have them there.
 */
const DIGEST_FIELDS: readonly ImaField[] = ["d-ngv2", "d-ng", "d"]
const NAME_FIELDS: readonly ImaField[] = ["n-ng", "n"]

/**
 * The template of a name, or of fields with `|` between them.
 * @param at place for the error. @throws ParseError ERR_IMA_TEMPLATE
 */
export function imaTemplate(name: string, at: string): ImaTemplate {
  const known = BUILT_IN.get(name)
  if (known !== undefined) return known
  const names = name.split("|")
  const unknown = names.find((field) => !isField(field))
  if (unknown === undefined) {
    const template = templateOf(name, names.filter(isField))
    if (template.digestField >= 0 && template.nameField >= 0 && names.length <= MAX_FIELDS) return template
    throw refused(at, `a digest, then a name, and at most ${MAX_FIELDS} fields`, `"${printable(name)}"`)
  }
  if (names.length > 1)
    throw refused(
      at,
      `fields among ${Object.keys(IMA_FIELDS).join(", ")}`,
      `"${printable(unknown)}" in "${printable(name)}"`,
    )
  throw refused(at, Object.keys(BUILT_IN_TEMPLATES).join(", "), `"${printable(name)}"`)
}

function refused(at: string, expected: string, found: string): ParseError<"ERR_IMA_TEMPLATE"> {
  return new ParseError("ERR_IMA_TEMPLATE", {
    at,
    expected,
    found,
    hint: "boot the VM with the kernel argument ima_template=ima-ng or ima_template=ima-sig",
  })
}

function isField(name: string): name is ImaField {
  return Object.hasOwn(IMA_FIELDS, name)
}

function templateOf(name: string, fields: readonly ImaField[]): ImaTemplate {
  const at = (place: number, wanted: readonly ImaField[]) =>
    wanted.some((field) => field === fields[place]) ? place : -1
  return {
    name,
    nameBytes: new TextEncoder().encode(name),
    fields,
    forms: fields.map((field) => IMA_FIELDS[field]),
    digestField: at(0, DIGEST_FIELDS),
    nameField: at(1, NAME_FIELDS),
    unframed: name === "ima",
  }
}

const BUILT_IN: ReadonlyMap<string, ImaTemplate> = new Map(
  Object.entries(BUILT_IN_TEMPLATES).map(([name, fields]) => [
    name,
    templateOf(name, fields.split("|").filter(isField)),
  ]),
)
