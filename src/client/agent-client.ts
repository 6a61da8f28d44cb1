import { setTimeout as sleep } from "node:timers/promises"
import { AgentError } from "../errors.ts"
import { type Evidence, MAX_EVIDENCE_BYTES, parseEvidence } from "../formats/evidence.ts"
import { bytesEqual, shortHex, toBase64 } from "../formats/hex.ts"
import { MAX_SNAPSHOT_BYTES } from "../policy/snapshot.ts"
import { Connection, type ConnectionOptions, type HttpAnswer, type HttpRequest } from "./connection.ts"
import { type Endpoint, endpointText } from "./endpoint.ts"

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
}

const MAX_SMALL_BYTES = 64 * 1024
/** First and longest pause between two questions whether a snapshot is done. */
const POLL_MS = [200, 1000] as const
/** A service may take this long to stop, start and settle. */
const SERVICE_MS = 300_000
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

  close(): void {
    this.#first.close()
    this.#connection.close()
  }

  /**
   * Evidence for a nonce, over the first connection and no other.
   * @param nonce 32 bytes.
   * @throws AgentError, ParseError (see `parseEvidence`).
   */
  async evidence(nonce: Uint8Array): Promise<Evidence> {
    const path = `/v1/evidence?nonce=${encodeURIComponent(toBase64(nonce))}`
    const answer = await this.#first.request({ method: "GET", path, maxBytes: MAX_EVIDENCE_BYTES })
    if (answer.status === 404)
      throw new AgentError("ERR_AGENT_REFUSED", {
        at: `GET ${endpointText(this.#endpoint)}/v1/evidence`,
        expected: "evidence version 1",
        found: "status 404",
        hint: "the agent is older than version 2, or this is no Cosmian VM agent: install this version in the VM",
      })
    return parseEvidence(this.#accepted("GET /v1/evidence", answer))
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
    const options = { timeoutMs: FAREWELL_MS, token: this.#options.token }
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

  /** Hands the application's configuration over. Only over the first connection: it may hold secrets. */
  async appInit(content: Uint8Array): Promise<void> {
    const body = JSON.stringify({ content: toBase64(content) })
    await this.#write("/app/init", body)
  }

  async appRestart(): Promise<void> {
    await this.#write("/app/restart", "")
  }

  async #write(path: string, body: string): Promise<void> {
    const answer = await this.#first.request({
      method: "POST",
      path,
      headers: { "content-type": "application/json", ...this.#authorization() },
      body,
      maxBytes: MAX_SMALL_BYTES,
      patienceMs: SERVICE_MS,
    })
    this.#accepted(`POST ${path}`, answer)
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

  /** A request that may be made on a new connection when the old one is gone: only to the same key. */
  async #again(wanted: HttpRequest): Promise<HttpAnswer> {
    const request = { ...wanted, headers: { ...wanted.headers, ...this.#authorization() } }
    if (this.#connection.usable) {
      try {
        return await this.#connection.request(request)
      } catch (error) {
        // Recovered: the server may close an idle connection at any time. The request changes nothing when made twice.
        if (!(error instanceof AgentError) || error.code !== "ERR_CONNECTION_LOST") throw error
      }
    }
    this.#connection = await this.#reconnect()
    return this.#connection.request(request)
  }

  async #reconnect(options: ConnectionOptions = this.#options): Promise<Connection> {
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

  #authorization(): Record<string, string> {
    return this.#options.token === null ? {} : { authorization: `Bearer ${this.#options.token}` }
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
      return "give the agent's token with --token-file"
    case 403:
      return "writing is switched off on this agent: configure a token in [auth] of its agent.toml"
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
