import { createHash } from "node:crypto"
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { open, realpath } from "node:fs/promises"
import { join } from "node:path"
import { NativeError } from "../errors.ts"
import { bytesEqual, toHex } from "../formats/hex.ts"
import { parseMeasurementList } from "../formats/ima/measurement-list.ts"

/** What the simulated kernel has measured: an entry of its list, and what PCR 10 is extended with. */
export interface Measurement {
  /** Hashed by each bank's own algorithm for PCR 10. */
  readonly templateData: Uint8Array
  /** SHA-1 of the template data: how the list names an entry, whatever the banks. */
  readonly templateDigest: Uint8Array
  readonly binary: Uint8Array
  readonly ascii: Uint8Array
}

const BINARY = "binary_runtime_measurements"
const ASCII = "ascii_runtime_measurements"
const TEMPLATE = "ima-ng"
/** A process that died with the lock held is noticed; one that works with it is waited for this long. */
const LOCK_DEADLINE_MS = 15_000

/**
 * An entry of template ima-ng, as the kernel writes it.
 * Source: Linux 6.12, security/integrity/ima/ima_template_lib.c and ima_fs.c (ima_measurements_show).
 * @param path as the kernel names the file. @param digest SHA-256 of its content.
 */
export function measurement(path: Uint8Array, digest: Uint8Array): Measurement {
  // The kernel does this to every name, so that its ASCII list can be split at spaces.
  const name = path.map((byte) => (byte === 0x20 ? 0x5f : byte))
  const templateData = concat(counted(concat(ascii("sha256:\0"), digest)), counted(concat(name, ascii("\0"))))
  const templateDigest = new Uint8Array(createHash("sha1").update(templateData).digest())
  const line = ascii(`10 ${toHex(templateDigest)} ${TEMPLATE} sha256:${toHex(digest)} `)
  return {
    templateData,
    templateDigest,
    binary: concat(u32le(10), templateDigest, counted(ascii(TEMPLATE)), counted(templateData)),
    ascii: concat(line, name, ascii("\n")),
  }
}

/** The measurement of a file that is executed: its name is the one that the kernel knows, without symbolic links. */
export async function measureExecutable(path: string): Promise<Measurement> {
  try {
    const real = await realpath(path, { encoding: "buffer" })
    return measurement(real, await contentDigest(real))
  } catch (cause) {
    throw new NativeError("ERR_IO", {
      at: path,
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    })
  }
}

async function contentDigest(path: Buffer): Promise<Uint8Array> {
  const hash = createHash("sha256")
  const buffer = new Uint8Array(1024 * 1024)
  const file = await open(path, "r")
  try {
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null)
      if (bytesRead === 0) return new Uint8Array(hash.digest())
      hash.update(buffer.subarray(0, bytesRead))
    }
  } finally {
    await file.close()
  }
}

/**
 * The measurement that stands for the boot: SHA-256 over PCRs 0–9 of the SHA-256 bank, as kernels since 5.8 do it.
 * @param pcrs values of PCRs 0–9.
 */
export function bootAggregate(pcrs: readonly Uint8Array[]): Measurement {
  const hash = createHash("sha256")
  for (const value of pcrs) hash.update(value)
  return measurement(ascii("boot_aggregate"), new Uint8Array(hash.digest()))
}

/** Empty lists: power was off. */
export function resetLists(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  rmSync(lockPath(directory), { force: true })
  replace(join(directory, BINARY), new Uint8Array(0))
  replace(join(directory, ASCII), new Uint8Array(0))
}

/**
 * Appends a measurement and extends PCR 10, in this order as the kernel does and with nobody in between. Nothing where the
 * list has it already: the kernel measures a file again only when its content changed.
 */
export async function appendMeasurement(
  directory: string,
  entry: Measurement,
  extend: (templateData: Uint8Array) => Promise<void>,
): Promise<void> {
  const unlock = await lock(directory)
  try {
    const list = new Uint8Array(readFileSync(join(directory, BINARY)))
    if (contains(list, entry.templateDigest)) return
    const text = new Uint8Array(readFileSync(join(directory, ASCII)))
    replace(join(directory, BINARY), concat(list, entry.binary))
    replace(join(directory, ASCII), concat(text, entry.ascii))
    await extend(entry.templateData)
  } finally {
    unlock()
  }
}

function contains(bytes: Uint8Array, templateDigest: Uint8Array): boolean {
  const list = parseMeasurementList(bytes)
  for (let index = 0; index < list.count; index++) {
    const at = list.templateDigestAt[index] ?? 0
    if (bytesEqual(bytes.subarray(at, at + templateDigest.length), templateDigest)) return true
  }
  return false
}

/** Whoever reads a list meanwhile sees all of the old one or all of the new one. */
function replace(path: string, bytes: Uint8Array): void {
  const next = `${path}.${process.pid}`
  writeFileSync(next, bytes, { mode: 0o600 })
  renameSync(next, path)
}

function lockPath(directory: string): string {
  return join(directory, "lock")
}

/** The kernel has a mutex; several processes of a simulated machine have a file that only one can create. */
async function lock(directory: string): Promise<() => void> {
  const path = lockPath(directory)
  const end = Date.now() + LOCK_DEADLINE_MS
  while (!tryCreate(path)) {
    if (isAbandoned(path)) rmSync(path, { force: true })
    else if (Date.now() > end)
      throw new NativeError("ERR_DEVICE_TIMEOUT", { at: path, found: "held by a running process" })
    else await Bun.sleep(5)
  }
  return () => rmSync(path, { force: true })
}

function tryCreate(path: string): boolean {
  try {
    const fd = openSync(path, "wx", 0o600)
    writeFileSync(fd, String(process.pid))
    closeSync(fd)
    return true
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false
    throw error
  }
}

function isAbandoned(path: string): boolean {
  try {
    const holder = Number(readFileSync(path, "utf8"))
    // Not yet written: its maker is about to.
    return Number.isInteger(holder) && holder > 0 && !existsSync(`/proc/${holder}`)
  } catch (error) {
    // Released in between.
    if (error instanceof Error && "code" in error) return false
    throw error
  }
}

function u32le(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

function counted(bytes: Uint8Array): Uint8Array {
  return concat(u32le(bytes.length), bytes)
}

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}
