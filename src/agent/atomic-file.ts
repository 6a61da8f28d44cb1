import { closeSync, constants, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs"
import { dirname } from "node:path"

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants

/**
 * Replaces a file's content so that a crash at any moment leaves the old content or the new, never a part: written to
 * `<path>.new`, flushed, renamed, directory flushed. A left-over `<path>.new` of an earlier crash is removed first.
 * @param mode permission bits, for example 0o600.
 */
export function writeFileAtomically(path: string, content: Uint8Array | string, mode: number): void {
  const partial = `${path}.new`
  const bytes = typeof content === "string" ? Buffer.from(content) : content
  rmSync(partial, { force: true })
  const fd = openSync(partial, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode)
  try {
    let done = 0
    while (done < bytes.length) done += writeSync(fd, bytes, done)
    fsyncSync(fd)
  } catch (error) {
    rmSync(partial, { force: true })
    throw error
  } finally {
    closeSync(fd)
  }
  renameSync(partial, path)
  flushDirectory(dirname(path))
}

/** Makes renames and removals in a directory survive a power cut. */
export function flushDirectory(path: string): void {
  const fd = openSync(path, O_RDONLY | O_DIRECTORY)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Makes a directory, and those above it, that only its owner may enter. An existing one is left as it is. */
export function makePrivateDirectory(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 })
}
