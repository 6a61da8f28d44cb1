import { UsageError } from "../errors.ts"

/** Let's Encrypt, as of its documentation of ACME endpoints. */
export const LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
export const LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

/** URL of an ACME directory. @param at option, for messages. @throws UsageError ERR_BAD_VALUE */
export function acmeDirectoryOf(text: string, at: string): string {
  const url = URL.parse(text)
  if (url !== null && url.protocol === "https:" && url.username === "" && url.password === "") return url.href
  throw new UsageError("ERR_BAD_VALUE", {
    at,
    expected: "https://host[:port]/path of an ACME directory",
    found: text,
    hint: "see the authority's pages",
  })
}

/** Where an authority may write to. @param at option, for messages. @throws UsageError ERR_BAD_VALUE */
export function emailOf(text: string, at: string): string {
  if (/^[^\s@,?<>"]{1,64}@[^\s@,?<>"]{1,255}$/.test(text)) return text
  throw new UsageError("ERR_BAD_VALUE", {
    at,
    expected: "an address such as admin@example.com",
    found: text,
  })
}
