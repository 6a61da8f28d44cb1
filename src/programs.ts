/** Other programs that are run: where they are found, with what environment, and to their end. Seen by all that do not compute only. */
import { accessSync, constants, statSync } from "node:fs"
import { join } from "node:path"

/** Where programs are looked for, whatever our own environment says. */
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
/** Most output that is kept of each stream, in bytes. */
const MAX_OUTPUT = 256 * 1024

/** The absolute path of a program of that name; null where it is not installed. */
export function locateProgram(name: string, path: readonly string[] = PROGRAM_PATH): string | null {
  return path.map((directory) => join(directory, name)).find(isExecutable) ?? null
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

export interface ProgramRun {
  /** Which end of the output is kept, where it is longer than 256 KiB: a result stands at the head, what went wrong at the tail. */
  readonly keep: "head" | "tail"
  readonly env: Readonly<Record<string, string>>
  readonly stdin?: Uint8Array
  /** Open descriptors that the child gets as 3, 4, … */
  readonly descriptors?: readonly number[]
  /** Milliseconds until it is killed; absent: as long as it takes. */
  readonly timeoutMs?: number
}

/** What became of a program. The output may hold a secret: the caller knows, and wipes it. */
export interface ProgramEnd {
  /** Null where it was ended by a signal, as after the time limit. */
  readonly exitCode: number | null
  readonly stdout: Uint8Array
  readonly stderr: Uint8Array
}

/**
 * Runs the program at this path to its end: no shell, no terminal, no descriptors but those named. What it
 * gives is wiped from the pieces that it came in.
 * @throws system errors: ENOENT, EACCES
 */
export async function runToEnd(path: string, args: readonly string[], run: ProgramRun): Promise<ProgramEnd> {
  const child = Bun.spawn([path, ...args], {
    cwd: "/",
    env: { ...run.env },
    stdio: [run.stdin ?? "ignore", "pipe", "pipe", ...(run.descriptors ?? [])],
    ...(run.timeoutMs === undefined ? {} : { timeout: run.timeoutMs, killSignal: "SIGKILL" }),
  })
  const kept = run.keep === "head" ? head : tail
  const [stdout, stderr] = await Promise.all([kept(child.stdout), kept(child.stderr)])
  await child.exited
  return { exitCode: child.exitCode, stdout, stderr }
}

/** The beginning of a stream. The rest is read too, so that the child does not block. */
async function head(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of stream) {
    if (length < MAX_OUTPUT) parts.push(part.subarray(0, MAX_OUTPUT - length))
    length += part.length
  }
  return joined(parts)
}

/** The end of a stream. */
async function tail(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of stream) {
    parts.push(part)
    length += part.length
    while (parts[0] !== undefined && length - parts[0].length >= MAX_OUTPUT)
      length -= parts.shift()?.length ?? 0
  }
  return joined(parts).subarray(-MAX_OUTPUT)
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
    part.fill(0)
  }
  return whole
}
