/** Who may have the agent do something, as users of the executable meet it: owners, claims, client certificates. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { run, type SimulatedVm, simulatedVm } from "../executable.ts"

let files: string
beforeAll(() => {
  files = mkdtempSync(join(tmpdir(), "cosmian-vm-owner-"))
})
afterAll(() => rmSync(files, { recursive: true, force: true }))

const reached = (vm: SimulatedVm, url = vm.url) => [
  ...["--url", url, "--allow-insecure-tls", "--trust-root", vm.trustRoot],
]
const trusted = (vm: SimulatedVm, url = vm.url) => [...reached(vm, url), "--any-vm"]

/** Makes an owner's key, and gives its file and its line for the configuration. */
async function ownerKey(name: string): Promise<{ file: string; line: string }> {
  const file = join(files, name)
  const { code, stdout } = await run(["owner", "key", "-o", file])
  expect(code).toBe(EXIT.ok)
  return { file, line: stdout }
}

function openssl(...args: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["openssl", ...args], { cwd: files })
  if (exitCode !== 0) throw new Error(`openssl ${args[0]}: ${stderr}`)
}

test("owner key writes a private key that only its owner reads, and keeps an existing one", async () => {
  const first = await ownerKey("kept.pem")
  expect(statSync(first.file).mode & 0o777).toBe(0o600)
  const content = readFileSync(first.file, "utf8")
  expect((await ownerKey("kept.pem")).line).toBe(first.line)
  expect(readFileSync(first.file, "utf8")).toBe(content)
  expect(content).not.toContain(first.line.split('"')[1] ?? "-")
})

describe("A1: an agent with an owner", () => {
  let vm: SimulatedVm
  let owner: string
  let stranger: string
  beforeAll(async () => {
    const key = await ownerKey("owner.pem")
    owner = key.file
    stranger = (await ownerKey("stranger.pem")).file
    vm = await simulatedVm(
      `${key.line}[snapshot]\nroot = "/etc/ssl"\n[app]\nservice_type = "standalone"\nservice_name = "date"\napp_storage = "data/app"\n`,
    )
    await vm.exec("/usr/bin/ls")
  }, 60_000)
  afterAll(() => vm.remove())

  test("tells the owner, and nobody else, how the application does", async () => {
    const status = (...who: string[]) => run(["app", "status", ...trusted(vm), ...who, "--json"])
    const { code, stdout } = await status("--owner-key", owner)
    expect(code).toBe(EXIT.ok)
    expect(JSON.parse(stdout)).toMatchObject({
      done: true,
      application: { service: "date", state: "down", configured: false, busy: false },
    })
    for (const who of [[], ["--owner-key", stranger]])
      expect((await status(...who)).code).toBe(EXIT.operational)
  })

  test("an application that does not stay up: refused with its last lines, and nothing is left", async () => {
    const configuration = join(files, "app.conf")
    writeFileSync(configuration, "password = hidden")
    const { code, stderr } = await run([
      ...["app", "init", ...trusted(vm), "--owner-key", owner, "-c", configuration],
    ])
    expect(code).toBe(EXIT.operational)
    expect(stderr).toContain("ERR_SERVICE")
    expect(stderr).toMatch(/^ {2}\| .*20[0-9]{2}/m)
    expect(existsSync(join(vm.dir, "vm/data/app/app.conf"))).toBe(false)
    expect(vm.log()).not.toContain("hidden")
    const logs = await run(["app", "logs", ...trusted(vm), "--owner-key", owner])
    expect([logs.code, logs.stdout]).toEqual([EXIT.ok, expect.stringMatching(/20[0-9]{2}/)])
  })

  test("gives a snapshot to the owner only", async () => {
    const snapshot = join(files, "owned.snapshot")
    const taken = (...who: string[]) => run(["snapshot", ...reached(vm), ...who, "-o", snapshot])
    expect((await taken()).code).toBe(EXIT.operational)
    expect(existsSync(snapshot)).toBe(false)
    expect((await taken("--owner-key", owner)).code).toBe(EXIT.ok)
    // Verifying asks nobody's leave.
    expect((await run(["verify", ...reached(vm), "-s", snapshot])).code).toBe(EXIT.ok)
  })

  test("a claim comes too late", async () => {
    const { code, stderr } = await run(["owner", "claim", ...trusted(vm), "--owner-key", stranger])
    expect(code).toBe(EXIT.operational)
    expect(stderr).toContain("ERR_OWNER_EXISTS")
  })

  test("two kinds of credentials at once are a usage error", async () => {
    const both = ["--owner-key", owner, "--token-file", owner]
    expect((await run(["app", "status", ...trusted(vm), ...both])).code).toBe(EXIT.usage)
  })
})

test("A1: an image without owner is claimed once, by whoever has it attest first, over restarts", async () => {
  const [first, second] = [await ownerKey("first.pem"), await ownerKey("second.pem")]
  const vm = await simulatedVm(
    `[auth]\nfirst_owner = true\n[snapshot]\nroot = "/etc/ssl"\n[app]\nservice_type = "standalone"\nservice_name = "date"\napp_storage = "data/app"\n`,
  )
  try {
    await vm.exec("/usr/bin/ls")
    const claim = (key: string) => run(["owner", "claim", ...trusted(vm), "--owner-key", key])
    const status = (key: string) => run(["app", "status", ...trusted(vm), "--owner-key", key])
    expect((await status(first.file)).code).toBe(EXIT.operational)
    expect((await claim(first.file)).code).toBe(EXIT.ok)
    expect((await claim(second.file)).code).toBe(EXIT.operational)
    await vm.stop()
    await vm.start()
    await vm.exec("/usr/bin/ls")
    expect((await status(first.file)).code).toBe(EXIT.ok)
    expect((await status(second.file)).code).toBe(EXIT.operational)
  } finally {
    await vm.remove()
  }
}, 60_000)

test("A1: on the port for clients with certificates, one of the right authority opens writes, and no other", async () => {
  for (const name of ["good", "bad"]) {
    const ca = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl("req", ...ca, "-subj", `/CN=${name}`, "-keyout", `${name}-ca.key`, "-out", `${name}-ca.pem`)
    const request = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", ...request, "-subj", "/CN=admin", "-keyout", `${name}.key`, "-out", `${name}.csr`)
    const by = ["-CA", `${name}-ca.pem`, "-CAkey", `${name}-ca.key`, "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", `${name}.csr`, ...by, "-out", `${name}.pem`)
  }
  const vm = await simulatedVm(
    `[auth]\nclient_ca = "${join(files, "good-ca.pem")}"\nclient_port = 0\n[snapshot]\nroot = "/etc/ssl"\n[app]\nservice_type = "standalone"\nservice_name = "date"\napp_storage = "data/app"\n`,
  )
  try {
    await vm.exec("/usr/bin/ls")
    const port = /"client_port":(\d+)/.exec(vm.log())?.[1]
    const closed = `https://127.0.0.1:${port}`
    const status = (url: string, name: string | null) => {
      const pair = [
        "--client-certificate",
        join(files, `${name}.pem`),
        "--client-key",
        join(files, `${name}.key`),
      ]
      return run(["app", "status", ...trusted(vm, url), ...(name === null ? [] : pair)])
    }
    expect((await status(closed, "good")).code).toBe(EXIT.ok)
    expect((await status(closed, "bad")).code).toBe(EXIT.operational)
    expect((await status(closed, null)).code).toBe(EXIT.operational)
    // On the open port nobody looks at a certificate.
    expect((await status(vm.url, "good")).code).toBe(EXIT.operational)
  } finally {
    await vm.remove()
  }
}, 60_000)
