import { readFileSync } from "node:fs"
import { join } from "node:path"
import { AgentError } from "../errors.ts"
import { mountAt, parseMountInfo } from "../formats/mount-info.ts"

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

/**
 * Makes sure that what the agent keeps is on an encrypted volume: its directory `data` is a mount of a dm-crypt mapping.
 * @throws AgentError ERR_STORAGE_PLAIN
 */
export function requireEncryptedData(base: string, kernel: KernelView = KERNEL): void {
  const data = join(base, "data")
  const mount = mountAt(parseMountInfo(kernel.mountInfo()), data)
  const uuid = mount === null ? null : kernel.mappingUuid(mount.device)
  // Mappings for integrity alone, and those without a LUKS header, begin otherwise.
  if (uuid?.startsWith("CRYPT-LUKS2-")) return
  throw new AgentError("ERR_STORAGE_PLAIN", {
    at: data,
    expected: "an encrypted volume, mounted there",
    found: mount === null ? "nothing mounted" : `${mount.fileSystem} of ${mount.source}`,
    hint: 'cosmian_vm fstool mount --first-start makes and mounts it; to do without: [storage] encrypted = "off" in agent.toml',
  })
}
