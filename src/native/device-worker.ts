import { parentPort, Worker, workerData } from "node:worker_threads"
import { CATALOGUE, CodedError, type ErrorCode, NativeError } from "../errors.ts"
import { WORKER_ENTRY } from "./worker-entry.ts"

/** What a device can do, by name. They run in a thread of their own, where they may block. */
export type Operations = Readonly<Record<string, (argument: never) => unknown>>

interface Request {
  readonly id: number
  readonly operation: string
  readonly argument: unknown
}
type Reply =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: SentError }
/** An error on its way between threads: structured cloning keeps no classes. */
interface SentError {
  readonly code: ErrorCode
  readonly detail: Record<string, string>
}

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}

/** Requests that may wait for one device; more are refused, so that a flood of quotes cannot fill the memory. */
const QUEUE_LIMIT = 256

/**
 * Calls a device's operations in a worker thread, one after the other. A call that outlasts its deadline fails, and the
 * next one starts a new thread: native code that hangs cannot be interrupted.
 */
export class DeviceWorker<O extends Operations> {
  readonly #role: string
  readonly #config: unknown
  readonly #deadlineMs: number
  #worker: Worker | null = null
  #current: (Pending & { readonly id: number }) | null = null
  #tail: Promise<unknown> = Promise.resolve()
  #waiting = 0
  #nextId = 1

  /** @param role in workers.ts. @param config handed to the thread; cloned. @param deadlineMs of one call. */
  constructor(role: string, config: unknown, deadlineMs = 60_000) {
    this.#role = role
    this.#config = config
    this.#deadlineMs = deadlineMs
  }

  /**
   * Runs one operation and gives what it returned.
   * @throws NativeError ERR_DEVICE_BUSY, ERR_DEVICE_TIMEOUT, and whatever the operation threw
   */
  call<K extends keyof O & string>(
    operation: K,
    argument: Parameters<O[K]>[0],
  ): Promise<Awaited<ReturnType<O[K]>>> {
    if (this.#waiting >= QUEUE_LIMIT)
      return Promise.reject(
        new NativeError("ERR_DEVICE_BUSY", {
          at: this.#role,
          found: `${this.#waiting} requests`,
          hint: "try again later",
        }),
      )
    this.#waiting++
    const result = this.#tail.then(() => this.#run(operation, argument))
    this.#tail = result.catch(() => null).finally(() => this.#waiting--)
    return result as Promise<Awaited<ReturnType<O[K]>>>
  }

  /** Lets calls that were made finish, then ends the thread. */
  async close(): Promise<void> {
    await this.#tail
    await this.#worker?.terminate()
    this.#worker = null
  }

  async #run(operation: string, argument: unknown): Promise<unknown> {
    const id = this.#nextId++
    const worker = this.#thread()
    const timer = setTimeout(() => this.#abandon(operation), this.#deadlineMs)
    worker.ref()
    try {
      return await new Promise<unknown>((resolve, reject) => {
        this.#current = { id, resolve, reject }
        worker.postMessage({ id, operation, argument } satisfies Request)
      })
    } finally {
      clearTimeout(timer)
      this.#current = null
      worker.unref()
    }
  }

  #thread(): Worker {
    if (this.#worker !== null) return this.#worker
    const worker = new Worker(WORKER_ENTRY, { workerData: { role: this.#role, config: this.#config } })
    worker.on("message", (reply: Reply) => this.#settle(reply))
    worker.on("error", (error) => this.#lost(worker, error))
    worker.on("exit", () => this.#lost(worker, null))
    this.#worker = worker
    return worker
  }

  #settle(reply: Reply): void {
    if (this.#current?.id !== reply.id) return
    if ("value" in reply) this.#current.resolve(reply.value)
    else this.#current.reject(new NativeError(reply.error.code, reply.error.detail))
  }

  #lost(worker: Worker, cause: unknown): void {
    if (this.#worker !== worker) return
    this.#worker = null
    this.#current?.reject(
      new NativeError("ERR_INTERNAL", {
        at: `${this.#role} thread`,
        found: cause instanceof Error ? cause.message : "it ended",
        cause,
      }),
    )
  }

  #abandon(operation: string): void {
    const worker = this.#worker
    this.#worker = null
    this.#current?.reject(
      new NativeError("ERR_DEVICE_TIMEOUT", {
        at: `${this.#role}, ${operation}`,
        expected: `an answer within ${this.#deadlineMs} ms`,
        found: "none",
        hint: "see the kernel log for the device",
      }),
    )
    // Not awaited: a thread that hangs in native code ends only with the process.
    worker?.terminate()
  }
}

/** The thread's side: what the main thread passed as `config`. */
export function workerConfig(): unknown {
  const data: unknown = workerData
  return typeof data === "object" && data !== null && "config" in data ? data.config : undefined
}

/** The thread's side: answers requests by `operations` until the thread is ended. */
export function serveOperations(operations: Operations): void {
  const port = parentPort
  if (port === null) throw new NativeError("ERR_INTERNAL", { at: "device worker", found: "no parent thread" })
  port.on("message", async (request: Request) => port.postMessage(await answer(operations, request)))
}

async function answer(operations: Operations, { id, operation, argument }: Request): Promise<Reply> {
  try {
    const run = operations[operation]
    if (run === undefined) throw new NativeError("ERR_INTERNAL", { at: "device worker", found: operation })
    return { id, value: await run(argument as never) }
  } catch (error) {
    return { id, error: toSent(error) }
  }
}

function toSent(error: unknown): SentError {
  if (!(error instanceof CodedError))
    return { code: "ERR_INTERNAL", detail: { found: error instanceof Error ? error.message : String(error) } }
  const { code, at, expected, found, hint } = error
  const given = Object.entries({ at, expected, found, hint })
  const detail = given.filter((entry): entry is [string, string] => entry[1] !== undefined)
  return { code: code in CATALOGUE ? code : "ERR_INTERNAL", detail: Object.fromEntries(detail) }
}
