import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { run, type SimulatedVm, simulatedVm } from "../executable.ts"

let dir = ""
let vm: SimulatedVm

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "snapshots-"))
  mkdirSync(join(dir, "root"))
  writeFileSync(join(dir, "root", "program"), "#!/bin/sh\n")
  vm = await simulatedVm(`[snapshot]\nroot = ${JSON.stringify(join(dir, "root"))}\nexclude = []\n`)
}, 60_000)
afterAll(async () => {
  await vm?.remove()
  rmSync(dir, { recursive: true, force: true })
})

const ok = async (...args: string[]) => {
  const { code, stdout, stderr } = await run(args)
  expect([code, stderr]).toEqual([0, ""])
  return stdout
}

test("an update, from the first snapshot to the roll-out: taken, compared, merged, signed, verified", async () => {
  const of = (name: string) => join(dir, name)
  const connection = ["--url", vm.url, "--allow-insecure-tls", "--trust-root", vm.trustRoot, "--quiet"]
  await ok("snapshot", ...connection, "-o", of("before.snapshot"))
  writeFileSync(join(dir, "root", "program"), "#!/bin/sh\necho updated\n")
  await ok("snapshot", ...connection, "-o", of("after.snapshot.zst"))

  const diff = JSON.parse(
    await ok("snapshot", "diff", "--json", of("before.snapshot"), of("after.snapshot.zst")),
  )
  expect(diff).toMatchObject({ equal: false, references: [], files: { added: 0, removed: 0, changed: 1 } })
  const summary = JSON.parse(await ok("snapshot", "show", "--json", of("after.snapshot.zst")))
  expect(summary).toMatchObject({ format: 2, unreadable: [] })

  const merged = of("rollout.snapshot.zst")
  await ok("snapshot", "merge", of("before.snapshot"), of("after.snapshot.zst"), "-o", merged)
  await ok("verify", ...connection, "-s", merged)

  const [key, open] = [of("key.pem"), of("public.pem")]
  Bun.spawnSync(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key])
  Bun.spawnSync(["openssl", "pkey", "-in", key, "-pubout", "-out", open])
  await ok("snapshot", "sign", merged, "--key", key)
  expect(JSON.parse(await ok("snapshot", "check-signature", merged, "--key", open, "--json"))).toMatchObject({
    verified: true,
    taken_at: summary.taken_at,
  })
  const forged = await run([
    "snapshot",
    "check-signature",
    of("before.snapshot"),
    "--key",
    open,
    "--signature",
    `${merged}.sig`,
    "--json",
  ])
  expect([forged.code, JSON.parse(forged.stdout).error.code]).toEqual([1, "ERR_SNAPSHOT_SIGNATURE"])
}, 60_000)

test("a snapshot is read from standard input", async () => {
  const stdin = readFileSync(join(dir, "before.snapshot"), "utf8")
  const { code, stdout } = await run(["snapshot", "show", "-"], { stdin })
  expect(code).toBe(0)
  expect(stdout).toContain("hash_algorithm")
})
