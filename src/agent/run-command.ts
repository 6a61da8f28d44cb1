import { AgentError } from "../errors.ts"
import { CHILD_ENVIRONMENT, locateProgram, PROGRAM_PATH, runToEnd } from "../programs.ts"

export interface CommandResult {
  /** Exit code; null where it was ended by a signal, as after the time limit. */
  readonly exitCode: number | null
  /** What it wrote, standard output and then error, of each the end. */
  readonly output: string
}

/** Runs a program to its end: no shell, no input, no terminal, a fixed environment. */
export type RunCommand = (program: string, args: readonly string[], seconds: number) => Promise<CommandResult>

/**
 * The absolute path of a program of that name.
 * @throws AgentError ERR_SERVICE where it is not installed.
 */
export function findProgram(name: string, path: readonly string[] = PROGRAM_PATH): string {
  const found = locateProgram(name, path)
  if (found !== null) return found
  throw new AgentError("ERR_SERVICE", {
    at: name,
    expected: `a program in ${path.join(", ")}`,
    found: "none",
  })
}

/** Runs a program. A program that outlasts its time is killed. */
export const runCommand: RunCommand = async (program, args, seconds) =>
  runWith(findProgram(program), args, seconds, CHILD_ENVIRONMENT)

/** The same for a program at a known path, with an environment of the caller's. @throws system errors: ENOENT, EACCES */
export async function runWith(
  path: string,
  args: readonly string[],
  seconds: number,
  env: Readonly<Record<string, string>>,
): Promise<CommandResult> {
  const { exitCode, stdout, stderr } = await runToEnd(path, args, {
    keep: "tail",
    env,
    timeoutMs: seconds * 1000,
  })
  const texts = [stdout, stderr].map((bytes) => Buffer.from(bytes).toString("utf8").trim())
  return { exitCode, output: texts.filter(Boolean).join(" / ") }
}
