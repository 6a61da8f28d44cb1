import { fileURLToPath } from "node:url"

/**
 * The file that a `new Worker(WORKER_ENTRY, { workerData: { role } })` of node:worker_threads has to load: the executable
 * itself once compiled (its main.ts hands worker threads to workers.ts), workers.ts while the sources run as they are.
 */
export const WORKER_ENTRY: string = Bun.isStandaloneExecutable
  ? Bun.main
  : fileURLToPath(new URL("../workers.ts", import.meta.url))
