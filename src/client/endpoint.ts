import { UsageError } from "../errors.ts"

/** Where a TLS server answers. */
export interface Endpoint {
  /** Name or address, without brackets. */
  readonly host: string
  readonly port: number
}

/**
 * Endpoint of an agent's URL: `https://host[:port]`, port 443 unless said.
 * @throws UsageError ERR_BAD_VALUE for anything else: another scheme, credentials, a path.
 */
export function parseAgentUrl(text: string): Endpoint {
  const refuse = (hint: string) =>
    new UsageError("ERR_BAD_VALUE", { at: "--url", expected: "https://host[:port]", found: text, hint })
  const url = URL.parse(text)
  if (url === null || !text.includes("://")) throw refuse(`write --url https://${text.replace(/^\/+/, "")}`)
  if (url.protocol !== "https:") throw refuse("the agent speaks HTTPS only")
  if (url.username !== "" || url.password !== "")
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--url",
      expected: "https://host[:port] without a user name",
      hint: "give the token with --token-file",
    })
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "")
    throw refuse("leave out what follows host and port")
  return { host: unbracketed(url.hostname), port: url.port === "" ? 443 : Number(url.port) }
}

/**
 * Endpoint of an application: `host[:port]` or `[v6-address][:port]`, port 443 unless said.
 * @param option that it was given with, for messages.
 * @throws UsageError ERR_BAD_VALUE.
 */
export function parseApplication(text: string, option = "--application"): Endpoint {
  const match = /^(?<host>\[[0-9a-fA-F:.%]+\]|[^\s:/[\]@?#]+)(?::(?<port>[0-9]{1,5}))?$/.exec(text)
  const host = unbracketed(match?.groups?.["host"] ?? "")
  const port = Number(match?.groups?.["port"] ?? "443")
  if (host === "" || port < 1 || port > 65535)
    throw new UsageError("ERR_BAD_VALUE", {
      at: option,
      expected: "host[:port], an IPv6 address in brackets",
      found: text,
      hint: `write for example ${option} app.example:8443`,
    })
  return { host, port }
}

/** `host:port` for people. */
export function endpointText({ host, port }: Endpoint): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`
}

function unbracketed(host: string): string {
  return host.startsWith("[") ? host.slice(1, -1) : host
}
