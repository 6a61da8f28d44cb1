import { ParseError } from "../errors.ts"
import { fromBase64 } from "./hex.ts"

/**
 * The text forms of OpenPGP data.
 * Source: RFC 9580, sections 6 (Base64 Conversions) and 7 (Cleartext Signature Framework).
 */

const SIGNED_MESSAGE = "-----BEGIN PGP SIGNED MESSAGE-----"
const SIGNATURE = "-----BEGIN PGP SIGNATURE-----"
const SIGNATURE_END = "-----END PGP SIGNATURE-----"

export interface ClearSigned {
  /** What was signed, as it has to be given to a program that checks detached signatures. */
  readonly text: string
  /** Signatures in ASCII armour. */
  readonly signature: string
}

/** Whether text begins as a signed message does. */
export function isClearSigned(text: string): boolean {
  return text.startsWith(`${SIGNED_MESSAGE}\n`)
}

/**
 * The parts of a signed message that is the whole of a text: anything before, between or behind the parts would look signed and is not.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED
 */
export function parseClearSigned(name: string, text: string): ClearSigned {
  const lines = text.split("\n")
  let at = 0
  const next = () => {
    const line = lines[at++]
    if (line === undefined) throw new ParseError("ERR_TRUNCATED", { at: name, expected: "a signed message" })
    return line
  }
  if (next() !== SIGNED_MESSAGE) throw malformed(name, SIGNED_MESSAGE)
  for (let line = next(); line !== ""; line = next())
    if (!/^Hash: [A-Za-z0-9, -]+$/.test(line)) throw malformed(name, "Hash: and an empty line")
  const signed: string[] = []
  let line = next()
  for (; line !== SIGNATURE; line = next()) {
    if (line.startsWith("-") && !line.startsWith("- ")) throw malformed(name, "lines with dashes escaped")
    // White space at the end of a line is not part of what is signed either.
    signed.push((line.startsWith("- ") ? line.slice(2) : line).replace(/[ \t\r]+$/, ""))
  }
  const signature = [line]
  while (line !== SIGNATURE_END) {
    line = next()
    if (line.startsWith("-") && line !== SIGNATURE_END) throw malformed(name, SIGNATURE_END)
    signature.push(line)
  }
  if (lines.slice(at).some((rest) => rest !== "")) throw malformed(name, "nothing behind the signature")
  // The line break before the signature is not part of what is signed.
  return { text: signed.join("\n"), signature: `${signature.join("\n")}\n` }
}

/**
 * Public keys in binary form, from a file in either form.
 * @throws ParseError ERR_MALFORMED
 */
export function keyringBytes(name: string, content: Uint8Array): Uint8Array {
  const text = new TextDecoder("latin1").decode(content)
  if (!text.includes("-----BEGIN PGP")) return content
  const blocks = text.matchAll(
    /-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[A-Za-z]+: [^\r\n]*\r?\n)*[ \t]*\r?\n([A-Za-z0-9+/=\s]+?)(?:\r?\n=[A-Za-z0-9+/]{4})?\s*-----END PGP PUBLIC KEY BLOCK-----/g,
  )
  const keys = [...blocks].map(([, body = ""]) => fromBase64(body.replaceAll(/\s/g, "")))
  const known = keys.flatMap((key) => (key === null ? [] : [key]))
  if (known.length === 0 || known.length < keys.length)
    throw new ParseError("ERR_MALFORMED", { at: name, expected: "OpenPGP public keys, binary or armoured" })
  return Buffer.concat(known)
}

function malformed(name: string, expected: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at: name, expected })
}
