import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fakeDevices, fakeMeasurementList } from "../../test/fakes/devices.ts"
import { parseSnapshot } from "../policy/snapshot.ts"
import { AttestationKey } from "./attestation-key.ts"
import { detectCloud } from "./cloud.ts"
import { parseAgentConfig } from "./config.ts"
import { Counters } from "./hash-protocol.ts"
import { createLog } from "./log.ts"
import { createSnapshots, type Snapshots } from "./snapshot.ts"
import { describeMachine } from "./snapshot-reference.ts"
import { hashTree } from "./tree-hasher.ts"

const sha256 = (content: string | Uint8Array) => createHash("sha256").update(content).digest("hex")

let root: string
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), "snapshot-")))
})
afterEach(() => rmSync(root, { recursive: true }))

interface Options {
  readonly exclude?: readonly string[]
  readonly limits?: string
  readonly devices?: ReturnType<typeof fakeDevices>
  readonly now?: () => Date
}

function make({
  exclude = [],
  limits = "",
  devices = fakeDevices(),
  now = () => new Date(),
}: Options = {}): Snapshots {
  const toml = `[snapshot]\nroot = ${JSON.stringify(root)}\nexclude = ${JSON.stringify(exclude)}\n[limits]\n${limits}`
  const key = devices.tpm === null ? null : new AttestationKey(devices.tpm)
  return createSnapshots({
    config: parseAgentConfig(toml, "test", join(root, "state")),
    describe: () => describeMachine(devices, key, null),
    version: "1.2.3",
    host: "vm",
    now,
    log: createLog("json", () => undefined, now),
  })
}

async function finish(snapshots: Snapshots): Promise<string> {
  snapshots.start()
  while (snapshots.running) await Bun.sleep(5)
  const failure = snapshots.takeFailure()
  if (failure !== null) throw failure
  return new Response(snapshots.result()).text()
}

async function hashesOf(snapshots: Snapshots): Promise<Map<string, string>> {
  const { filehashes } = parseSnapshot(Buffer.from(await finish(snapshots)))
  return new Map([...(filehashes ?? [])].map(([path, digest]) => [path, digest]))
}

describe("a snapshot", () => {
  test("holds every regular file with IMA's hash, and the files of the measurement list", async () => {
    mkdirSync(join(root, "a/b"), { recursive: true })
    writeFileSync(join(root, "a/b/deep"), "deep")
    writeFileSync(join(root, "empty"), "")
    const large = Buffer.alloc(3 * 1024 * 1024 + 17, 5)
    writeFileSync(join(root, "large"), large)
    const exact = Buffer.alloc(1024 * 1024, 6)
    writeFileSync(join(root, "exact"), exact)
    expect(await hashesOf(make())).toEqual(
      new Map([
        ["boot_aggregate", sha256("boot_aggregate")],
        ["/usr/bin/one", sha256("/usr/bin/one")],
        ["/usr/bin/two", sha256("/usr/bin/two")],
        [join(root, "a/b/deep"), sha256("deep")],
        [join(root, "empty"), sha256("")],
        [join(root, "large"), sha256(large)],
        [join(root, "exact"), sha256(exact)],
      ]),
    )
  })

  test("has the predecessor's members first, ours after them", async () => {
    const text = await finish(make())
    expect(Object.keys(JSON.parse(text))).toEqual([
      "cloud_type",
      "tee_policy",
      "tpm_policy",
      "filehashes",
      "format",
      "taken_at",
      "agent_version",
      "host",
      "hash_algorithm",
      "tee_reference",
      "tpm_reference",
      "ima_reference",
      "unreadable",
    ])
    const snapshot = parseSnapshot(Buffer.from(text))
    expect(snapshot.tpm_policy).toEqual({ reset_count: 5, restart_count: 1 })
    expect(snapshot.tee_policy).toMatchObject({
      Sev: { measurement: "ab".repeat(48), guest_svn: 7, report_data: null },
    })
    expect(Object.keys(snapshot.tpm_reference?.pcrs ?? {})).toHaveLength(15)
    expect(snapshot.ima_reference).toEqual({
      template: "ima-ng",
      boot_aggregate: `sha256:${sha256("boot_aggregate")}`,
    })
    expect(snapshot.hash_algorithm).toBe("sha256")
  })

  test("takes the algorithm of the measurement list, not that of boot_aggregate", async () => {
    writeFileSync(join(root, "file"), "content")
    const digest = (algorithm: string) => new Uint8Array(createHash(algorithm).update("x").digest())
    const ima = fakeMeasurementList([
      { template: "ima-ng", algorithm: "sha256", digest: digest("sha256"), path: "boot_aggregate" },
      { template: "ima-ng", algorithm: "sha512", digest: digest("sha512"), path: "/usr/bin/one" },
    ])
    const hashes = await hashesOf(make({ devices: { ...fakeDevices(), ima } }))
    expect(hashes.get(join(root, "file"))).toBe(createHash("sha512").update("content").digest("hex"))
  })

  test("of a kernel whose hash is not known here is refused", async () => {
    const digest = new Uint8Array(32)
    const ima = fakeMeasurementList([
      { template: "ima-ng", algorithm: "streebog256", digest, path: "/usr/bin/one" },
    ])
    const snapshots = make({ devices: { ...fakeDevices(), ima } })
    await expect(finish(snapshots)).rejects.toMatchObject({ code: "ERR_UNSUPPORTED" })
  })

  test("names a file once where it is measured too, and twice where its content changed since", async () => {
    writeFileSync(join(root, "same"), "same")
    writeFileSync(join(root, "changed"), "new")
    const entry = (name: string, content: string) => ({
      template: "ima-ng" as const,
      algorithm: "sha256",
      digest: new Uint8Array(createHash("sha256").update(content).digest()),
      path: join(root, name),
    })
    const ima = fakeMeasurementList([entry("same", "same"), entry("changed", "old"), entry("changed", "old")])
    const { filehashes } = parseSnapshot(
      Buffer.from(await finish(make({ devices: { ...fakeDevices(), ima } }))),
    )
    expect([...(filehashes ?? [])].map(String).sort()).toEqual(
      [
        `${join(root, "changed")},${sha256("new")}`,
        `${join(root, "changed")},${sha256("old")}`,
        `${join(root, "same")},${sha256("same")}`,
      ].sort(),
    )
  })

  test("of a machine without TPM has no files, as the predecessor's", async () => {
    const text = await finish(make({ devices: { ...fakeDevices(), tpm: null } }))
    expect(JSON.parse(text)).toMatchObject({ filehashes: null, tpm_policy: null, tpm_reference: null })
  })

  test("follows no link and waits for no fifo, and knows a hard link by both names", async () => {
    writeFileSync(join(root, "file"), "x")
    linkSync(join(root, "file"), join(root, "hard"))
    symlinkSync("/etc", join(root, "directory-link"))
    symlinkSync(".", join(root, "loop"))
    symlinkSync("file", join(root, "file-link"))
    Bun.spawnSync(["mkfifo", join(root, "fifo")])
    const paths = [...(await hashesOf(make())).keys()].filter((path) => path.startsWith(root))
    expect(paths.sort()).toEqual([join(root, "file"), join(root, "hard")])
  })

  test("leaves out what is excluded, by whole directory names", async () => {
    for (const name of ["in", "out", "outer"]) {
      mkdirSync(join(root, name))
      writeFileSync(join(root, name, "file"), name)
    }
    const paths = [...(await hashesOf(make({ exclude: [join(root, "out")] }))).keys()]
    expect(paths.filter((path) => path.startsWith(root)).sort()).toEqual([
      join(root, "in/file"),
      join(root, "outer/file"),
    ])
  })

  test("keeps names that are not UTF-8, in files and directories", async () => {
    const directory = Buffer.concat([Buffer.from(`${root}/d-`), Buffer.of(0xe4)])
    mkdirSync(directory)
    writeFileSync(Buffer.concat([directory, Buffer.from("/f-"), Buffer.of(0xff, 0x80)]), "latin")
    writeFileSync(join(root, 'quo"te\nline\\ \ufffd ü'), "odd")
    const hashes = await hashesOf(make())
    expect(hashes.get(`${root}/d-\udce4/f-\udcff\udc80`)).toBe(sha256("latin"))
    expect(hashes.get(join(root, 'quo"te\nline\\ \ufffd ü'))).toBe(sha256("odd"))
  })

  test("of many directories and files holds them all", async () => {
    for (let directory = 0; directory < 150; directory++) {
      mkdirSync(join(root, `d${directory}`))
      for (let file = 0; file < 20; file++)
        writeFileSync(join(root, `d${directory}`, `f${file}`), `${directory}/${file}`)
    }
    const snapshots = make()
    const hashes = await hashesOf(snapshots)
    expect(hashes.size).toBe(3003)
    expect(hashes.get(join(root, "d149/f19"))).toBe(sha256("149/19"))
    expect(snapshots.progress()).toMatchObject({
      state: "done",
      files: 3000,
      total_files: 3000,
      unreadable: 0,
    })
  })

  test("names what could not be read", async () => {
    const program = `
      import { createSnapshots } from "${import.meta.dir}/snapshot.ts"
      import { parseAgentConfig } from "${import.meta.dir}/config.ts"
      const quiet = () => undefined
      const snapshots = createSnapshots({
        config: parseAgentConfig('[snapshot]\\nroot = "${root}"\\nexclude = []\\n', "test", "/nonexistent"),
        describe: async () => ({ hash_algorithm: "sha256", measured: [], cloud_type: null, tee_policy: null,
          tpm_policy: null, tpm_reference: null, ima_reference: null }),
        version: "1", host: "h", now: () => new Date(), log: { info: quiet, warn: quiet, error: quiet },
      })
      snapshots.start()
      while (snapshots.running) await Bun.sleep(5)
      console.log(await new Response(snapshots.result()).text())
      process.exit(0)
    `
    writeFileSync(join(root, "closed"), "x")
    chmodSync(join(root, "closed"), 0o000)
    mkdirSync(join(root, "shut"), { mode: 0o000 })
    writeFileSync(join(root, "open"), "x")
    chmodSync(root, 0o755)
    if (process.getuid?.() !== 0) return
    // Root without its right to read everything: so this works in a checkout that others may not read, too.
    const bound = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    const child = Bun.spawnSync([...bound, process.execPath, "-e", program], {
      cwd: "/",
      stdout: "pipe",
      stderr: "pipe",
    })
    const snapshot = parseSnapshot(child.stdout)
    expect([...snapshot.unreadable].sort()).toEqual([
      [join(root, "closed"), "EACCES"],
      [join(root, "shut"), "EACCES"],
    ])
    expect([...(snapshot.filehashes ?? [])]).toEqual([[join(root, "open"), sha256("x")]])
  })
})

describe("the agent's one snapshot", () => {
  test("is cancelled in the middle of a large file, and can be started again", async () => {
    writeFileSync(join(root, "huge"), "")
    truncateSync(join(root, "huge"), 64 * 1024 ** 3)
    const snapshots = make()
    snapshots.start()
    while (snapshots.progress().bytes < 4 * 1024 * 1024) await Bun.sleep(1)
    const start = performance.now()
    await snapshots.cancel()
    expect(performance.now() - start).toBeLessThan(2000)
    expect(snapshots.progress().state).toBe("none")
    expect(snapshots.takeFailure()).toBeNull()
    truncateSync(join(root, "huge"), 1)
    expect((await hashesOf(snapshots)).get(join(root, "huge"))).toBe(sha256("\0"))
  })

  test("ends its walk with a code when it is cancelled", async () => {
    mkdirSync(join(root, "directory"))
    const counters = new Counters()
    counters.cancel()
    const tree = { root, exclude: [], algorithm: "sha256", known: [], counters, onBlock: () => undefined }
    await expect(hashTree(tree)).rejects.toMatchObject({ code: "ERR_SNAPSHOT_CANCELLED" })
  })

  test("is read as often as wanted until it is cleared, also by a reader that began before", async () => {
    writeFileSync(join(root, "file"), "x")
    const snapshots = make()
    const text = await finish(snapshots)
    expect(await new Response(snapshots.result()).text()).toBe(text)
    const late = snapshots.result()
    snapshots.clear()
    expect(snapshots.result()).toBeNull()
    expect(await new Response(late).text()).toBe(text)
  })

  test("that fails is reported once", async () => {
    const devices = fakeDevices()
    const snapshots = make({
      devices: {
        ...devices,
        ima: { readBinary: async () => Uint8Array.of(1, 2, 3), readAscii: async () => "" },
      },
    })
    await expect(finish(snapshots)).rejects.toMatchObject({ code: "ERR_TRUNCATED" })
    expect(snapshots.takeFailure()).toBeNull()
    expect(snapshots.progress().state).toBe("none")
  })

  test("is started only so often", async () => {
    let time = 0
    const snapshots = make({
      limits: "snapshot_burst = 2\nsnapshot_seconds = 10\n",
      now: () => new Date(time),
    })
    await finish(snapshots)
    snapshots.clear()
    await finish(snapshots)
    snapshots.clear()
    snapshots.start()
    expect(snapshots.running).toBe(false)
    time = 10_001
    snapshots.start()
    expect(snapshots.running).toBe(true)
    await snapshots.cancel()
  })
})

test("a cloud is known by its firmware's texts, and not guessed", () => {
  const dmi = (texts: Record<string, string>) => {
    for (const [name, text] of Object.entries(texts)) writeFileSync(join(root, name), `${text}\n`)
    return detectCloud(root)
  }
  expect(detectCloud(join(root, "none"))).toBeNull()
  expect(dmi({ sys_vendor: "QEMU" })).toBeNull()
  expect(dmi({ sys_vendor: "Amazon EC2" })).toBe("AWS")
  expect(dmi({ sys_vendor: "Google" })).toBe("GCP")
  expect(dmi({ sys_vendor: "Microsoft Corporation" })).toBeNull()
  expect(dmi({ chassis_asset_tag: "7783-7084-3265-9085-8269-3286-77" })).toBe("Azure")
})
