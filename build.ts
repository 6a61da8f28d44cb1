/**
 * Builds the executable: `bun build.ts [--target all|linux-x64|linux-arm64|…] [--force]`.
 *
 * For this machine: dist/cosmian_vm; for another: dist/cosmian_vm-TARGET. A target whose sources, version and
 * commit did not change is left as it is. docs/building.md explains each build option and what hardening does.
 */
import { createHash } from "node:crypto"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import packageJson from "./package.json"
import { harden } from "./scripts/harden.ts"
import { runtimeOf, TARGETS, type TargetName, thisMachine } from "./scripts/targets.ts"

const ROOT = import.meta.dir
const DIST = join(ROOT, "dist")

/** What the executable is made of: a change in any of it makes a new one. */
const SOURCES = [
  "src/**/*.ts",
  "build.ts",
  "scripts/harden.ts",
  "scripts/targets.ts",
  "package.json",
  "package-lock.json",
]

/** How every executable is compiled. Reasons are in docs/building.md. */
export const COMPILE_OPTIONS: readonly string[] = [
  "--compile",
  "--production",
  "--minify",
  "--bytecode",
  "--compile-jit-policy=12",
  "--format=esm",
  "--splitting",
  "--env=disable",
  "--no-compile-autoload-dotenv",
  "--no-compile-autoload-bunfig",
  "--no-compile-autoload-tsconfig",
  "--no-compile-autoload-package-json",
]

export interface Built {
  readonly target: TargetName
  readonly path: string
  /** What `--version` answers. */
  readonly version: string
  /** Hex SHA-256 of the file. */
  readonly sha256: string
  /** Bytes. */
  readonly size: number
  /** False when the file was there already. */
  readonly fresh: boolean
}

/** The executable for one target. @throws Error when it cannot be built, hardened, or does not run. */
export async function build(
  target: TargetName = thisMachine(),
  options: { force?: boolean } = {},
): Promise<Built> {
  const native = target === thisMachine()
  const path = join(DIST, native ? "cosmian_vm" : `cosmian_vm-${target}${TARGETS[target].suffix}`)
  const stampPath = join(DIST, `.${target}.json`)
  const commit = commitOfSources()
  const stamp = {
    inputs: hashOfSources(target, commit),
    version: `cosmian_vm ${packageJson.version} (${commit})`,
  }
  if (options.force !== true) {
    const known = upToDate(path, stampPath, stamp.inputs)
    if (known !== null) return { target, path, version: stamp.version, ...known, fresh: false }
  }
  const image = await compile(target, commit)
  if (TARGETS[target].harden) harden(image)
  mkdirSync(DIST, { recursive: true })
  const partial = `${path}.${process.pid}`
  writeFileSync(partial, image)
  chmodSync(partial, 0o755)
  try {
    if (native) smokeTest(partial, stamp.version)
    renameSync(partial, path)
  } finally {
    rmSync(partial, { force: true })
  }
  const sha256 = createHash("sha256").update(image).digest("hex")
  writeFileSync(stampPath, `${JSON.stringify({ ...stamp, sha256 })}\n`)
  return { target, path, version: stamp.version, sha256, size: image.length, fresh: true }
}

/** Runs bun's bundler and gives back the executable as it came out. */
async function compile(target: TargetName, commit: string): Promise<Uint8Array> {
  mkdirSync(join(ROOT, ".cache"), { recursive: true })
  const dir = mkdtempSync(join(ROOT, ".cache", "build-"))
  try {
    // The name of the output is inside it: always the same, so that the same sources give the same bytes.
    const output = join(dir, `cosmian_vm${TARGETS[target].suffix}`)
    const runtime = target === thisMachine() ? [] : [`--compile-executable-path=${await runtimeOf(target)}`]
    const command = [
      process.execPath,
      "build",
      `--target=bun-${target}`,
      ...runtime,
      ...COMPILE_OPTIONS,
      `--define=BUILD_COMMIT=${JSON.stringify(commit)}`,
      join(ROOT, "src", "main.ts"),
      `--outfile=${output}`,
    ]
    const run = Bun.spawnSync(command, { cwd: dir, env: plainEnvironment(), stdout: "pipe", stderr: "pipe" })
    if (run.exitCode !== 0) throw new Error(`bun build failed for ${target}:\n${run.stderr}${run.stdout}`)
    return readFileSync(output)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** The executable must be ours (a stripped or badly patched one answers as the bare runtime), and deaf. */
function smokeTest(path: string, version: string): void {
  for (const env of [
    {},
    { BUN_BE_BUN: "1" },
    { BUN_JSC_nonsense: "1" },
    { BUN_OPTIONS: "--preload /nonexistent" },
  ]) {
    const run = Bun.spawnSync([path, "--version"], {
      cwd: "/",
      env,
      stdout: "pipe",
      stderr: "pipe",
      timeout: 20_000,
    })
    if (run.exitCode === 0 && run.stdout.toString() === `${version}\n`) continue
    throw new Error(
      `the new executable does not work with ${JSON.stringify(env)}: expected "${version}", ` +
        `found exit code ${run.exitCode}, "${run.stdout.toString().trim()}", "${run.stderr.toString().trim().slice(0, 400)}"`,
    )
  }
}

/** Only what a build needs: a bundler that is steered through its environment builds something else. */
function plainEnvironment(): Record<string, string> {
  const env: Record<string, string> = { PATH: process.env["PATH"] ?? "/usr/bin:/bin", HOME: "/nonexistent" }
  if (process.env["TMPDIR"] !== undefined) env["TMPDIR"] = process.env["TMPDIR"]
  return env
}

function upToDate(path: string, stampPath: string, inputs: string): { sha256: string; size: number } | null {
  if (!existsSync(path) || !existsSync(stampPath)) return null
  const stamp: unknown = JSON.parse(readFileSync(stampPath, "utf8"))
  if (typeof stamp !== "object" || stamp === null || !("inputs" in stamp && "sha256" in stamp)) return null
  const image = readFileSync(path)
  const sha256 = createHash("sha256").update(image).digest("hex")
  return stamp.inputs === inputs && stamp.sha256 === sha256 ? { sha256, size: image.length } : null
}

function hashOfSources(target: TargetName, commit: string): string {
  const hash = createHash("sha256").update(`${target}\0${commit}\0${Bun.version}\0`)
  for (const pattern of SOURCES)
    for (const file of [...new Bun.Glob(pattern).scanSync(ROOT)].sort()) {
      if (file.endsWith(".test.ts")) continue
      const bytes = readFileSync(join(ROOT, file))
      hash.update(`${file}\0${bytes.length}\0`).update(bytes)
    }
  return hash.digest("hex")
}

/** Twelve digits of the commit, with `-dirty` when the sources differ from it; `unknown` outside a repository. */
function commitOfSources(): string {
  const git = (...args: string[]): string | null => {
    try {
      // Root may build a tree that belongs to somebody else.
      const run = Bun.spawnSync(["git", "-c", `safe.directory=${ROOT}`, "-C", ROOT, ...args], {
        stderr: "ignore",
      })
      return run.exitCode === 0 ? run.stdout.toString().trim() : null
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return null // no git here
      throw error
    }
  }
  const commit = git("rev-parse", "--short=12", "HEAD")
  if (commit === null) return "unknown"
  const changes = git(
    "status",
    "--porcelain",
    "--",
    "src",
    "build.ts",
    "scripts",
    "package.json",
    "package-lock.json",
  )
  return changes === "" ? commit : `${commit}-dirty`
}

function targetsFrom(args: readonly string[]): TargetName[] {
  const at = args.indexOf("--target")
  const wanted = at < 0 ? thisMachine() : (args[at + 1] ?? "")
  const names = Object.keys(TARGETS).filter((name): name is TargetName => name in TARGETS)
  if (wanted === "all") return names
  return wanted.split(",").map((name) => {
    const target = names.find((known) => known === name)
    if (target === undefined) throw new Error(`unknown target "${name}"; known: all, ${names.join(", ")}`)
    return target
  })
}

if (import.meta.main) {
  try {
    for (const target of targetsFrom(process.argv)) {
      const started = performance.now()
      const { path, size, sha256, version, fresh } = await build(target, {
        force: process.argv.includes("--force"),
      })
      const how = fresh ? `built in ${((performance.now() - started) / 1000).toFixed(1)} s` : "up to date"
      const place = path.slice(ROOT.length + 1)
      console.log(
        `${place}  ${version}  ${(size / 1e6).toFixed(1)} MB  sha256 ${sha256.slice(0, 16)}  ${how}`,
      )
    }
  } catch (error) {
    console.error(`build: ${error instanceof Error ? error.message : error}`)
    process.exit(1)
  }
}
