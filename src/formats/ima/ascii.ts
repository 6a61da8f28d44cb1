import { ParseError } from "../../errors.ts"
import { hashAlgorithm } from "../hash-algorithms.ts"
import { fromHex } from "../hex.ts"
import { pathToText, printable } from "../path-text.ts"
import {
  IMA_TEMPLATES,
  type ImaTemplate,
  MAX_LIST_BYTES,
  type MeasurementEntry,
  TEMPLATE_DIGEST_BYTES,
} from "./measurement-list.ts"

/**
 * Reads `ascii_runtime_measurements`: a line `PCR template-digest template fields…`. For people and for logs kept as
 * text; verification uses the binary list, where fields cannot run into each other.
 * Source: Linux 6.12, security/integrity/ima/ima_fs.c, ima_ascii_measurements_show.
 * @throws ParseError ERR_MALFORMED, ERR_IMA_TEMPLATE, ERR_IMA_ALGORITHM, ERR_TOO_LARGE; each with the line.
 */
export function parseAsciiMeasurementList(text: string | Uint8Array): MeasurementEntry[] {
  if (text.length > MAX_LIST_BYTES)
    throw new ParseError("ERR_TOO_LARGE", { at: "measurement list", expected: `at most ${MAX_LIST_BYTES}` })
  const lines = (typeof text === "string" ? text : pathToText(text)).split("\n")
  if (lines.at(-1) === "") lines.pop()
  return lines.map((line, index) => parseLine(line, `measurement list, line ${index + 1}`))
}

const LINE = /^ ?([0-9]{1,2}) ([0-9a-f]+) ([^ ]+) (.*)$/s

function parseLine(line: string, at: string): MeasurementEntry {
  const [, pcr, hash, name, rest] = LINE.exec(line) ?? []
  if (pcr === undefined || hash === undefined || name === undefined || rest === undefined)
    throw malformed(at, "PCR, template digest, template, fields", line)
  const template = IMA_TEMPLATES.find((known) => known === name)
  if (template === undefined)
    throw new ParseError("ERR_IMA_TEMPLATE", {
      at,
      expected: IMA_TEMPLATES.join(", "),
      found: `"${printable(name.slice(0, 64))}"`,
    })
  const space = rest.indexOf(" ")
  if (space < 0) throw malformed(at, "a digest and a path", line)
  const { algorithm, digest } = parseDigest(template, rest.slice(0, space), at)
  // Before the template digest's own form: a list of an algorithm that is not supported is to be named as such.
  const templateDigest = fromHex(hash)
  if (templateDigest?.length !== TEMPLATE_DIGEST_BYTES)
    throw malformed(at, `a template digest of ${TEMPLATE_DIGEST_BYTES} bytes`, hash)
  const last = template === "ima-sig" ? rest.lastIndexOf(" ") : rest.length
  const path = rest.slice(space + 1, last)
  const signature = template === "ima-sig" ? fromHex(rest.slice(last + 1)) : null
  if (path === "" || last <= space || (template === "ima-sig" && signature === null))
    throw malformed(at, template === "ima-sig" ? "a path and a signature in hex" : "a path", line)
  return { pcr: Number(pcr), template, templateDigest, algorithm, digest, path, signature }
}

function parseDigest(
  template: ImaTemplate,
  text: string,
  at: string,
): { algorithm: string; digest: Uint8Array } {
  const colon = text.indexOf(":")
  const name = template === "ima" ? "sha1" : text.slice(0, Math.max(colon, 0))
  const algorithm = hashAlgorithm(name)
  if (algorithm === null)
    throw new ParseError("ERR_IMA_ALGORITHM", {
      at,
      expected: "a hash algorithm of the kernel",
      found: `"${printable(name.slice(0, 64))}"`,
    })
  const digest = fromHex(template === "ima" ? text : text.slice(colon + 1))
  if (digest?.length !== algorithm.size)
    throw malformed(at, `a digest of ${algorithm.size} bytes in hex`, text)
  return { algorithm: algorithm.name, digest }
}

function malformed(at: string, expected: string, found: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at, expected, found: printable(found.slice(0, 120)) })
}
