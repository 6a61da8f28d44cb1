import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"

/** In memory, gone with the boot. */
const DIRECTORY = "/run/cosmian_vm/opened"

/** Notes that a volume is being opened with a header that was checked; before it is, so that no kill comes in between. */
export function noteOpened(name: string): void {
  mkdirSync(DIRECTORY, { recursive: true, mode: 0o700 })
  writeFileSync(join(DIRECTORY, name), "", { mode: 0o600 })
}

export function forgetOpened(name: string): void {
  rmSync(join(DIRECTORY, name), { force: true })
}

/** Whether a mapping of this name was opened by fstool. Another program opens whatever header lies on the disk. */
export function wasOpenedByUs(name: string): boolean {
  return existsSync(join(DIRECTORY, name))
}
