import { type Dirent, lstatSync, readdirSync } from "node:fs"
import { pathToText, textToPath } from "../formats/path-text.ts"

/** What one directory holds, as paths in text form (see `pathToText`). Other kinds of files are left out. */
export interface Listing {
  readonly directories: string[]
  /** Regular files. */
  readonly files: string[]
}

/** A path as the file system calls take it: bytes where the name is not UTF-8. */
export function systemPath(text: string): string | Buffer {
  // Lone surrogates are the mark of pathToText for bytes that are not UTF-8.
  return text.isWellFormed() ? text : Buffer.from(textToPath(text))
}

/**
 * Lists one directory. Follows no symbolic link.
 * @throws the system's error (`code`: ENOENT, EACCES, …).
 */
export function listDirectory(directory: string): Listing {
  const listing: Listing = { directories: [], files: [] }
  const prefix = directory === "/" ? "/" : `${directory}/`
  const path = systemPath(directory)
  if (typeof path !== "string") return listByBytes(path, prefix, listing)
  const entries = readdirSync(path, { withFileTypes: true })
  // Names that are not UTF-8 come with U+FFFD in place of the bad bytes: then the names are read again, as bytes.
  if (entries.some((entry) => entry.name.includes("\ufffd")))
    return listByBytes(Buffer.from(path), prefix, listing)
  for (const entry of entries) sortIn(entry, prefix + entry.name, listing)
  return listing
}

/** Counts the regular files below a directory; null where `cancelled` became true. What cannot be read counts nothing. */
export function countFiles(
  root: string,
  exclude: ReadonlySet<string>,
  cancelled: () => boolean,
): number | null {
  const pending = exclude.has(`${root}/`) ? [] : [root]
  let count = 0
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    if (cancelled()) return null
    const listing = listOrNothing(directory)
    count += listing.files.length
    pending.push(...notExcluded(listing.directories, exclude))
  }
  return count
}

/** @param exclude path prefixes ending in `/`. */
export function notExcluded(directories: readonly string[], exclude: ReadonlySet<string>): string[] {
  return directories.filter((directory) => !exclude.has(`${directory}/`))
}

function listOrNothing(directory: string): Listing {
  try {
    return listDirectory(directory)
  } catch {
    // Whoever hashes the directory meets the same error and reports it.
    return { directories: [], files: [] }
  }
}

function listByBytes(path: Buffer, prefix: string, listing: Listing): Listing {
  for (const name of readdirSync(path, { encoding: "buffer" }))
    sortInByStat(prefix + pathToText(name), listing)
  return listing
}

function sortIn(entry: Dirent, path: string, listing: Listing): void {
  if (entry.isFile()) listing.files.push(path)
  else if (entry.isDirectory()) listing.directories.push(path)
  else if (!isKnownOther(entry)) sortInByStat(path, listing)
}

/** Some file systems do not tell the kind of an entry. */
function isKnownOther(entry: Dirent): boolean {
  return (
    entry.isSymbolicLink() ||
    entry.isSocket() ||
    entry.isFIFO() ||
    entry.isCharacterDevice() ||
    entry.isBlockDevice()
  )
}

function sortInByStat(path: string, listing: Listing): void {
  const stat = lstatSync(systemPath(path), { throwIfNoEntry: false })
  if (stat?.isFile()) listing.files.push(path)
  else if (stat?.isDirectory()) listing.directories.push(path)
}
