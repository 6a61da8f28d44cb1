import { domainToASCII } from "node:url"
import { UsageError } from "../errors.ts"

/** Names in one certificate: authorities allow a hundred. */
const MAX_NAMES = 100
const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/

/**
 * The names that a certificate is to have, in lower case and ASCII (RFC 5890), each once, the first one first.
 * @param at option, for messages.
 * @throws UsageError ERR_BAD_VALUE for what is no DNS name, optionally under `*.`; for more than 100.
 */
export function certificateNamesOf(texts: readonly string[], at: string): string[] {
  const names = [...new Set(texts.map((text) => dnsName(text, at)))]
  if (names.length <= MAX_NAMES) return names
  throw new UsageError("ERR_BAD_VALUE", {
    at,
    expected: `at most ${MAX_NAMES} names in one certificate`,
    found: `${names.length}`,
    hint: "ask for several certificates",
  })
}

export function isWildcard(name: string): boolean {
  return name.startsWith("*.")
}

/** What a name's directory in the workspace is called. */
export function directoryOf(name: string): string {
  return isWildcard(name) ? `_wildcard${name.slice(1)}` : name
}

function dnsName(text: string, at: string): string {
  const wildcard = isWildcard(text)
  const name = domainToASCII(wildcard ? text.slice(2) : text)
  const labels = name.split(".")
  const fits = name.length <= 253 && labels.length > 1 && labels.every((label) => LABEL.test(label))
  // Addresses look like names whose last label is a number.
  if (fits && !/^[0-9]+$/.test(labels.at(-1) ?? "")) return wildcard ? `*.${name}` : name
  throw new UsageError("ERR_BAD_VALUE", {
    at,
    expected: "a DNS name such as vm.example.com or *.example.com",
    found: text,
    hint: "authorities certify public DNS names; addresses are not supported here",
  })
}
