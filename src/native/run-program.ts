import { accessSync, constants, statSync } from "node:fs"
import { join } from "node:path"
import { NativeError } from "../errors.ts"

/** Where programs are looked for, whatever our own environment says. */
const PATH = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
/** The whole environment of a child. */
const ENVIRONMENT = { PATH: PATH.join(":"), LC_ALL: "C" }
/** Most output that is kept of each stream, in bytes. */
const MAX_OUTPUT = 256 * 1024

/** Debian package by program, for the hint. */
const PACKAGES: Readonly<Record<string, string>> = {
  cryptsetup: "cryptsetup-bin (cryptsetup in Fedora)",
  dmsetup: "dmsetup (device-mapper in Fedora)",
  "mkfs.ext4": "e2fsprogs",
  resize2fs: "e2fsprogs",
  "mkfs.xfs": "xfsprogs",
  xfs_growfs: "xfsprogs",
}

export interface ProgramOptions {
  readonly stdin?: Uint8Array
  /** Open descriptors that the child gets as 3, 4, …; `inherited(0)` is the path of the first one there. */
  readonly descriptors?: readonly number[]
  /** Milliseconds until it is killed; absent: as long as it takes. */
  readonly timeoutMs?: number
}

export interface ProgramResult {
  readonly exitCode: number
  /** May hold a secret: the caller knows, and wipes it. */
  readonly stdout: Uint8Array
  readonly stderr: string
}

/** The path under which a child finds the descriptor at `index` of those it was given. */
export function inherited(index: number): string {
  return `/proc/self/fd/${3 + index}`
}

/**
 * Runs a program to its end: no shell, no terminal, a fixed environment, no descriptors but those named.
 * @throws NativeError ERR_PROGRAM_MISSING
 */
export async function runProgram(
  program: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  const child = Bun.spawn([findProgram(program), ...args], {
    cwd: "/",
    env: ENVIRONMENT,
    stdio: [options.stdin ?? "ignore", "pipe", "pipe", ...(options.descriptors ?? [])],
    ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, killSignal: "SIGKILL" }),
  })
  const [stdout, stderr] = await Promise.all([head(child.stdout), head(child.stderr)])
  await child.exited
  return { exitCode: child.exitCode ?? -1, stdout, stderr: Buffer.from(stderr).toString("utf8").trim() }
}

/**
 * Runs a program that has to succeed, and gives its output.
 * @throws NativeError ERR_PROGRAM_MISSING, ERR_PROGRAM_FAILED
 */
export async function mustRun(
  program: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<Uint8Array> {
  const result = await runProgram(program, args, options)
  if (result.exitCode !== 0) throw programFailed(program, args, result)
  return result.stdout
}

/** What a program said about its failure. Its arguments hold no secrets, so they may be shown. */
export function programFailed(
  program: string,
  args: readonly string[],
  { exitCode, stderr }: ProgramResult,
): NativeError<"ERR_PROGRAM_FAILED"> {
  return new NativeError("ERR_PROGRAM_FAILED", {
    at: `${program} ${args.join(" ")}`.slice(0, 200),
    found: `exit code ${exitCode}${stderr === "" ? "" : `: ${stderr.split("\n").join(" / ").slice(0, 400)}`}`,
  })
}

/** Whether a program is there at all. */
export function hasProgram(name: string): boolean {
  return PATH.some((directory) => isExecutable(join(directory, name)))
}

function findProgram(name: string): string {
  const found = PATH.map((directory) => join(directory, name)).find(isExecutable)
  if (found !== undefined) return found
  throw new NativeError("ERR_PROGRAM_MISSING", {
    at: name,
    expected: `a program in ${PATH.join(", ")}`,
    hint: `install the package ${PACKAGES[name] ?? "that has it"}`,
  })
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

/** The beginning of a stream. The rest is read too, so that the child does not block. */
async function head(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of stream) {
    if (length < MAX_OUTPUT) parts.push(part.subarray(0, MAX_OUTPUT - length))
    length += part.length
  }
  const whole = Buffer.concat(parts)
  for (const part of parts) part.fill(0)
  return new Uint8Array(whole)
}
