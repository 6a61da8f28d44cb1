import { NativeError } from "../errors.ts"
import { locateProgram, PROGRAM_PATH } from "../programs.ts"

/**
 * The absolute path of a program.
 * @param packages what it comes with, for the hint.
 * @throws NativeError ERR_PROGRAM_ABSENT
 */
export function findInstalled(name: string, packages: string): string {
  const found = locateProgram(name)
  if (found !== null) return found
  throw new NativeError("ERR_PROGRAM_ABSENT", {
    at: name,
    expected: `a program in ${PROGRAM_PATH.join(", ")}`,
    found: "none",
    hint: `install it: ${packages}`,
  })
}
