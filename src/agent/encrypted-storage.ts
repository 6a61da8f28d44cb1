import { readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { AgentError } from "../errors.ts"
import { type Mount, mountAt, mountOf, parseMountInfo } from "../formats/mount-info.ts"

/** What the kernel says about mounts and mappings. */
export interface KernelView {
  /** `/proc/self/mountinfo`. */
  readonly mountInfo: () => string
  /** `dm/uuid` of a device by its number `major:minor`; null for one that the device mapper did not make. */
  readonly mappingUuid: (device: string) => string | null
}

const KERNEL: KernelView = {
  mountInfo: () => readFileSync("/proc/self/mountinfo", "utf8"),
  mappingUuid(device) {
    try {
      return readFileSync(`/sys/dev/block/${device}/dm/uuid`, "utf8").trim()
    } catch {
      // Not a mapping.
      return null
    }
  },
}

/** Kinds of file systems that are in the VM's encrypted memory. */
const IN_MEMORY = ["tmpfs", "ramfs"]

/**
 * Makes sure that what the agent keeps is on an encrypted volume: its directory `data` is a mount of a dm-crypt mapping.
 * @throws AgentError ERR_STORAGE_PLAIN
 */
export function requireEncryptedData(base: string, kernel: KernelView = KERNEL): void {
  const data = join(base, "data")
  const mount = mountAt(parseMountInfo(kernel.mountInfo()), data)
  if (mount === null || !isEncrypted(mount, kernel)) throw plain(data, mount)
}

/**
 * Looked at before each file with a secret is written: where it lies in the agent's directories, it has to be on an encrypted volume or in
 * memory. A volume may have been unmounted since the start. Elsewhere it is for the administrator to say what is a good place.
 * @throws AgentError ERR_STORAGE_PLAIN
 */
export function requireEncryptedPlace(base: string, path: string, kernel: KernelView = KERNEL): void {
  const at = resolve(path)
  if (!at.startsWith(`${base}/`)) return
  const mount = mountOf(parseMountInfo(kernel.mountInfo()), at)
  if (mount === null || !(IN_MEMORY.includes(mount.fileSystem) || isEncrypted(mount, kernel)))
    throw plain(at, mount)
}

/** Mappings for integrity alone, and those without a LUKS header, begin otherwise. */
function isEncrypted({ device }: Mount, kernel: KernelView): boolean {
  return kernel.mappingUuid(device)?.startsWith("CRYPT-LUKS2-") === true
}

function plain(at: string, mount: Mount | null): AgentError {
  return new AgentError("ERR_STORAGE_PLAIN", {
    at,
    expected: "an encrypted volume, mounted there",
    found: mount === null ? "nothing mounted" : `${mount.fileSystem} of ${mount.source}`,
    hint: 'cosmian_vm fstool mount --first-start makes and mounts it; to do without: [storage] encrypted = "off" in agent.toml',
  })
}
