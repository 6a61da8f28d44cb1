/** What the built executable leaves behind of a verification, and what it makes of that later: reports, saved evidence, reboots. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  chmodSync,
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { run, type SimulatedVm, simulatedVm } from "../executable.ts"

let vm: SimulatedVm
let files: string
let snapshot: string

beforeAll(async () => {
  files = mkdtempSync(join(tmpdir(), "cosmian-vm-report-"))
  snapshot = join(files, "vm.snapshot")
  vm = await simulatedVm(`[agent]\n\n[snapshot]\nroot = "/usr/sbin"\n`)
  await vm.exec("/usr/bin/ls")
  const taken = await run(["snapshot", ...live(), "-o", snapshot])
  if (taken.code !== 0) throw new Error(taken.stdout + taken.stderr)
}, 60_000)

afterAll(async () => {
  await vm.remove()
  rmSync(files, { recursive: true, force: true })
})

const anchors = () => ["--allow-insecure-tls", "--trust-root", vm.trustRoot]
const live = () => ["--url", vm.url, ...anchors()]

interface Answer {
  passed: boolean
  at: string
  claims: { check: string; status: string; summary: string; findings: { code: string }[] }[]
}

async function verify(args: readonly string[]) {
  const { code, stdout } = await run(["verify", "-s", snapshot, "--json", ...args])
  const answer: Answer = JSON.parse(stdout)
  return { code, answer, claim: (check: string) => answer.claims?.find((claim) => claim.check === check) }
}

describe("saved evidence", () => {
  test("gives the same verdict when the VM is off, and not to another snapshot, root, time or nonce", async () => {
    const saved = join(files, "vm.evidence.zst")
    const then = await verify([...live(), "--save-evidence", saved])
    expect(then.code).toBe(EXIT.ok)
    await vm.stop()
    const later = await verify([...anchors(), "--evidence", saved])
    expect(later.code).toBe(EXIT.ok)
    expect(later.claim("channel")).toMatchObject({ status: "warning" })
    expect(later.claim("channel")?.summary).toContain("saved evidence")
    expect(later.answer.claims.map(({ check, status }) => [check, status])).toEqual(
      then.answer.claims.map(({ check, status }) => [check, status]),
    )

    expect((await verify(["--allow-insecure-tls", "--evidence", saved])).code).toBe(EXIT.tee)
    expect((await verify(["--trust-root", vm.trustRoot, "--evidence", saved])).code).toBe(EXIT.channel)
    const expired = await verify([...anchors(), "--evidence", saved, "--at", "2199-01-01T00:00:00Z"])
    expect(expired.code).toBe(EXIT.tee)

    const plain = join(files, "vm.evidence")
    const text = new TextDecoder().decode(Bun.zstdDecompressSync(readFileSync(saved)))
    writeFileSync(plain, text)
    expect((await verify([...anchors(), "--evidence", plain])).code).toBe(EXIT.ok)
    writeFileSync(plain, text.replace(/"nonce":"[^"]*"/, `"nonce":"${"A".repeat(43)}"`))
    expect((await verify([...anchors(), "--evidence", plain])).code).toBe(EXIT.binding)
    writeFileSync(plain, text.replace('"nonce"', '"nonce":"","nonce"'))
    const twice = await run(["verify", "-s", snapshot, ...anchors(), "--evidence", plain])
    expect(twice).toMatchObject({ code: EXIT.operational, stdout: "" })
    expect(twice.stderr).toContain("ERR_DUPLICATE_KEY")
    await vm.start()
  }, 60_000)
})

describe("after a reboot", () => {
  test("--accept-reboot passes and says so; not for another kernel command line", async () => {
    await vm.stop()
    await vm.start()
    expect((await verify(live())).code).toBe(EXIT.reboot)
    const accepted = await verify([...live(), "--accept-reboot"])
    expect(accepted.code).toBe(EXIT.ok)
    expect(accepted.claim("reboot")).toMatchObject({
      status: "warning",
      findings: [{ code: "ERR_REBOOTED" }],
    })

    await vm.stop()
    await Bun.write(join(vm.dir, "vm", "cmdline"), "root=/dev/evil")
    await vm.start()
    const other = await verify([...live(), "--accept-reboot"])
    expect(other.code).toBe(EXIT.boot)
    expect(other.claim("reboot")).toMatchObject({ status: "failed" })
  }, 60_000)
})

describe("reports", () => {
  test("of a program whose name attacks the page: written, escaped, and the exit code stays", async () => {
    const program = join(files, "<script>alert(1)<script>&'x")
    copyFileSync("/usr/bin/true", program)
    chmodSync(program, 0o755)
    await vm.exec(program)
    const place = mkdtempSync(join(files, "out-"))
    const [page, junit, sarif] = ["r.html", "r.xml", "r.sarif"].map((name) => join(place, name))
    if (page === undefined || junit === undefined || sarif === undefined) throw new Error("three names")
    const options = [
      "--skip",
      "boot",
      "--skip",
      "reboot",
      "--report",
      page,
      "--junit",
      junit,
      "--sarif",
      sarif,
    ]
    expect((await verify([...live(), ...options])).code).toBe(EXIT.ima)
    expect(readdirSync(place).sort()).toEqual(["r.html", "r.sarif", "r.xml"])
    const html = readFileSync(page, "utf8")
    expect(html).toContain("&lt;script&gt;alert(1)")
    expect(html).not.toContain("<script")
    expect(readFileSync(junit, "utf8")).toContain("&lt;script&gt;alert(1)")
    expect(JSON.parse(readFileSync(sarif, "utf8"))).toMatchObject({
      version: "2.1.0",
      runs: [{ invocations: [{ exitCode: EXIT.ima }] }],
    })
  }, 60_000)

  test("a place that cannot be written to is found out first", async () => {
    const { code, stdout } = await run([
      "verify",
      ...live(),
      "-s",
      snapshot,
      "--report",
      join(files, "no", "r.html"),
    ])
    expect(code).toBe(EXIT.operational)
    expect(stdout).toBe("")
  })
})
