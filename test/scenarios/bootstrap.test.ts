/** An application that gets its secrets only over a connection that was attested first. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect } from "node:tls"
import { createSelfSigned } from "../../src/agent/identity.ts"
import { EXIT } from "../../src/errors.ts"
import { freePort, run, type SimulatedVm, simulatedVm } from "../executable.ts"
import { HAVE_PEBBLE, type Pebble, startPebble } from "../fakes/pebble.ts"
import { startRelay } from "../relay.ts"

let files: string
let owner: string
let ownerLine: string
const vms: SimulatedVm[] = []
beforeAll(async () => {
  files = mkdtempSync(join(tmpdir(), "cosmian-vm-bootstrap-"))
  owner = join(files, "owner.pem")
  ownerLine = (await run(["owner", "key", "-o", owner])).stdout
  writeFileSync(join(files, "password"), "correct horse\n")
})
afterEach(async () => {
  await Promise.all(vms.splice(0).map((vm) => vm.remove()))
})
afterAll(() => rmSync(files, { recursive: true, force: true }))

/**
 * A VM whose application, as the first thing it does, writes down what it was given.
 * @param then what it does after that, where `directory` is that of its certificate.
 */
async function vmThatWaits(
  more = "",
  then: (directory: string) => string = () => "exec sleep 300",
): Promise<SimulatedVm> {
  const programs = mkdtempSync(join(files, "programs-"))
  const program = join(programs, "keyserver")
  writeFileSync(
    program,
    `#!/bin/sh\nprintf '%s' "$db_password" > ${programs}/seen\ncat "$COSMIAN_VM_VALUES/tls.key" >> ${programs}/seen\n${then("$COSMIAN_VM_VALUES/../../data/certificate")}\n`,
  )
  chmodSync(program, 0o755)
  const config = `${ownerLine}
[snapshot]
root = "/etc/ssl"
[app]
service_type = "standalone"
service_name = "keyserver"
app_storage = "data/app"
[bootstrap]
port = 0
values = ["db_password", "tls.key"]
environment = true
${more}`
  const vm = await simulatedVm(config, programs)
  vms.push(vm)
  await vm.exec("/usr/bin/ls")
  return Object.assign(vm, { programs })
}

const portOf = (vm: SimulatedVm) => Number(/"bootstrap_port":(\d+)/.exec(vm.log())?.[1])
const urlOf = (vm: SimulatedVm) => `https://127.0.0.1:${portOf(vm)}`
const reached = (vm: SimulatedVm, url: string) => [
  ...["--url", url, "--allow-insecure-tls", "--trust-root", vm.trustRoot],
]
const SECRETS = () => ["--set", `db_password=@${join(files, "password")}`, "--file", `tls.key=${owner}`]

async function snapshotOf(vm: SimulatedVm): Promise<string> {
  const snapshot = join(vm.dir, "vm.snapshot")
  const { code, stderr } = await run([
    "snapshot",
    ...reached(vm, vm.url),
    "--owner-key",
    owner,
    "-o",
    snapshot,
  ])
  if (code !== EXIT.ok) throw new Error(stderr)
  return snapshot
}

test("secrets reach the application, the port closes, and the VM verifies as before", async () => {
  const vm = await vmThatWaits()
  const snapshot = await snapshotOf(vm)
  const port = portOf(vm)
  const bring = () =>
    run([
      ...["bootstrap", ...reached(vm, `https://127.0.0.1:${port}`), "-s", snapshot, "--owner-key", owner],
      ...SECRETS(),
      "--json",
    ])
  const { code, stdout } = await bring()
  expect(code).toBe(EXIT.ok)
  expect(JSON.parse(stdout)).toMatchObject({ done: true, bootstrap: { state: "done", received: [] } })
  const seen = join(String(Reflect.get(vm, "programs")), "seen")
  expect(readFileSync(seen, "utf8")).toBe(`correct horse${readFileSync(owner, "utf8")}`)
  expect(vm.log()).not.toContain("correct horse")
  expect(stdout).not.toContain("correct horse")
  // Closed: nobody answers there any more.
  expect((await bring()).code).toBe(EXIT.operational)
  expect((await run(["verify", ...reached(vm, vm.url), "-s", snapshot])).code).toBe(EXIT.ok)
}, 60_000)

test("secrets may come in parts; the application starts when all are there", async () => {
  const vm = await vmThatWaits()
  const bring = (...more: string[]) =>
    run(["bootstrap", ...reached(vm, urlOf(vm)), "--any-vm", "--owner-key", owner, ...more])
  const first = await bring("--set", "db_password=x", "--no-start")
  expect([first.code, first.stdout]).toEqual([EXIT.ok, expect.stringContaining("missing: tls.key")])
  expect((await bring()).stderr).toContain("ERR_BOOTSTRAP")
  expect((await bring("--file", `tls.key=${owner}`)).code).toBe(EXIT.ok)
}, 60_000)

test("C1: through a relay nothing is sent", async () => {
  const vm = await vmThatWaits()
  const { keyPem, certificatePem } = await createSelfSigned({ hosts: ["127.0.0.1"], now: new Date() })
  const relay = await startRelay(portOf(vm), keyPem, certificatePem)
  try {
    const url = `https://127.0.0.1:${relay.port}`
    const { code } = await run([
      "bootstrap",
      ...reached(vm, url),
      "--any-vm",
      "--owner-key",
      owner,
      ...SECRETS(),
    ])
    expect(code).toBe(EXIT.binding)
    expect(vm.log()).not.toContain("values received")
  } finally {
    relay.close()
  }
}, 60_000)

test("C1: a relay that has the VM's own TLS key is refused where secrets go; where only the key is bound, it is not seen", async () => {
  const vm = await vmThatWaits()
  const snapshot = await snapshotOf(vm)
  const [key, certificate] = ["key.pem", "cert.pem"].map((name) =>
    readFileSync(join(vm.dir, "vm/data", name), "utf8"),
  )
  const relayTo = (port: number) => startRelay(port, key ?? "", certificate ?? "")
  const [toBootstrap, toAgent] = [await relayTo(portOf(vm)), await relayTo(vm.port)]
  const bring = (port: number) =>
    run([
      ...["bootstrap", ...reached(vm, `https://127.0.0.1:${port}`), "-s", snapshot, "--json"],
      ...["--owner-key", owner, ...SECRETS()],
    ])
  const bindingOf = (verdict: { claims: { check: string }[] }) =>
    verdict.claims.find(({ check }) => check === "binding")
  try {
    expect((await bring(toBootstrap.port)).code).toBe(EXIT.binding)
    expect(vm.log()).not.toContain("values received")
    const verify = ["verify", ...reached(vm, `https://127.0.0.1:${toAgent.port}`), "-s", snapshot, "--json"]
    const seen = await run(verify)
    expect([seen.code, bindingOf(JSON.parse(seen.stdout))]).toEqual([
      EXIT.ok,
      expect.objectContaining({ facts: expect.objectContaining({ boundTo: "tls-key" }) }),
    ])
    const { code, stdout } = await bring(portOf(vm))
    expect([code, bindingOf(JSON.parse(stdout).verdict)]).toEqual([
      EXIT.ok,
      expect.objectContaining({ facts: expect.objectContaining({ boundTo: "tls-exporter" }) }),
    ])
  } finally {
    toBootstrap.close()
    toAgent.close()
  }
}, 60_000)

test("where the port cannot bind evidence to the connection, no weaker binding is taken", async () => {
  const vm = await vmThatWaits()
  const { code, stderr } = await run([
    ...["bootstrap", ...reached(vm, vm.url), "--any-vm", "--owner-key", owner, ...SECRETS()],
  ])
  expect([code, stderr]).toEqual([EXIT.operational, expect.stringContaining("exporter")])
  expect(vm.log()).not.toContain("values received")
}, 60_000)

test("C8: a genuine VM that is not the one of the snapshot gets nothing", async () => {
  const [mine, other] = [await vmThatWaits(), await vmThatWaits()]
  const snapshot = await snapshotOf(mine)
  const bring = (vm: SimulatedVm) =>
    run([
      ...["bootstrap", ...reached(vm, urlOf(vm)), "--trust-root", mine.trustRoot, "-s", snapshot],
      ...["--owner-key", owner, ...SECRETS()],
    ])
  expect((await bring(other)).code).toBe(EXIT.tee)
  expect(other.log()).not.toContain("values received")
  expect((await bring(mine)).code).toBe(EXIT.ok)
}, 60_000)

test("C8: by its measurement alone, the VM of that launch gets its values and another one does not", async () => {
  const vm = await vmThatWaits()
  const snapshot: unknown = JSON.parse(readFileSync(await snapshotOf(vm), "utf8"))
  const { tee_policy: tee } = snapshot as { tee_policy: { Sev: { measurement: string } } }
  const bytes = Buffer.from(tee.Sev.measurement, "hex")
  const bring = (measurement: string) =>
    run([
      ...["bootstrap", ...reached(vm, urlOf(vm)), "--measurement", measurement],
      ...["--owner-key", owner, ...SECRETS()],
    ])
  expect((await bring("00")).code).toBe(EXIT.usage)
  bytes[0] = (bytes[0] ?? 0) ^ 1
  expect((await bring(bytes.toString("hex"))).code).toBe(EXIT.tee)
  expect(vm.log()).not.toContain("values received")
  bytes[0] ^= 1
  expect((await bring(bytes.toString("hex"))).code).toBe(EXIT.ok)
}, 60_000)

test("nobody but an owner brings values", async () => {
  const vm = await vmThatWaits()
  const stranger = join(files, "stranger.pem")
  await run(["owner", "key", "-o", stranger])
  for (const who of [[], ["--owner-key", stranger]]) {
    const { code } = await run(["bootstrap", ...reached(vm, urlOf(vm)), "--any-vm", ...who, ...SECRETS()])
    expect(code).toBe(EXIT.operational)
  }
  expect(vm.log()).not.toContain("values received")
}, 60_000)

test("the port has evidence and bootstrap, and nothing else", async () => {
  const vm = await vmThatWaits()
  for (const path of ["/snapshot", "/app/init", "/v1/app/logs", "/quote/tee", "/ima/ascii", "/v1/info"]) {
    const answer = await fetch(`${urlOf(vm)}${path}`, { tls: { rejectUnauthorized: false } })
    expect([path, answer.status]).toEqual([path, 404])
  }
}, 60_000)

test("a fleet: each server is verified by its own snapshot, and one that fails does not keep the others waiting", async () => {
  const [first, second] = [await vmThatWaits(), await vmThatWaits()]
  const directory = join(files, "fleet")
  mkdirSync(directory)
  const snapshots = [await snapshotOf(first), await snapshotOf(second)]
  const fleet = join(directory, "servers.toml")
  const server = (url: string, snapshot = "") => `[[server]]\nurl = "${url}"\nsnapshot = "${snapshot}"\n`
  // The first is mistaken for the second.
  writeFileSync(fleet, server(urlOf(first), snapshots[1]) + server(urlOf(second), snapshots[1]))
  const bring = () =>
    run([
      ...["bootstrap", "--fleet", fleet, "--allow-insecure-tls", "--owner-key", owner, ...SECRETS()],
      ...["--trust-root", first.trustRoot, "--trust-root", second.trustRoot],
    ])
  expect((await bring()).code).toBe(EXIT.tee)
  expect(second.log()).toContain("runs")
  expect(first.log()).not.toContain("values received")
  writeFileSync(fleet, server(urlOf(first), snapshots[0]))
  expect((await bring()).code).toBe(EXIT.ok)
}, 60_000)

for (const [name, args] of [
  ["no name", ["--set", "secret"]],
  ["a path as name", ["--set", "../x=secret"]],
  ["a name twice", ["--set", "a=secret", "--set", "a=secret"]],
] as const)
  test(`usage: ${name}: nothing of the value is repeated`, async () => {
    const { code, stderr } = await run(["bootstrap", "--any-vm", ...args])
    expect(code).toBe(EXIT.usage)
    expect(stderr).not.toContain("secret=")
    expect(stderr.replaceAll("secrets", "")).not.toContain("secret")
  })

test("C8: where nothing says which VM is meant, nothing is sent", async () => {
  const vm = await vmThatWaits()
  const { code } = await run(["bootstrap", ...reached(vm, urlOf(vm)), "--owner-key", owner, ...SECRETS()])
  expect(code).toBe(EXIT.usage)
  expect(existsSync(join(String(Reflect.get(vm, "programs")), "seen"))).toBe(false)
}, 60_000)

describe.if(HAVE_PEBBLE)("with a certificate of an authority", () => {
  let pebble: Pebble
  beforeAll(async () => {
    pebble = await startPebble()
  }, 60_000)
  afterAll(() => pebble.stop())

  /** A VM whose application serves TLS with the certificate that it is brought. */
  async function vmThatServes(): Promise<SimulatedVm & { readonly port: number }> {
    const port = await freePort()
    const vm = await vmThatWaits(
      "",
      (dir) =>
        `exec openssl s_server -quiet -www -accept 127.0.0.1:${port} -cert ${dir}/cert.pem -cert_chain ${dir}/cert.pem -key ${dir}/key.pem`,
    )
    return Object.assign(vm, { port })
  }

  const order = (port: number) => [
    ...["--acme-domain", "keys.example.com", "--acme-email", "admin@example.com"],
    ...["--acme-directory", pebble.directory, "--acme-ca-file", pebble.caFile, "--acme-port", `${port}`],
  ]

  test("it is for the attested key: the application answers with it, verify proves it, and it is renewed", async () => {
    const vm = await vmThatServes()
    const snapshot = await snapshotOf(vm)
    const { code, stdout, stderr } = await run([
      ...["bootstrap", ...reached(vm, urlOf(vm)), "-s", snapshot, "--owner-key", owner, "--json"],
      ...[...SECRETS(), ...order(pebble.httpPort)],
    ])
    expect([code, stderr]).toEqual([EXIT.ok, ""])
    const { certificate } = JSON.parse(stdout).bootstrap
    expect(statSync(certificate.key).mode & 0o777).toBe(0o600)
    const served = await servedBy(vm.port)
    const leaf = new X509Certificate(readFileSync(certificate.certificate))
    expect(served.fingerprint256).toBe(leaf.fingerprint256)
    expect(leaf.subjectAltName).toBe("DNS:keys.example.com")
    const agentKey = new X509Certificate(readFileSync(join(vm.dir, "vm/data/cert.pem"))).publicKey
    expect(leaf.publicKey.equals(agentKey)).toBe(true)
    const verify = ["verify", ...reached(vm, vm.url), "-s", snapshot, "-a", `127.0.0.1:${vm.port}`]
    expect((await run(verify)).code).toBe(EXIT.ok)

    const renew = ["certtool", "renew", "-w", join(vm.dir, "vm/data/acme"), "--force", "--json"]
    expect((await run(renew)).code).toBe(EXIT.ok)
    const renewed = new X509Certificate(readFileSync(certificate.certificate))
    expect(renewed.serialNumber).not.toBe(leaf.serialNumber)
    expect(renewed.publicKey.equals(agentKey)).toBe(true)
  }, 120_000)

  test("that the authority does not give: nothing is started, nothing is lost, and it can be asked for again", async () => {
    const vm = await vmThatServes()
    const bring = (...more: string[]) =>
      run(["bootstrap", ...reached(vm, urlOf(vm)), "--any-vm", "--owner-key", owner, ...more])
    const failed = await bring(...SECRETS(), ...order(await freePort()))
    expect([failed.code, failed.stderr]).toEqual([
      EXIT.operational,
      expect.stringContaining("ERR_ACME_CHALLENGE"),
    ])
    expect(failed.stderr).toContain("holds what it was sent")
    expect(existsSync(join(String(Reflect.get(vm, "programs")), "seen"))).toBe(false)
    const again = await bring(...order(pebble.httpPort))
    expect([again.code, again.stdout]).toEqual([EXIT.ok, expect.stringContaining("cert.pem")])
    await servedBy(vm.port)
  }, 120_000)

  test("options that do not fit are told before anything is sent", async () => {
    const fails = async (...options: string[]) => (await run(["bootstrap", "--any-vm", ...options])).stderr
    expect(await fails("--acme-email", "a@example.com")).toContain("--acme-domain")
    expect(await fails("--acme-domain", "*.example.com")).toContain("certtool acme --dns-hook")
    expect(await fails("--acme-domain", "a.example", "--acme-directory", "http://x")).toContain("https://")
    expect(await fails("--acme-domain", "a.example", "--acme-port", "0")).toContain("1 to 65535")
  })
})

/** The certificate that a TLS server shows; it may just be starting. */
async function servedBy(port: number): Promise<X509Certificate> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await new Promise((resolve, reject) => {
        const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false }, () => {
          const leaf = socket.getPeerX509Certificate()
          socket.destroy()
          if (leaf === undefined) reject(new Error("no certificate"))
          else resolve(leaf)
        })
        socket.on("error", reject)
      })
    } catch (error) {
      if (attempt === 50) throw error
      await Bun.sleep(100)
    }
  }
}
