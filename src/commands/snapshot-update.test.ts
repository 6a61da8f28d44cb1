import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import "../../test/setup.ts"
import {
  forgetKey,
  makeRepository,
  makeSigningKey,
  type Repository,
  type SigningKey,
  sign,
  signRpm,
} from "../../test/fakes/keys.ts"
import { buildDeb, buildRpm } from "../../test/fakes/packages.ts"
import { readSnapshotFile } from "./snapshot-file.ts"
import { type UpdateFilesOptions, updateSnapshotFile } from "./snapshot-update.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

const DIR = mkdtempSync(join(tmpdir(), "snapshot-update-"))
const sha256 = (content: string | Uint8Array) => createHash("sha256").update(content).digest("hex")

let key: SigningKey
let other: SigningKey
let deb = ""
let rpm = ""
let signedRpm = ""
let repository: Repository

beforeAll(async () => {
  key = await makeSigningKey(DIR, "archive@example.org")
  other = await makeSigningKey(DIR, "other@example.org")
  deb = await buildDeb(DIR, {
    name: "tool",
    version: "2.0-1",
    files: { "/bin/tool": "tool 2", "/usr/lib/tool/new": "new", "/etc/tool.conf": "default 2" },
    conffiles: ["/etc/tool.conf"],
  })
  repository = await makeRepository(DIR, key, [deb])
  rpm = await buildRpm(DIR, { name: "tool", version: "2.0", files: { "/usr/bin/tool": "tool 2" } })
  signedRpm = join(DIR, "signed.rpm")
  copyFileSync(rpm, signedRpm)
  await signRpm(key, signedRpm)
}, 60_000)

afterAll(async () => {
  await Promise.all([forgetKey(key), forgetKey(other)])
  rmSync(DIR, { recursive: true })
}, 20_000)

/** A snapshot of a VM with merged directories, on which version 1 is installed. */
function snapshotFile(manager: "dpkg" | "rpm" = "dpkg", version = "1.0-1", changes: object = {}): string {
  const path = join(mkdtempSync(join(DIR, "snapshot-")), "vm.snapshot")
  const architecture = manager === "dpkg" ? "amd64" : "noarch"
  const own = ["/usr/bin/tool", "/usr/lib/tool/gone", "/etc/tool.conf", "/usr/lib/tool/same"]
  const snapshot = {
    format: 2,
    hash_algorithm: "sha256",
    packages: [{ manager, name: "tool", version, architecture, files: own }],
    filehashes: [
      ["/usr/bin/tool", sha256("tool 1")],
      ["/usr/lib/tool/gone", sha256("gone")],
      ["/etc/tool.conf", sha256("my own")],
      ["/usr/bin/bash", sha256("bash")],
      ["/opt/own", sha256("own")],
    ],
    ...changes,
  }
  writeFileSync(path, JSON.stringify(snapshot))
  return path
}

const NOTHING: Omit<UpdateFilesOptions, "snapshot"> = {
  output: null,
  debs: [],
  rpms: [],
  release: null,
  lists: [],
  keyrings: [],
  digests: [],
  unauthenticated: false,
  keepOld: false,
  allowDowngrade: false,
  at: null,
  json: true,
}

async function update(snapshot: string, options: Partial<UpdateFilesOptions>) {
  let said = ""
  const terminal: Terminal = {
    out: (text) => {
      said += text
    },
    talk: () => undefined,
    outStyle: PLAIN,
    talkStyle: PLAIN,
    live: false,
    columns: 80,
    outColumns: 80,
  }
  await updateSnapshotFile({ ...NOTHING, snapshot, ...options }, terminal)
  const read = readSnapshotFile(options.output ?? snapshot)
  const files = (pairs: Iterable<readonly [string, string]> | null | undefined) => [...(pairs ?? [])]
  return { said, read, files: files(read.filehashes), superseded: files(read.superseded) }
}

const byRepository = (): Partial<UpdateFilesOptions> => ({
  debs: [deb],
  release: repository.inRelease,
  lists: [repository.packages],
  keyrings: [key.keyring],
})

describe("a .deb of a signed repository", () => {
  test("takes the place of the version before: old digests are superseded, own configuration stays", async () => {
    const snapshot = snapshotFile()
    const { said, read, files, superseded } = await update(snapshot, byRepository())
    const expected: (readonly [string, string])[] = [
      ["/etc/tool.conf", sha256("my own")],
      ["/etc/tool.conf", sha256("default 2")],
      ["/opt/own", sha256("own")],
      ["/usr/bin/bash", sha256("bash")],
      ["/usr/bin/tool", sha256("tool 2")],
      ["/usr/lib/tool/new", sha256("new")],
    ]
    expect(files).toEqual(expected.sort((a, b) => (`${a}` < `${b}` ? -1 : 1)))
    expect(superseded).toEqual([
      ["/usr/bin/tool", sha256("tool 1")],
      ["/usr/lib/tool/gone", sha256("gone")],
    ])
    expect(read.packages).toMatchObject([
      { name: "tool", version: "1.0-1", replaced: true },
      { name: "tool", version: "2.0-1", source: "repository" },
    ])
    expect(JSON.parse(said).packages).toMatchObject([
      { name: "tool", version: "2.0-1", before: ["1.0-1"], added: 3, superseded: 2, kept: 1, unchanged: 0 },
    ])
  })

  test("is accepted by Release with a signature beside it, and by keys in ASCII armour", async () => {
    const options = { ...byRepository(), release: repository.release, keyrings: [key.armoured] }
    expect((await update(snapshotFile(), options)).superseded).toHaveLength(2)
  })

  test("keeps the old files too with --keep-old, until it is used again without", async () => {
    const snapshot = snapshotFile()
    const both = await update(snapshot, { ...byRepository(), keepOld: true })
    expect(both.superseded).toEqual([])
    expect(both.files.filter(([path]) => path === "/usr/bin/tool")).toHaveLength(2)
    const { files, superseded } = await update(snapshot, byRepository())
    expect(files.filter(([path]) => path === "/usr/bin/tool")).toEqual([["/usr/bin/tool", sha256("tool 2")]])
    expect(superseded).toHaveLength(2)
  })

  test("in a snapshot of the predecessor's only changes digests", async () => {
    const path = join(DIR, "predecessor.snapshot")
    writeFileSync(path, JSON.stringify({ filehashes: [["/usr/bin/tool", sha256("tool 1")]] }))
    const { read, files } = await update(path, byRepository())
    expect([read.format, read.packages]).toEqual([1, undefined])
    expect(files).toContainEqual(["/usr/bin/tool", sha256("tool 2")])
    expect(files).not.toContainEqual(["/usr/bin/tool", sha256("tool 1")])
  })

  for (const compression of ["gzip", "zstd", "none"] as const)
    test(`compressed with ${compression} is read`, async () => {
      const same = { name: "other", version: "1", files: { "/usr/bin/other": "other" }, compression }
      const built = await buildDeb(DIR, same)
      const { files } = await update(snapshotFile(), {
        debs: [built],
        digests: [sha256(readFileSync(built))],
      })
      expect(files).toContainEqual(["/usr/bin/other", sha256("other")])
    })
})

describe("a .deb is refused, and the snapshot stays as it is", () => {
  const refused = async (options: Partial<UpdateFilesOptions>, code: string, snapshot = snapshotFile()) => {
    const before = readFileSync(snapshot)
    await expect(update(snapshot, options)).rejects.toMatchObject({ code })
    expect(readFileSync(snapshot).equals(before)).toBe(true)
  }

  test("without anything that vouches for it", () => refused({ debs: [deb] }, "ERR_PACKAGE_UNAUTHENTICATED"))

  test("that is another one than the repository's, by one byte", async () => {
    const changed = join(DIR, "changed.deb")
    copyFileSync(deb, changed)
    appendFileSync(changed, "\n")
    await refused({ ...byRepository(), debs: [changed] }, "ERR_PACKAGE_DIGEST")
    await refused({ ...byRepository(), debs: [changed], unauthenticated: true }, "ERR_PACKAGE_DIGEST")
  })

  test("whose digest is another than the given one", () =>
    refused({ debs: [deb], digests: [sha256("")] }, "ERR_PACKAGE_DIGEST"))

  test("where the list is another than the Release file's", async () => {
    const list = join(DIR, "Packages.forged")
    writeFileSync(
      list,
      `Package: tool\nVersion: 2.0-1\nArchitecture: amd64\nSHA256: ${sha256(readFileSync(deb))}\n`,
    )
    await refused({ ...byRepository(), lists: [list] }, "ERR_REPOSITORY_INDEX")
  })

  test("where the Release file was changed", async () => {
    const text = readFileSync(repository.inRelease, "utf8")
    const changed = join(DIR, "InRelease.changed")
    writeFileSync(changed, text.replace("Origin: Example", "Origin: Examples"))
    await refused({ ...byRepository(), release: changed }, "ERR_PACKAGE_SIGNATURE")
  })

  test("where the Release file is by another key, and where another's message was put around it", async () => {
    const forged = join(DIR, "InRelease.forged")
    await sign(other, "--clearsign", repository.release, forged)
    await refused({ ...byRepository(), release: forged }, "ERR_PACKAGE_KEY")
    const text = readFileSync(repository.inRelease, "utf8")
    for (const both of [text + readFileSync(forged, "utf8"), `${text}Origin: Evil\n`]) {
      writeFileSync(forged, both)
      await refused({ ...byRepository(), release: forged }, "ERR_MALFORMED")
    }
  })

  test("where the Release file has no signature", async () => {
    const bare = join(DIR, "Release.bare")
    copyFileSync(repository.release, bare)
    await refused({ ...byRepository(), release: bare }, "ERR_PACKAGE_UNAUTHENTICATED")
  })

  test("where the Release file holds no more, or not yet, at the time of judging", async () => {
    const validUntil = new Date(Date.now() + 3_600_000)
    const short = await makeRepository(DIR, key, [deb], { validUntil })
    const options = { ...byRepository(), release: short.inRelease, lists: [short.packages] }
    expect((await update(snapshotFile(), options)).superseded).toHaveLength(2)
    const at = (milliseconds: number) => new Date(milliseconds).toISOString()
    await refused({ ...options, at: at(Date.now() + 7_200_000) }, "ERR_REPOSITORY_EXPIRED")
    await refused({ ...options, at: at(Date.now() - 86_400_000) }, "ERR_REPOSITORY_NOT_YET_VALID")
  })

  test("that is older than the snapshot's, unless that is asked for", async () => {
    await refused(byRepository(), "ERR_PACKAGE_DOWNGRADE", snapshotFile("dpkg", "2.0-2"))
    await refused(byRepository(), "ERR_PACKAGE_DOWNGRADE", snapshotFile("dpkg", "1:0.1"))
    const older = await update(snapshotFile("dpkg", "2.0-2"), { ...byRepository(), allowDowngrade: true })
    expect(older.superseded).toHaveLength(2)
  })

  test("where the snapshot's digests are of an algorithm that cannot be computed", () =>
    refused(
      byRepository(),
      "ERR_PACKAGE_ALGORITHM",
      snapshotFile("dpkg", "1", {
        hash_algorithm: "wp256",
        filehashes: [["/usr/bin/tool", sha256("tool 1")]],
      }),
    ))

  test("that is no .deb, although its digest was given", async () => {
    const junk = join(DIR, "junk.deb")
    writeFileSync(junk, "!<arch>\njunk")
    await refused({ debs: [junk], digests: [sha256(readFileSync(junk))] }, "ERR_TRUNCATED")
  })

  test("and nothing is written elsewhere either", async () => {
    const output = join(DIR, "nowhere.snapshot")
    await refused({ debs: [deb], output }, "ERR_PACKAGE_UNAUTHENTICATED")
    expect(existsSync(output)).toBe(false)
  })

  for (const [name, options] of [
    ["no package", {}],
    ["lists without a Release file", { debs: ["x"], lists: ["x"] }],
    ["a Release file without lists", { debs: ["x"], release: "x" }],
  ] as const)
    test(`by a command line with ${name}`, () => refused(options, "ERR_MISSING_ARGUMENT"))
})

test("a package that nobody vouches for is accepted by name, and the snapshot says so", async () => {
  const { read } = await update(snapshotFile(), { debs: [deb], unauthenticated: true })
  expect(read.packages?.at(-1)).toMatchObject({ name: "tool", source: "unauthenticated" })
})

describe("a .rpm", () => {
  const signed = (): Partial<UpdateFilesOptions> => ({ rpms: [signedRpm], keyrings: [key.armoured] })

  test("signed by a given key takes the place of the version before", async () => {
    const { files, superseded, read } = await update(snapshotFile("rpm"), signed())
    expect(files).toContainEqual(["/usr/bin/tool", sha256("tool 2")])
    expect(superseded).toContainEqual(["/usr/bin/tool", sha256("tool 1")])
    expect(read.packages?.at(-1)).toMatchObject({
      manager: "rpm",
      name: "tool",
      version: "2.0-1",
      architecture: "noarch",
      source: "signature",
    })
  })

  test("without signature is accepted by its digest", async () => {
    const digests = [sha256(readFileSync(rpm))]
    const { files } = await update(snapshotFile("rpm"), { rpms: [rpm], digests })
    expect(files).toContainEqual(["/usr/bin/tool", sha256("tool 2")])
  })

  const refused = (options: Partial<UpdateFilesOptions>, code: string) =>
    expect(update(snapshotFile("rpm"), options)).rejects.toMatchObject({ code })

  test("without signature, or without a key to check it, is refused", async () => {
    await refused({ ...signed(), rpms: [rpm] }, "ERR_PACKAGE_UNAUTHENTICATED")
    await refused({ rpms: [signedRpm] }, "ERR_PACKAGE_UNAUTHENTICATED")
  })

  test("signed by another key is refused", () =>
    refused({ ...signed(), keyrings: [other.keyring] }, "ERR_PACKAGE_KEY"))

  test("whose header was changed is refused", async () => {
    const bytes = readFileSync(signedRpm)
    const at = bytes.indexOf(sha256("tool 2"))
    bytes.write(sha256("evil"), at)
    const changed = join(DIR, "changed.rpm")
    writeFileSync(changed, bytes)
    await refused({ ...signed(), rpms: [changed] }, "ERR_PACKAGE_SIGNATURE")
  })

  test("with digests of another algorithm than the snapshot's is refused", async () => {
    const snapshot = snapshotFile("rpm", "1", {
      hash_algorithm: "sha1",
      filehashes: [["/usr/bin/tool", "0a".repeat(20)]],
    })
    await expect(update(snapshot, signed())).rejects.toMatchObject({ code: "ERR_PACKAGE_ALGORITHM" })
  })
})
