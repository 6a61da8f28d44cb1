import { type Context, Hono, type MiddlewareHandler } from "hono"
import { bodyLimit } from "hono/body-limit"
import { AgentError } from "../errors.ts"
import type { Devices } from "../native/ports.ts"
import type { Applications } from "./applications.ts"
import { AttestationKey } from "./attestation-key.ts"
import { WriteGuard } from "./auth.ts"
import type { Bootstrap } from "./bootstrap.ts"
import type { AgentConfig } from "./config.ts"
import { deliver } from "./deliver.ts"
import { errorResponse } from "./error-response.ts"
import { clientOf, FairQueue } from "./fair-queue.ts"
import type { TlsIdentity } from "./identity.ts"
import type { Log } from "./log.ts"
import { MemoryShare } from "./memory-share.ts"
import { Owners } from "./owners.ts"
import { RequestNonces } from "./request-nonces.ts"
import { applicationRoutes } from "./routes/applications.ts"
import { bootstrapRoutes } from "./routes/bootstrap.ts"
import { credentialRoutes } from "./routes/credential.ts"
import { evidenceRoutes } from "./routes/evidence.ts"
import { imaRoutes } from "./routes/ima.ts"
import { ownerRoutes } from "./routes/owner.ts"
import { quoteRoutes } from "./routes/quotes.ts"
import { snapshotRoutes } from "./routes/snapshot.ts"
import { SealingKey } from "./sealing.ts"
import type { Snapshots } from "./snapshot.ts"

/** Everything the routes work with. */
export interface AgentDependencies {
  readonly devices: Devices
  /** The TLS key of the very server that runs this app. */
  readonly identity: TlsIdentity
  readonly config: AgentConfig
  readonly version: string
  readonly now: () => Date
  readonly snapshots: Snapshots
  /** Null where no application is configured. */
  readonly apps: Applications | null
  readonly log: Log
  /** Shared by the apps of one process, so that its limits hold over a change of certificate. */
  readonly queue?: FairQueue
  /** Shared likewise. */
  readonly memory?: MemoryShare
  /** Shared likewise: nonces of signed requests are good once, whatever server instance they come to. */
  readonly nonces?: RequestNonces
  readonly owners?: Owners
  readonly sealing?: SealingKey
}

/** What the server tells about a request. Absent in tests that call the app without a socket. */
export interface RequestEnvironment {
  /** Address of the client. */
  readonly address?: string
  /** Allows this request that many seconds. */
  readonly allowSeconds?: (seconds: number) => void
  /** The server has checked a certificate of the client against [auth] client_ca. */
  readonly clientCertificate?: boolean
  /** What RFC 9266 takes from this TLS connection, 32 bytes; null or absent where the server cannot tell. */
  readonly exporter?: Uint8Array | null
}

export interface AgentEnv {
  Bindings: RequestEnvironment
}
export type AgentApp = Hono<AgentEnv>

/** What one group of routes needs beside the dependencies. */
export interface RouteContext extends AgentDependencies {
  readonly memory: MemoryShare
  readonly key: AttestationKey | null
  readonly nonces: RequestNonces
  readonly sealing: SealingKey
  /** Decides who may write. */
  readonly guard: WriteGuard
  /** Runs work on a device or a long list in its turn, with a time limit. */
  readonly inTurn: <T>(
    environment: RequestEnvironment | undefined,
    signal: AbortSignal,
    task: () => Promise<T>,
  ) => Promise<T>
  /** Answers with a large body, chunk by chunk; `encode` as in {@link deliver}. */
  readonly deliver: (
    c: Context<AgentEnv>,
    type: "application/json" | "application/octet-stream",
    bytes: Uint8Array,
    encode?: Parameters<typeof deliver>[4],
  ) => Response
}

/** A device that has not answered after this many seconds will not. Real TPMs take seconds for a key. */
const DEVICE_SECONDS = 60

/** Bytes of large bodies and answers that are held before clients have to end what they began. */
const HELD_BYTES = 64 * 1024 * 1024
/** Requests with a large body: what configures an application. All others are small. */
const LARGE_BODIES = ["/app/init", "/v1/app/init", "/v1/bootstrap"]
const SMALL_BODY = 8 * 1024

/** The agent's HTTP interface. Reading is open: evidence is public by design. Writing needs credentials. */
export function createAgentApp(dependencies: AgentDependencies): AgentApp {
  const context = routeContext(dependencies)
  const app = bareApp(context)
  app.get("/v1/info", (c) => c.json({ ...infoOf(dependencies), credentials: context.guard.kinds }))
  imaRoutes(app, context)
  quoteRoutes(app, context)
  evidenceRoutes(app, context)
  credentialRoutes(app, context)
  snapshotRoutes(app, context)
  ownerRoutes(app, context)
  applicationRoutes(app, context)
  return app
}

/** What an application that waits for its secrets is reached by: evidence, and what takes them in. Nothing else. */
export function createBootstrapApp(dependencies: AgentDependencies, bootstrap: Bootstrap): AgentApp {
  const context = routeContext(dependencies)
  const app = bareApp(context)
  evidenceRoutes(app, context)
  ownerRoutes(app, context)
  bootstrapRoutes(app, context, bootstrap)
  return app
}

function routeContext(dependencies: AgentDependencies): RouteContext {
  const { config, log, devices, identity, now } = dependencies
  const queue = dependencies.queue ?? new FairQueue(config.limits)
  const memory = dependencies.memory ?? memoryOf(config)
  const {
    nonces = new RequestNonces(now),
    owners = ownersOf(config),
    sealing = new SealingKey(),
  } = dependencies
  return {
    ...dependencies,
    memory,
    nonces,
    sealing,
    guard: new WriteGuard({ auth: config.auth, owners, nonces, spki: identity.spki, log }),
    key: devices.tpm === null ? null : new AttestationKey(devices.tpm, devices.akHandle ?? null),
    inTurn: (environment, signal, task) => {
      environment?.allowSeconds?.(2 * DEVICE_SECONDS)
      return queue.run(
        clientOf(environment?.address ?? ""),
        () => withDeadline(task(), DEVICE_SECONDS),
        signal,
      )
    },
    deliver(c, type, bytes, encode) {
      const headers = { "Content-Type": type }
      // To HEAD nothing is delivered, and nobody would end it.
      if (c.req.method === "HEAD") return c.body(null, 200, headers)
      const client = clientOf(c.env?.address ?? "")
      const body = deliver(memory, client, bytes, c.req.raw.signal, encode)
      return body instanceof Uint8Array ? c.body(body, 200, headers) : c.body(body, 200, headers)
    },
  }
}

/** An app without routes: errors with codes, a line of log for each request, a limit for bodies. */
function bareApp({ log, config, memory }: RouteContext): AgentApp {
  const app: AgentApp = new Hono<AgentEnv>()
  app.onError((error, c) => errorResponse(error, c, log))
  app.notFound((c) =>
    errorResponse(new AgentError("ERR_NOT_FOUND", { at: c.req.path.slice(0, 100) }), c, log),
  )
  app.use(async (c, next) => {
    const start = performance.now()
    await next()
    c.header("Cache-Control", "no-store")
    log.info("request", {
      method: c.req.method,
      path: c.req.path.slice(0, 200),
      status: c.res.status,
      ms: Math.round(performance.now() - start),
      client: c.env?.address ?? "",
    })
  })
  app.use(boundedBody(config.limits.bodyBytes, memory))
  return app
}

/** Refuses a body that is too large before it is read, and holds no more large ones for a client than its share. */
function boundedBody(largest: number, memory: MemoryShare): MiddlewareHandler<AgentEnv> {
  const large = bodyLimit({ maxSize: largest })
  const small = bodyLimit({ maxSize: Math.min(SMALL_BODY, largest) })
  return async (c, next) => {
    if (!LARGE_BODIES.includes(c.req.path)) return small(c, next)
    const length = Number(c.req.header("content-length"))
    const declared = c.req.header("transfer-encoding") === undefined && Number.isSafeInteger(length)
    if (declared && (length <= SMALL_BODY || length > largest)) return large(c, next)
    const giveBack = memory.take(clientOf(c.env?.address ?? ""), declared ? length : largest)
    try {
      return await large(c, next)
    } finally {
      giveBack()
    }
  }
}

/** For one client as many pieces as requests of it may wait. */
export function memoryOf({ limits }: AgentConfig): MemoryShare {
  return new MemoryShare({ bytes: HELD_BYTES, perClient: limits.waitingPerClient })
}

/** The owners that the configuration says, with the one that claimed this VM. */
export function ownersOf({ auth }: AgentConfig): Owners {
  return new Owners({ configured: auth.ownerKeys, file: auth.ownerFile, firstOwner: auth.firstOwner })
}

/** What this agent is and can do. */
function infoOf({ version, devices, apps, config }: AgentDependencies): Record<string, unknown> {
  return {
    version,
    evidence: 1,
    snapshot_format: 2,
    tee: devices.tee?.provider ?? null,
    tpm: devices.tpm !== null,
    ima: devices.ima !== null,
    application: apps !== null,
    token_required: config.auth.tokens.length > 0,
  }
}

async function withDeadline<T>(task: Promise<T>, seconds: number): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(
    () => reject(new AgentError("ERR_DEVICE_TIMEOUT", { expected: `an answer within ${seconds} s` })),
    seconds * 1000,
  )
  try {
    return await Promise.race([task, promise])
  } finally {
    clearTimeout(timer)
  }
}
