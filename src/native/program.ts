import { accessSync, constants } from "node:fs"
import { join } from "node:path"
import { NativeError } from "../errors.ts"

/** Where programs are looked for, whatever the environment says. */
const PATH = ["/usr/local/bin", "/usr/bin", "/bin"]

/**
 * The absolute path of a program.
 * @param packages what it comes with, for the hint.
 * @throws NativeError ERR_PROGRAM_ABSENT
 */
export function findInstalled(name: string, packages: string): string {
  for (const directory of PATH) {
    const path = join(directory, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not in this directory: the next one is tried.
    }
  }
  throw new NativeError("ERR_PROGRAM_ABSENT", {
    at: name,
    expected: `a program in ${PATH.join(", ")}`,
    found: "none",
    hint: `install it: ${packages}`,
  })
}

/** The whole environment of a program that is run here. */
export const PROGRAM_ENVIRONMENT: Readonly<Record<string, string>> = { PATH: PATH.join(":"), LC_ALL: "C" }
