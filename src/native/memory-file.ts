import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from "node:fs"
import { NativeError } from "../errors.ts"

/** A file that exists in memory only, for programs that want a path. It goes away with its last descriptor. */
export interface MemoryFile {
  /** For `stdio` of a child, where its number is the place in that array: `/proc/self/fd/3` for the fourth. */
  readonly fd: number
  /** Closes our descriptor; content that is a secret is overwritten first (not where sealed: it cannot be written). */
  close(): void
}

export interface MemoryFileOptions {
  /** Seen in /proc/PID/fd, for people. */
  readonly name: string
  /** Nobody can change the content or its size any more, not even through another descriptor. */
  readonly sealed: boolean
}

/** Source: linux/memfd.h and linux/fcntl.h. */
const MFD_CLOEXEC = 1
const MFD_ALLOW_SEALING = 2
const F_ADD_SEALS = 1033
/** F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE. */
const ALL_SEALS = 15

/** C libraries by name, glibc first; musl names its own by architecture. */
const LIBRARIES = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]

/**
 * Puts bytes into a memory file. The caller still owns, and wipes, `content`.
 * @throws NativeError ERR_IO
 */
export async function memoryFile(content: Uint8Array, options: MemoryFileOptions): Promise<MemoryFile> {
  const { memfd_create: create, fcntl } = await loadLibrary()
  const fd = create(Buffer.from(`${options.name}\0`), MFD_CLOEXEC | MFD_ALLOW_SEALING)
  if (fd < 0) throw failed("memfd_create")
  try {
    writeAll(fd, content)
    if (options.sealed && fcntl(fd, F_ADD_SEALS, ALL_SEALS) !== 0) throw failed("F_ADD_SEALS")
  } catch (error) {
    closeSync(fd)
    throw error
  }
  return {
    fd,
    close() {
      if (!options.sealed) writeAll(fd, new Uint8Array(content.length))
      closeSync(fd)
    },
  }
}

/**
 * Reads a file or device once, at most `limit` bytes: more is an error for a file, and left out for a device.
 * @throws NativeError ERR_IO, ERR_TOO_LARGE
 */
export function readBounded(path: string, limit: number): Uint8Array {
  const fd = open(path)
  try {
    const stat = fstatSync(fd)
    const whole = stat.isFile()
    if (!whole && !stat.isBlockDevice())
      throw new NativeError("ERR_IO", {
        at: path,
        expected: "a file or block device",
        found: "something else",
      })
    if (whole && stat.size > limit)
      throw new NativeError("ERR_TOO_LARGE", {
        at: path,
        expected: `at most ${limit} bytes`,
        found: `${stat.size}`,
      })
    const bytes = new Uint8Array(whole ? stat.size : limit)
    let size = 0
    for (let some = -1; some !== 0 && size < bytes.length; size += some)
      some = readSync(fd, bytes, size, bytes.length - size, size)
    return bytes.subarray(0, size)
  } finally {
    closeSync(fd)
  }
}

function open(path: string): number {
  try {
    // A pipe in its place would otherwise wait for a writer.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    throw new NativeError("ERR_IO", {
      at: path,
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    })
  }
}

function writeAll(fd: number, content: Uint8Array): void {
  for (let at = 0; at < content.length; ) at += writeSync(fd, content, at, content.length - at, at)
}

async function loadLibrary() {
  const { dlopen } = await import("bun:ffi")
  let cause: unknown = null
  for (const name of LIBRARIES) {
    try {
      return dlopen(name, {
        memfd_create: { args: ["ptr", "u32"], returns: "i32" },
        fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
      }).symbols
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

function failed(call: string): NativeError {
  return new NativeError("ERR_IO", { at: call, found: "the kernel refused" })
}
