import { ParseError } from "../../errors.ts"

/**
 * Files of paragraphs, as dpkg and its repositories have them: `Name: value`, further lines of a value begin with a space.
 * Source: Debian Policy Manual 4.6.2, section 5.1 (Syntax of control files).
 */

/** Fields of a paragraph; names in lower case, lines of a value joined by a line break. */
export type Paragraph = ReadonlyMap<string, string>

/**
 * Reads all paragraphs of a text, one after the other.
 * @param name what the text is, for messages.
 * @throws ParseError ERR_MALFORMED; ERR_DUPLICATE_KEY where a paragraph has a field twice.
 */
export function* parseParagraphs(name: string, text: string): Generator<Paragraph> {
  let fields = new Map<string, string>()
  let last: string | null = null
  let number = 0
  for (let at = 0; at < text.length; ) {
    const newline = text.indexOf("\n", at)
    const end = newline < 0 ? text.length : newline
    const line = text.slice(at, end)
    at = end + 1
    number += 1
    if (line.trim() === "") {
      if (fields.size > 0) yield fields
      fields = new Map()
      last = null
    } else if (line.startsWith(" ") || line.startsWith("\t")) {
      if (last === null) throw malformed(name, number, "a field's name")
      fields.set(last, `${fields.get(last)}\n${line.trim()}`)
    } else {
      const colon = line.indexOf(":")
      last = line.slice(0, Math.max(0, colon)).toLowerCase()
      if (!/^[!-9;-~]+$/.test(last)) throw malformed(name, number, "Name: value")
      if (fields.has(last))
        throw new ParseError("ERR_DUPLICATE_KEY", { at: `${name}, line ${number}`, found: last.slice(0, 80) })
      fields.set(last, line.slice(colon + 1).trim())
    }
  }
  if (fields.size > 0) yield fields
}

/** The one paragraph that a text consists of. @throws ParseError as {@link parseParagraphs} */
export function parseParagraph(name: string, text: string): Paragraph {
  const [first, ...rest] = parseParagraphs(name, text)
  if (first !== undefined && rest.length === 0) return first
  throw new ParseError("ERR_MALFORMED", {
    at: name,
    expected: "one paragraph of fields",
    found: `${rest.length + (first === undefined ? 0 : 1)}`,
  })
}

function malformed(name: string, line: number, expected: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at: `${name}, line ${line}`, expected })
}
