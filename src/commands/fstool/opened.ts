import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"

/** In memory, gone with the boot: the host that writes the disk does not write here. */
const DIRECTORY = "/run/cosmian_vm/opened"
const CREATING = "/run/cosmian_vm/creating"

/** Notes that a volume is being opened with a header that was checked; before it is, so that no kill comes in between. */
export function noteOpened(name: string): void {
  note(DIRECTORY, name)
}

export function forgetOpened(name: string): void {
  rmSync(join(DIRECTORY, name), { force: true })
}

/** Whether a mapping of this name was opened by fstool. Another program opens whatever header lies on the disk. */
export function wasOpenedByUs(name: string): boolean {
  return existsSync(join(DIRECTORY, name))
}

/** Notes that a volume of this name is being made. */
export function noteCreating(name: string): void {
  note(CREATING, name)
}

export function forgetCreating(name: string): void {
  rmSync(join(CREATING, name), { force: true })
}

/** Whether a volume of this name was begun in this boot, and not ended. */
export function wasBegunNow(name: string): boolean {
  return existsSync(join(CREATING, name))
}

function note(directory: string, name: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  writeFileSync(join(directory, name), "", { mode: 0o600 })
}
