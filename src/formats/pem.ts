import { ParseError } from "../errors.ts"
import { fromBase64 } from "./hex.ts"

/** One block of a PEM file. */
export interface PemBlock {
  /** `CERTIFICATE`, `PUBLIC KEY`, … */
  readonly label: string
  readonly der: Uint8Array
}

const MAX_PEM = 1024 * 1024

/**
 * Reads all blocks of a PEM file, in order. Text between blocks is ignored, as RFC 7468 (section 2) allows.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED (a block without end), ERR_TOO_LARGE (over 1 MiB)
 */
export function parsePem(text: string): PemBlock[] {
  if (text.length > MAX_PEM)
    throw new ParseError("ERR_TOO_LARGE", { at: "PEM", expected: `at most ${MAX_PEM} bytes` })
  const blocks: PemBlock[] = []
  let open: { label: string; line: number; body: string[] } | null = null
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.trim()
    if (!line.startsWith("-----")) {
      open?.body.push(line)
      continue
    }
    const begin = /^-----BEGIN ([A-Z0-9 ]+)-----$/.exec(line)?.[1]
    const end = /^-----END ([A-Z0-9 ]+)-----$/.exec(line)?.[1]
    if (begin !== undefined) {
      if (open !== null) throw malformed(index, `the end of ${open.label}`, `the beginning of ${begin}`)
      open = { label: begin, line: index, body: [] }
    } else if (end !== undefined) {
      if (open?.label !== end) throw malformed(index, open?.label ?? "no end", end)
      blocks.push({ label: end, der: decode(open.body.join(""), open.line) })
      open = null
    } else open?.body.push(line)
  }
  if (open !== null)
    throw new ParseError("ERR_TRUNCATED", {
      at: `PEM, line ${open.line + 1}`,
      expected: `the end of ${open.label}`,
      found: "the end of the file",
    })
  return blocks
}

/** One PEM block, ending in a newline. */
export function encodePem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString("base64")
  return [`-----BEGIN ${label}-----`, ...(base64.match(/.{1,64}/g) ?? []), `-----END ${label}-----`, ""].join(
    "\n",
  )
}

function decode(base64: string, line: number): Uint8Array {
  const der = base64.length % 4 === 0 ? fromBase64(base64) : null
  if (der === null || der.length === 0) throw malformed(line, "base64", "something else")
  return der
}

function malformed(line: number, expected: string, found: string): ParseError {
  return new ParseError("ERR_MALFORMED", { at: `PEM, line ${line + 1}`, expected, found })
}
