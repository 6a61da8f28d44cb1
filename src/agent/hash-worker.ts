import { parentPort, workerData } from "node:worker_threads"
import { hashFile, systemCode } from "./hash-file.ts"
import { Counters, type HashAnswer, type HashTask, type HashWorkerData, splitPaths } from "./hash-protocol.ts"
import { countFiles, listDirectory, notExcluded } from "./walk.ts"

const BUFFER = 1024 * 1024

/**
 * A hash worker: answers each task with one message, in order. Every call that may block on a disk is made here and not
 * on the thread that serves requests.
 */
export function runHashWorker(): void {
  const port = parentPort
  if (port === null) throw new Error("the hash worker has no parent")
  const worker = new HashWorker(workerData)
  port.on("message", (task: HashTask) => {
    port.postMessage(worker.answer(task))
  })
}

const NOTHING: Omit<HashAnswer, "kind"> = {
  directories: "",
  files: "",
  block: null,
  unreadable: [],
  fault: null,
}

class HashWorker {
  readonly #algorithm: string
  readonly #exclude: ReadonlySet<string>
  readonly #known: ReadonlySet<string>
  readonly #counters: Counters
  readonly #buffer = new Uint8Array(BUFFER)

  constructor(data: HashWorkerData) {
    this.#algorithm = data.algorithm
    this.#exclude = new Set(data.exclude)
    this.#known = new Set(data.known)
    this.#counters = new Counters(data.counters)
  }

  answer(task: HashTask): HashAnswer {
    try {
      return { ...NOTHING, kind: task.kind, ...this.#work(task) }
    } catch (error) {
      return { ...NOTHING, kind: task.kind, fault: error instanceof Error ? error.message : String(error) }
    }
  }

  #work(task: HashTask): Partial<HashAnswer> {
    switch (task.kind) {
      case "count":
        return this.#count(task.root)
      case "list":
        return this.#list(splitPaths(task.directories))
      case "hash":
        return this.#hash(splitPaths(task.files))
    }
  }

  #count(root: string): Partial<HashAnswer> {
    const count = countFiles(root, this.#exclude, () => this.#counters.cancelled)
    if (count !== null) this.#counters.setTotal(count)
    return {}
  }

  #list(paths: readonly string[]): Partial<HashAnswer> {
    const directories: string[] = []
    const files: string[] = []
    const unreadable: [string, string][] = []
    for (const path of paths) {
      if (this.#counters.cancelled) break
      try {
        const listing = listDirectory(path)
        directories.push(...notExcluded(listing.directories, this.#exclude))
        for (const file of listing.files) files.push(file)
      } catch (error) {
        const code = systemCode(error)
        if (code !== "ENOENT" && code !== "ENOTDIR") unreadable.push([path, code])
      }
    }
    return { directories: directories.join("\0"), files: files.join("\0"), unreadable }
  }

  #hash(paths: readonly string[]): Partial<HashAnswer> {
    const counters = this.#counters
    const progress = {
      cancelled: () => counters.cancelled,
      read: (bytes: number) => counters.addBytes(bytes),
    }
    const pairs: string[] = []
    const unreadable: [string, string][] = []
    for (const path of paths) {
      if (counters.cancelled) break
      try {
        const digest = hashFile(path, this.#algorithm, this.#buffer, progress)
        if (digest !== null && !this.#known.has(`${path}\0${digest}`))
          pairs.push(`[${JSON.stringify(path)},"${digest}"]`)
      } catch (error) {
        unreadable.push([path, systemCode(error)])
      }
      counters.addFiles(1)
    }
    return { block: pairs.length === 0 ? null : compress(pairs.join(",")), unreadable }
  }
}

function compress(text: string): Uint8Array {
  return Bun.zstdCompressSync(text, { level: 1 })
}
