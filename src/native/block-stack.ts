import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs"
import { basename, join } from "node:path"

const SYS = "/sys"

/** A mapping of the device mapper, as sysfs shows it. */
export interface Mapping {
  /** Name in /dev/mapper. */
  readonly name: string
  /** `CRYPT-LUKS2-…` for one of cryptsetup's; empty where it has none. */
  readonly uuid: string
  /** Name of the kernel, `dm-3`. */
  readonly kernelName: string
  /** Device number, `major:minor`. */
  readonly device: string
  readonly suspended: boolean
  /** Of this very mapping, and of none that comes after it in its place: sysfs gives no number twice. */
  readonly instance: string
}

/** Whether this kernel has the device mapper, loaded or built in. */
export function hasDeviceMapper(): boolean {
  return existsSync("/dev/mapper/control")
}

/** The mapping of that name, or null. */
export function findMapping(name: string, sys = SYS): Mapping | null {
  return mappings(sys).find((mapping) => mapping.name === name) ?? null
}

/** Whether a mapping's data are in this container, by way of whatever lies between. */
export function liesOver(mapping: Mapping, container: string, sys = SYS): boolean {
  return mappingsOver(container, sys).some(({ kernelName }) => kernelName === mapping.kernelName)
}

/**
 * The mappings that lie over a file (by way of a loop device) or block device, the upper ones first: in this order they can
 * be removed. A loop device that its mapping set up goes away with it.
 */
export function mappingsOver(container: string, sys = SYS): Mapping[] {
  const found: Mapping[] = []
  const below = loopsOf(container, sys)
  const device = blockName(container)
  if (device !== null) below.push(device)
  for (let level = below; level.length > 0; ) {
    const names = level.flatMap((name) => entries(join(sys, "class/block", name, "holders")))
    const over = mappings(sys).filter(({ kernelName }) => names.includes(kernelName))
    found.unshift(...over)
    level = over.map(({ kernelName }) => kernelName)
  }
  return found
}

/** Loop devices (`loop0`) whose file is this one. */
export function loopsOf(container: string, sys = SYS): string[] {
  const path = resolved(container)
  return entries(join(sys, "class/block")).filter(
    (name) =>
      name.startsWith("loop") && readText(join(sys, "class/block", name, "loop/backing_file")) === path,
  )
}

/** Size of a block device in bytes, by its kernel name. */
export function blockSize(kernelName: string, sys = SYS): number {
  return Number(readText(join(sys, "class/block", kernelName, "size")) ?? Number.NaN) * 512
}

/** The kernel's name of a block device; null for a file. */
export function blockName(path: string): string | null {
  try {
    return statSync(path).isBlockDevice() ? basename(realpathSync(path)) : null
  } catch {
    // Gone, or not there yet.
    return null
  }
}

function mappings(sys: string): Mapping[] {
  return entries(join(sys, "class/block")).flatMap((kernelName) => {
    const at = (file: string) => readText(join(sys, "class/block", kernelName, file))
    const name = at("dm/name")
    if (name === null) return []
    const device = at("dev") ?? ""
    const instance = instanceOf(join(sys, "class/block", kernelName, "dm"))
    const suspended = at("dm/suspended") === "1"
    return [{ name, uuid: at("dm/uuid") ?? "", kernelName, device, suspended, instance }]
  })
}

/**
 * Inode of a directory in sysfs, which the kernel counts up. Empty where it has just gone.
 * Source: linux/fs/kernfs/dir.c, __kernfs_new_node (idr_alloc_cyclic).
 */
function instanceOf(directory: string): string {
  const stat = statSync(directory, { bigint: true, throwIfNoEntry: false })
  return stat === undefined ? "" : `${stat.ino}`
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    // No such directory: nothing there.
    return []
  }
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8").replace(/\n$/, "")
  } catch {
    // An attribute that this device does not have, or a device that has just gone.
    return null
  }
}

function resolved(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}
