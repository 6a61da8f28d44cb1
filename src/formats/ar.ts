import { ParseError } from "../errors.ts"

/** A member of an archive. */
export interface ArMember {
  readonly name: string
  /** A view. */
  readonly content: Uint8Array
}

const MAGIC = "!<arch>\n"
const HEADER_BYTES = 60
/** A .deb has three members; signatures and a few more are allowed. */
const MAX_MEMBERS = 64

/**
 * Members of an ar archive in the common format, as .deb files are: names of up to 15 characters, sizes in decimal.
 * Source: deb(5), dpkg 1.21; ar(5).
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_LARGE.
 */
export function parseAr(bytes: Uint8Array): ArMember[] {
  if (ascii(bytes, 0, MAGIC.length) !== MAGIC)
    throw new ParseError("ERR_MALFORMED", { at: "ar archive", expected: "an ar archive" })
  const members: ArMember[] = []
  for (let at = MAGIC.length; at < bytes.length; ) {
    if (members.length === MAX_MEMBERS)
      throw new ParseError("ERR_TOO_LARGE", { at: "ar archive", expected: `at most ${MAX_MEMBERS} members` })
    if (at + HEADER_BYTES > bytes.length) throw truncated(at, "a member's header")
    const name = ascii(bytes, at, 16).trimEnd().replace(/\/$/, "")
    const size = ascii(bytes, at + 48, 10).trimEnd()
    const end = ascii(bytes, at + 58, 2)
    if (!/^[\x21-\x7e]+$/.test(name) || !/^(0|[1-9][0-9]*)$/.test(size) || end !== "`\n")
      throw new ParseError("ERR_MALFORMED", { at: `ar archive, byte ${at}`, expected: "a member's header" })
    const start = at + HEADER_BYTES
    if (start + Number(size) > bytes.length) throw truncated(at, `${size} bytes of ${name}`)
    members.push({ name, content: bytes.subarray(start, start + Number(size)) })
    // Members begin at even offsets. The last one need not be followed by a byte that nobody reads.
    at = start + Number(size) + (Number(size) % 2)
  }
  return members
}

function ascii(bytes: Uint8Array, start: number, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString(
    "latin1",
    start,
    start + length,
  )
}

function truncated(at: number, expected: string): ParseError<"ERR_TRUNCATED"> {
  return new ParseError("ERR_TRUNCATED", { at: `ar archive, byte ${at}`, expected })
}
