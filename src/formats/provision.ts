import { ParseError } from "../errors.ts"
import { fromBase64, toBase64 } from "./hex.ts"
import { JsonRecord, parseJsonRecord } from "./strict-json.ts"

/** Named secrets: passwords, keys, configuration files. Content by name. */
export type ProvisionedValues = ReadonlyMap<string, Uint8Array>

/** A certificate that the VM is to get from an authority, by ACME, for the application. Nothing of it is secret. */
export interface CertificateOrder {
  /** DNS names, not checked here. */
  readonly names: readonly string[]
  /** URL of the ACME directory, not checked here. */
  readonly directory: string
  /** PEM certificates that the ACME server's own certificate is checked by; null: the usual authorities. */
  readonly authorities: string | null
  readonly email: string | null
  readonly challenge: OrderChallenge
  /** TCP port that the challenge is answered on. */
  readonly port: number
}

/** Challenges that a VM answers by itself. Source: RFC 8555, section 8.3; RFC 8737. */
export const ORDER_CHALLENGES = ["http-01", "tls-alpn-01"] as const
export type OrderChallenge = (typeof ORDER_CHALLENGES)[number]

/** What an application is brought before it runs. */
export interface Provision {
  readonly values: ProvisionedValues
  /** Null: none is asked for. */
  readonly certificate: CertificateOrder | null
}

/** Names are those of files, of systemd credentials and, but for dots and dashes, of environment variables. */
const NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/
export const PROVISION_NAME_RULE = "a letter or _, then at most 63 letters, digits and _.-"
const MAX_VALUES = 256
const MAX_NAMES = 100

/** Whether a name may be given to a secret. */
export function isProvisionName(name: string): boolean {
  return NAME.test(name)
}

/** The JSON text that is sealed: `{"values":{name: base64}}`, and `"certificate"` where one is asked for. */
export function encodeProvision({ values, certificate }: Provision): string {
  const members = [...values].map(([name, content]) => [name, toBase64(content)])
  return JSON.stringify({
    values: Object.fromEntries(members),
    ...(certificate === null ? {} : { certificate }),
  })
}

/**
 * Reads it back. Nothing of a content is ever in an error.
 * @param maxBytes cap of the JSON text.
 * @throws ParseError ERR_MALFORMED, ERR_TOO_LARGE, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_DUPLICATE_KEY.
 */
export function parseProvision(bytes: Uint8Array, maxBytes: number): Provision {
  const root = parseJsonRecord("values", bytes, maxBytes)
  const values = root.take("values")
  const order = root.recordOrNull("certificate")
  root.finish()
  if (!(values instanceof JsonRecord)) throw wrong("an object of names and contents")
  const names = values.names()
  if (names.length > MAX_VALUES) throw wrong(`at most ${MAX_VALUES} values`)
  const contents = new Map(
    names.map((name) => {
      if (!isProvisionName(name)) throw wrong(`names: ${PROVISION_NAME_RULE}`)
      const text = values.take(name)
      const content = typeof text === "string" ? fromBase64(text) : null
      if (content === null) throw wrong("contents in base64")
      return [name, content] as const
    }),
  )
  return { values: contents, certificate: order === null ? null : readOrder(order) }
}

function readOrder(record: JsonRecord): CertificateOrder {
  const names = record.array("names").filter((name) => typeof name === "string")
  const directory = record.string("directory")
  const authorities = record.stringOrNull("authorities")
  const email = record.stringOrNull("email")
  const wanted = record.string("challenge")
  const port = record.count("port", 65_535)
  record.finish()
  const challenge = ORDER_CHALLENGES.find((known) => known === wanted)
  if (challenge === undefined) throw wrong(`certificate.challenge: one of ${ORDER_CHALLENGES.join(", ")}`)
  if (port === 0) throw wrong("certificate.port: not 0")
  if (names.length === 0 || names.length > MAX_NAMES)
    throw wrong(`certificate.names: 1 to ${MAX_NAMES} names`)
  return { names, directory, authorities, email, challenge, port }
}

function wrong(expected: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at: "values", expected, found: "something else" })
}
