import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { NativeError } from "../errors.ts"
import type { MeasurementListSource } from "./ports.ts"

/** Where the kernel shows its measurement lists. */
export const IMA_DIRECTORY = "/sys/kernel/security/ima"

/**
 * The kernel's IMA measurement list. The kernel makes the list while it is read and reports a size of 0, so reading goes on
 * to the end whatever the size says; it is read off the server's thread.
 * @param directory for tests and simulated machines.
 */
export function openMeasurementList(directory = IMA_DIRECTORY): MeasurementListSource {
  return {
    async readBinary() {
      return new Uint8Array(await readList(directory, "binary_runtime_measurements"))
    },
    async readAscii() {
      return (await readList(directory, "ascii_runtime_measurements")).toString("utf8")
    },
  }
}

async function readList(directory: string, name: string): Promise<Buffer> {
  const path = join(directory, name)
  try {
    return await readFile(path)
  } catch (cause) {
    throw new NativeError("ERR_IO", {
      at: path,
      found: cause instanceof Error ? cause.message : String(cause),
      hint: "mount securityfs, run as root, and boot a kernel with IMA (kernel argument ima_policy=tcb)",
      cause,
    })
  }
}
