import { accessSync, constants, statSync } from "node:fs"
import { join } from "node:path"
import { AgentError } from "../errors.ts"

/** Where programs are looked for, whatever the agent's own environment says. */
export const PROGRAM_PATH: readonly string[] = [
  "/usr/local/sbin",
  "/usr/local/bin",
  "/usr/sbin",
  "/usr/bin",
  "/sbin",
  "/bin",
]
/** The whole environment of a child. */
export const CHILD_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: PROGRAM_PATH.join(":"),
  LC_ALL: "C",
}

/** How much of a child's output is kept, in bytes: the end of it. */
const OUTPUT = 256 * 1024

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
  const found = path.map((directory) => join(directory, name)).find(isExecutable)
  if (found !== undefined) return found
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
  const child = Bun.spawn([path, ...args], {
    cwd: "/",
    env,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: seconds * 1000,
    killSignal: "SIGKILL",
  })
  const [stdout, stderr] = await Promise.all([tail(child.stdout), tail(child.stderr)])
  await child.exited
  return { exitCode: child.exitCode, output: [stdout.trim(), stderr.trim()].filter(Boolean).join(" / ") }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    // Not in this directory: the next one is tried.
    return false
  }
}

/** The end of a stream: what went wrong, and the newest lines of a log, stand there. */
async function tail(stream: ReadableStream<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of stream) {
    parts.push(part)
    length += part.length
    while (parts[0] !== undefined && length - parts[0].length >= OUTPUT) length -= parts.shift()?.length ?? 0
  }
  return Buffer.concat(parts).subarray(-OUTPUT).toString("utf8")
}
