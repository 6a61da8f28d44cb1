import { randomBytes } from "node:crypto"
import {
  closeSync,
  fsyncSync,
  lstatSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs"
import { basename, dirname, join } from "node:path"
import { CodedError, UsageError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"

/** A file that is to be written whole or not at all. */
export interface PendingFile {
  /** Puts the content in place and reads it back. @throws CodedError ERR_IO; system errors. */
  commit(content: Uint8Array): void
  /** Removes what was begun. Does nothing after `commit`. */
  abandon(): void
}

/**
 * Begins a file at `path`: an existing one stays as it is until `commit`. That the place can be written to is found out now, and
 * not after minutes of work. A symbolic link stays, and what it points to is replaced.
 * @param mode permissions of the new file, before the umask.
 * @throws UsageError ERR_BAD_VALUE where `path` is something other than a file; system errors.
 */
export function beginFile(path: string, mode: number): PendingFile {
  const target = targetOf(path)
  const temporary = join(
    dirname(target),
    `.${basename(target).slice(0, 100)}.${randomBytes(6).toString("hex")}.tmp`,
  )
  let fd: number | null = openNew(temporary, target, mode)
  const close = () => {
    if (fd !== null) closeSync(fd)
    fd = null
  }
  return {
    commit(content) {
      if (fd === null)
        throw new CodedError("ERR_INTERNAL", { at: path, found: "a file that was ended already" })
      try {
        for (let done = 0; done < content.length; ) done += writeSync(fd, content, done)
        fsyncSync(fd)
        close()
        readBack(temporary, content)
        renameSync(temporary, target)
      } catch (error) {
        close()
        rmSync(temporary, { force: true })
        throw error
      }
      flushDirectory(dirname(target))
    },
    abandon() {
      if (fd === null) return
      close()
      rmSync(temporary, { force: true })
    },
  }
}

/** What goes wrong is told with the name that was asked for. */
function openNew(temporary: string, target: string, mode: number): number {
  try {
    return openSync(temporary, "wx", mode)
  } catch (error) {
    throw error instanceof Error ? Object.assign(error, { path: target }) : error
  }
}

/** Where the content ends up: through a symbolic link, and never onto a device or directory. */
function targetOf(path: string): string {
  const found = lstatSync(path, { throwIfNoEntry: false })
  const target = found?.isSymbolicLink() ? realpathSync(path) : path
  const kind = lstatSync(target, { throwIfNoEntry: false })
  if (kind !== undefined && !kind.isFile())
    throw new UsageError("ERR_BAD_VALUE", {
      at: path,
      expected: "a file, or a name that is free",
      found: kind.isDirectory() ? "a directory" : "something that is no regular file",
      hint: "give the name of a file",
    })
  return target
}

function readBack(path: string, content: Uint8Array): void {
  if (bytesEqual(readFileSync(path), content)) return
  throw new CodedError("ERR_IO", {
    at: path,
    expected: "the bytes just written",
    found: "others",
    hint: "check the file system and the disk",
  })
}

/** So that the new name survives a power cut. */
function flushDirectory(directory: string): void {
  const fd = openSync(directory, "r")
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
