import { isMainThread, workerData } from "node:worker_threads"
import { NativeError } from "./errors.ts"

/** What this thread was started for: `workerData` of `new Worker(WORKER_ENTRY, …)`. */
export type WorkerRole = "tpm" | "sev-guest" | "hash"

/** Starts the worker that `data` names by its `role`. */
export async function runWorker(data: unknown): Promise<void> {
  switch (roleOf(data)) {
    case "tpm": {
      const { runTpmWorker } = await import("./native/tpm-worker.ts")
      return runTpmWorker()
    }
    case "sev-guest": {
      const { runSevGuestWorker } = await import("./native/sev-guest-worker.ts")
      return runSevGuestWorker()
    }
    case "hash": {
      const { runHashWorker } = await import("./agent/hash-worker.ts")
      return runHashWorker()
    }
  }
}

function roleOf(data: unknown): WorkerRole {
  const role = typeof data === "object" && data !== null && "role" in data ? data.role : undefined
  if (role === "tpm" || role === "sev-guest" || role === "hash") return role
  throw new NativeError("ERR_INTERNAL", {
    at: "worker thread",
    expected: "role tpm, sev-guest or hash",
    found: `${role}`,
  })
}

// Loading this file in a worker thread is what starts the worker, compiled (from main.ts) or not (as the thread's entry).
if (!isMainThread) await runWorker(workerData)
