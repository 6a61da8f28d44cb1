import { once } from "node:events"
import { createServer, type Server, type Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import { AgentError, CodedError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { type Endpoint, endpointText } from "./endpoint.ts"
import { openTls } from "./tls-channel.ts"

export interface TunnelOptions {
  /** Where local programs connect to; port 0 takes a free one. */
  readonly listen: Endpoint
  /** The TLS endpoint inside the VM. */
  readonly target: Endpoint
  /** Connections at the same time; more are refused. */
  readonly maxConnections: number
  /** For the TLS connection to the target, milliseconds. */
  readonly timeoutMs: number
  /** Protocols offered in the TLS handshake; none: the extension is left out. */
  readonly alpn: readonly string[]
  readonly onEvent: (event: TunnelEvent) => void
}

/** What is worth a line in a log. */
export type TunnelEvent =
  | { readonly kind: "opened" | "closed"; readonly open: number }
  | { readonly kind: "refused"; readonly error: AgentError | CodedError }

interface Connection {
  readonly local: Socket
  readonly ended: AbortController
  /** Null until the handshake is done. */
  remote: TLSSocket | null
  /** DER SubjectPublicKeyInfo at which it ends. */
  spki: Uint8Array | null
}

/**
 * Takes connections of local programs, and pipes each through a TLS connection of its own to the target, once that one has been
 * found to end at the trusted key. Before that nothing of the local program's goes anywhere.
 */
export class AttestedTunnel {
  readonly #options: TunnelOptions
  readonly #server: Server
  readonly #connections = new Set<Connection>()
  /** Null: nothing is trusted, so new connections are refused. */
  #trusted: Uint8Array | null = null

  private constructor(options: TunnelOptions) {
    this.#options = options
    // A program may have said all and still wait for the answer.
    this.#server = createServer(
      { allowHalfOpen: true, pauseOnConnect: true },
      (local) => void this.#take(local),
    )
    this.#server.on("error", () => undefined)
  }

  /** @throws AgentError ERR_PORT_IN_USE, ERR_IO */
  static async listen(options: TunnelOptions): Promise<AttestedTunnel> {
    const tunnel = new AttestedTunnel(options)
    const { listen } = options
    try {
      tunnel.#server.listen({ host: listen.host, port: listen.port, exclusive: true })
      await once(tunnel.#server, "listening")
      return tunnel
    } catch (cause) {
      throw notListening(listen, cause)
    }
  }

  /** Where it listens. */
  get address(): Endpoint {
    const address = this.#server.address()
    if (address === null || typeof address === "string") return this.#options.listen
    return { host: address.address, port: address.port }
  }

  /** Connections that are open now. */
  get open(): number {
    return this.#connections.size
  }

  /** From now on connections have to end at this key (DER SubjectPublicKeyInfo). Those that end at another one are cut. */
  trust(spki: Uint8Array): void {
    this.#trusted = spki
    for (const connection of this.#connections)
      if (connection.spki !== null && !bytesEqual(connection.spki, spki)) this.#cut(connection)
  }

  /** New connections are refused until `trust` is called again; those that there are stay. */
  hold(): void {
    this.#trusted = null
  }

  /** Cuts all connections, and takes no more. */
  async close(): Promise<void> {
    this.#trusted = null
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    for (const connection of this.#connections) this.#cut(connection)
    await closed
  }

  async #take(local: Socket): Promise<void> {
    const { maxConnections, onEvent } = this.#options
    local.on("error", () => local.destroy())
    if (this.#connections.size >= maxConnections) {
      local.destroy()
      onEvent({ kind: "refused", error: tooMany(maxConnections) })
      return
    }
    const connection: Connection = { local, ended: new AbortController(), remote: null, spki: null }
    this.#connections.add(connection)
    local.once("close", () => this.#cut(connection))
    try {
      await this.#connect(connection)
    } catch (error) {
      this.#cut(connection)
      if (!(error instanceof CodedError)) throw error
      if (error.code !== "ERR_INTERRUPTED") onEvent({ kind: "refused", error })
    }
  }

  async #connect(connection: Connection): Promise<void> {
    const { target, timeoutMs, alpn, onEvent } = this.#options
    if (this.#trusted === null) throw notTrusted(target)
    const channel = await openTls(target, timeoutMs, { signal: connection.ended.signal, alpn })
    const { socket, spki } = channel
    const trusted = this.#trusted
    if (trusted === null || !bytesEqual(spki, trusted) || connection.ended.signal.aborted) {
      socket.destroy()
      throw trusted === null ? notTrusted(target) : otherKey(target, trusted, spki)
    }
    connection.remote = socket
    connection.spki = spki
    socket.once("close", () => this.#finish(connection))
    onEvent({ kind: "opened", open: this.#connections.size })
    connection.local.pipe(socket)
    socket.pipe(connection.local)
  }

  /** The target has ended: what it sent last still goes to the program, if that is quick. */
  #finish(connection: Connection): void {
    const { local } = connection
    if (local.writableLength === 0 || local.destroyed) this.#cut(connection)
    else local.end(() => this.#cut(connection))
  }

  #cut(connection: Connection): void {
    if (!this.#connections.delete(connection)) return
    connection.ended.abort()
    connection.local.destroy()
    connection.remote?.destroy()
    if (connection.remote !== null) this.#options.onEvent({ kind: "closed", open: this.#connections.size })
  }
}

function tooMany(max: number): AgentError {
  return new AgentError("ERR_BUSY", {
    at: "local connection",
    expected: `at most ${max} connections`,
    hint: "raise --max-connections",
  })
}

function notTrusted(target: Endpoint): AgentError {
  return new AgentError("ERR_NOT_JUDGED", {
    at: endpointText(target),
    expected: "a VM that was verified",
    found: "one that is being verified again",
  })
}

function otherKey(target: Endpoint, expected: Uint8Array, found: Uint8Array): AgentError {
  return new AgentError("ERR_APPLICATION_KEY", {
    at: endpointText(target),
    expected: `TLS key ${shortHex(expected.subarray(-16), 16)}, as the VM attested`,
    found: `TLS key ${shortHex(found.subarray(-16), 16)}`,
    hint: "have the application use the agent's certificate and key; if it does, somebody is in between",
  })
}

function notListening(listen: Endpoint, cause: unknown): AgentError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "an error"
  return new AgentError(code === "EADDRINUSE" ? "ERR_PORT_IN_USE" : "ERR_IO", {
    at: endpointText(listen),
    expected: "an address to listen on",
    found: code,
    hint: "choose another address with --listen",
    cause,
  })
}
