import { ParseError } from "../errors.ts"

/** One mounted file system, as this process sees it. */
export interface Mount {
  /** Device number, `major:minor`. */
  readonly device: string
  /** The part of the file system that is mounted: `/`, unless it is a bind mount. */
  readonly root: string
  readonly mountPoint: string
  readonly fileSystem: string
  /** What was mounted: a device's path, or any word. */
  readonly source: string
  /** Options of this mount, such as `rw`, `noexec`. */
  readonly options: readonly string[]
}

/**
 * Reads `/proc/self/mountinfo`; later lines lie over earlier ones.
 * @throws ParseError ERR_MALFORMED
 * Source: proc(5), "/proc/pid/mountinfo".
 */
export function parseMountInfo(text: string): Mount[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line, index) => {
      const [before = "", after = ""] = line.split(" - ", 2)
      const [, , device, root, mountPoint, options] = before.split(" ")
      const [fileSystem, source] = after.split(" ")
      if (
        device === undefined ||
        root === undefined ||
        mountPoint === undefined ||
        options === undefined ||
        fileSystem === undefined ||
        source === undefined ||
        !/^[0-9]+:[0-9]+$/.test(device)
      )
        throw new ParseError("ERR_MALFORMED", {
          at: `mountinfo line ${index + 1}`,
          expected: "a mount as in proc(5)",
        })
      return {
        device,
        root: unescaped(root),
        mountPoint: unescaped(mountPoint),
        fileSystem,
        source: unescaped(source),
        options: options.split(","),
      }
    })
}

/** The mount that a path leads to when it is itself a mount point; null where it is none. */
export function mountAt(mounts: readonly Mount[], path: string): Mount | null {
  return mounts.findLast((mount) => mount.mountPoint === path) ?? null
}

/** The mount that a path without `..` and symbolic links lies in; null where the text names none, not even of `/`. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | null {
  for (let at = path; ; at = at.slice(0, at.lastIndexOf("/")) || "/") {
    const mount = mountAt(mounts, at)
    if (mount !== null || at === "/" || !at.includes("/")) return mount
  }
}

/** The kernel writes space, tab, line feed and backslash in octal. Paths are bytes: put together first, read as UTF-8 then. */
function unescaped(text: string): string {
  const bytes: number[] = []
  const source = Buffer.from(text)
  for (let index = 0; index < source.length; index++) {
    const octal = /^\\([0-3][0-7]{2})/.exec(source.subarray(index, index + 4).toString("latin1"))?.[1]
    bytes.push(octal === undefined ? (source[index] ?? 0) : Number.parseInt(octal, 8))
    if (octal !== undefined) index += 3
  }
  return Buffer.from(bytes).toString()
}
