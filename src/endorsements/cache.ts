import { createHash, randomBytes } from "node:crypto"
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises"
import { isAbsolute, join } from "node:path"
import { CodedError, EndorsementError } from "../errors.ts"
import { type CacheEntry, encodeEntry, MAX_ENTRY_BYTES, parseEntry } from "./cache-entry.ts"

/** Documents that were fetched, by key. What is unreadable counts as absent. */
export interface CollateralCache {
  read(key: string): Promise<CacheEntry | null>
  /** @throws EndorsementError ERR_IO */
  write(entry: CacheEntry): Promise<void>
  /** All entries, by key. */
  list(): Promise<CacheEntry[]>
}

const SUFFIX = ".json"
/** Left behind by a process that was killed while writing. */
const STALE_MS = 3_600_000

/**
 * Where a user's collateral is kept: `$XDG_CACHE_HOME/cosmian_vm/collateral`, else `~/.cache/cosmian_vm/collateral`.
 * Source: XDG Base Directory Specification 0.8 (a relative path counts as unset).
 */
export function cacheDirectory(env: Readonly<Record<string, string | undefined>>, home: string): string {
  const base = env["XDG_CACHE_HOME"] ?? ""
  return join(isAbsolute(base) ? base : join(home, ".cache"), "cosmian_vm", "collateral")
}

/**
 * A cache in a directory, which is made when something is first written. Each entry is one file that appears by a rename, so
 * that any number of processes may read and write at once: the last writer wins, and a reader sees one or the other whole.
 * What is in it is verified each time it is used, so whoever can write to it can only make verification fail.
 */
export function openCache(directory: string): CollateralCache {
  return {
    read: (key) => readEntry(join(directory, fileOf(key)), key),
    write: (entry) => writeEntry(directory, entry),
    list: () => listEntries(directory),
  }
}

/** A readable beginning, and enough of a hash to be unique: chip identifiers are too long for a file name. */
function fileOf(key: string): string {
  const readable = key.replace(/[^A-Za-z0-9]+/g, "-").slice(0, 48)
  return `${readable}.${createHash("sha256").update(key).digest("hex").slice(0, 32)}${SUFFIX}`
}

async function readEntry(path: string, key: string | null): Promise<CacheEntry | null> {
  try {
    const { size } = await stat(path)
    if (size > MAX_ENTRY_BYTES) return null
    const entry = parseEntry(Uint8Array.from(await readFile(path)))
    return key === null || entry.key === key ? entry : null
  } catch (error) {
    // A damaged entry is fetched again and overwritten.
    if (error instanceof CodedError || isMissing(error)) return null
    throw ioError(path, error)
  }
}

async function writeEntry(directory: string, entry: CacheEntry): Promise<void> {
  const path = join(directory, fileOf(entry.key))
  const draft = join(directory, `.${randomBytes(8).toString("hex")}.tmp`)
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    await removeStale(directory)
    const file = await open(draft, "wx", 0o600)
    try {
      await file.writeFile(encodeEntry(entry))
    } finally {
      await file.close()
    }
    await rename(draft, path)
  } catch (error) {
    await rm(draft, { force: true }).catch(() => undefined)
    throw ioError(path, error)
  }
}

async function removeStale(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!name.endsWith(".tmp")) continue
    const path = join(directory, name)
    // Another process may have finished with it meanwhile.
    const found = await stat(path).catch(() => null)
    if (found !== null && Date.now() - found.mtimeMs > STALE_MS) await rm(path, { force: true })
  }
}

async function listEntries(directory: string): Promise<CacheEntry[]> {
  const names = await readdir(directory).catch((error: unknown) => {
    if (isMissing(error)) return []
    throw ioError(directory, error)
  })
  const entries: CacheEntry[] = []
  for (const name of names.filter((each) => each.endsWith(SUFFIX))) {
    const entry = await readEntry(join(directory, name), null)
    if (entry !== null && fileOf(entry.key) === name) entries.push(entry)
  }
  return entries.sort((a, b) => (a.key < b.key ? -1 : 1))
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")
}

function ioError(path: string, error: unknown): EndorsementError {
  const found = error instanceof Error && "code" in error ? `${error.code}` : `${error}`
  return new EndorsementError("ERR_IO", {
    at: path,
    found,
    hint: "check the cache directory and its permissions, or choose another with --cache-dir",
    cause: error,
  })
}
