import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import { AgentError } from "../errors.ts"
import { WORKER_ENTRY } from "../native/worker-entry.ts"
import {
  type Counters,
  type HashAnswer,
  type HashTask,
  type HashWorkerData,
  splitPaths,
  type UnreadablePath,
} from "./hash-protocol.ts"

/** Files per message, and directories per message: few messages, and work for all threads until the end. */
const FILES = 256
const DIRECTORIES = 64
/** Tasks a worker is given ahead, so that it never waits for the serving thread. */
const AHEAD = 2
/** A list longer than this is no list of exceptions any more. */
const MAX_UNREADABLE = 100_000

export interface TreeRequest {
  /** Absolute directory where to start. */
  readonly root: string
  /** Path prefixes that are left out, each ending in `/`. */
  readonly exclude: readonly string[]
  /** Hash, by its name in node:crypto. */
  readonly algorithm: string
  /** `path NUL hex` pairs that are left out of the result. */
  readonly known: readonly string[]
  /** Counters to watch, and to cancel by. */
  readonly counters: Counters
  /** Takes the next block: JSON pairs `["path","hex"]` joined by commas, compressed by zstd. */
  readonly onBlock: (block: Uint8Array) => void
}

/**
 * Hashes every regular file of a tree, on all cores (at most four). Symbolic links are not followed; file systems mounted
 * below are part of the tree. Memory does not grow with the number of files.
 * @throws AgentError ERR_SNAPSHOT_CANCELLED; ERR_INTERNAL where a worker failed; ERR_TOO_LARGE where very many paths are
 * unreadable.
 */
export async function hashTree(request: TreeRequest): Promise<UnreadablePath[]> {
  const run = new TreeRun(request)
  try {
    return await run.finished
  } catch (error) {
    // What other workers are at is for nothing now.
    request.counters.cancel()
    throw error
  } finally {
    await run.close()
  }
}

class TreeRun {
  readonly finished: Promise<UnreadablePath[]>
  readonly #request: TreeRequest
  readonly #workers: { readonly worker: Worker; given: number }[]
  readonly #unreadable: UnreadablePath[] = []
  readonly #files: string[] = []
  readonly #directories: string[]
  readonly #settle: PromiseWithResolvers<UnreadablePath[]> = Promise.withResolvers()
  #counting = false

  constructor(request: TreeRequest) {
    this.#request = request
    this.#directories = [request.root]
    this.finished = this.#settle.promise
    request.counters.setTotal(-1)
    const count = Math.min(Math.max(availableParallelism(), 1), 4)
    this.#workers = Array.from({ length: count }, () => this.#startWorker())
    this.#feed()
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map(({ worker }) => worker.terminate()))
  }

  #startWorker(): { worker: Worker; given: number } {
    const { algorithm, exclude, known, counters } = this.#request
    const data: HashWorkerData = { role: "hash", algorithm, exclude, known, counters: counters.buffer }
    const entry = { worker: new Worker(WORKER_ENTRY, { workerData: data }), given: 0 }
    entry.worker.on("message", (answer: HashAnswer) => {
      entry.given--
      this.#take(answer)
    })
    entry.worker.on("error", (error) => this.#fail(String(error)))
    return entry
  }

  #take(answer: HashAnswer): void {
    if (answer.fault !== null) this.#fail(answer.fault)
    else if (this.#request.counters.cancelled) this.#settle.reject(new AgentError("ERR_SNAPSHOT_CANCELLED"))
    else {
      for (const file of splitPaths(answer.files)) this.#files.push(file)
      for (const directory of splitPaths(answer.directories)) this.#directories.push(directory)
      this.#report(answer.unreadable)
      if (answer.block !== null) this.#request.onBlock(answer.block)
      this.#feed()
    }
  }

  #report(unreadable: readonly UnreadablePath[]): void {
    this.#unreadable.push(...unreadable)
    if (this.#unreadable.length > MAX_UNREADABLE)
      this.#settle.reject(
        new AgentError("ERR_TOO_LARGE", { at: "unreadable files", expected: `at most ${MAX_UNREADABLE}` }),
      )
  }

  #feed(): void {
    for (let ahead = 0; ahead < AHEAD; ahead++)
      for (const entry of this.#workers) {
        if (entry.given > ahead) continue
        const task = this.#nextTask()
        if (task === null) continue
        entry.given++
        entry.worker.postMessage(task)
      }
    if (this.#workers.every(({ given }) => given === 0)) this.#settle.resolve(this.#unreadable)
  }

  /** Directories are listed only when few files are left to hash: so the list of known files stays short. */
  #nextTask(): HashTask | null {
    if (!this.#counting) {
      this.#counting = true
      return { kind: "count", root: this.#request.root }
    }
    if (this.#files.length < FILES && this.#directories.length > 0)
      return { kind: "list", directories: this.#directories.splice(-DIRECTORIES).join("\0") }
    if (this.#files.length > 0) return { kind: "hash", files: this.#files.splice(-FILES).join("\0") }
    return null
  }

  #fail(found: string): void {
    this.#settle.reject(new AgentError("ERR_INTERNAL", { at: "hash worker", found }))
  }
}
