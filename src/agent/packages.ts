import { Worker } from "node:worker_threads"
import { WORKER_ENTRY } from "../native/worker-entry.ts"
import type { PackageAnswer, PackageWorkerData } from "./package-worker.ts"

/** A machine with all packages of a distribution takes some ten seconds. */
const DEADLINE_MS = 180_000

/** Compressed JSON of all packages with their files; of some hundred thousand files it has a few megabytes. */
export interface PackageBlocks {
  /** Joined by commas they are the elements of the snapshot's member `packages`. */
  readonly blocks: readonly Uint8Array[]
  /** Files that were read for it and are not part of the tree. */
  readonly read: PackageAnswer["read"]
  /** Why packages are missing; null where nothing is. */
  readonly fault: string | null
}

/**
 * Reads which package each file belongs to, in a thread of its own. Never rejects: a snapshot without packages explains less and is as
 * sound.
 */
export async function readPackages(request: Omit<PackageWorkerData, "role">): Promise<PackageBlocks> {
  const blocks: Uint8Array[] = []
  const data: PackageWorkerData = { role: "packages", ...request }
  const worker = new Worker(WORKER_ENTRY, { workerData: data })
  const { promise, resolve } = Promise.withResolvers<PackageBlocks>()
  worker.on("message", ({ block, read, fault }: PackageAnswer) => {
    if (block === null) resolve({ blocks, read, fault })
    else blocks.push(block)
  })
  worker.on("error", (error) => resolve({ blocks, read: [], fault: String(error) }))
  // A database that cannot be read to its end must not hold up the snapshot.
  const timer = setTimeout(() => resolve({ blocks: [], read: [], fault: "it took too long" }), DEADLINE_MS)
  worker.on("exit", () => resolve({ blocks, read: [], fault: "the thread ended early" }))
  try {
    return await promise
  } finally {
    clearTimeout(timer)
    await worker.terminate()
  }
}
