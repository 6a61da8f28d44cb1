/** Controls beyond ASCII, bidirectional and invisible characters: JSON allows them as they are, a terminal may obey them. */
const ESCAPED = /[\u007f-\u009f\u00ad\p{Cf}\p{Zl}\p{Zp}\p{Co}]/gu

/** A value as JSON for standard output: the same value for a program, harmless when it ends up on a terminal. */
export function jsonText(value: unknown): string {
  const text = JSON.stringify(value, null, 2).replace(ESCAPED, escapeUnits)
  return `${text}\n`
}

/** The same on one line, without a line break at its end. */
export function inlineJson(value: unknown): string {
  return JSON.stringify(value).replace(ESCAPED, escapeUnits)
}

function escapeUnits(char: string): string {
  let out = ""
  for (let unit = 0; unit < char.length; unit++)
    out += `\\u${char.charCodeAt(unit).toString(16).padStart(4, "0")}`
  return out
}
