import { X509Certificate } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import { createServer } from "node:net"
import { AgentError } from "../errors.ts"
import type { AgentApp } from "./app.ts"
import type { AgentConfig } from "./config.ts"
import { type Listener, listenWithExporter } from "./exporter-server.ts"
import { readIdentity, type TlsIdentity } from "./identity.ts"
import { errorFields, type Log } from "./log.ts"

/** A running agent. */
export interface AgentServer {
  readonly host: string
  readonly port: number
  /** Where clients present certificates; null where none are asked for. */
  readonly clientPort: number | null
  /**
   * Takes certificate and key from their files again; where they do not fit, the present ones stay. True: changed, and
   * every new connection gets the new certificate.
   */
  reload(): Promise<boolean>
  /** Refuses new connections, waits for the requests in flight, then ends them. */
  stop(): Promise<void>
}

export interface ServeOptions {
  readonly config: AgentConfig
  readonly identity: TlsIdentity
  /** Makes the app of one server instance. Called again for each new certificate. */
  readonly createApp: (identity: TlsIdentity) => AgentApp
  readonly log: Log
}

/** TLS 1.2, as Bun.serve wants it. Older clients of Cosmian VM need it; everything below is refused. */
const TLS_1_2 = 0x0303
/** Connections of the former certificate may finish a verification that takes several requests. */
const RELOAD_DRAIN_SECONDS = 120
const WATCH_SECONDS = 5
/** How long the listeners of the former and the new certificate both accept. */
const HANDOVER_MS = 250

/**
 * Serves the agent over HTTPS. Each certificate has a server instance of its own, with an app that knows it: evidence is
 * bound to the key of the very connection that carries it, also while the certificate changes.
 * @throws AgentError ERR_PORT_IN_USE, ERR_IDENTITY.
 */
export async function serveAgent(options: ServeOptions): Promise<AgentServer> {
  const { config } = options
  for (const port of [config.port, config.auth.clients?.port ?? 0])
    if (port !== 0) await requireFreePort(config.host, port)
  const { port, auth } = config
  const first = await startInstance(options, options.identity, {
    port,
    clientPort: auth.clients?.port ?? null,
  })
  const agent = new ReloadingServer(options, first)
  agent.watchFiles()
  return agent
}

/** The servers of one certificate: for everybody, and for clients with a certificate where there are such. */
interface Instance {
  readonly servers: readonly Listener[]
  readonly port: number
  readonly clientPort: number | null
}

class ReloadingServer implements AgentServer {
  readonly host: string
  readonly port: number
  readonly clientPort: number | null
  readonly #options: ServeOptions
  #identity: TlsIdentity
  #current: Instance
  #former: Instance[] = []
  #watch: ReturnType<typeof setInterval> | null = null
  #stopping = false
  /** One reload at a time. */
  #reloading: Promise<unknown> = Promise.resolve()

  constructor(options: ServeOptions, first: Instance) {
    this.#options = options
    this.#identity = options.identity
    this.host = options.config.host
    this.#current = first
    this.port = this.#current.port
    this.clientPort = this.#current.clientPort
  }

  reload(): Promise<boolean> {
    const reloaded = this.#reloading.then(async () => {
      const former = this.#current
      if (!(await this.#reload())) return false
      await this.#handOver(former)
      return true
    })
    this.#reloading = reloaded
    return reloaded
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await this.#reloading
    if (this.#watch !== null) clearInterval(this.#watch)
    const { drainSeconds } = this.#options.config.limits
    await Promise.all([this.#current, ...this.#former].map((instance) => drain(instance, drainSeconds)))
  }

  /** Looks at the files every few seconds, and reloads once they have stopped changing. */
  watchFiles(): void {
    let loaded = this.#stamp()
    let seen = loaded
    this.#watch = setInterval(() => {
      const stamp = this.#stamp()
      if (stamp !== loaded && stamp === seen) {
        loaded = stamp
        void this.reload()
      }
      seen = stamp
    }, WATCH_SECONDS * 1000)
    this.#watch.unref()
  }

  async #reload(): Promise<boolean> {
    const { log, config } = this.#options
    if (this.#stopping) return false
    try {
      const identity = readIdentity(config)
      if (identity.certificatePem === this.#identity.certificatePem) {
        log.info("TLS certificate unchanged", { file: config.certificate })
        return false
      }
      this.#current = await startInstance(this.#options, identity, this)
      this.#identity = identity
      log.info("TLS certificate changed", {
        file: config.certificate,
        not_after: identity.notAfter.toISOString(),
      })
      return true
    } catch (error) {
      log.error("TLS certificate not changed: the present one stays", errorFields(error))
      return false
    }
  }

  /**
   * A listener that is closed takes with it the connections that the kernel has made and it has not accepted yet. So it
   * goes on accepting until the new one is at work, and closes right after it has accepted all there was.
   */
  async #handOver(former: Instance): Promise<void> {
    this.#former.push(former)
    await Bun.sleep(HANDOVER_MS)
    await new Promise<void>((resolve) => setImmediate(resolve))
    void drain(former, RELOAD_DRAIN_SECONDS).then(() => {
      this.#former = this.#former.filter((instance) => instance !== former)
    })
  }

  #stamp(): string {
    const { certificate, privateKey } = this.#options.config
    return [certificate, privateKey]
      .map((file) => {
        const stat = statSync(file, { throwIfNoEntry: false })
        return stat === undefined ? "none" : `${stat.ino}:${stat.mtimeMs}:${stat.size}`
      })
      .join(" ")
  }
}

async function startInstance(
  options: ServeOptions,
  identity: TlsIdentity,
  ports: { readonly port: number; readonly clientPort: number | null },
): Promise<Instance> {
  const app = options.createApp(identity)
  const open = listenFast(options.config, identity, app, ports.port)
  const { clients } = options.config.auth
  if (clients === null || ports.clientPort === null)
    return { servers: [open], port: open.port, clientPort: null }
  try {
    const closed = await listenBound(options.config, identity, app, ports.clientPort, clients.ca)
    return { servers: [open, closed], port: open.port, clientPort: closed.port }
  } catch (error) {
    void open.stop(true)
    throw error
  }
}

/**
 * The HTTPS server for what needs secrets in: evidence over it can be bound to the very connection.
 * @param ca file of the authority whose certificate a client has to present; null: none is asked for.
 * @throws AgentError ERR_PORT_IN_USE, ERR_IO, ERR_IDENTITY.
 */
export function listenBound(
  config: AgentConfig,
  identity: TlsIdentity,
  app: AgentApp,
  port: number,
  ca: string | null,
): Promise<Listener> {
  return listenWithExporter(
    {
      ...{ host: config.host, port, app, idleSeconds: config.limits.idleSeconds },
      certificate: identity.certificatePem,
      privateKey: identity.privateKeyPem,
      // Older clients with certificates there may be; none that brings an application its secrets.
      minVersion: ca === null ? "TLSv1.3" : "TLSv1.2",
      authority: ca === null ? null : readAuthority(ca),
    },
    (error) => notListening(config.host, port, error),
  )
}

/** The HTTPS server for everybody. @throws AgentError ERR_PORT_IN_USE, ERR_IO. */
function listenFast(config: AgentConfig, identity: TlsIdentity, app: AgentApp, port: number): Listener {
  const tls = { cert: identity.certificatePem, key: identity.privateKeyPem, minVersion: TLS_1_2 }
  try {
    const server = Bun.serve({
      hostname: config.host,
      port,
      // So that the server of a new certificate can take over the port from the former one.
      reusePort: true,
      tls,
      development: false,
      idleTimeout: config.limits.idleSeconds,
      maxRequestBodySize: config.limits.bodyBytes,
      fetch: (request, server) =>
        app.fetch(request, {
          address: server.requestIP(request)?.address ?? "",
          allowSeconds: (seconds) => server.timeout(request, Math.min(seconds, 255)),
          clientCertificate: false,
        }),
      // Only reached where the app's own error handler fails.
      error: () => Response.json({ code: "ERR_INTERNAL", message: "internal error" }, { status: 500 }),
    })
    return { port: server.port ?? port, stop: (atOnce) => server.stop(atOnce) }
  } catch (error) {
    throw notListening(config.host, port, error)
  }
}

/** @throws AgentError ERR_IDENTITY where the file holds no certificate: then nobody would be let in, or everybody. */
function readAuthority(path: string): string {
  try {
    const pem = readFileSync(path, "utf8")
    if (new X509Certificate(pem).ca) return pem
  } catch (cause) {
    throw new AgentError("ERR_IDENTITY", { at: path, expected: "a certificate authority in PEM", cause })
  }
  throw new AgentError("ERR_IDENTITY", {
    at: path,
    expected: "a certificate authority in PEM",
    found: "a certificate that may not sign others",
  })
}

/** Lets requests in flight finish, for so long. */
async function drain(instance: Instance, seconds: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, seconds * 1000)
  })
  await Promise.race([Promise.all(instance.servers.map((server) => server.stop(false))), deadline])
  clearTimeout(timer)
  await Promise.all(instance.servers.map((server) => server.stop(true)))
}

/**
 * Because the port is shared between the instances of one agent, a second agent would silently share it too: so a bind
 * without sharing is tried first.
 */
async function requireFreePort(host: string, port: number): Promise<void> {
  const probe = createServer()
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  probe.once("error", (error) => reject(notListening(host, port, error)))
  probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve()))
  await promise
}

function notListening(host: string, port: number, cause: unknown): AgentError<"ERR_PORT_IN_USE" | "ERR_IO"> {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "an error"
  const inUse = code === "EADDRINUSE"
  return new AgentError(inUse ? "ERR_PORT_IN_USE" : "ERR_IO", {
    at: `${host}:${port}`,
    expected: "an address to listen on",
    found: code,
    hint: inUse
      ? "stop the other program, or choose another port in the table [agent]"
      : "choose another host or port in the table [agent]",
    cause,
  })
}
