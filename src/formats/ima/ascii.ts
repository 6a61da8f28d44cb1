import { ParseError } from "../../errors.ts"
import { hashAlgorithm } from "../hash-algorithms.ts"
import { fromHex } from "../hex.ts"
import { pathToText, printable, textToPath } from "../path-text.ts"
import { MAX_LIST_BYTES, type MeasurementEntry } from "./measurement-list.ts"
import {
  type Content,
  type FieldForm,
  type ImaField,
  type ImaTemplate,
  imaTemplate,
  TEMPLATE_DIGEST_BYTES,
  TEMPLATE_DIGEST_SIZES,
} from "./template.ts"

/**
 * Reads `ascii_runtime_measurements`: a line `PCR template-digest template fields…`. For people and for logs kept as
 * text; verification uses the binary list, where fields cannot run into each other.
 * Source: Linux 6.12, security/integrity/ima/ima_fs.c, ima_ascii_measurements_show.
 * @throws ParseError ERR_MALFORMED, ERR_IMA_TEMPLATE, ERR_IMA_ALGORITHM, ERR_TOO_LARGE; each with the line.
 */
export function parseAsciiMeasurementList(
  text: string | Uint8Array,
  { firstLine = 1, templateDigestBytes = TEMPLATE_DIGEST_BYTES } = {},
): MeasurementEntry[] {
  if (text.length > MAX_LIST_BYTES)
    throw new ParseError("ERR_TOO_LARGE", { at: "measurement list", expected: `at most ${MAX_LIST_BYTES}` })
  const lines = (typeof text === "string" ? text : pathToText(text)).split("\n")
  if (lines.at(-1) === "") lines.pop()
  return lines.map((line, index) =>
    parseLine(line, templateDigestBytes, `measurement list, line ${firstLine + index}`),
  )
}

/** Size of the template digests in a list that begins so; 20 where that cannot be told. */
export function asciiTemplateDigestBytes(text: Uint8Array): number {
  const [, hex = ""] =
    /^ ?[0-9]{1,2} ([0-9a-f]+) /.exec(Buffer.from(text.subarray(0, 160)).toString("latin1")) ?? []
  return TEMPLATE_DIGEST_SIZES.find((size) => size * 2 === hex.length) ?? TEMPLATE_DIGEST_BYTES
}

const LINE = /^ ?([0-9]{1,2}) ([0-9a-f]+) ([^ ]+) (.*)$/s

function parseLine(line: string, templateDigestBytes: number, at: string): MeasurementEntry {
  const [, pcr, hash, name, rest] = LINE.exec(line) ?? []
  if (pcr === undefined || hash === undefined || name === undefined || rest === undefined)
    throw malformed(at, "PCR, template digest, template, fields", line)
  const template = imaTemplate(name, at)
  const texts = fieldTexts(template, rest, at)
  // Before the template digest's own form: a list of an algorithm that is not supported is to be named as such.
  const digest = parseDigest(template.forms[template.digestField], texts[template.digestField] ?? "", at)
  const templateDigest = fromHex(hash)
  if (templateDigest?.length !== templateDigestBytes)
    throw malformed(at, `a template digest of ${templateDigestBytes} bytes`, hash)
  const path = texts[template.nameField] ?? ""
  if (path === "") throw malformed(at, "a path", line)
  const fields: Partial<Record<ImaField, Uint8Array>> = {}
  for (const [place, field] of template.fields.entries())
    if (place !== template.digestField && place !== template.nameField)
      fields[field] = fieldContent(template.forms[place], texts[place] ?? "", at)
  const { sig = null, ...others } = fields
  const content = (fields.buf?.length ?? 0) > 0 ? "data" : digest.content
  return {
    pcr: Number(pcr),
    template: name,
    templateDigest,
    ...digest,
    content,
    path,
    signature: sig,
    fields: others,
  }
}

/** The text of each field. Only the path can have spaces, so the others are found from the two ends. */
function fieldTexts(template: ImaTemplate, rest: string, at: string): string[] {
  const parts = rest.split(" ")
  const before = template.nameField
  const behind = template.fields.length - before - 1
  if (parts.length < template.fields.length)
    throw malformed(at, `fields ${template.fields.join(", ")} with a space between them`, rest)
  const last = parts.length - behind
  return [...parts.slice(0, before), parts.slice(before, last).join(" "), ...parts.slice(last)]
}

function fieldContent(form: FieldForm | undefined, text: string, at: string): Uint8Array {
  if (form === "name" || (form === "text" && text !== "")) return textToPath(`${text}\0`)
  if (form === "digest" || form === "typed-digest" || (form === "optional-digest" && text !== ""))
    return digestBytes(form, text, at)
  if ((form === "u16" || form === "u32") && text !== "") return integerBytes(text, form === "u16" ? 2 : 4, at)
  const bytes = fromHex(text)
  if (bytes === null) throw malformed(at, "bytes in hex", text)
  return bytes
}

function integerBytes(text: string, size: number, at: string): Uint8Array {
  const value = /^[0-9]{1,10}$/.test(text) ? Number(text) : Number.NaN
  if (!(value < 256 ** size)) throw malformed(at, `an integer of ${size} bytes`, text)
  return Uint8Array.from({ length: size }, (_, index) => Math.floor(value / 256 ** index) % 256)
}

function digestBytes(form: FieldForm, text: string, at: string): Uint8Array {
  const { digest } = parseDigest(form, text, at)
  const name = new TextEncoder().encode(`${text.slice(0, text.lastIndexOf(":") + 1)}\0`)
  return new Uint8Array(Buffer.concat([name, digest]))
}

function parseDigest(
  form: FieldForm | undefined,
  text: string,
  at: string,
): { algorithm: string; digest: Uint8Array; content: Content } {
  const type = form === "typed-digest" ? /^(?:ima|verity):/.exec(text)?.[0] : ""
  if (type === undefined) throw malformed(at, 'a digest that begins with "ima:" or "verity:"', text)
  const rest = text.slice(type.length)
  const colon = rest.indexOf(":")
  const name = form === "sha1" ? "sha1" : rest.slice(0, Math.max(colon, 0))
  const algorithm = hashAlgorithm(name)
  if (algorithm === null)
    throw new ParseError("ERR_IMA_ALGORITHM", {
      at,
      expected: "a hash algorithm of the kernel",
      found: `"${printable(name.slice(0, 64))}"`,
    })
  const digest = fromHex(form === "sha1" ? rest : rest.slice(colon + 1))
  if (digest?.length !== algorithm.size)
    throw malformed(at, `a digest of ${algorithm.size} bytes in hex`, text)
  return { algorithm: algorithm.name, digest, content: type === "verity:" ? "verity" : "file" }
}

function malformed(at: string, expected: string, found: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at, expected, found: printable(found.slice(0, 120)) })
}
