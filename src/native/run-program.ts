import { NativeError } from "../errors.ts"
import {
  CHILD_ENVIRONMENT,
  locateProgram,
  PROGRAM_PATH,
  type ProgramEnd,
  type ProgramRun,
  runToEnd,
} from "../programs.ts"

/** Debian package by program, for the hint. */
const PACKAGES: Readonly<Record<string, string>> = {
  cryptsetup: "cryptsetup-bin (cryptsetup in Fedora)",
  dmsetup: "dmsetup (device-mapper in Fedora)",
  "mkfs.ext4": "e2fsprogs",
  resize2fs: "e2fsprogs",
  "mkfs.xfs": "xfsprogs",
  xfs_growfs: "xfsprogs",
}

export type ProgramOptions = Pick<ProgramRun, "stdin" | "descriptors" | "timeoutMs">

export interface ProgramResult extends Pick<ProgramEnd, "stdout"> {
  /** -1 where it was ended by a signal. */
  readonly exitCode: number
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
  const { exitCode, stdout, stderr } = await runToEnd(findProgram(program), args, {
    ...options,
    keep: "head",
    env: CHILD_ENVIRONMENT,
  })
  return { exitCode: exitCode ?? -1, stdout, stderr: Buffer.from(stderr).toString("utf8").trim() }
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
  return locateProgram(name) !== null
}

function findProgram(name: string): string {
  const found = locateProgram(name)
  if (found !== null) return found
  throw new NativeError("ERR_PROGRAM_MISSING", {
    at: name,
    expected: `a program in ${PROGRAM_PATH.join(", ")}`,
    hint: `install the package ${PACKAGES[name] ?? "that has it"}`,
  })
}
