import type { Context } from "hono"
import { AgentError, ParseError } from "../errors.ts"
import { fromBase64 } from "../formats/hex.ts"

/**
 * The query parameter `nonce`: base64 (standard alphabet, padding optional), given once.
 * @param min, max length in bytes.
 * @throws AgentError ERR_REQUEST.
 */
export function nonceOf(c: Context, min: number, max: number): Uint8Array {
  const expected = `nonce: ${min === max ? min : `${min} to ${max}`} bytes in base64 without padding`
  const text = textOf(c, "nonce")
  // Checked before decoding: a nonce has a few dozen characters.
  if (text === undefined || text.length > 200)
    throw refused("query", expected, text === undefined ? "none" : "more")
  const nonce = fromBase64(text)
  if (nonce === null) throw refused("query", expected, "other characters")
  if (nonce.length < min || nonce.length > max) throw refused("query", expected, `${nonce.length} bytes`)
  return nonce
}

/** A query parameter that counts something; 0 where it is absent. @throws AgentError ERR_REQUEST. */
export function countOf(c: Context, name: string): number {
  const text = textOf(c, name)
  if (text === undefined) return 0
  if (/^[0-9]{1,9}$/.test(text)) return Number(text)
  throw refused("query", `${name}: a number`, JSON.stringify(text.slice(0, 20)))
}

/** Parses what a client sent: what is wrong with it is the client's fault. @throws AgentError ERR_REQUEST. */
export function parsed<T>(parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (!(error instanceof ParseError)) throw error
    throw refused(
      error.at ?? "body",
      error.expected ?? "something else",
      error.found ?? "what is not understood",
    )
  }
}

/** A coded refusal of what a client sent. */
export function refused(at: string, expected: string, found: string): AgentError<"ERR_REQUEST"> {
  return new AgentError("ERR_REQUEST", { at, expected, found })
}

/** A query parameter. One given twice is refused: two readers could take two different ones. @throws AgentError ERR_REQUEST. */
export function textOf(c: Context, name: string): string | undefined {
  const values = c.req.queries(name) ?? []
  if (values.length > 1) throw refused("query", `one ${name}`, String(values.length))
  return values[0]
}
