/** Both packages hold the very executable that the other scenarios run, in the right places. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { buildPackages, type Packages } from "../../scripts/package.ts"
import { thisMachine } from "../../scripts/targets.ts"
import { VERSION } from "../../src/version.ts"
import { EXECUTABLE } from "../executable.ts"

const machine = thisMachine()
const target = machine === "linux-x64" || machine === "linux-arm64" ? machine : null
const have = (program: string) => Bun.which(program) !== null
const packaging = target !== null && have("dpkg-deb") && have("rpmbuild")

const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-package-"))
let packages: Packages

function output(...command: string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, {
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, LC_ALL: "C" },
  })
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: exit code ${exitCode}: ${stderr}${stdout}`)
  return stdout.toString()
}

const sha256 = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex")

beforeAll(async () => {
  if (packaging && target !== null) packages = await buildPackages({ target, output: dir, fast: true })
}, 120_000)

afterAll(() => rmSync(dir, { recursive: true, force: true }))

test.skipIf(!packaging)("the .deb installs the executable unchanged, and it answers with our version", () => {
  const root = join(dir, "deb")
  output("dpkg-deb", "--extract", packages.deb, root)
  const executable = join(root, "usr/sbin/cosmian_vm")
  expect(sha256(executable)).toBe(sha256(EXECUTABLE))
  expect(output(executable, "--version")).toStartWith(`cosmian_vm ${VERSION} (`)
  // Multi-call: through the symlink it is the agent.
  expect(output(join(root, "usr/sbin/cosmian_vm_agent"), "--version")).toStartWith(
    `cosmian_vm_agent ${VERSION} (`,
  )
})

test.skipIf(!packaging)("both packages install the same files", () => {
  const deb = output("dpkg-deb", "--contents", packages.deb)
    .split("\n")
    .map((line) => /^[-l]\S+ .* \.(\/\S+)/.exec(line)?.[1] ?? "")
    .filter((path) => path !== "" && !/\/(copyright|changelog\.gz)$|\/lintian\//.test(path))
  const rpm = output("rpm", "-qpl", packages.rpm)
    .trim()
    .split("\n")
    .filter((path) => /\.\w+$|sbin\/|completions\/|ima-policy$/.test(path))
  expect(rpm.sort()).toEqual(deb.sort())
})

test.skipIf(!packaging)("the configuration is kept on upgrades and not readable by everybody", () => {
  expect(output("dpkg-deb", "--info", packages.deb, "conffiles")).toBe("/etc/cosmian_vm/agent.toml\n")
  expect(output("dpkg-deb", "--contents", packages.deb)).toMatch(
    /^-rw-r----- root\/root .*\/etc\/cosmian_vm\/agent\.toml$/m,
  )
  expect(output("rpm", "-qp", "--configfiles", packages.rpm)).toBe("/etc/cosmian_vm/agent.toml\n")
})

/** A package of 1.3 with its unit under /lib, which is a link to /usr/lib by now. */
function oldPackage(): string {
  const tree = join(dir, "old")
  for (const [path, content] of [
    [
      "DEBIAN/control",
      "Package: cosmian-vm-agent\nVersion: 1.3.0\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n",
    ],
    ["DEBIAN/conffiles", "/etc/cosmian_vm/agent.toml\n"],
    ["etc/cosmian_vm/agent.toml", "[agent]\n"],
    ["lib/systemd/system/cosmian_vm_agent.service", "old"],
  ] as const) {
    mkdirSync(dirname(join(tree, path)), { recursive: true })
    writeFileSync(join(tree, path), content)
  }
  output("dpkg-deb", "--root-owner-group", "--build", tree, `${tree}.deb`)
  return `${tree}.deb`
}

test.skipIf(!packaging)("the package of 1.3 has to go first, and takes none of our files with it", () => {
  const root = join(dir, "root")
  mkdirSync(join(root, "var/lib/dpkg/info"), { recursive: true })
  mkdirSync(join(root, "var/lib/dpkg/updates"))
  mkdirSync(join(root, "usr/lib"), { recursive: true })
  symlinkSync("usr/lib", join(root, "lib"))
  writeFileSync(join(root, "var/lib/dpkg/status"), "")
  const forced = ["not-root", "script-chrootless", "depends", "confold", "bad-path"]
  const dpkg = (...args: string[]) =>
    output("dpkg", `--root=${root}`, `--force-${forced.join(",")}`, "--log=/dev/null", ...args)
  dpkg("--install", oldPackage())
  writeFileSync(join(root, "etc/cosmian_vm/agent.toml"), "[agent]\nport = 1\n")
  expect(() => dpkg("--install", packages.deb)).toThrow("conflicting packages")
  dpkg("--remove", "cosmian-vm-agent")
  dpkg("--install", packages.deb)
  dpkg("--purge", "cosmian-vm-agent")
  expect(readFileSync(join(root, "usr/lib/systemd/system/cosmian_vm_agent.service"), "utf8")).toContain(
    "/usr/sbin/cosmian_vm_agent",
  )
  expect(readFileSync(join(root, "etc/cosmian_vm/agent.toml"), "utf8")).toBe("[agent]\nport = 1\n")
})

test.skipIf(!packaging || !have("lintian"))("lintian finds neither errors nor warnings in the .deb", () => {
  output("lintian", "--no-cfg", "--allow-root", "--fail-on", "error,warning", packages.deb)
})

test.skipIf(!have("strip"))("a stripped executable is noticed: it does not answer with our version", () => {
  const stripped = join(dir, "stripped")
  copyFileSync(EXECUTABLE, stripped)
  output("strip", stripped)
  const { stdout } = Bun.spawnSync([stripped, "--version"], { stdout: "pipe", stderr: "ignore" })
  expect(stdout.toString()).not.toContain(`cosmian_vm ${VERSION}`)
})
