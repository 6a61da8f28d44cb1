import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { buildRpm } from "../../test/fakes/packages.ts"
import { readPackages } from "./packages.ts"

let root: string
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), "packages-")))
})
afterEach(() => rmSync(root, { recursive: true }))

function put(path: string, content: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  writeFileSync(join(root, path), content)
}

const paragraph = (name: string, version: string, more = "Status: install ok installed\n") =>
  `Package: ${name}\n${more}Architecture: amd64\nVersion: ${version}\nDescription: a package\n more of it\n\n`

interface Read {
  readonly name: string
  readonly version: string
  readonly manager: string
  readonly architecture: string
  readonly files: readonly string[]
}

async function read(exclude: readonly string[] = []) {
  const result = await readPackages({ root, exclude, algorithm: "sha256" })
  const text = result.blocks.map((block) => Bun.zstdDecompressSync(block).toString()).join(",")
  const packages: Read[] = JSON.parse(`[${text}]`)
  const under = (path: string) => path.slice(root.length)
  return {
    ...result,
    packages: packages.map(({ files, ...one }) => ({ ...one, files: files.map(under) })),
    names: packages.map(({ name, version }) => `${name} ${version}`),
  }
}

describe("dpkg's database", () => {
  test("tells the packages that are installed, with their files and without directories", async () => {
    put(
      "var/lib/dpkg/status",
      paragraph("bash", "5.2-1") +
        paragraph("gone", "1", "Status: deinstall ok config-files\n") +
        paragraph("libc6", "2.36", "Status: install ok installed\nMulti-Arch: same\n"),
    )
    put("var/lib/dpkg/info/bash.list", "/.\n/bin\n/bin/bash\n/usr\n/usr/share\n/usr/share/doc\n")
    put("var/lib/dpkg/info/libc6:amd64.list", "/.\n/lib\n/lib/libc.so.6\n")
    put("var/lib/dpkg/info/gone.list", "/.\n/etc/gone\n")
    const { packages, fault } = await read()
    expect(fault).toBeNull()
    expect(packages).toEqual([
      {
        manager: "dpkg",
        name: "bash",
        version: "5.2-1",
        architecture: "amd64",
        files: ["/bin/bash", "/usr/share/doc"],
      },
      { manager: "dpkg", name: "libc6", version: "2.36", architecture: "amd64", files: ["/lib/libc.so.6"] },
    ])
  })

  test("names files where they are: through merged directories, and where they are diverted to", async () => {
    mkdirSync(join(root, "usr/bin"), { recursive: true })
    symlinkSync("usr/bin", join(root, "bin"))
    put("var/lib/dpkg/status", paragraph("bash", "5.2-1") + paragraph("other", "1"))
    put("var/lib/dpkg/info/bash.list", "/.\n/bin\n/bin/bash\n/bin/tool\n")
    put("var/lib/dpkg/info/other.list", "/.\n/bin\n/bin/tool\n")
    put("var/lib/dpkg/diversions", "/bin/tool\n/bin/tool.other\nbash\n")
    const { packages } = await read()
    expect(packages.map(({ files }) => files)).toEqual([
      ["/usr/bin/bash", "/usr/bin/tool"],
      ["/usr/bin/tool.other"],
    ])
  })

  test("files that were read for it and are left out of the tree come with their digests", async () => {
    const status = paragraph("bash", "5.2-1")
    put("var/lib/dpkg/status", status)
    put("var/lib/dpkg/info/bash.list", "/.\n/bin/bash\n/var/lib/bash\n")
    const { read: files, packages } = await read([join(root, "var/")])
    expect(packages[0]?.files).toEqual(["/bin/bash"])
    expect(new Map(files).get(join(root, "var/lib/dpkg/status"))).toBe(
      createHash("sha256").update(status).digest("hex"),
    )
    expect((await read()).read).toEqual([])
  })

  test("what cannot be understood is told, and stops nothing", async () => {
    put("var/lib/dpkg/status", "no field\n")
    const { packages, fault } = await read()
    expect(packages).toEqual([])
    expect(fault).toContain("dpkg status, line 1")
  })
})

test("rpm's database is asked for through rpm", async () => {
  const rpm = await buildRpm(root, { name: "tool", version: "2.0", files: { "/usr/bin/tool": "a program" } })
  mkdirSync(join(root, "var/lib/rpm"), { recursive: true })
  const install = Bun.spawnSync([
    ...["rpm", "--dbpath", join(root, "var/lib/rpm"), "--root", "/"],
    ...["-i", "--justdb", "--nodeps", "--nosignature", "--noscripts", rpm],
  ])
  expect(install.exitCode).toBe(0)
  const { packages, read: files } = await read([join(root, "var/")])
  expect(packages).toMatchObject([
    { manager: "rpm", name: "tool", version: "2.0-1", architecture: "noarch", files: ["/usr/bin/tool"] },
  ])
  expect(files.length).toBeGreaterThan(0)
})

test("a machine without either has no packages", async () => {
  expect(await read()).toMatchObject({ packages: [], read: [], fault: null })
})
