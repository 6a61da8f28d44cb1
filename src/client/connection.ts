import { Agent, request as httpRequest, type IncomingMessage } from "node:http"
import type { TLSSocket } from "node:tls"
import { AgentError, type ErrorCode } from "../errors.ts"
import { type Endpoint, endpointText } from "./endpoint.ts"
import { type ClientCertificate, openTls, type TlsChannel } from "./tls-channel.ts"

export interface ConnectionOptions {
  /** Longest silence before and within an answer, milliseconds. A whole answer may take ten times as long. */
  readonly timeoutMs: number
  /** Ends connection and requests. */
  readonly signal?: AbortSignal
  /** What the client shows of itself where the server asks; nothing where absent. PEM. */
  readonly clientCertificate?: ClientCertificate
  /** Whether evidence has to be bound to the very connection: then only over TLS 1.3. */
  readonly boundToConnection?: boolean
}

export interface HttpRequest {
  readonly method: "GET" | "POST" | "DELETE"
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** Longest answer that is accepted, bytes. */
  readonly maxBytes: number
  /** Longest silence for this request, where it is known to take longer; milliseconds. */
  readonly patienceMs?: number
}

export interface HttpAnswer {
  readonly status: number
  readonly headers: IncomingMessage["headers"]
  readonly body: Uint8Array
}

/**
 * One TLS connection to an agent, and requests over that very connection: what was proven about its key holds for every byte that
 * goes over it. It never reconnects; a lost connection is an error, and the caller decides.
 */
export class Connection {
  readonly #channel: TlsChannel
  readonly #options: ConnectionOptions
  readonly #pool: OneSocket
  readonly #place: string
  readonly #endpoint: Endpoint

  private constructor(endpoint: Endpoint, channel: TlsChannel, options: ConnectionOptions) {
    this.#endpoint = endpoint
    this.#channel = channel
    this.#options = options
    this.#pool = new OneSocket(channel.socket)
    this.#place = endpointText(endpoint)
  }

  /** @throws AgentError ERR_CONNECT, ERR_TIMEOUT, ERR_INTERRUPTED. */
  static async open(endpoint: Endpoint, options: ConnectionOptions): Promise<Connection> {
    return new Connection(
      endpoint,
      await openTls(endpoint, options.timeoutMs, {
        signal: options.signal,
        client: options.clientCertificate,
        ...(options.boundToConnection === true ? { minVersion: "TLSv1.3" } : {}),
      }),
      options,
    )
  }

  get spki(): Uint8Array {
    return this.#channel.spki
  }
  get leafDer(): Uint8Array {
    return this.#channel.leafDer
  }
  /** As {@link TlsChannel} has it. */
  get exporter(): Uint8Array | null {
    return this.#channel.exporter
  }
  get authorized(): boolean {
    return this.#channel.authorized
  }
  get reason(): string | null {
    return this.#channel.reason
  }
  /** Whether another request can be tried. The server may still have closed it meanwhile. */
  get usable(): boolean {
    return !this.#channel.socket.destroyed
  }

  /**
   * One request; requests are made one after the other.
   * @throws AgentError ERR_CONNECTION_LOST, ERR_TIMEOUT, ERR_TOO_LARGE, ERR_INTERRUPTED.
   */
  async request(wanted: HttpRequest): Promise<HttpAnswer> {
    const place = `${wanted.method} ${this.#place}${wanted.path.replace(/\?.*$/s, "")}`
    if (!this.usable) throw lost(place, "the server had closed it")
    const { signal } = this.#options
    const timeoutMs = Math.max(this.#options.timeoutMs, wanted.patienceMs ?? 0)
    return new Promise((resolve, reject) => {
      const outgoing = httpRequest({
        agent: this.#pool,
        host: this.#endpoint.host,
        port: this.#endpoint.port,
        method: wanted.method,
        path: wanted.path,
        headers: {
          host: this.#place,
          accept: "application/json",
          ...(wanted.body === undefined ? {} : { "content-length": String(Buffer.byteLength(wanted.body)) }),
          ...wanted.headers,
        },
      })
      const fail = (error: Error) => {
        stop()
        reject(error)
        // After a fault nothing on this connection can be told apart any more.
        this.close()
      }
      const late = (expected: string) => () =>
        fail(
          new AgentError("ERR_TIMEOUT", {
            at: place,
            expected,
            hint: "the VM may be busy: try again, or raise --timeout",
          }),
        )
      const silent = late(`an answer without ${timeoutMs / 1000} s of silence`)
      let silence = setTimeout(silent, timeoutMs)
      const whole = setTimeout(late(`a whole answer within ${timeoutMs / 100} s`), 10 * timeoutMs)
      const onAbort = () => fail(new AgentError("ERR_INTERRUPTED", { at: place }))
      const onClose = () => fail(lost(place, "the server closed it"))
      const stop = () => {
        clearTimeout(silence)
        clearTimeout(whole)
        signal?.removeEventListener("abort", onAbort)
        this.#channel.socket.removeListener("close", onClose)
      }
      const heard = () => {
        clearTimeout(silence)
        silence = setTimeout(silent, timeoutMs)
      }
      signal?.addEventListener("abort", onAbort, { once: true })
      this.#channel.socket.once("close", onClose)
      outgoing.on("error", (error) => fail(lost(place, error.message, error)))
      outgoing.on("response", (answer) => {
        heard()
        readBody(answer, wanted.maxBytes, place, heard).then((body) => {
          stop()
          resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body })
        }, fail)
      })
      outgoing.end(wanted.body)
    })
  }

  close(): void {
    this.#pool.destroy()
    this.#channel.socket.destroy()
  }
}

/** A pool with this one socket and no way to another one. */
class OneSocket extends Agent {
  readonly #socket: TLSSocket
  #given = false

  constructor(socket: TLSSocket) {
    super({ keepAlive: true, maxSockets: 1 })
    this.#socket = socket
  }

  override createConnection(): TLSSocket {
    if (this.#given)
      throw new AgentError("ERR_CONNECTION_LOST", { found: "a second connection was asked for" })
    this.#given = true
    return this.#socket
  }
}

function readBody(
  answer: IncomingMessage,
  maxBytes: number,
  place: string,
  heard: () => void,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const refuse = (code: ErrorCode, detail: { expected?: string; found?: string }) =>
      reject(new AgentError(code, { at: place, ...detail }))
    const chunks: Uint8Array[] = []
    let size = 0
    answer.on("data", (chunk: Uint8Array) => {
      heard()
      size += chunk.length
      if (size > maxBytes) {
        // First the reason, then the end: ending it raises an error of its own.
        refuse("ERR_TOO_LARGE", { expected: `at most ${maxBytes} bytes`, found: "more" })
        answer.destroy()
      } else chunks.push(chunk)
    })
    answer.on("error", (error) => refuse("ERR_CONNECTION_LOST", { found: error.message }))
    answer.on("aborted", () => refuse("ERR_CONNECTION_LOST", { found: `an answer cut after ${size} bytes` }))
    answer.on("end", () => {
      if (answer.complete) resolve(new Uint8Array(Buffer.concat(chunks)))
      else refuse("ERR_CONNECTION_LOST", { found: `an answer cut after ${size} bytes` })
    })
  })
}

function lost(place: string, found: string, cause?: Error): AgentError {
  return new AgentError("ERR_CONNECTION_LOST", {
    at: place,
    found,
    hint: "try again; if it stays so, read the agent's log on the VM",
    ...(cause === undefined ? {} : { cause }),
  })
}
