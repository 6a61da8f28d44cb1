import { closeSync, constants, existsSync, openSync } from "node:fs"
import { join } from "node:path"
import { type AgentConfig, STATE_DIRECTORY } from "../agent/config.ts"
import { requireEncryptedData, requireEncryptedPlace } from "../agent/encrypted-storage.ts"

/** Called with the path of each file with a secret before it is written. @throws AgentError ERR_STORAGE_PLAIN */
export type StorageGuard = (path: string) => void

/** Whether the agent's files have to be on the encrypted volume: it is wanted, or could be had and is there. */
export function isVolumeWanted({ encrypted }: AgentConfig["storage"]): boolean {
  return (
    encrypted === "required" || (encrypted === "when-possible" && existsSync(join(STATE_DIRECTORY, "header")))
  )
}

/** Null where the configuration does without the encrypted volume. */
export function storageGuard(storage: AgentConfig["storage"]): StorageGuard | null {
  return isVolumeWanted(storage) ? (path) => requireEncryptedPlace(STATE_DIRECTORY, path) : null
}

/**
 * Holds the encrypted volume open while the agent runs, so that nobody unmounts it in an ordinary way: what the agent writes would go to
 * the plain disk below. @returns lets it go. @throws AgentError ERR_STORAGE_PLAIN
 */
export function holdVolume(): () => void {
  const fd = openSync(join(STATE_DIRECTORY, "data"), constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    // After it was opened: what is held is what was looked at, or the mount point itself, which is refused.
    requireEncryptedData(STATE_DIRECTORY)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  return () => closeSync(fd)
}
