/** ATTACKS S1, S2 and I1 on snapshots, by the executable: one thing changed, judged by code and exit code. The unchanged twin verifies. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createSelfSigned } from "../../src/agent/identity.ts"
import { EXIT } from "../../src/errors.ts"
import { run, type SimulatedVm, simulatedVm } from "../executable.ts"
import { buildDeb } from "../fakes/packages.ts"
import { startRelay } from "../relay.ts"

let dir = ""
let root = ""
let vm: SimulatedVm
let other: SimulatedVm
let snapshot = ""

const TOOL = "usr/bin/tool"
const OTHER_TOOL = "usr/bin/other"

beforeAll(async () => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), "snapshot-attacks-")))
  root = join(dir, "root")
  for (const part of ["usr/bin", "var/lib/dpkg/info"]) mkdirSync(join(root, part), { recursive: true })
  writeFileSync(join(root, TOOL), "tool 1")
  writeFileSync(join(root, OTHER_TOOL), "other")
  writeFileSync(
    join(root, "var/lib/dpkg/status"),
    "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0-1\n",
  )
  writeFileSync(join(root, "var/lib/dpkg/info/tool.list"), `/.\n/usr\n/usr/bin\n/${TOOL}\n`)
  const config = `[snapshot]\nroot = ${JSON.stringify(root)}\nexclude = []\n`
  ;[vm, other] = await Promise.all([simulatedVm(config), simulatedVm(config)])
  await vm.exec(join(root, TOOL))
  snapshot = join(dir, "vm.snapshot")
  const evidence = ["--save-evidence", join(dir, "vm.evidence")]
  expect((await run(["snapshot", ...of(vm), "-o", snapshot, ...evidence])).code).toBe(EXIT.ok)
}, 120_000)

afterAll(async () => {
  await Promise.all([vm?.remove(), other?.remove()])
  rmSync(dir, { recursive: true, force: true })
})

function of(machine: SimulatedVm, url = machine.url): string[] {
  return ["--url", url, "--allow-insecure-tls", "--trust-root", machine.trustRoot, "--quiet"]
}

interface Found {
  readonly code: string
  readonly file?: { readonly state: string; readonly package: { readonly name: string } | null }
}

/** Exit code, and the codes of the error or of what failed. */
async function verified(file: string, ...more: string[]) {
  const { code, stdout } = await run(["verify", ...of(vm), "-s", file, "--json", ...more])
  const answer = JSON.parse(stdout)
  const claims: { status: string; findings: Found[] }[] = answer.claims ?? []
  const findings = claims.filter(({ status }) => status === "failed").flatMap(({ findings: some }) => some)
  const codes = answer.error === undefined ? findings.map((one) => one.code) : [answer.error.code]
  return { exit: code, codes: [...new Set(codes)], findings }
}

// biome-ignore lint/suspicious/noExplicitAny: a snapshot that is about to be edited in ways that its type forbids
type Edited = any

let edits = 0

/** A copy of the snapshot, edited. */
function edited(edit: (json: Edited) => void): string {
  const json = JSON.parse(readFileSync(snapshot, "utf8"))
  edit(json)
  edits += 1
  const path = join(dir, `edited-${edits}.snapshot`)
  writeFileSync(path, JSON.stringify(json))
  return path
}

const flipped = (hex: string) => (hex.startsWith("0") ? "1" : "0") + hex.slice(1)
const toolIn = (json: Edited) => json.filehashes.find(([path]: [string]) => path === join(root, TOOL))

describe("S1: a snapshot that was edited", () => {
  test("the unchanged twin verifies, and so does one that was only written anew", async () => {
    expect(await verified(snapshot)).toMatchObject({ exit: EXIT.ok, codes: [] })
    expect(await verified(edited(() => undefined))).toMatchObject({ exit: EXIT.ok, codes: [] })
  })

  const cases: readonly (readonly [string, (json: Edited) => void, number, string])[] = [
    [
      "the digest of a file that ran",
      (json) => {
        toolIn(json)[1] = flipped(toolIn(json)[1])
      },
      EXIT.ima,
      "ERR_IMA_CHANGED_FILE",
    ],
    [
      "a file taken out",
      (json) => {
        json.filehashes = json.filehashes.filter(([path]: [string]) => path !== join(root, TOOL))
      },
      EXIT.ima,
      "ERR_IMA_UNKNOWN_FILE",
    ],
    [
      "a file declared superseded",
      (json) => {
        const [path, digest] = toolIn(json)
        json.superseded = [[path, digest]]
        json.filehashes = json.filehashes.filter(([known]: [string]) => known !== path)
        delete json.packages
      },
      EXIT.ima,
      "ERR_IMA_OLD_VERSION",
    ],
    [
      "the launch measurement",
      (json) => {
        json.tee_policy.Sev.measurement = flipped(json.tee_policy.Sev.measurement)
      },
      EXIT.tee,
      "ERR_TEE_MEASUREMENT",
    ],
    [
      "a PCR",
      (json) => {
        json.tpm_reference.pcrs["4"] = flipped(json.tpm_reference.pcrs["4"])
      },
      EXIT.boot,
      "ERR_BOOT_PCR",
    ],
    [
      "the attestation key",
      (json) => {
        json.tpm_reference.ak_name = flipped(json.tpm_reference.ak_name)
      },
      EXIT.tpm,
      "ERR_TPM_AK_CHANGED",
    ],
    [
      "boot_aggregate",
      (json) => {
        json.ima_reference.boot_aggregate = `sha256:${"00".repeat(32)}`
      },
      EXIT.ima,
      "ERR_IMA_BOOT_AGGREGATE",
    ],
    [
      "a member that nobody knows",
      (json) => {
        json.trusted = true
      },
      EXIT.operational,
      "ERR_MALFORMED",
    ],
    [
      "another format version",
      (json) => {
        json.format = 3
      },
      EXIT.operational,
      "ERR_SNAPSHOT_FORMAT",
    ],
    [
      "the format as a text",
      (json) => {
        json.format = "2"
      },
      EXIT.operational,
      "ERR_SNAPSHOT_FORMAT",
    ],
    [
      "the predecessor's format with our members",
      (json) => void delete json.format,
      EXIT.operational,
      "ERR_MALFORMED",
    ],
    [
      "a digest of another size",
      (json) => {
        toolIn(json)[1] = "00"
      },
      EXIT.operational,
      "ERR_MALFORMED",
    ],
    [
      "a package's range beyond the files",
      (json) => {
        json.packages[0].files = [[0, 1e6]]
      },
      EXIT.operational,
      "ERR_MALFORMED",
    ],
  ]
  for (const [name, edit, exit, code] of cases)
    test(`${name}: ${code}`, async () => {
      const result = await verified(edited(edit))
      expect(result.exit).toBe(exit)
      expect(result.codes).toContain(code)
    })

  test("packages explain and decide nothing: whatever is said of them, the same passes and fails", async () => {
    for (const edit of [
      (json: Edited) => void delete json.packages,
      (json: Edited) => {
        json.packages[0].name = "\u001b[2J[ OK ]"
      },
      (json: Edited) => {
        json.packages[0].source = "repository"
      },
      (json: Edited) => {
        json.packages[0].files = []
      },
    ]) {
      expect((await verified(edited(edit))).exit).toBe(EXIT.ok)
      const both = edited((json) => {
        toolIn(json)[1] = flipped(toolIn(json)[1])
        edit(json)
      })
      expect(await verified(both)).toMatchObject({ exit: EXIT.ima, codes: ["ERR_IMA_CHANGED_FILE"] })
    }
  })

  test("a name twice, at the top and inside", async () => {
    const text = readFileSync(snapshot, "utf8")
    for (const [from, to] of [
      ['"format":', '"format": 2, "format":'],
      ['"reset_count":', '"reset_count": 0, "reset_count":'],
      ['"manager":', '"manager":"rpm","manager":'],
    ] as const) {
      const path = join(dir, "twice.snapshot")
      writeFileSync(path, text.replace(from, to))
      expect(await verified(path)).toMatchObject({ exit: EXIT.operational, codes: ["ERR_DUPLICATE_KEY"] })
    }
  })

  test("of two gigabytes, plain or compressed to little, is refused before it takes memory", async () => {
    const large = join(dir, "large.snapshot")
    const fd = openSync(large, "w")
    ftruncateSync(fd, 2 * 1024 ** 3)
    closeSync(fd)
    expect(await verified(large)).toMatchObject({ exit: EXIT.operational, codes: ["ERR_TOO_LARGE"] })
    const zst = Bun.spawnSync(["sh", "-c", `head -c 2G /dev/zero | zstd -q > ${dir}/bomb.zst`])
    expect(zst.exitCode).toBe(0)
    expect(await verified(join(dir, "bomb.zst"))).toMatchObject({
      exit: EXIT.operational,
      codes: ["ERR_TOO_LARGE"],
    })
  }, 60_000)

  test("of another VM", async () => {
    const theirs = join(dir, "other.snapshot")
    expect((await run(["snapshot", ...of(other), "-o", theirs])).code).toBe(EXIT.ok)
    const result = await verified(theirs)
    expect(result.exit).toBe(EXIT.tee)
    expect(result.codes).toContain("ERR_TPM_AK_CHANGED")
  })
})

describe("S2: a snapshot is taken", () => {
  test("of the VM that attests, and names the evidence, which can be kept", async () => {
    const { taken_under: under } = JSON.parse(readFileSync(snapshot, "utf8"))
    const saved = JSON.parse(readFileSync(join(dir, "vm.evidence"), "utf8"))
    const bytes = (text: string) => Buffer.from(text, "base64")
    const sha256 = (text: string) => createHash("sha256").update(bytes(text)).digest("hex")
    expect(under).toEqual({
      nonce: bytes(saved.nonce).toString("hex"),
      tee_report: sha256(saved.evidence.tee.report),
      tpm_quote: sha256(saved.evidence.tpm.quote),
    })
  })

  test("not through a relay, not of a VM under another root, and not of something that does not attest", async () => {
    const output = join(dir, "never.snapshot")
    const { keyPem, certificatePem } = await createSelfSigned({ hosts: ["127.0.0.1"], now: new Date() })
    const relay = await startRelay(vm.port, keyPem, certificatePem)
    const nobody = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      tls: { key: keyPem, cert: certificatePem },
      fetch: () => Response.json({ format: 2 }),
    })
    try {
      for (const [args, exit] of [
        [of(vm, `https://127.0.0.1:${relay.port}`), EXIT.binding],
        [["--url", vm.url, "--allow-insecure-tls", "--trust-root", other.trustRoot], EXIT.tee],
        [["--url", vm.url, "--trust-root", vm.trustRoot], EXIT.channel],
        [of(vm, `https://127.0.0.1:${nobody.port}`), EXIT.operational],
      ] as const) {
        const { code } = await run(["snapshot", ...args, "-o", output])
        expect([code, await Bun.file(output).exists()]).toEqual([exit, false])
      }
    } finally {
      relay.close()
      await nobody.stop(true)
    }
  })
})

describe("I1: an update, with the package and without", () => {
  test("is accepted by the package; what ran before is not, nor what is put back; packages and states are named", async () => {
    const tool = join(root, TOOL)
    const deb = await buildDeb(dir, { name: "tool", version: "2.0-1", files: { [tool]: "tool 2" } })
    writeFileSync(tool, "tool 2")
    await vm.exec(tool)
    const failed = await verified(snapshot)
    expect(failed).toMatchObject({ exit: EXIT.ima, codes: ["ERR_IMA_CHANGED_FILE"] })
    expect(failed.findings[0]?.file).toMatchObject({ state: "changed", package: { name: "tool" } })

    const [updated, both] = [join(dir, "updated.snapshot"), join(dir, "both.snapshot.zst")]
    const update = (...args: string[]) =>
      run(["snapshot", "update", "-s", snapshot, "--deb", deb, "--json", ...args])
    const refused = await update("-o", updated)
    expect([refused.code, JSON.parse(refused.stdout).error.code]).toEqual([
      EXIT.operational,
      "ERR_PACKAGE_UNAUTHENTICATED",
    ])
    const digest = createHash("sha256").update(readFileSync(deb)).digest("hex")
    expect((await update("-o", updated, "--sha256", digest)).code).toBe(EXIT.ok)
    expect((await update("-o", both, "--sha256", digest, "--keep-old")).code).toBe(EXIT.ok)

    // Both versions have run in this boot.
    expect(await verified(both)).toMatchObject({ exit: EXIT.ok })
    const before = await verified(updated)
    expect(before).toMatchObject({ exit: EXIT.ima, codes: ["ERR_IMA_OLD_VERSION"] })
    expect(before.findings[0]?.file?.state).toBe("before-update")

    await vm.stop()
    await vm.start()
    await vm.exec(tool)
    expect(await verified(updated, "--accept-reboot")).toMatchObject({ exit: EXIT.ok })

    writeFileSync(tool, "tool 1")
    await vm.exec(tool)
    const rolledBack = await verified(updated, "--accept-reboot")
    expect(rolledBack).toMatchObject({ exit: EXIT.ima, codes: ["ERR_IMA_OLD_VERSION"] })
    expect(rolledBack.findings[0]?.file?.state).toBe("rolled-back")
  }, 120_000)
})
