import type { KeyObject } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { AgentError } from "../errors.ts"
import { type Evidence, MAX_EVIDENCE_BYTES, parseEvidence } from "../formats/evidence.ts"
import { bytesEqual, fromBase64, shortHex, toBase64 } from "../formats/hex.ts"
import { encodeOwnerAuthorization } from "../formats/owner-request.ts"
import { encodeProvision, type Provision } from "../formats/provision.ts"
import {
  encodeSealedContent,
  SEALING_KEY_BYTES,
  SEALING_KEY_HEADER,
  sealingNonce,
} from "../formats/sealed-content.ts"
import type { Credential } from "../formats/tpm/credential.ts"
import { MAX_SNAPSHOT_BYTES } from "../policy/snapshot.ts"
import { signOwnerRequest } from "../verify/owner-signature.ts"
import { Connection, type ConnectionOptions, type HttpAnswer, type HttpRequest } from "./connection.ts"
import { type Endpoint, endpointText } from "./endpoint.ts"
import { seal } from "./sealing.ts"

/** How far the agent's snapshot is. */
export interface SnapshotProgress {
  readonly files: number
  readonly bytes: number
  /** Files that there are; null while they are being counted. */
  readonly total: number | null
}

export interface ClientOptions extends ConnectionOptions {
  /** Bearer token for what the agent does not do for everybody. */
  readonly token: string | null
  /** Ed25519 private key that such requests are signed with. Absent: they are not. */
  readonly ownerKey?: KeyObject
}

/** Evidence, what it was made for, and the key that it vouches for. */
export interface SealingEvidence {
  readonly evidence: Evidence
  /** 64 bytes: the nonce that report and quote were made for. It covers the verifier's own nonce and the key. */
  readonly nonce: Uint8Array
  /** 32 bytes, X25519. Proven only once the evidence is verified for that nonce. */
  readonly sealingKey: Uint8Array
}

/** How the application does. */
export interface ApplicationState {
  readonly service: string
  readonly state: string
  readonly configured: boolean
  readonly busy: boolean
}

/** How far an application's bootstrap is. Names are the agent's: neutralise before showing. */
export interface BootstrapState {
  readonly state: string
  readonly wanted: readonly string[]
  readonly received: readonly string[]
  /** Files of the certificate that was asked for; null: there is none. */
  readonly certificate: {
    readonly certificate: string
    readonly key: string
    readonly not_after: string
  } | null
}

const BOOTSTRAP = "/v1/bootstrap"
const MAX_SMALL_BYTES = 64 * 1024
/** A thousand lines of a log. */
const MAX_WRITE_ANSWER_BYTES = 2 * 1024 * 1024
/** First and longest pause between two questions whether a snapshot is done. */
const POLL_MS = [200, 1000] as const
/** A service may take this long to stop, start and settle. */
const SERVICE_MS = 300_000
/** And so long when it gets a certificate before. */
const CERTIFICATE_MS = 960_000
/** For the last word of a client that was interrupted. */
const FAREWELL_MS = 2000

/**
 * The agent over one connection. What evidence proves is about that connection's key, so the evidence never comes over another
 * one; later requests may come over a new connection only if it ends at the very same key.
 */
export class AgentClient {
  readonly #endpoint: Endpoint
  readonly #options: ClientOptions
  readonly #first: Connection
  #connection: Connection
  #snapshotStarted = false

  private constructor(endpoint: Endpoint, connection: Connection, options: ClientOptions) {
    this.#endpoint = endpoint
    this.#options = options
    this.#first = connection
    this.#connection = connection
  }

  /** @throws AgentError ERR_CONNECT, ERR_TIMEOUT, ERR_INTERRUPTED. */
  static async connect(endpoint: Endpoint, options: ClientOptions): Promise<AgentClient> {
    return new AgentClient(endpoint, await Connection.open(endpoint, options), options)
  }

  /** The connection that evidence comes over. */
  get channel(): Pick<Connection, "spki" | "leafDer" | "authorized" | "reason"> {
    return this.#first
  }

  /** What evidence has to cover beside the key, 32 bytes; null where the key is enough. @throws AgentError ERR_CONNECT */
  get exporter(): Uint8Array | null {
    if (this.#options.boundToConnection !== true) return null
    if (this.#first.exporter !== null) return this.#first.exporter
    throw new AgentError("ERR_CONNECT", {
      at: endpointText(this.#endpoint),
      expected: "TLS 1.3, so that evidence can be bound to the very connection",
      found: "an older version",
    })
  }

  close(): void {
    this.#first.close()
    this.#connection.close()
  }

  /**
   * Evidence for a nonce, over the first connection and no other; bound to that very connection where there is an {@link exporter}.
   * @param nonce 32 bytes.
   * @throws AgentError, ParseError (see `parseEvidence`).
   */
  async evidence(nonce: Uint8Array): Promise<Evidence> {
    return parsed((await this.#evidence(nonce, "")).body)
  }

  /**
   * The same, for evidence that also vouches for a key that content can be sealed to.
   * @param nonce 32 bytes.
   * @throws AgentError, ParseError (see `parseEvidence`).
   */
  async sealingEvidence(nonce: Uint8Array): Promise<SealingEvidence> {
    const { headers, body } = await this.#evidence(nonce, "&sealing=1")
    const text = headers[SEALING_KEY_HEADER]
    const sealingKey = typeof text === "string" ? fromBase64(text) : null
    if (sealingKey?.length !== SEALING_KEY_BYTES)
      throw new AgentError("ERR_AGENT_REFUSED", {
        at: `GET ${endpointText(this.#endpoint)}/v1/evidence`,
        expected: `a sealing key of ${SEALING_KEY_BYTES} bytes`,
        found: sealingKey === null ? "none" : `${sealingKey.length} bytes`,
        hint: "install this version of the agent in the VM",
      })
    return { evidence: parsed(body), nonce: sealingNonce(nonce, sealingKey), sealingKey }
  }

  async #evidence(nonce: Uint8Array, more: string): Promise<HttpAnswer> {
    const bound = this.exporter === null ? "" : "&binding=exporter"
    const path = `/v1/evidence?nonce=${encodeURIComponent(toBase64(nonce))}${more}${bound}`
    const answer = await this.#first.request({ method: "GET", path, maxBytes: MAX_EVIDENCE_BYTES })
    if (answer.status === 404)
      throw new AgentError("ERR_AGENT_REFUSED", {
        at: `GET ${endpointText(this.#endpoint)}/v1/evidence`,
        expected: "evidence version 1",
        found: "status 404",
        hint: "the agent is older than version 2, or this is no Cosmian VM agent: install this version in the VM",
      })
    this.#accepted("GET /v1/evidence", answer)
    return answer
  }

  /**
   * Has the agent's TPM open a credential, over the first connection, and gives what it derives from the secret.
   * @param ek DER SubjectPublicKeyInfo of the endorsement key that it was made for.
   * @throws AgentError
   */
  async activateCredential(ek: Uint8Array, { idObject, encryptedSecret }: Credential): Promise<Uint8Array> {
    const path = "/v1/tpm/activate-credential"
    const body = JSON.stringify({
      ek: toBase64(ek),
      id_object: toBase64(idObject),
      encrypted_secret: toBase64(encryptedSecret),
    })
    const headers = { "content-type": "application/json" }
    const answer = await this.#first.request({
      method: "POST",
      path,
      headers,
      body,
      maxBytes: MAX_SMALL_BYTES,
    })
    const value = jsonOf(this.#accepted(`POST ${path}`, answer))
    const proof = isObject(value) && typeof value["proof"] === "string" ? fromBase64(value["proof"]) : null
    if (proof !== null) return proof
    throw new AgentError("ERR_AGENT_REFUSED", {
      at: `POST ${endpointText(this.#endpoint)}${path}`,
      expected: '{"proof": base64}',
      found: "something else",
    })
  }

  /**
   * Has the agent make a new snapshot, and gives its JSON.
   * @param onProgress called between questions; null where the agent does not tell how far it is.
   */
  async snapshot(onProgress: (progress: SnapshotProgress | null) => void): Promise<Uint8Array> {
    await this.#discardSnapshot(onProgress)
    this.#snapshotStarted = true
    for (let pause: number = POLL_MS[0]; ; pause = Math.min(pause * 1.5, POLL_MS[1])) {
      const answer = await this.#again({ method: "GET", path: "/snapshot", maxBytes: MAX_SNAPSHOT_BYTES })
      if (answer.status !== 202) return this.#accepted("GET /snapshot", answer)
      onProgress(await this.#progress())
      await this.#pause(pause)
    }
  }

  /**
   * Tells the agent, over a new connection, that nobody waits for the snapshot any more that this client had it start.
   * @returns whether the agent has heard it. The caller is about to end, so nothing else is done about it.
   */
  async abandonSnapshot(): Promise<boolean> {
    if (!this.#snapshotStarted) return true
    const options = {
      ...this.#options,
      timeoutMs: FAREWELL_MS,
      signal: AbortSignal.timeout(10 * FAREWELL_MS),
    }
    try {
      const last = new AgentClient(this.#endpoint, await this.#reconnect(options), options)
      try {
        await last.deleteSnapshot()
        return true
      } finally {
        last.close()
      }
    } catch (error) {
      if (error instanceof AgentError) return false
      throw error
    }
  }

  /** Cancels a running snapshot and removes a finished one. */
  async deleteSnapshot(): Promise<void> {
    const answer = await this.#again({
      method: "DELETE",
      path: "/v1/snapshot",
      maxBytes: MAX_SMALL_BYTES,
    })
    this.#accepted("DELETE /v1/snapshot", answer)
  }

  /**
   * Hands the application's configuration over, sealed to a key that evidence has proven. Only over the first connection.
   * @param sealingKey of {@link sealingEvidence}.
   */
  async appInit(content: Uint8Array, sealingKey: Uint8Array): Promise<void> {
    const sealed = await seal(content, sealingKey, "app-init", this.#first.spki)
    await this.#write("POST", "/v1/app/init", encodeSealedContent(sealed))
  }

  async appRestart(): Promise<void> {
    await this.#write("POST", "/v1/app/restart", "")
  }

  async appStop(): Promise<void> {
    await this.#write("POST", "/v1/app/stop", "")
  }

  async appStatus(): Promise<ApplicationState> {
    const path = "/v1/app/status"
    return applicationStateOf(jsonOf(await this.#write("GET", path)), path)
  }

  /** The last lines of the application's log, oldest first. Hostile text: neutralise before showing. */
  async appLogs(lines: number): Promise<readonly string[]> {
    const path = `/v1/app/logs?lines=${lines}`
    const value = jsonOf(await this.#write("GET", path))
    const found = isObject(value) ? value["lines"] : undefined
    if (!Array.isArray(found)) throw unexpected(path, "lines")
    return found.filter((line) => typeof line === "string")
  }

  /** How far the application's bootstrap is. */
  async bootstrapStatus(): Promise<BootstrapState> {
    return bootstrapStateOf(jsonOf(await this.#write("GET", BOOTSTRAP)))
  }

  /** Hands secrets of the application over, sealed to a key that evidence has proven. Only over the first connection. */
  async bootstrap(provision: Provision, sealingKey: Uint8Array): Promise<BootstrapState> {
    const content = new TextEncoder().encode(encodeProvision(provision))
    const sealed = await seal(content, sealingKey, "bootstrap", this.#first.spki)
    return bootstrapStateOf(jsonOf(await this.#write("POST", BOOTSTRAP, encodeSealedContent(sealed))))
  }

  /** Has the application started with what was handed over, and with the certificate that was asked for. */
  async bootstrapStart(): Promise<BootstrapState> {
    return bootstrapStateOf(jsonOf(await this.#write("POST", `${BOOTSTRAP}/start`, "", CERTIFICATE_MS)))
  }

  /** Makes the holder of the owner key the VM's owner. @returns the key's identifier as the agent has it. */
  async claim(publicKey: Uint8Array): Promise<string> {
    const path = "/v1/owner"
    const body = JSON.stringify({ public_key: toBase64(publicKey) })
    const value = jsonOf(await this.#write("POST", path, body))
    const key = isObject(value) ? value["key"] : undefined
    if (typeof key !== "string") throw unexpected(path, "key")
    return key
  }

  /** A request for which the agent wants credentials. Only over the first connection: what was proven is proven of that one. */
  async #write(
    method: "GET" | "POST",
    path: string,
    body?: string,
    patienceMs = SERVICE_MS,
  ): Promise<Uint8Array> {
    const answer = await this.#first.request({
      method,
      path,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(await this.#credentials(this.#first, method, path, body ?? "")),
      },
      ...(body === undefined ? {} : { body }),
      maxBytes: MAX_WRITE_ANSWER_BYTES,
      patienceMs,
    })
    return this.#accepted(`${method} ${path.replace(/\?.*$/s, "")}`, answer)
  }

  /** The owner's signature over this very request where there is a key, else the token where there is one. */
  async #credentials(
    connection: Connection,
    method: string,
    path: string,
    body: string,
  ): Promise<Record<string, string>> {
    const { ownerKey, token } = this.#options
    if (ownerKey === undefined) return token === null ? {} : { authorization: `Bearer ${token}` }
    const nonce = await this.#requestNonce(connection)
    const signed = { method, path, body: new TextEncoder().encode(body), nonce, spki: connection.spki }
    return { authorization: encodeOwnerAuthorization(nonce, signOwnerRequest(signed, ownerKey)) }
  }

  async #requestNonce(connection: Connection): Promise<Uint8Array> {
    const path = "/v1/auth/nonce"
    const answer = await connection.request({ method: "GET", path, maxBytes: MAX_SMALL_BYTES })
    const value = jsonOf(this.#accepted(`GET ${path}`, answer))
    const nonce = isObject(value) && typeof value["nonce"] === "string" ? fromBase64(value["nonce"]) : null
    if (nonce === null) throw unexpected(path, "nonce")
    return nonce
  }

  /** A finished snapshot of an earlier day must not be given for a new one; a running one has to end first. */
  async #discardSnapshot(onProgress: (progress: SnapshotProgress | null) => void): Promise<void> {
    for (;;) {
      const answer = await this.#again({ method: "DELETE", path: "/snapshot", maxBytes: MAX_SMALL_BYTES })
      if (answer.status !== 409) {
        this.#accepted("DELETE /snapshot", answer)
        return
      }
      onProgress(await this.#progress())
      await this.#pause(POLL_MS[1])
    }
  }

  async #progress(): Promise<SnapshotProgress | null> {
    const answer = await this.#again({
      method: "GET",
      path: "/v1/snapshot/progress",
      maxBytes: MAX_SMALL_BYTES,
    })
    return answer.status === 200 ? progressOf(jsonOf(answer.body)) : null
  }

  async #pause(milliseconds: number): Promise<void> {
    const { signal } = this.#options
    try {
      await sleep(milliseconds, undefined, signal === undefined ? {} : { signal })
    } catch (error) {
      throw new AgentError("ERR_INTERRUPTED", { at: endpointText(this.#endpoint), cause: error })
    }
  }

  /** A request that may be made on a new connection when the old one is gone: only to the same key, and where the key is enough. */
  async #again(wanted: HttpRequest): Promise<HttpAnswer> {
    if (this.#connection.usable) {
      try {
        return await this.#withCredentials(this.#connection, wanted)
      } catch (error) {
        // Recovered: the server may close an idle connection at any time. The request changes nothing when made twice.
        if (!(error instanceof AgentError) || error.code !== "ERR_CONNECTION_LOST") throw error
      }
    }
    this.#connection = await this.#reconnect()
    return this.#withCredentials(this.#connection, wanted)
  }

  async #withCredentials(connection: Connection, wanted: HttpRequest): Promise<HttpAnswer> {
    const credentials = await this.#credentials(connection, wanted.method, wanted.path, "")
    return connection.request({ ...wanted, headers: { ...wanted.headers, ...credentials } })
  }

  async #reconnect(options: ConnectionOptions = this.#options): Promise<Connection> {
    if (this.exporter !== null)
      throw new AgentError("ERR_CONNECTION_LOST", {
        at: endpointText(this.#endpoint),
        expected: "the connection that the evidence is bound to",
        found: "its end",
        hint: "run the command again",
      })
    const connection = await Connection.open(this.#endpoint, options)
    if (bytesEqual(connection.spki, this.#first.spki)) return connection
    connection.close()
    throw new AgentError("ERR_CHANNEL_KEY_CHANGED", {
      at: endpointText(this.#endpoint),
      expected: `TLS key ${shortHex(this.#first.spki.subarray(-16))}`,
      found: `TLS key ${shortHex(connection.spki.subarray(-16))}`,
      hint: "the certificate was renewed, or somebody is in between: run the command again, and the new key has to be proven",
    })
  }

  #accepted(what: string, answer: HttpAnswer): Uint8Array {
    if (answer.status === 200) return answer.body
    throw new AgentError("ERR_AGENT_REFUSED", {
      at: `${what} at ${endpointText(this.#endpoint)}`,
      found: `status ${answer.status}${messageOf(answer.body)}`,
      hint: hintFor(answer.status),
    })
  }
}

function hintFor(status: number): string {
  switch (status) {
    case 401:
      return "give the agent's token with --token-file, or sign with an owner's key: --owner-key"
    case 403:
      return "writing is switched off on this agent: configure credentials in [auth] of its agent.toml"
    case 502:
      return "correct what the authority names, and run the command again: the agent holds what it was sent"
    case 429:
    case 503:
      return "the agent is busy: try again in a moment"
    default:
      return "read the agent's log on the VM (journalctl -u cosmian_vm_agent)"
  }
}

/** What the agent says about a refusal: its code and message, or plain text of older agents. Shown, never acted on. */
function messageOf(body: Uint8Array): string {
  const value = jsonOf(body)
  const text =
    isObject(value) && typeof value["message"] === "string"
      ? `${typeof value["code"] === "string" ? `${value["code"]}: ` : ""}${value["message"]}`
      : new TextDecoder().decode(body.subarray(0, 500))
  return text === "" ? "" : ` (${text.slice(0, 500)})`
}

function applicationStateOf(value: unknown, path: string): ApplicationState {
  if (!isObject(value)) throw unexpected(path, "an object")
  const { service, state, configured, busy } = value
  if (typeof service !== "string" || typeof state !== "string") throw unexpected(path, "service and state")
  return { service, state, configured: configured === true, busy: busy === true }
}

function bootstrapStateOf(value: unknown): BootstrapState {
  const names = (found: unknown) =>
    Array.isArray(found) ? found.filter((name) => typeof name === "string") : null
  if (!isObject(value)) throw unexpected(BOOTSTRAP, "an object")
  const { state } = value
  const [wanted, received] = [names(value["wanted"]), names(value["received"])]
  if (typeof state !== "string" || wanted === null || received === null)
    throw unexpected(BOOTSTRAP, "state, wanted and received")
  return { state, wanted, received, certificate: issuedOf(value["certificate"]) }
}

function issuedOf(value: unknown): BootstrapState["certificate"] {
  const issued = isObject(value) ? value["issued"] : null
  if (!isObject(issued)) return null
  const { certificate, key, not_after } = issued
  const known = typeof certificate === "string" && typeof key === "string" && typeof not_after === "string"
  return known ? { certificate, key, not_after } : null
}

function unexpected(path: string, expected: string): AgentError<"ERR_AGENT_REFUSED"> {
  return new AgentError("ERR_AGENT_REFUSED", { at: path, expected, found: "something else" })
}

function progressOf(value: unknown): SnapshotProgress | null {
  if (!isObject(value)) return null
  const { files, bytes, total_files: total } = value
  if (!isCount(files) || !isCount(bytes)) return null
  return { files, bytes, total: isCount(total) ? total : null }
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** Undefined where the bytes are no JSON: the callers then know nothing, which they say. */
function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes))
  } catch {
    return undefined
  }
}

function parsed(body: Uint8Array): Evidence {
  return parseEvidence(body, undefined, { collect: () => Bun.gc(true) })
}
