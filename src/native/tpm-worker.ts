import { NativeError } from "../errors.ts"
import { serveOperations, workerConfig } from "./device-worker.ts"
import { tpmOperations } from "./tpm-operations.ts"
import { loadTss2, type TransportOpener } from "./tss2.ts"

/** The TPM thread. `config` is the TPM's address; the library is loaded on the first call, so that its absence is an answer. */
export function runTpmWorker(): void {
  const tcti = workerConfig()
  if (typeof tcti !== "string")
    throw new NativeError("ERR_INTERNAL", { at: "TPM thread", found: "no address" })
  let open: TransportOpener | null = null
  const operations = tpmOperations(() => {
    if (open === null)
      throw new NativeError("ERR_INTERNAL", { at: "TPM thread", found: "library not loaded" })
    return open(tcti)
  })
  const loaded = Object.entries(operations).map(([name, run]) => [
    name,
    async (argument: never) => {
      open ??= await loadTss2()
      return run(argument)
    },
  ])
  serveOperations(Object.fromEntries(loaded))
}
