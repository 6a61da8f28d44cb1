import { isMainThread, workerData } from "node:worker_threads"
import { NativeError } from "./errors.ts"

/** What this thread was started for: `workerData` of `new Worker(WORKER_ENTRY, …)`. */
export type WorkerRole = "tpm" | "sev-guest" | "hash" | "packages"

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
    case "packages": {
      const { runPackageWorker } = await import("./agent/package-worker.ts")
      return runPackageWorker()
    }
  }
}

function roleOf(data: unknown): WorkerRole {
  const role = typeof data === "object" && data !== null && "role" in data ? data.role : undefined
  if (role === "tpm" || role === "sev-guest" || role === "hash" || role === "packages") return role
  throw new NativeError("ERR_INTERNAL", {
    at: "worker thread",
    expected: "role tpm, sev-guest, hash or packages",
    found: `${role}`,
  })
}

// Loading this file in a worker thread is what starts the worker, compiled (from main.ts) or not (as the thread's entry).
if (!isMainThread) await runWorker(workerData)
