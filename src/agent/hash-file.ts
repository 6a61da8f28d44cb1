import { createHash, hash } from "node:crypto"
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"
import { systemPath } from "./walk.ts"

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants
const FLAGS = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY

export interface HashProgress {
  /** Asked between two reads. */
  cancelled(): boolean
  /** Bytes read since the last call. */
  read(bytes: number): void
}

/**
 * Digest in hex of a regular file; null where there is none of that name any more (gone, or replaced by a link, a fifo, …).
 * Like IMA, it hashes as many bytes as the file has when it is opened: a file that grows meanwhile does not go on for ever.
 * @param path text form. @param buffer reused between calls; a file that fits is hashed in one call.
 * @throws the system's error (`code`: EACCES, EIO, …), with ECANCELED.
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
    if (stat.size > buffer.length) return hashStream(fd, algorithm, buffer, stat.size, progress)
    return hash(algorithm, buffer.subarray(0, fill(fd, buffer, stat.size, progress)), "hex")
  } finally {
    closeSync(fd)
  }
}

function hashStream(
  fd: number,
  algorithm: string,
  buffer: Uint8Array,
  size: number,
  progress: HashProgress,
): string {
  const hasher = createHash(algorithm)
  for (let left = size; left > 0; ) {
    if (progress.cancelled()) throw Object.assign(new Error("ECANCELED"), { code: "ECANCELED" })
    const length = fill(fd, buffer, Math.min(left, buffer.length), progress)
    if (length === 0) break
    hasher.update(buffer.subarray(0, length))
    left -= length
  }
  return hasher.digest("hex")
}

/** Reads `wanted` bytes, fewer where the file ends; the number of bytes. */
function fill(fd: number, buffer: Uint8Array, wanted: number, progress: HashProgress): number {
  let length = 0
  while (length < wanted) {
    const count = readSync(fd, buffer, length, wanted - length, null)
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
