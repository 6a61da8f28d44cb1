import { ParseError } from "../errors.ts"
import { fromBase64, toBase64 } from "./hex.ts"
import { JsonRecord, parseJsonRecord } from "./strict-json.ts"

/** Named secrets for an application: passwords, keys, configuration files. Content by name. */
export type Provision = ReadonlyMap<string, Uint8Array>

/** Names are those of files, of systemd credentials and, but for dots and dashes, of environment variables. */
const NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/
export const PROVISION_NAME_RULE = "a letter or _, then at most 63 letters, digits and _.-"
const MAX_VALUES = 256

/** Whether a name may be given to a secret. */
export function isProvisionName(name: string): boolean {
  return NAME.test(name)
}

/** The JSON text that is sealed: `{"values":{name: base64}}`. */
export function encodeProvision(values: Provision): string {
  const members = [...values].map(([name, content]) => [name, toBase64(content)])
  return JSON.stringify({ values: Object.fromEntries(members) })
}

/**
 * Reads it back. Nothing of a content is ever in an error.
 * @param maxBytes cap of the JSON text.
 * @throws ParseError ERR_MALFORMED, ERR_TOO_LARGE, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_DUPLICATE_KEY.
 */
export function parseProvision(bytes: Uint8Array, maxBytes: number): Provision {
  const root = parseJsonRecord("values", bytes, maxBytes)
  const values = root.take("values")
  root.finish()
  if (!(values instanceof JsonRecord)) throw wrong("an object of names and contents")
  const names = values.names()
  if (names.length > MAX_VALUES) throw wrong(`at most ${MAX_VALUES} values`)
  return new Map(
    names.map((name) => {
      if (!isProvisionName(name)) throw wrong(`names: ${PROVISION_NAME_RULE}`)
      const text = values.take(name)
      const content = typeof text === "string" ? fromBase64(text) : null
      if (content === null) throw wrong("contents in base64")
      return [name, content]
    }),
  )
}

function wrong(expected: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at: "values", expected, found: "something else" })
}
