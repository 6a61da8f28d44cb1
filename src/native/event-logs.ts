import { open } from "node:fs/promises"
import { MAX_EVENT_LOG_BYTES } from "../formats/event-log/event-log.ts"
import { MAX_COMMAND_LINE_BYTES } from "../formats/evidence.ts"
import type { EventLogSource } from "./ports.ts"

/** Where the kernel shows the logs. */
const FIRMWARE = "/sys/kernel/security/tpm0/binary_bios_measurements"
const CONFIDENTIAL = "/sys/firmware/acpi/tables/data/CCEL"
const COMMAND_LINE = "/proc/cmdline"
const CHUNK = 64 * 1024

/**
 * The machine's event logs. One that is not there, that may not be read, or that is larger than any log is none: evidence is
 * made all the same.
 * @param paths for tests and simulated machines.
 */
export function openEventLogs(
  paths: { firmware?: string; confidential?: string; commandLine?: string } = {},
): EventLogSource {
  return {
    readFirmware: () => readWhole(paths.firmware ?? FIRMWARE, MAX_EVENT_LOG_BYTES),
    readConfidential: () => readWhole(paths.confidential ?? CONFIDENTIAL, MAX_EVENT_LOG_BYTES),
    readCommandLine: () => readWhole(paths.commandLine ?? COMMAND_LINE, MAX_COMMAND_LINE_BYTES),
  }
}

/** The kernel reports a size of 0, so reading goes on to the end whatever the size says. */
async function readWhole(path: string, maxBytes: number): Promise<Uint8Array | null> {
  try {
    const file = await open(path, "r")
    try {
      const parts: Uint8Array[] = []
      for (let size = 0; size <= maxBytes; ) {
        const { bytesRead, buffer } = await file.read(new Uint8Array(CHUNK), 0, CHUNK, null)
        if (bytesRead === 0) return size === 0 ? null : new Uint8Array(Buffer.concat(parts))
        parts.push(buffer.subarray(0, bytesRead))
        size += bytesRead
      }
      return null
    } finally {
      await file.close()
    }
  } catch (error) {
    // ENOENT, EACCES, EIO: the same to the verifier, who sees that there is none.
    if (error instanceof Error && "code" in error) return null
    throw error
  }
}
