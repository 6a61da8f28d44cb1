/**
 * `npm run package`: dist/*.deb and dist/*.rpm from the executable that `build.ts` made.
 *
 * Options: --target linux-x64|linux-arm64, --fast (hardly compressed, for tests), --output DIR.
 * Both packages hold the same tree. The executable goes in byte for byte: stripping would silently turn it
 * into a bare JavaScript runtime, so it is compared and run after packing.
 */
import { createHash } from "node:crypto"
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { type Built, build } from "../build.ts"
import packageJson from "../package.json"
import { elfSection } from "./harden.ts"
import { thisMachine } from "./targets.ts"

const ROOT = join(import.meta.dir, "..")

/** Architecture names of the two package systems. musl systems have others: no packages for them. */
const ARCHITECTURES = {
  "linux-x64": { deb: "amd64", rpm: "x86_64" },
  "linux-arm64": { deb: "arm64", rpm: "aarch64" },
} as const
/** Names in /usr/sbin under which the executable is a tool of its own, and the command that it then is. */
const TOOLS = { cosmian_vm_agent: "agent", cosmian_certtool: "certtool", cosmian_fstool: "fstool" } as const
type PackagedTarget = keyof typeof ARCHITECTURES

export interface PackageOptions {
  readonly target: PackagedTarget
  /** Folder for the two files. */
  readonly output: string
  /** Hardly compressed: seconds instead of a minute, and twice the size. */
  readonly fast: boolean
}

export interface Packages {
  readonly deb: string
  readonly rpm: string
}

/** Builds both packages. @throws Error when a tool fails or a package does not hold the very executable. */
export async function buildPackages(options: PackageOptions): Promise<Packages> {
  const executable = await build(options.target)
  mkdirSync(join(ROOT, ".cache"), { recursive: true })
  mkdirSync(options.output, { recursive: true })
  const dir = mkdtempSync(join(ROOT, ".cache", "package-"))
  try {
    const tree = join(dir, "tree")
    await stage(tree, executable)
    const rpm = buildRpm(dir, tree, executable, options)
    const deb = buildDeb(dir, tree, executable, options)
    return { deb, rpm }
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** Lays out what both packages install. */
async function stage(tree: string, executable: Built): Promise<void> {
  cpSync(join(ROOT, "deb", "root"), tree, { recursive: true })
  for (const path of readdirSync(tree, { recursive: true, encoding: "utf8" }))
    chmodSync(join(tree, path), statSync(join(tree, path)).isDirectory() ? 0o755 : 0o644)
  chmodSync(tree, 0o755)
  chmodSync(join(tree, "etc/cosmian_vm/agent.toml"), 0o640)

  const sbin = folder(tree, "usr/sbin")
  copyFileSync(executable.path, join(sbin, "cosmian_vm"))
  chmodSync(join(sbin, "cosmian_vm"), 0o755)
  for (const tool of Object.keys(TOOLS)) symlinkSync("cosmian_vm", join(sbin, tool))
  // Volumes are mounted at boot whoever made them; without any it does nothing.
  const wanted = folder(tree, "usr/lib/systemd/system/multi-user.target.wants")
  symlinkSync("../mount_luks.service", join(wanted, "mount_luks.service"))

  const doc = folder(tree, "usr/share/doc/cosmian-vm")
  for (const file of readdirSync(join(ROOT, "docs")))
    place(join(doc, file), readFileSync(join(ROOT, "docs", file)))
  place(join(doc, "README.md"), readFileSync(join(ROOT, "README.md")))

  // Made by the executable itself; another machine's cannot run here, this one's says the same.
  const speaker = executable.target === thisMachine() ? executable : await build()
  const man = folder(tree, "usr/share/man/man1")
  run([speaker.path, "man", "--output", man])
  for (const page of readdirSync(man)) {
    place(join(man, `${page}.gz`), gzipSync(readFileSync(join(man, page)), { level: 9 }))
    rmSync(join(man, page))
  }
  for (const [tool, command] of Object.entries(TOOLS))
    symlinkSync(`cosmian_vm-${command}.1.gz`, join(man, `${tool}.1.gz`))
  const completions = folder(tree, "usr/share/bash-completion/completions")
  place(join(completions, "cosmian_vm"), run([speaker.path, "completion", "bash"]))
}

function buildDeb(dir: string, tree: string, executable: Built, options: PackageOptions): string {
  const doc = join(tree, "usr/share/doc/cosmian-vm")
  place(join(doc, "copyright"), readFileSync(join(ROOT, "deb", "copyright")))
  place(join(doc, "changelog.gz"), gzipSync(readFileSync(join(ROOT, "deb", "changelog")), { level: 9 }))
  const overrides = folder(tree, "usr/share/lintian/overrides")
  place(join(overrides, "cosmian-vm"), readFileSync(join(ROOT, "deb", "lintian-overrides")))

  const files = readdirSync(tree, { recursive: true, encoding: "utf8", withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(tree.length + 1))
    .sort()
  const bytes = files.reduce((sum, file) => sum + statSync(join(tree, file)).size, 0)
  const control = folder(tree, "DEBIAN")
  const architecture = ARCHITECTURES[options.target].deb
  const values: Record<string, string> = {
    VERSION: packageJson.version,
    ARCHITECTURE: architecture,
    INSTALLED_SIZE: String(Math.ceil(bytes / 1024)),
    GLIBC: glibcOf(executable.path),
  }
  const text = readFileSync(join(ROOT, "deb", "control"), "utf8")
  place(
    join(control, "control"),
    text.replaceAll(/@(\w+)@/g, (_, name: string) => values[name] ?? name),
  )
  place(join(control, "conffiles"), readFileSync(join(ROOT, "deb", "conffiles")))
  const digest = (file: string) =>
    createHash("md5")
      .update(readFileSync(join(tree, file)))
      .digest("hex")
  const sums = files
    .filter((file) => file !== "etc/cosmian_vm/agent.toml")
    .map((file) => `${digest(file)}  ${file}\n`)
  place(join(control, "md5sums"), sums.join(""))
  for (const script of ["postinst", "prerm", "postrm"]) {
    place(join(control, script), readFileSync(join(ROOT, "deb", script)))
    chmodSync(join(control, script), 0o755)
  }

  const file = join(options.output, `cosmian-vm_${packageJson.version}_${architecture}.deb`)
  const compression = options.fast ? ["-Zgzip", "-z1"] : ["-Zxz", "-z6", "--threads-max=2"]
  run(["dpkg-deb", "--root-owner-group", ...compression, "--build", tree, file])
  const unpacked = join(dir, "deb")
  run(["dpkg-deb", "--extract", file, unpacked])
  expectExecutable(unpacked, executable, file)
  return file
}

function buildRpm(dir: string, tree: string, executable: Built, options: PackageOptions): string {
  const architecture = ARCHITECTURES[options.target].rpm
  const defines: Record<string, string> = {
    _topdir: join(dir, "rpmbuild"),
    staged: tree,
    product_version: packageJson.version,
    glibc_version: glibcOf(executable.path),
    _binary_payload: options.fast ? "w1.gzdio" : "w12T2.zstdio",
    _buildhost: "localhost",
    use_source_date_epoch_as_buildtime: "1",
    clamp_mtime_to_source_date_epoch: "1",
  }
  const flags = Object.entries(defines).flatMap(([name, value]) => ["--define", `${name} ${value}`])
  run([
    "rpmbuild",
    "-bb",
    "--quiet",
    "--target",
    architecture,
    ...flags,
    join(ROOT, "rpm", "cosmian_vm.spec"),
  ])
  const name = `cosmian_vm-${packageJson.version}-1.${architecture}.rpm`
  const file = join(options.output, name)
  copyFileSync(join(dir, "rpmbuild", "RPMS", architecture, name), file)
  const unpacked = folder(dir, "rpm")
  // A compressed tar archive on standard output when the package comes from standard input.
  const archive = Bun.spawnSync(["rpm2archive", "-"], {
    stdin: Bun.file(file),
    stdout: "pipe",
    stderr: "pipe",
  })
  if (archive.exitCode !== 0) throw new Error(`rpm2archive: ${archive.stderr}`)
  const tar = Bun.spawnSync(["tar", "-xz", "-C", unpacked], { stdin: archive.stdout, stderr: "pipe" })
  if (tar.exitCode !== 0) throw new Error(`tar: ${tar.stderr}`)
  expectExecutable(unpacked, executable, file)
  return file
}

/** The packed executable is the built one, and answers with our version rather than the runtime's. */
function expectExecutable(tree: string, executable: Built, file: string): void {
  const packed = join(tree, "usr/sbin/cosmian_vm")
  const sha256 = createHash("sha256").update(readFileSync(packed)).digest("hex")
  if (sha256 !== executable.sha256) throw new Error(`${file}: the executable in it was changed by packing`)
  if (executable.target !== thisMachine()) return
  const answer = run([packed, "--version"]).trim()
  if (answer !== executable.version)
    throw new Error(`${file}: expected "${executable.version}", found "${answer}"`)
}

/** The oldest C library that has every symbol version the executable asks for. */
function glibcOf(path: string): string {
  const names = Buffer.from(elfSection(readFileSync(path), ".dynstr")).toString("latin1")
  const versions = [...names.matchAll(/GLIBC_(\d+)\.(\d+)/g)].map(([, major, minor]) => [
    Number(major),
    Number(minor),
  ])
  const [major = 0, minor = 0] =
    versions.sort((a, b) => (b[0] ?? 0) - (a[0] ?? 0) || (b[1] ?? 0) - (a[1] ?? 0))[0] ?? []
  return `${major}.${minor}`
}

function folder(...path: string[]): string {
  const created = join(...path)
  mkdirSync(created, { recursive: true })
  return created
}

function place(path: string, content: string | Uint8Array): void {
  writeFileSync(path, content)
  chmodSync(path, 0o644)
}

/** Runs a tool and gives back its standard output. */
function run(command: string[]): string {
  const env = { ...process.env, SOURCE_DATE_EPOCH: sourceDate(), LC_ALL: "C" }
  const child = Bun.spawnSync(command, { env, stdout: "pipe", stderr: "pipe" })
  if (child.exitCode === 0) return child.stdout.toString()
  throw new Error(`${command[0]} ended with ${child.exitCode}: ${child.stderr}${child.stdout}`)
}

/** Seconds of the newest changelog entry: the time of every file in the packages, so that they are reproducible. */
function sourceDate(): string {
  const entry = /^ -- .*> {2}(.*)$/m.exec(readFileSync(join(ROOT, "deb", "changelog"), "utf8"))
  const time = Date.parse(entry?.[1] ?? "")
  if (Number.isNaN(time)) throw new Error("deb/changelog: no date in the newest entry")
  return String(time / 1000)
}

function optionsFrom(args: readonly string[]): PackageOptions {
  const value = (name: string) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
  const target = value("--target") ?? thisMachine()
  if (target !== "linux-x64" && target !== "linux-arm64")
    throw new Error(`no packages are made for ${target}`)
  return { target, output: value("--output") ?? join(ROOT, "dist"), fast: args.includes("--fast") }
}

if (import.meta.main) {
  try {
    const { deb, rpm } = await buildPackages(optionsFrom(process.argv))
    for (const file of [deb, rpm]) console.log(`${file}  ${(statSync(file).size / 1e6).toFixed(1)} MB`)
  } catch (error) {
    console.error(`package: ${error instanceof Error ? error.message : error}`)
    process.exit(1)
  }
}
