import { createHash, timingSafeEqual } from "node:crypto"
import { AgentError } from "../errors.ts"
import type { AgentConfig } from "./config.ts"

/**
 * Lets a write to the application pass.
 * @throws AgentError ERR_CROSS_ORIGIN for a request made by a web page; ERR_WRITES_DISABLED where no credentials are
 * configured and writes are not open by `open_writes`; ERR_UNAUTHORIZED without a valid token.
 */
export function requireWriter(headers: Headers, auth: AgentConfig["auth"]): void {
  refuseCrossOrigin(headers)
  if (auth.tokens.length > 0) requireToken(headers, auth.tokens)
  else if (!auth.openWrites) throw writesDisabled()
}

function writesDisabled(): AgentError<"ERR_WRITES_DISABLED"> {
  return new AgentError("ERR_WRITES_DISABLED", {
    expected: "credentials in the table [auth] of the agent's configuration",
    found: "none",
    hint: "add the SHA-256 of a token to [auth] tokens and send the token as Authorization: Bearer",
  })
}

/**
 * Lets the start or removal of a snapshot pass. Open to everybody, as clients of Cosmian VM 1.3 expect, until credentials
 * are configured.
 * @throws AgentError ERR_CROSS_ORIGIN, ERR_UNAUTHORIZED.
 */
export function requireSnapshotControl(headers: Headers, auth: AgentConfig["auth"]): void {
  refuseCrossOrigin(headers)
  if (auth.tokens.length > 0) requireToken(headers, auth.tokens)
}

/** No web page has business here: a browser names the page's origin, and the request is refused whatever it is. */
function refuseCrossOrigin(headers: Headers): void {
  const origin = headers.get("origin")
  const site = headers.get("sec-fetch-site")
  if (origin === null && (site === null || site === "none")) return
  throw new AgentError("ERR_CROSS_ORIGIN", { expected: "a request of a program", found: "a web page's" })
}

function requireToken(headers: Headers, accepted: readonly Uint8Array[]): void {
  const [, token] = /^Bearer +([^ ]+) *$/i.exec(headers.get("authorization") ?? "") ?? []
  // Compared by their hashes: equal lengths, no early end, and no token is ever kept.
  const given = createHash("sha256")
    .update(token ?? "")
    .digest()
  let known = false
  for (const candidate of accepted) known = timingSafeEqual(candidate, given) || known
  if (token !== undefined && known) return
  throw new AgentError("ERR_UNAUTHORIZED", {
    expected: "Authorization: Bearer with a token whose SHA-256 is in [auth] tokens",
    found: token === undefined ? "no token" : "a token that is not accepted",
  })
}
