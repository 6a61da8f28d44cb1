import { createHash, timingSafeEqual } from "node:crypto"
import type { Context } from "hono"
import { AgentError, type CodedError } from "../errors.ts"
import { type OwnerRequest, parseOwnerAuthorization } from "../formats/owner-request.ts"
import { publicKeyOfDer } from "../verify/ed25519-key.ts"
import { verifyOwnerRequest } from "../verify/owner-signature.ts"
import type { AgentEnv } from "./app.ts"
import type { AgentConfig } from "./config.ts"
import type { Log } from "./log.ts"
import type { Owners } from "./owners.ts"
import type { RequestNonces } from "./request-nonces.ts"

export interface GuardOptions {
  readonly auth: AgentConfig["auth"]
  readonly owners: Owners
  readonly nonces: RequestNonces
  /** DER SubjectPublicKeyInfo of the TLS key of the server that the requests come to. */
  readonly spki: Uint8Array
  readonly log: Log
}

/** Decides who may have the agent do something. Any one of the configured kinds of credentials is enough. */
export class WriteGuard {
  readonly #options: GuardOptions

  constructor(options: GuardOptions) {
    this.#options = options
  }

  /** Kinds of credentials that are configured. */
  get kinds(): readonly ("token" | "owner" | "client-certificate")[] {
    const { auth, owners } = this.#options
    return [
      ...(auth.tokens.length > 0 ? (["token"] as const) : []),
      ...(owners.keys.length > 0 || owners.claimable ? (["owner"] as const) : []),
      ...(auth.clients === null ? [] : (["client-certificate"] as const)),
    ]
  }

  /**
   * Lets a write to the application pass, or the reading of what only its owner should see.
   * @throws AgentError ERR_CROSS_ORIGIN for a request made by a web page; ERR_WRITES_DISABLED where no credentials are
   * configured and writes are not open by `open_writes`; ERR_UNAUTHORIZED without valid ones; VerifyError ERR_OWNER_SIGNATURE.
   */
  async requireWriter(c: Context<AgentEnv>): Promise<void> {
    refuseCrossOrigin(c.req.raw.headers)
    if (this.kinds.length > 0) await this.#requireCredentials(c)
    else if (!this.#options.auth.openWrites) throw writesDisabled()
  }

  /**
   * Lets the start or removal of a snapshot pass. Open to everybody, as clients of Cosmian VM 1.3 expect, until credentials
   * are configured.
   * @throws AgentError ERR_CROSS_ORIGIN, ERR_UNAUTHORIZED; VerifyError ERR_OWNER_SIGNATURE.
   */
  async requireSnapshotControl(c: Context<AgentEnv>): Promise<void> {
    refuseCrossOrigin(c.req.raw.headers)
    if (this.kinds.length > 0) await this.#requireCredentials(c)
  }

  /**
   * Makes the sender of a request the owner, where there is none yet. The request has to be signed with the key that it brings.
   * @param spki DER SubjectPublicKeyInfo of that key.
   * @returns the key's identifier.
   * @throws AgentError ERR_CROSS_ORIGIN, ERR_OWNER_EXISTS, ERR_UNAUTHORIZED; UsageError ERR_SIGNING_KEY; VerifyError
   * ERR_OWNER_SIGNATURE.
   */
  async claim(c: Context<AgentEnv>, spki: Uint8Array): Promise<string> {
    refuseCrossOrigin(c.req.raw.headers)
    const { owners, nonces, log } = this.#options
    const key = publicKeyOfDer(spki)
    const given = parseOwnerAuthorization(c.req.header("authorization") ?? "")
    if (given === null) throw unauthorized("an owner's signature", "none")
    verifyOwnerRequest(await this.#signedPart(c, given.nonce), given.signature, [key])
    nonces.spend(given.nonce)
    const id = owners.claim(key)
    log.warn("this VM has an owner now", { key: id })
    return id
  }

  async #requireCredentials(c: Context<AgentEnv>): Promise<void> {
    const { auth, owners, nonces, log } = this.#options
    // The server has checked the certificate against [auth] client_ca before the request came here.
    if (auth.clients !== null && c.env?.clientCertificate === true) return
    const header = c.req.header("authorization") ?? ""
    const signed = parseOwnerAuthorization(header)
    if (signed === null) return requireToken(header, auth.tokens, this.kinds)
    const by = verifyOwnerRequest(await this.#signedPart(c, signed.nonce), signed.signature, owners.keys)
    nonces.spend(signed.nonce)
    log.info("request of an owner", { method: c.req.method, path: c.req.path.slice(0, 200), key: by })
  }

  /** What an owner's signature has to cover: the request as it arrived here, and this server's key. */
  async #signedPart(c: Context<AgentEnv>, nonce: Uint8Array): Promise<OwnerRequest> {
    const { pathname, search } = new URL(c.req.url)
    const body = new Uint8Array(await c.req.arrayBuffer())
    return { method: c.req.method, path: `${pathname}${search}`, body, nonce, spki: this.#options.spki }
  }
}

/** No web page has business here: a browser names the page's origin, and the request is refused whatever it is. */
function refuseCrossOrigin(headers: Headers): void {
  const origin = headers.get("origin")
  const site = headers.get("sec-fetch-site")
  if (origin === null && (site === null || site === "none")) return
  throw new AgentError("ERR_CROSS_ORIGIN", { expected: "a request of a program", found: "a web page's" })
}

function requireToken(header: string, accepted: readonly Uint8Array[], kinds: readonly string[]): void {
  const [, token] = /^Bearer +([^ ]+) *$/i.exec(header) ?? []
  // Compared by their hashes: equal lengths, no early end, and no token is ever kept.
  const given = createHash("sha256")
    .update(token ?? "")
    .digest()
  let known = false
  for (const candidate of accepted) known = timingSafeEqual(candidate, given) || known
  if (token !== undefined && known) return
  const expected = `credentials that [auth] names (${kinds.join(", ")})`
  throw unauthorized(expected, token === undefined ? "none" : "a token that is not accepted")
}

function unauthorized(expected: string, found: string): AgentError<"ERR_UNAUTHORIZED"> {
  return new AgentError("ERR_UNAUTHORIZED", { expected, found })
}

function writesDisabled(): CodedError<"ERR_WRITES_DISABLED"> {
  return new AgentError("ERR_WRITES_DISABLED", {
    expected: "credentials in the table [auth] of the agent's configuration",
    found: "none",
    hint: "add an owner's public key to [auth] owner_keys, or the SHA-256 of a token to [auth] tokens",
  })
}
