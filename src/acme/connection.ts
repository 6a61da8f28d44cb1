import type { Authorization, Client, Order } from "acme-client"
import { z } from "zod"
import { AcmeError, CodedError } from "../errors.ts"
import { type AcmeNetwork, type AcmeRequest, exchange } from "./network.ts"
import { type Problem, parseProblem } from "./problem.ts"

export interface AcmeAccount {
  readonly directory: string
  /** PEM. */
  readonly keyPem: string
  /** Null: not registered yet. */
  readonly url: string | null
}

/** Ties an account to a customer of the authority's. Source: RFC 8555, section 7.3.4. */
export interface AccountBinding {
  readonly kid: string
  /** MAC key in base64url, as authorities show it. */
  readonly hmacKey: string
}

export type OrderStatus = "pending" | "ready" | "processing" | "valid" | "invalid"

export interface AcmeOrder {
  readonly url: string
  readonly status: OrderStatus
  /** DNS names, in the server's order. */
  readonly names: readonly string[]
  /** Why it is invalid, where the server says. */
  readonly problem: Problem | null
  /** As the library wants it back. */
  readonly raw: Order
}

export interface AcmeAuthorization {
  /** Without `*.`. */
  readonly name: string
  readonly wildcard: boolean
  readonly status: string
  readonly challenges: readonly AcmeChallenge[]
}

export interface AcmeChallenge {
  readonly type: string
  readonly url: string
  readonly token: string
  readonly problem: Problem | null
}

/** What the server offers beyond the core. */
export interface AcmeDirectory {
  readonly terms: string | null
  /** Names of certificate profiles, with what they are for. */
  readonly profiles: ReadonlyMap<string, string>
  /** Where renewal information is asked for. Source: RFC 9773, section 4. */
  readonly renewalInfo: string | null
  readonly bindingRequired: boolean
}

/** Requests at one time: an order of a hundred names is no attack. */
const CONCURRENT = 8
const MAX_AUTHORIZATIONS = 200

const text = z.string().max(4096)
const directorySchema = z.object({
  newNonce: text,
  newAccount: text,
  newOrder: text,
  revokeCert: text,
  renewalInfo: text.optional(),
  meta: z
    .object({
      termsOfService: text.optional(),
      externalAccountRequired: z.boolean().optional(),
      profiles: z.record(text, text).optional(),
    })
    .optional(),
})
const orderSchema = z.object({
  url: text,
  status: z.enum(["pending", "ready", "processing", "valid", "invalid"]),
  identifiers: z.array(z.object({ type: text, value: text })).max(MAX_AUTHORIZATIONS),
  authorizations: z.array(text).max(MAX_AUTHORIZATIONS),
  finalize: text,
  certificate: text.optional(),
  error: z.unknown().optional(),
})
const authorizationSchema = z.object({
  identifier: z.object({ type: z.literal("dns"), value: text }),
  status: text,
  wildcard: z.boolean().optional(),
  challenges: z
    .array(
      z.object({
        type: text,
        url: text,
        status: text,
        token: text.optional(),
        error: z.unknown().optional(),
      }),
    )
    .max(32),
})
/** What goes into file names, addresses and hooks. Source: RFC 8555, section 8.1: base64url, at least 128 bits. */
const TOKEN = /^[A-Za-z0-9_-]{16,256}$/

/**
 * A conversation with one ACME server. The protocol (signatures, nonces, account, orders) is the library's; its network is ours, so
 * that answers are bounded, waiting is bounded, and a refusal keeps its type. The library has one network for the whole process:
 * two conversations at a time are not possible.
 */
export class AcmeConnection {
  readonly #network: AcmeNetwork
  readonly #client: Client
  readonly #account: AcmeAccount
  readonly #bound: boolean
  readonly #retryAfter = new Map<string, number>()
  #url: string | null
  #refusal: AcmeError | null = null

  private constructor(network: AcmeNetwork, client: Client, account: AcmeAccount, bound: boolean) {
    this.#network = network
    this.#client = client
    this.#account = account
    this.#bound = bound
    this.#url = account.url
  }

  static async open(
    network: AcmeNetwork,
    account: AcmeAccount,
    binding: AccountBinding | null = null,
  ): Promise<AcmeConnection> {
    const { axios, Client } = await loadLibrary()
    const client = new Client({
      directoryUrl: account.directory,
      accountKey: account.keyPem,
      ...(account.url === null ? {} : { accountUrl: account.url }),
      ...(binding === null ? {} : { externalAccountBinding: binding }),
    })
    const connection = new AcmeConnection(network, client, account, binding !== null)
    // Its own retries know no bound.
    Object.assign(axios.defaults, { acmeSettings: { retryMaxAttempts: 0 } })
    const limit = limiter(CONCURRENT)
    axios.defaults.adapter = (config) =>
      limit(async () => {
        const answer = await connection.#exchange({
          method: methodOf(config.method),
          url: config.url ?? "",
          headers: { "content-type": "application/jose+json" },
          body: typeof config.data === "string" ? config.data : null,
        })
        return { ...answer, statusText: "", config }
      })
    return connection
  }

  /** URL of the account; null before it is registered. */
  get accountUrl(): string | null {
    return this.#url
  }

  /**
   * Registers the key, or finds the account that it has already. An account that is known by its URL is only asked for.
   * @throws AcmeError ERR_ACME_ACCOUNT where the server does not know this key, ERR_ACME_ACCOUNT_BINDING
   */
  async openAccount(email: string | null): Promise<string> {
    const contact = email === null ? [] : [`mailto:${email}`]
    if (this.#url !== null) await this.#knownAccount(this.#url)
    else await this.#newAccount(contact)
    this.#url = this.#client.getAccountUrl()
    return this.#url
  }

  async #newAccount(contact: string[]): Promise<void> {
    try {
      await this.#call(() => this.#client.createAccount({ termsOfServiceAgreed: true, contact }))
    } catch (error) {
      if (!this.#bound || !(error instanceof AcmeError) || error.code !== "ERR_ACME_REFUSED") throw error
      throw new AcmeError("ERR_ACME_ACCOUNT_BINDING", {
        at: this.#account.directory,
        expected: "an account binding that the authority accepts",
        found: error.found ?? "a refusal",
        hint: "check --eab-kid and the file of --eab-key-file against the authority's customer pages",
        cause: error,
      })
    }
  }

  async #knownAccount(url: string): Promise<void> {
    try {
      const { status } = await this.#call(() => this.#client.updateAccount({}))
      if (status === "valid") return
      throw accountError(url, `account of status ${status}`)
    } catch (error) {
      if (error instanceof CodedError && error.code === "ERR_ACME_REFUSED")
        throw accountError(url, error.found ?? "a refusal", error)
      throw error
    }
  }

  /**
   * @param profile null: the server's default. @param replaces renewal id of the certificate that is renewed; null: none.
   */
  async newOrder(
    names: readonly string[],
    profile: string | null,
    replaces: string | null,
  ): Promise<AcmeOrder> {
    const order = {
      identifiers: names.map((value) => ({ type: "dns", value })),
      ...(profile === null ? {} : { profile }),
      ...(replaces === null ? {} : { replaces }),
    }
    return this.#order(await this.#call(() => this.#client.createOrder(order)))
  }

  async order(url: string): Promise<AcmeOrder> {
    // The library needs nothing but the address.
    const known = { url, status: "pending", identifiers: [], authorizations: [], finalize: "" } as const
    return this.#order(
      await this.#call(() => this.#client.getOrder({ ...known, identifiers: [], authorizations: [] })),
    )
  }

  async finalize(order: AcmeOrder, csrPem: string): Promise<AcmeOrder> {
    return this.#order(await this.#call(() => this.#client.finalizeOrder(order.raw, csrPem)))
  }

  async authorizations(order: AcmeOrder): Promise<AcmeAuthorization[]> {
    const found = await this.#call(() => this.#client.getAuthorizations(order.raw))
    return found.map((each) => this.#authorization(each))
  }

  /** Tells the server that the answer to a challenge can be looked at. */
  async complete(challenge: AcmeChallenge): Promise<void> {
    await this.#call(() => this.#client.completeChallenge(rawChallenge(challenge)))
  }

  /** What proves that the account's owner answers: the key authorization, for `dns-01` its digest. */
  keyAuthorization(challenge: AcmeChallenge): Promise<string> {
    return this.#client.getChallengeKeyAuthorization(rawChallenge(challenge))
  }

  /** PEM, leaf first. Nothing in it is checked. */
  async certificate(order: AcmeOrder): Promise<string> {
    const found: unknown = await this.#call(() => this.#client.getCertificate(order.raw))
    if (typeof found === "string") return found
    throw answerError(order.url, "a PEM certificate chain")
  }

  /** @param reason number of RFC 5280, section 5.3.1. */
  async revoke(certificatePem: string, reason: number): Promise<void> {
    await this.#call(() => this.#client.revokeCertificate(certificatePem, { reason }))
  }

  /** What the last answer from this address asked to wait, in milliseconds; null: nothing. */
  retryAfterMs(url: string): number | null {
    return this.#retryAfter.get(url) ?? null
  }

  async #exchange(request: AcmeRequest) {
    const { status, headers, text: body, retryAfterMs, refusal } = await exchange(this.#network, request)
    this.#refusal = refusal ?? this.#refusal
    if (retryAfterMs === null) this.#retryAfter.delete(request.url)
    else this.#retryAfter.set(request.url, retryAfterMs)
    const isJson = /[/+]json\b/.test(headers.get("content-type") ?? "")
    const data: unknown = isJson ? parseJson(body, request.url) : body
    return { status, headers: Object.fromEntries(headers), data }
  }

  /** Errors of the network come through the library as they are; its own say only that an answer is not as it expects. */
  async #call<T>(step: () => Promise<T>): Promise<T> {
    try {
      return await step()
    } catch (error) {
      if (error instanceof CodedError) throw error
      if (!(error instanceof Error)) throw error
      // The library gave up on nonces, and has only the problem's text left.
      if (this.#refusal?.found?.endsWith(`: ${error.message}`) === true) throw this.#refusal
      throw new AcmeError("ERR_ACME_ANSWER", {
        at: this.#account.directory,
        found: error.message.slice(0, 500),
        hint: "check --directory, and try again",
        cause: error,
      })
    }
  }

  #order(raw: Order): AcmeOrder {
    const order = checked(orderSchema, raw, this.#account.directory)
    return {
      url: order.url,
      status: order.status,
      names: order.identifiers.map(({ value }) => value),
      problem: order.error === undefined ? null : parseProblem(order.error),
      raw,
    }
  }

  #authorization(raw: Authorization): AcmeAuthorization {
    const found = checked(authorizationSchema, raw, raw.url)
    return {
      name: found.identifier.value,
      wildcard: found.wildcard === true,
      status: found.status,
      challenges: found.challenges.map(({ type, url, token, error }) => ({
        type,
        url,
        token: tokenOf(token, url),
        problem: error === undefined ? null : parseProblem(error),
      })),
    }
  }
}

/**
 * What a server offers.
 * @throws AcmeError ERR_ACME_UNREACHABLE, ERR_ACME_ANSWER, …
 */
export async function fetchDirectory(network: AcmeNetwork, url: string): Promise<AcmeDirectory> {
  const { text: body } = await exchange(network, { method: "GET", url, headers: {}, body: null })
  const { renewalInfo, meta } = checked(directorySchema, parseJson(body, url), url)
  return {
    terms: meta?.termsOfService ?? null,
    profiles: new Map(Object.entries(meta?.profiles ?? {})),
    renewalInfo: renewalInfo ?? null,
    bindingRequired: meta?.externalAccountRequired === true,
  }
}

/** The library, loaded when it is needed: it costs some 50 ms. */
export async function loadLibrary() {
  // The X.509 library inside does not load without it.
  await import("reflect-metadata")
  return import("acme-client")
}

function rawChallenge({ type, url, token }: AcmeChallenge) {
  // The library's types know no tls-alpn-01; its code does.
  const known: "http-01" | "dns-01" = type === "dns-01" ? "dns-01" : "http-01"
  return { type: known, url, token, status: "pending" } as const
}

/** Challenges that are not answered may have another form. */
function tokenOf(token: string | undefined, url: string): string {
  if (token === undefined) return ""
  if (TOKEN.test(token)) return token
  throw answerError(url, "a token in base64url")
}

function accountError(at: string, found: string, cause?: unknown): AcmeError<"ERR_ACME_ACCOUNT"> {
  return new AcmeError("ERR_ACME_ACCOUNT", {
    at,
    expected: "the key of this account",
    found,
    hint: "put the account's own key back, or move the authority's directory under accounts/ in the workspace away to register anew",
    ...(cause === undefined ? {} : { cause }),
  })
}

function checked<T>(schema: z.ZodType<T>, value: unknown, at: string): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw answerError(at, `${issue?.path.join(".") ?? ""}: ${issue?.message ?? "another form"}`)
}

function answerError(at: string, expected: string): AcmeError<"ERR_ACME_ANSWER"> {
  return new AcmeError("ERR_ACME_ANSWER", {
    at,
    expected,
    found: "something else",
    hint: "check that --directory is the address of an ACME directory",
  })
}

function parseJson(body: string, url: string): unknown {
  try {
    return body === "" ? null : JSON.parse(body)
  } catch {
    throw answerError(url, "JSON")
  }
}

function methodOf(method: string | undefined): AcmeRequest["method"] {
  switch (method?.toLowerCase()) {
    case "head":
      return "HEAD"
    case "post":
      return "POST"
    default:
      return "GET"
  }
}

/** Lets so many run at a time. */
function limiter(count: number): <T>(work: () => Promise<T>) => Promise<T> {
  let running = 0
  const waiting: (() => void)[] = []
  return async (work) => {
    if (running >= count) await new Promise<void>((resolve) => waiting.push(resolve))
    running += 1
    try {
      return await work()
    } finally {
      running -= 1
      waiting.shift()?.()
    }
  }
}
