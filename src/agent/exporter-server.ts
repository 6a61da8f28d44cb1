import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http"
import { createServer, type TLSSocket } from "node:tls"
import type { AgentError } from "../errors.ts"
import { EXPORTER } from "../formats/channel-binding.ts"
import type { AgentApp, RequestEnvironment } from "./app.ts"
import { requestOf, send } from "./node-request.ts"

export interface ExporterServerOptions {
  readonly host: string
  readonly port: number
  /** PEM. */
  readonly certificate: string
  readonly privateKey: string
  readonly minVersion: "TLSv1.2" | "TLSv1.3"
  /** PEM of the authority whose certificate a client has to present; null: none is asked for. */
  readonly authority: string | null
  readonly app: AgentApp
  /** Seconds for a handshake, a request, or a part of an answer to be taken. */
  readonly idleSeconds: number
}

/** An HTTPS server, whatever made it. */
export interface Listener {
  readonly port: number
  /** Refuses new connections, and ends those there are: at once, or as their requests have been answered. */
  stop(atOnce: boolean): Promise<void>
}

/** What is known of one connection. */
interface Client {
  /** Null under TLS 1.2, where it need not be of this connection alone. */
  readonly exporter: Uint8Array | null
  readonly certified: boolean
  /** Requests that were not answered yet. */
  open: number
}

/**
 * An HTTPS server that knows the exporter of each of its connections, which Bun.serve does not: evidence can be bound to the very
 * connection. It is slower, and for the ports where secrets come in.
 * @throws AgentError ERR_PORT_IN_USE, ERR_IO, as `failed` makes them.
 */
export async function listenWithExporter(
  options: ExporterServerOptions,
  failed: (error: unknown) => AgentError,
): Promise<Listener> {
  const { authority, idleSeconds } = options
  const deadlines = new Deadlines()
  const clients = new Map<TLSSocket, Client>()
  let stopping = false
  const http = createHttpServer((request, response) => void take(request, response))
  http.on("clientError", (_, socket) => socket.destroy())
  const server = createServer({
    cert: options.certificate,
    key: options.privateKey,
    minVersion: options.minVersion,
    ALPNProtocols: ["http/1.1"],
    ...(authority === null ? {} : { ca: authority, requestCert: true, rejectUnauthorized: true }),
  })
  server.on("connection", (socket: TLSSocket) => {
    socket.on("error", () => socket.destroy())
    socket.once("close", () => deadlines.forget(socket))
    deadlines.set(socket, idleSeconds)
  })
  server.on("tlsClientError", (_, socket) => socket.destroy())
  server.on("secureConnection", (socket) => {
    socket.on("error", () => socket.destroy())
    // The library has refused the others already; a port that gives rights does not rely on that alone.
    if (stopping || (authority !== null && !socket.authorized)) return void socket.destroy()
    clients.set(socket, { exporter: exporterOf(socket), certified: authority !== null, open: 0 })
    socket.once("close", () => {
      clients.delete(socket)
      deadlines.forget(socket)
    })
    deadlines.set(socket, idleSeconds)
    http.emit("connection", socket)
  })

  async function take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const socket = request.socket as TLSSocket
    const client = clients.get(socket)
    // Errors of a connection that broke: without a listener each of them would end the agent.
    request.on("error", () => socket.destroy())
    response.on("error", () => socket.destroy())
    if (client === undefined) return void socket.destroy()
    client.open++
    deadlines.set(socket, idleSeconds)
    const environment: RequestEnvironment = {
      address: socket.remoteAddress ?? "",
      allowSeconds: (seconds) => deadlines.set(socket, seconds),
      clientCertificate: client.certified,
      exporter: client.exporter,
    }
    response.once("close", () => {
      client.open--
      // What is left of a body that nobody read would be taken for a request.
      if (!request.complete || (stopping && client.open === 0)) socket.destroy()
      else if (client.open === 0) deadlines.set(socket, idleSeconds)
    })
    try {
      const asked = requestOf(request, response)
      if (asked === null) return void socket.destroy()
      const answer = await options.app.fetch(asked, environment)
      await send(answer, response, () => deadlines.set(socket, idleSeconds))
    } catch {
      // The app answers its own errors: what arrives here is a connection that broke.
      socket.destroy()
    }
  }

  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once("error", (error) => reject(failed(error)))
  // The server of a new certificate takes over the port from the former one.
  server.listen({ host: options.host, port: options.port, reusePort: true }, resolve)
  await promise
  const address = server.address()
  if (address === null || typeof address === "string") throw failed(new Error("no address"))
  return {
    port: address.port,
    async stop(atOnce) {
      stopping = true
      server.close()
      for (const [socket, { open }] of clients) if (atOnce || open === 0) socket.destroy()
      await Promise.all(
        [...clients.keys()].map(
          (socket) => new Promise<void>((ended) => socket.once("close", () => ended())),
        ),
      )
    },
  }
}

/** 32 bytes that only the two ends of this connection know; null where it is not TLS 1.3. */
function exporterOf(socket: TLSSocket): Uint8Array | null {
  if (socket.getProtocol() !== "TLSv1.3") return null
  return new Uint8Array(socket.exportKeyingMaterial(EXPORTER.bytes, EXPORTER.label, Buffer.alloc(0)))
}

/** Ends connections on which nothing happens. Bytes that trickle do not put the end off. */
class Deadlines {
  readonly #timers = new Map<TLSSocket, ReturnType<typeof setTimeout>>()

  set(socket: TLSSocket, seconds: number): void {
    clearTimeout(this.#timers.get(socket))
    if (socket.destroyed) return void this.#timers.delete(socket)
    this.#timers.set(
      socket,
      setTimeout(() => socket.destroy(), seconds * 1000),
    )
  }

  forget(socket: TLSSocket): void {
    clearTimeout(this.#timers.get(socket))
    this.#timers.delete(socket)
  }
}
