import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { writeFileAtomically } from "../../agent/atomic-file.ts"
import type { Mapping } from "../../native/block-stack.ts"

/** In memory, gone with the boot: the host that writes the disk does not write here. */
const DIRECTORY = "/run/cosmian_vm/opened"
const CREATING = "/run/cosmian_vm/creating"

/** Whose a mapping is. `begun`: of an fstool that was killed while it opened the volume, or of another program since then. */
type Origin = "ours" | "begun" | "another's"

/** Notes that a volume is about to be opened: from here on a mapping of its name may be ours, and is not yet. */
export function noteOpening(name: string, directory = DIRECTORY): void {
  note(directory, name)
}

/** Notes that this very mapping was opened with a header that was checked. */
export function noteOpened({ name, instance }: Mapping, directory = DIRECTORY): void {
  writeFileAtomically(join(directory, name), instance, 0o600)
}

export function forgetOpened(name: string, directory = DIRECTORY): void {
  rmSync(join(directory, name), { force: true })
}

/** Whose a mapping is. Another program opens whatever header lies on the disk, by a name that was ours before. */
export function originOf({ name, instance }: Mapping, directory = DIRECTORY): Origin {
  const path = join(directory, name)
  if (!existsSync(path)) return "another's"
  const noted = readFileSync(path, "utf8")
  if (noted === "") return "begun"
  return noted === instance ? "ours" : "another's"
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
