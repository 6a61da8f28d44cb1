import { closeSync, constants, openSync } from "node:fs"
import { NativeError } from "../errors.ts"

/** Source: flock(2), asm-generic/errno-base.h. */
const LOCK_EX = 2
const LOCK_NB = 4
const LIBRARIES = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]
const POLL_MS = 100

export interface DirectoryLock {
  /** Given to children, so that one that outlives us still keeps others out. */
  readonly fd: number
  release(): void
}

/**
 * Takes the advisory lock on a directory: nothing of it stays on the disk, and the kernel gives it back when the last process
 * that holds it ends.
 * @param waitMs how long to wait for another holder. @param waiting called once, when there is one.
 * @throws NativeError ERR_VOLUME_BUSY, ERR_IO
 */
export async function lockDirectory(
  path: string,
  waitMs: number,
  waiting: () => void,
): Promise<DirectoryLock> {
  const flock = await loadFlock()
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  const end = performance.now() + waitMs
  for (let attempt = 0; flock(fd, LOCK_EX | LOCK_NB) !== 0; attempt++) {
    if (attempt === 0) waiting()
    if (performance.now() > end) {
      closeSync(fd)
      throw new NativeError("ERR_VOLUME_BUSY", {
        at: path,
        found: "another fstool, or a program that it started, works on this volume",
        hint: "wait until it ends; fuser -v shows who it is",
      })
    }
    await Bun.sleep(POLL_MS)
  }
  return { fd, release: () => closeSync(fd) }
}

async function loadFlock(): Promise<(fd: number, operation: number) => number> {
  const { dlopen } = await import("bun:ffi")
  let cause: unknown = null
  for (const name of LIBRARIES) {
    try {
      return dlopen(name, { flock: { args: ["i32", "i32"], returns: "i32" } }).symbols.flock
    } catch (error) {
      cause ??= error
    }
  }
  throw new NativeError("ERR_IO", {
    at: "C library",
    found: cause instanceof Error ? cause.message : String(cause),
    cause,
  })
}
