/** The systems that the executable is built for, and where their runtimes come from. */
import { createHash } from "node:crypto"
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import packageLock from "../package-lock.json"

interface Target {
  /** npm package of the runtime; its version and digest are those of package-lock.json. */
  readonly runtime: string
  readonly suffix: "" | ".exe"
  /** ELF files are made deaf to the runtime's environment; the others serve as clients only. See harden.ts. */
  readonly harden: boolean
}

/** Target by name. The agent runs on Linux; everywhere else the executable is a client. */
export const TARGETS = {
  "linux-x64": { runtime: "@oven/bun-linux-x64", suffix: "", harden: true },
  "linux-arm64": { runtime: "@oven/bun-linux-aarch64", suffix: "", harden: true },
  "linux-x64-musl": { runtime: "@oven/bun-linux-x64-musl", suffix: "", harden: true },
  "linux-arm64-musl": { runtime: "@oven/bun-linux-aarch64-musl", suffix: "", harden: true },
  "darwin-arm64": { runtime: "@oven/bun-darwin-aarch64", suffix: "", harden: false },
  "darwin-x64": { runtime: "@oven/bun-darwin-x64", suffix: "", harden: false },
  "windows-x64": { runtime: "@oven/bun-windows-x64", suffix: ".exe", harden: false },
  "windows-arm64": { runtime: "@oven/bun-windows-aarch64", suffix: ".exe", harden: false },
} as const satisfies Record<string, Target>

export type TargetName = keyof typeof TARGETS

/** The target that this machine is. */
export function thisMachine(): TargetName {
  if (process.platform !== "linux") throw new Error("building needs Linux")
  // A musl system has its loader here whatever its distribution.
  const musl = existsSync(`/lib/ld-musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`)
  const glibc = existsSync("/lib64/ld-linux-x86-64.so.2") || existsSync("/lib/ld-linux-aarch64.so.1")
  const arch = process.arch === "arm64" ? "arm64" : "x64"
  return musl && !glibc ? `linux-${arch}-musl` : `linux-${arch}`
}

/**
 * Path of another target's runtime, fetched through npm once and kept in .cache. The archive must have the
 * digest of package-lock.json: what is put into a product is as frozen as what is linked into it.
 */
export async function runtimeOf(name: TargetName): Promise<string> {
  const { runtime, suffix } = TARGETS[name]
  const locked = lockEntry(runtime)
  const cache = join(import.meta.dir, "..", ".cache", "runtimes")
  const path = join(cache, `${runtime.replace("@oven/", "")}-${locked.version}${suffix}`)
  if (existsSync(path)) return path
  mkdirSync(cache, { recursive: true })
  const dir = mkdtempSync(join(cache, "fetch-"))
  try {
    const archive = runChild(
      ["npm", "pack", "--silent", "--pack-destination", dir, `${runtime}@${locked.version}`],
      dir,
    )
    const bytes = readFileSync(join(dir, archive.trim()))
    const digest = `sha512-${createHash("sha512").update(bytes).digest("base64")}`
    if (digest !== locked.integrity)
      throw new Error(`${runtime}: package-lock.json says ${locked.integrity}, found ${digest}`)
    const member = `package/bin/bun${suffix}`
    runChild(["tar", "-xzf", archive.trim(), member], dir)
    chmodSync(join(dir, member), 0o755)
    renameSync(join(dir, member), path)
    return path
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function lockEntry(runtime: string): { version: string; integrity: string } {
  const packages: Record<string, { version?: string; integrity?: string }> = packageLock.packages
  const { version, integrity } = packages[`node_modules/${runtime}`] ?? {}
  if (version === undefined || integrity === undefined)
    throw new Error(`${runtime} is not in package-lock.json`)
  return { version, integrity }
}

function runChild(command: string[], cwd: string): string {
  const run = Bun.spawnSync(command, { cwd, stdout: "pipe", stderr: "pipe" })
  if (run.exitCode !== 0) throw new Error(`${command.join(" ")}: exit code ${run.exitCode}: ${run.stderr}`)
  return run.stdout.toString()
}
