#!/usr/bin/env node
// Prepares a machine for one task: node scripts/setup.mjs <test|demo|check|build|e2e|bench|package>
//
// The very first thing that runs on a fresh Debian 12 with its own nodejs (18) and npm (9), so it is plain
// JavaScript without dependencies. It installs what the task needs and nothing else, says what and why, and
// ends quickly when everything is there.
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..")
const APT = "/usr/bin/apt-get"
const BUN = join(ROOT, "node_modules", ".bin", "bun")

/** Debian packages by purpose: [package, what it is for]. */
const NPM = [["ca-certificates", "TLS connections to the npm registry"]]
const TPM = [
  ["swtpm", "the software TPM of simulated machines"],
  ["libtss2-tctildr0", "the library that the agent reaches a TPM through"],
  ["libtss2-tcti-device0", "its driver for a real TPM"],
  ["libtss2-tcti-swtpm0", "its driver for a software TPM"],
]
const TPM_MAKER = [["swtpm-tools", "makes software TPMs with certificates"]]
const PACKAGING = [
  ["dpkg", "builds the .deb"],
  ["rpm", "builds and reads the .rpm"],
  ["lintian", "checks the .deb"],
]
const SIGNING = [
  ["gpg", "signs repositories and packages that snapshots are updated with"],
  ["gpg-agent", "what gpg signs by"],
  ["gpgv", "checks those signatures"],
  ["xz-utils", "reads what packages are compressed with"],
  ["zstd", "makes compressed files for tests"],
]
const ACME = [["pebble", "the ACME server that tests get certificates from"]]
const WATCH = [["strace", "shows that --offline opens no socket"]]
const VOLUMES = [
  ["cryptsetup-bin", "makes and opens the LUKS headers that are tested"],
  ["systemd", "systemd-cryptenroll, whose TPM tokens have to be read"],
  ["libtss2-esys-3.0.2-0", "what systemd-cryptenroll reaches a TPM through"],
  ["libtss2-rc0", "what systemd-cryptenroll names TPM errors by"],
]
const CLIENTS = [["redis-tools", "a server and its client that speak through an attested connection"]]
/** These would start a service of their own where they are installed, so they are only unpacked, into .cache/programs. */
const NGINX = [
  ["nginx", "serves while its certificate is renewed"],
  ["libnginx-mod-stream", "ends TLS before a database"],
]
const GUEST = [
  ["qemu-system-x86", "runs the guest"],
  ["qemu-utils", "makes the guest's disk overlay"],
  ["mmdebstrap", "makes the guest's file system"],
  ["gpg", "names the key that the guest's packages are signed with"],
  ["e2fsprogs", "makes the guest's disk"],
  ["openssh-client", "runs commands in the guest"],
  ["ovmf", "the guest's UEFI firmware"],
  ["systemd-boot-efi", "the boot loader of the guest with UEFI"],
  ["sbsigntool", "signs the guest's boot loader and kernel for Secure Boot"],
  ["util-linux", "setpriv, so that the guest ends with its test"],
]
const PEERS = [
  ["gcc", "compiles the C programs that are measured against"],
  ["libc6-dev", "compiles the C programs that are measured against"],
  ["libssl-dev", "libcrypto for them"],
  ["openssl", "hashes files as a peer of the snapshot"],
  ["coreutils", "sha256sum, another peer"],
  ["findutils", "find and xargs, for the peers"],
]

const TASKS = {
  build: [NPM],
  check: [NPM],
  demo: [NPM, TPM],
  test: [NPM, TPM, TPM_MAKER, PACKAGING, SIGNING, ACME, WATCH, VOLUMES, CLIENTS],
  package: [NPM, PACKAGING],
  bench: [NPM, TPM, TPM_MAKER, PEERS, GUEST],
  e2e: [NPM, TPM, TPM_MAKER, PACKAGING, ACME, GUEST],
}

/** Packages that are unpacked and not installed, and the file that shows that they are. */
const UNPACKED = { test: { packages: NGINX, file: "usr/sbin/nginx" } }

try {
  main(process.argv[2] ?? "")
} catch (error) {
  console.error(`setup: ${error instanceof Error ? error.message : error}`)
  process.exit(1)
}

function main(task) {
  const groups = Object.hasOwn(TASKS, task) ? TASKS[task] : undefined
  if (groups === undefined) {
    console.error(`usage: node scripts/setup.mjs <${Object.keys(TASKS).join("|")}>`)
    process.exit(2)
  }
  const major = Number(process.versions.node.split(".")[0])
  if (major < 18) throw new Error(`Node.js 18 or later is needed, this is ${process.versions.node}`)
  if (process.platform !== "linux") throw new Error("development needs Linux (Debian 12 or a relative of it)")
  installSystemPackages(groups.flat())
  if (Object.hasOwn(UNPACKED, task)) unpackSystemPackages(UNPACKED[task])
  installNodeModules()
  completeNodeModules()
  repairBun()
}

/** Installs the Debian packages that are missing, as root or through sudo. */
function installSystemPackages(wanted) {
  const have = installedPackages(wanted.map(([name]) => name))
  const missing = wanted.filter(([name]) => !have.has(name))
  if (missing.length === 0) return
  const names = missing.map(([name]) => name)
  console.log("setup: these Debian packages are needed:")
  for (const [name, reason] of missing) console.log(`  ${name.padEnd(22)} ${reason}`)
  if (!existsSync(APT)) {
    // Elsewhere the programs may have come from other packages: what is really absent is reported by name later.
    console.log("setup: there is no apt-get here; install their equivalents if something is found missing")
    return
  }
  const root = process.getuid() === 0 ? [] : ["sudo"]
  if (root.length > 0 && spawnSync("sudo", ["-V"]).error !== undefined)
    throw new Error(`run as root, or install sudo, or run: apt-get install ${names.join(" ")}`)
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" }
  const apt = (...args) => {
    const command = [...root, "apt-get", ...args]
    console.log(`setup: ${command.join(" ")}`)
    // Standard input stays: sudo may ask for a password. What apt says is shown when it fails.
    const run = spawnSync(command[0], command.slice(1), {
      stdio: ["inherit", "pipe", "pipe"],
      env,
      maxBuffer: 2 ** 26,
    })
    if (run.status !== 0) console.error(`${run.stdout ?? ""}${run.stderr ?? ""}${run.error ?? ""}`)
    return run.status === 0
  }
  const install = () => apt("install", "-y", "-q", "--no-install-recommends", ...names)
  const listsAreOld = packageListAge() > 24 * 3600
  if (listsAreOld && !apt("update", "-q")) throw new Error("apt-get update failed")
  if (install()) return
  // Lists that look fresh can still name versions that the mirror has replaced since.
  if (listsAreOld || !apt("update", "-q") || !install()) throw new Error("apt-get could not install them")
}

/** Downloads Debian packages, which apt checks as it does those that it installs, and unpacks them beside the project. */
function unpackSystemPackages({ packages, file }) {
  const target = join(ROOT, ".cache", "programs")
  if (existsSync(join(target, file)) || !existsSync(APT)) return
  const names = packages.map(([name]) => name)
  console.log("setup: these Debian packages are unpacked in .cache/programs, and not installed:")
  for (const [name, reason] of packages) console.log(`  ${name.padEnd(22)} ${reason}`)
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-setup-"))
  try {
    const get = spawnSync(APT, ["download", "-q", "-o", "APT::Sandbox::User=root", ...names], {
      cwd: dir,
    })
    if (get.status !== 0) throw new Error(`apt-get download ${names.join(" ")}: ${get.stderr}`)
    const fresh = join(dir, "programs")
    for (const name of readdirSync(dir).filter((each) => each.endsWith(".deb"))) {
      const deb = spawnSync("/usr/bin/dpkg-deb", ["-x", join(dir, name), fresh])
      if (deb.status !== 0) throw new Error(`${name}: ${deb.stderr}`)
    }
    mkdirSync(join(ROOT, ".cache"), { recursive: true })
    rmSync(target, { recursive: true, force: true })
    cpSync(fresh, target, { recursive: true, verbatimSymlinks: true })
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function installedPackages(names) {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
  const query = spawnSync("dpkg-query", ["-W", "-f", "${Package} ${db:Status-Status}\\n", ...names])
  const lines = query.error === undefined ? query.stdout.toString().split("\n") : []
  return new Set(lines.filter((line) => line.endsWith(" installed")).map((line) => line.split(" ")[0]))
}

/** Seconds since the newest package list was fetched; infinite without one. */
function packageListAge() {
  const dir = "/var/lib/apt/lists"
  if (!existsSync(dir)) return Number.POSITIVE_INFINITY
  const times = readdirSync(dir)
    .filter((name) => name.includes("_Packages"))
    .map((name) => statSync(join(dir, name)).ctimeMs)
  return times.length === 0 ? Number.POSITIVE_INFINITY : (Date.now() - Math.max(...times)) / 1000
}

/** Brings node_modules to what package-lock.json says, when it is not there yet. */
function installNodeModules() {
  if (nodeModulesMatchLock()) return
  console.log("setup: npm ci (the libraries and tools of package-lock.json)")
  const npm = spawnSync("npm", ["ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: ROOT,
    stdio: "inherit",
  })
  if (npm.error !== undefined) throw new Error("npm is not installed: apt-get install npm")
  if (npm.status !== 0) throw new Error("npm ci failed")
}

/** Compares npm's own record of what it installed; files' times say nothing after a clone. */
function nodeModulesMatchLock() {
  const record = join(ROOT, "node_modules", ".package-lock.json")
  if (!existsSync(record)) return false
  const installed = readJson(record).packages
  for (const [path, entry] of lockedPackages()) {
    const found = installed[path]
    // Optional packages are those of other systems, mostly; see completeNodeModules for the rest.
    if (found === undefined ? !entry.optional : found.integrity !== entry.integrity) return false
    if (found !== undefined && !existsSync(join(ROOT, path))) return false
  }
  return true
}

/**
 * npm leaves out native parts that name a later Node.js than Debian's, and says nothing. They are loaded by bun,
 * which is as new as they want, so they are fetched one by one, and must be what package-lock.json says.
 */
function completeNodeModules() {
  const report = process.report.getReport().header
  const libc = report.glibcVersionRuntime === undefined ? "musl" : "glibc"
  const isOurs = ({ os, cpu, libc: wanted }) =>
    os?.includes("linux") && cpu?.includes(process.arch) && (wanted === undefined || wanted.includes(libc))
  for (const [path, entry] of lockedPackages()) {
    if (!entry.optional || !isOurs(entry) || existsSync(join(ROOT, path, "package.json"))) continue
    // The other C library's packages do not always say which one they are for.
    if (libc === "glibc" && /musl|android/.test(path)) continue
    const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length)
    console.log(`setup: npm pack ${name}@${entry.version} (npm ci left it out)`)
    unpack(`${name}@${entry.version}`, entry.integrity, join(ROOT, path))
  }
}

/** Fetches one package through npm, checks its digest, and puts it in its place. */
function unpack(what, integrity, target) {
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-setup-"))
  try {
    const pack = spawnSync("npm", ["pack", "--silent", "--pack-destination", dir, what], { cwd: dir })
    if (pack.status !== 0) throw new Error(`npm pack ${what} failed: ${pack.stderr}`)
    const archive = join(dir, pack.stdout.toString().trim())
    const digest = `sha512-${createHash("sha512").update(readFileSync(archive)).digest("base64")}`
    if (digest !== integrity) throw new Error(`${what}: package-lock.json says ${integrity}, found ${digest}`)
    mkdirSync(target, { recursive: true })
    const tar = spawnSync("tar", ["-xzf", archive, "--strip-components=1", "--no-same-owner", "-C", target])
    if (tar.status !== 0) throw new Error(`${what}: ${tar.stderr}`)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** Path and entry of every package in package-lock.json. */
function lockedPackages() {
  return Object.entries(readJson(join(ROOT, "package-lock.json")).packages).filter(([path]) => path !== "")
}

function readJson(path) {
  return JSON.parse(readFileSync(path, "utf8"))
}

/** npm 11 can leave out bun's install script, which puts the runtime in its place. This does the same. */
function repairBun() {
  const wanted = readJson(join(ROOT, "node_modules", "bun", "package.json")).version
  if (bunVersion(BUN) === wanted) return
  const scope = join(ROOT, "node_modules", "@oven")
  for (const name of existsSync(scope) ? readdirSync(scope) : []) {
    const runtime = join(scope, name, "bin", "bun")
    // Both C libraries' runtimes may be installed: the one that runs is the right one.
    if (!existsSync(runtime) || bunVersion(runtime) !== wanted) continue
    for (const link of ["bun.exe", "bunx.exe"]) place(runtime, join(ROOT, "node_modules", "bun", "bin", link))
    if (bunVersion(BUN) === wanted) return
  }
  throw new Error(`bun ${wanted} does not run here; remove node_modules and try again`)
}

function place(from, to) {
  rmSync(to, { force: true })
  try {
    linkSync(from, to)
  } catch {
    copyFileSync(from, to) // another file system, or one without hard links
  }
  chmodSync(to, 0o755)
}

function bunVersion(path) {
  const run = spawnSync(path, ["--version"], { timeout: 20_000 })
  return run.error === undefined && run.status === 0 ? run.stdout.toString().trim() : null
}
