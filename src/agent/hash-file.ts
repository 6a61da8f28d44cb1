import { createHash, hash } from "node:crypto"
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"
import { systemPath } from "./walk.ts"

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants
const FLAGS = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY

/** A file that grows while it is read is given up when it is this much larger than it was. */
const GROWTH = 256 * 1024 * 1024

export interface HashProgress {
  /** Asked between two reads. */
  cancelled(): boolean
  /** Bytes read since the last call. */
  read(bytes: number): void
}

/**
 * Digest in hex of a regular file; null where there is none of that name any more (gone, or replaced by a link, a fifo, …).
 * @param path text form. @param buffer reused between calls; a file that fits is hashed in one call.
 * @throws the system's error (`code`: EACCES, EIO, …), with EFBIG for a file that grew faster than it was read, and
 * ECANCELED.
 */
export function hashFile(
  path: string,
  algorithm: string,
  buffer: Uint8Array,
  progress: HashProgress,
): string | null {
  const fd = openRegular(path)
  if (fd === null) return null
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile()) return null
    const length = fill(fd, buffer, progress)
    if (length < buffer.length) return hash(algorithm, buffer.subarray(0, length), "hex")
    return hashStream(fd, algorithm, buffer, stat.size + GROWTH, progress)
  } finally {
    closeSync(fd)
  }
}

/** Hashes on from a full buffer. */
function hashStream(
  fd: number,
  algorithm: string,
  buffer: Uint8Array,
  limit: number,
  progress: HashProgress,
): string {
  const hasher = createHash(algorithm)
  let total = 0
  for (let length = buffer.length; length > 0; length = fill(fd, buffer, progress)) {
    if (progress.cancelled()) throw systemError("ECANCELED")
    hasher.update(buffer.subarray(0, length))
    total += length
    if (total > limit) throw systemError("EFBIG")
  }
  return hasher.digest("hex")
}

/** Reads until the buffer is full or the file ends; the number of bytes. */
function fill(fd: number, buffer: Uint8Array, progress: HashProgress): number {
  let length = 0
  while (length < buffer.length) {
    const count = readSync(fd, buffer, length, buffer.length - length, null)
    if (count === 0) break
    length += count
  }
  progress.read(length)
  return length
}

function openRegular(path: string): number | null {
  try {
    return openSync(systemPath(path), FLAGS)
  } catch (error) {
    const code = systemCode(error)
    // ELOOP: a link by now; ENXIO: a fifo or socket by now.
    if (code === "ENOENT" || code === "ENOTDIR" || code === "ELOOP" || code === "ENXIO") return null
    throw error
  }
}

/** Name of the system's error; `EUNKNOWN` where there is none. */
export function systemCode(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "EUNKNOWN"
}

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code })
}
