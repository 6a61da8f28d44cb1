import { closeSync, constants, openSync } from "node:fs"
import { NativeError } from "../errors.ts"
import { serveOperations, workerConfig } from "./device-worker.ts"
import { sevGuestIoctl } from "./ioctl.ts"
import type { DerivedKeyRequest } from "./ports.ts"
import { requestDerivedKey, requestReport, type SevGuestIoctl } from "./sev-guest.ts"

/** The sev-guest thread. `config` is the device's path; the device is open only while a report is made. */
export function runSevGuestWorker(): void {
  const path = workerConfig()
  if (typeof path !== "string")
    throw new NativeError("ERR_INTERNAL", { at: "sev-guest thread", found: "no path" })
  serveOperations({
    probe: (_: null) => closeSync(openDevice(path)),
    getReport: (reportData: Uint8Array) =>
      withDevice(path, (ioctl) => requestReport(ioctl, reportData, sleep)),
    deriveKey: (request: DerivedKeyRequest) =>
      withDevice(path, (ioctl) => requestDerivedKey(ioctl, request, sleep)),
  })
}

async function withDevice<T>(path: string, use: (ioctl: SevGuestIoctl) => T): Promise<T> {
  const fd = openDevice(path)
  try {
    return use(await sevGuestIoctl(fd))
  } finally {
    closeSync(fd)
  }
}

function openDevice(path: string): number {
  try {
    return openSync(path, constants.O_RDWR)
  } catch (cause) {
    throw new NativeError("ERR_SNP_DEVICE", {
      at: path,
      found: cause instanceof Error ? cause.message : String(cause),
      hint: "run as root, and load the kernel module sev-guest",
      cause,
    })
  }
}

/** Blocks this thread, which does nothing else. */
function sleep(milliseconds: number): void {
  Bun.sleepSync(milliseconds)
}
