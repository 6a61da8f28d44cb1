import { randomUUID } from "node:crypto"
import { constants } from "node:fs"
import { mkdir, open, rmdir } from "node:fs/promises"
import { join } from "node:path"
import { NativeError } from "../errors.ts"
import type { ReportDevice, TdxReport } from "./ports.ts"
import { namedCertificates } from "./sev-guest.ts"

export const TSM_PATH = "/sys/kernel/config/tsm/report"
/** Content of `provider` where the VM is a SEV-SNP guest. */
const SEV_GUEST = "sev_guest"
/** And where it is a trust domain of Intel's. */
const TDX_GUEST = "tdx_guest"
/** The kernel caps its blobs at 32 KiB and 64 KiB. */
const MAX_ATTRIBUTE = 128 * 1024

/** One report entry of configfs. Errors are those of the file system. */
export interface TsmEntry {
  /** Content of an attribute; null where the kernel has no such attribute or nothing in it. */
  read(attribute: string): Promise<Uint8Array | null>
  /** One write, committed when the file is closed. */
  write(attribute: string, value: Uint8Array): Promise<void>
  /** Removes the entry. */
  remove(): Promise<void>
}

/** Makes a new entry. */
export type TsmEntries = () => Promise<TsmEntry>

/**
 * The kernel's interface for reports of any TEE (Linux 6.7), or null where it is absent or serves another kind than
 * SEV-SNP. Source: Linux, Documentation/ABI/testing/configfs-tsm-report.
 * @throws NativeError ERR_SNP_DEVICE where it is there but may not be used
 */
export async function openConfigfsTsm(
  entries: TsmEntries = entriesOf(TSM_PATH),
): Promise<ReportDevice | null> {
  if ((await providerOf(entries)) !== SEV_GUEST) return null
  return {
    provider: "configfs-tsm",
    async getReport(reportData) {
      const { report, table } = await answerOf(entries, reportData)
      return { kind: "sev-snp", report, certificates: namedCertificates(table ?? new Uint8Array(0)) }
    },
  }
}

/**
 * The same interface where it serves a trust domain of Intel's, whose reports are quotes; null where it does not.
 * @throws NativeError as openConfigfsTsm
 */
export async function openTdxGuest(
  entries: TsmEntries = entriesOf(TSM_PATH),
): Promise<ReportDevice<TdxReport> | null> {
  if ((await providerOf(entries)) !== TDX_GUEST) return null
  return {
    provider: "configfs-tsm",
    getReport: async (reportData) => ({ kind: "tdx", quote: (await answerOf(entries, reportData)).report }),
  }
}

/** Which driver answers; null where there is none. */
async function providerOf(entries: TsmEntries): Promise<string | null> {
  const entry = await entries().catch((error: unknown) => {
    // Not mounted, or no TEE registered itself.
    if (isErrno(error, "ENOENT", "ENXIO", "ENODEV", "ENOTDIR")) return null
    throw deviceError("report entry", error)
  })
  if (entry === null) return null
  try {
    return await readText(entry, "provider")
  } catch (error) {
    throw deviceError("provider", error)
  } finally {
    await entry.remove()
  }
}

/** Entries under a directory of configfs. The names are unique, so that processes do not meet. */
export function entriesOf(path: string): TsmEntries {
  return async () => {
    const dir = join(path, `cosmian_vm-${randomUUID()}`)
    await mkdir(dir)
    return {
      read: (attribute) => readAttribute(join(dir, attribute)),
      write: (attribute, value) => writeAttribute(join(dir, attribute), value),
      remove: () => rmdir(dir),
    }
  }
}

interface Answer {
  readonly report: Uint8Array
  /** What the host gave beside it; null where it gave nothing. */
  readonly table: Uint8Array | null
}

async function answerOf(entries: TsmEntries, reportData: Uint8Array): Promise<Answer> {
  try {
    const entry = await entries()
    try {
      return await request(entry, reportData)
    } finally {
      await entry.remove()
    }
  } catch (error) {
    throw deviceError("report", error)
  }
}

async function request(entry: TsmEntry, reportData: Uint8Array): Promise<Answer> {
  let writes = 0
  // Under an SVSM the guest may only ask for the levels from this one on.
  const floor = await readText(entry, "privlevel_floor")
  if (floor !== null && floor !== "0") {
    await entry.write("privlevel", Buffer.from(floor))
    writes++
  }
  await entry.write("inblob", reportData)
  writes++
  const report = await entry.read("outblob")
  const table = await entry.read("auxblob")
  // The kernel counts writes: another number means that somebody else wrote to our entry in between.
  const generation = await readText(entry, "generation")
  if (generation !== `${writes}`)
    throw new NativeError("ERR_SNP_REPORT_RACE", {
      at: "generation",
      expected: `${writes}`,
      found: generation ?? "none",
    })
  if (report === null) throw new NativeError("ERR_SNP_DEVICE", { at: "outblob", found: "nothing" })
  return { report, table }
}

async function readText(entry: TsmEntry, attribute: string): Promise<string | null> {
  const value = await entry.read(attribute)
  return value === null ? null : Buffer.from(value).toString("latin1").trim()
}

/** Attributes say nothing about their size: read until the end. */
async function readAttribute(path: string): Promise<Uint8Array | null> {
  const file = await open(path, constants.O_RDONLY).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return null
    throw error
  })
  if (file === null) return null
  try {
    const buffer = new Uint8Array(MAX_ATTRIBUTE)
    let filled = 0
    while (filled < buffer.length) {
      const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, null)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return filled === 0 ? null : buffer.slice(0, filled)
  } finally {
    await file.close()
  }
}

/** Open, one write, close: a binary attribute takes effect on close, and truncating or creating it is an error. */
async function writeAttribute(path: string, value: Uint8Array): Promise<void> {
  const file = await open(path, constants.O_WRONLY)
  try {
    const { bytesWritten } = await file.write(value)
    if (bytesWritten !== value.length)
      throw new NativeError("ERR_SNP_DEVICE", {
        at: path,
        expected: `${value.length} bytes written`,
        found: `${bytesWritten}`,
      })
  } finally {
    await file.close()
  }
}

/** System errors become coded ones; coded ones stay as they are. */
function deviceError(at: string, error: unknown): unknown {
  if (!(error instanceof Error) || !("errno" in error)) return error
  const hint = isErrno(error, "EACCES", "EPERM") ? "run as root" : "see the kernel log"
  return new NativeError("ERR_SNP_DEVICE", {
    at: `configfs-tsm, ${at}`,
    found: error.message,
    hint,
    cause: error,
  })
}

function isErrno(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code))
}
