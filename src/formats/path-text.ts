import { ParseError } from "../errors.ts"

/**
 * Paths on Linux are bytes. As text, valid UTF-8 stays as it is and each byte that is not part of valid UTF-8
 * becomes the lone surrogate U+DC00 + byte (U+DC80 to U+DCFF), so that no two paths become the same text.
 * Source: PEP 383, "Non-decodable Bytes in System Character Interfaces".
 */

const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const ENCODER = new TextEncoder()

/** Text of a path. Any bytes are accepted; {@link textToPath} gives them back. */
export function pathToText(bytes: Uint8Array): string {
  try {
    return STRICT.decode(bytes)
  } catch {
    // Not UTF-8: recovered by going through the bytes one sequence at a time.
    return escapeInvalid(bytes)
  }
}

/**
 * Bytes of a path given as text. The inverse of {@link pathToText}.
 * @throws ParseError ERR_MALFORMED for a lone surrogate that stands for no byte.
 */
export function textToPath(text: string): Uint8Array {
  if (text.isWellFormed()) return ENCODER.encode(text)
  const out: number[] = []
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0
    if (code >= 0xdc80 && code <= 0xdcff) out.push(code - 0xdc00)
    else if (code >= 0xd800 && code <= 0xdfff)
      throw new ParseError("ERR_MALFORMED", {
        at: `path ${printable(text.slice(0, 80))}`,
        expected: "Unicode text, other bytes as U+DC80 to U+DCFF",
        found: `U+${code.toString(16).toUpperCase()}`,
      })
    else out.push(...ENCODER.encode(char))
  }
  return Uint8Array.from(out)
}

/**
 * Text for a terminal or a log line: control characters, escape sequences, line and paragraph separators,
 * bidirectional controls, invisible format characters and lone surrogates become visible escapes. A backslash is
 * doubled, so that what is shown tells which of these were in the text.
 */
export function printable(text: string): string {
  if (!NEEDS_ESCAPE.test(text)) return text
  let out = ""
  for (const char of text) out += NEEDS_ESCAPE.test(char) ? escapeChar(char) : char
  return out
}

/** Controls (Cc), format characters (Cf: bidi, zero width, tags), separators (Zl, Zp), surrogates, private use. */
const NEEDS_ESCAPE = /[\\\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\u115f\u1160\u3164\uffa0]/u

function escapeChar(char: string): string {
  if (char === "\\") return "\\\\"
  const code = char.codePointAt(0) ?? 0
  if (code >= 0xdc80 && code <= 0xdcff) return `\\x${(code - 0xdc00).toString(16)}`
  if (code < 0x80) return `\\x${code.toString(16).padStart(2, "0")}`
  return `\\u{${code.toString(16)}}`
}

function escapeInvalid(bytes: Uint8Array): string {
  let out = ""
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceLength(bytes, at)
    if (length === 0) {
      out += String.fromCharCode(0xdc00 + (bytes[at] ?? 0))
      at += 1
    } else {
      out += STRICT.decode(bytes.subarray(at, at + length))
      at += length
    }
  }
  return out
}

/** Length of the UTF-8 sequence at `at`, or 0 where there is none. Source: Unicode 15.0, Table 3-7. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const lead = bytes[at] ?? 0
  if (lead < 0x80) return 1
  const second = bytes[at + 1] ?? 0
  const tail = (index: number) => ((bytes[at + index] ?? 0) & 0xc0) === 0x80
  if (lead >= 0xc2 && lead <= 0xdf) return tail(1) ? 2 : 0
  if (lead >= 0xe0 && lead <= 0xef) {
    const low = lead === 0xe0 ? 0xa0 : 0x80
    const high = lead === 0xed ? 0x9f : 0xbf
    return second >= low && second <= high && tail(2) ? 3 : 0
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    const low = lead === 0xf0 ? 0x90 : 0x80
    const high = lead === 0xf4 ? 0x8f : 0xbf
    return second >= low && second <= high && tail(2) && tail(3) ? 4 : 0
  }
  return 0
}
