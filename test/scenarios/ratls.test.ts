/** RA-TLS with the built executable: the agent's certificate, `--ratls`, `connect`, and who stands in between. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { once } from "node:events"
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs"
import { connect, type Socket } from "node:net"
import { join } from "node:path"
import { connect as connectTls, createServer, type Server } from "node:tls"
import { makeSelfSignedCertificate } from "../../src/agent/certificate.ts"
import { EXIT } from "../../src/errors.ts"
import { RATLS_OID } from "../../src/formats/ratls/evidence.ts"
import { parseCertificate } from "../../src/formats/x509/certificate.ts"
import { run, type SimulatedVm, simulatedVm } from "../executable.ts"
import { derOf } from "../fakes/ratls.ts"
import { type ServerKey, serverKey } from "../fakes/tls-server.ts"
import { type ConnectProxy, startConnect } from "../programs.ts"
import { startRelay } from "../relay.ts"

const CONFIG = (tls: string) => `[agent]\ntls = "${tls}"\n\n[snapshot]\nroot = "/etc/apt"\n`
const OFFLINE = ["--offline"]

let vm: SimulatedVm
let other: SimulatedVm
let plain: SimulatedVm

beforeAll(async () => {
  ;[vm, other, plain] = await Promise.all([
    simulatedVm(CONFIG("ratls")),
    simulatedVm(CONFIG("ratls")),
    simulatedVm(CONFIG("certificate")),
  ])
  await vm.exec("/usr/bin/ls")
  expect((await vmRun("snapshot", "-o", snapshot(), "-q")).code).toBe(0)
}, 120_000)
afterAll(() => Promise.all([vm, other, plain].map((each) => each?.remove())))

const snapshot = () => join(vm.dir, "vm.snapshot")
const trust = (machine: SimulatedVm = vm) => ["--trust-root", machine.trustRoot, ...OFFLINE]

function vmRun(...args: string[]) {
  const [command = "", ...rest] = args
  return run([command, "--url", vm.url, "--ratls", ...trust(), ...rest])
}

/** How often an agent was asked for anything. */
const asked = (machine: SimulatedVm) => machine.log().split('"message":"request"').length - 1

/** The exit code, and the code of the error or of the first failed claim. */
function outcome({ code, stdout }: { code: number; stdout: string }): { exit: number; code: string | null } {
  const json = JSON.parse(stdout)
  const failed = json.claims?.find(({ status }: { status: string }) => status === "failed")
  return { exit: code, code: json.error?.code ?? failed?.findings[0]?.code ?? null }
}

describe("--ratls", () => {
  test("the VM of the snapshot passes without --allow-insecure-tls, and the channel check says why", async () => {
    const result = await vmRun("verify", "-s", snapshot(), "--json")
    expect(outcome(result)).toEqual({ exit: EXIT.ok, code: null })
    const [channel] = JSON.parse(result.stdout).claims
    expect(channel).toMatchObject({ check: "channel", status: "passed", facts: { ratls: true } })
  })

  test("without it the self-signed certificate is refused", async () => {
    const result = await run(["verify", "--url", vm.url, ...trust(), "-s", snapshot(), "--json"])
    expect(outcome(result)).toEqual({ exit: EXIT.channel, code: "ERR_CHANNEL_UNTRUSTED" })
  })

  /** Runs commands through a relay that ends TLS with this certificate; the agent behind it must not hear of them. */
  async function relayed({ key, cert }: ServerKey): Promise<unknown[]> {
    const relay = await startRelay(vm.port, key, cert)
    const before = asked(vm)
    const outcomes: unknown[] = []
    try {
      const url = `https://127.0.0.1:${relay.port}`
      for (const command of ["verify", "snapshot"]) {
        const args = command === "verify" ? ["-s", snapshot()] : ["-o", join(vm.dir, "never")]
        outcomes.push(outcome(await run([command, "--url", url, "--ratls", ...trust(), ...args, "--json"])))
      }
    } finally {
      relay.close()
    }
    expect(asked(vm)).toBe(before)
    expect(existsSync(join(vm.dir, "never"))).toBe(false)
    return outcomes
  }

  test("C1, C2: a relay with a certificate of its own: nothing goes through it", async () => {
    const refused = { exit: EXIT.tee, code: "ERR_RATLS_ABSENT" }
    expect(await relayed(await serverKey())).toEqual([refused, refused])
  })

  test("C7: a relay with the agent's evidence copied into its certificate: nothing goes through it", async () => {
    const pem = readFileSync(join(vm.dir, "vm", "data", "cert.pem"), "utf8")
    const { extensions } = parseCertificate(derOf(pem))
    const now = Date.now()
    const { certificate, privateKey } = await makeSelfSignedCertificate({
      names: ["127.0.0.1"],
      notBefore: new Date(now - 60_000),
      notAfter: new Date(now + 3_600_000),
      privateKey: null,
      extensions: [RATLS_OID.snp, RATLS_OID.dice].map((oid) => ({
        oid,
        value: extensions.get(oid)?.value ?? new Uint8Array(0),
      })),
    })
    const refused = { exit: EXIT.binding, code: "ERR_RATLS_KEY" }
    expect(await relayed({ key: privateKey, cert: certificate })).toEqual([refused, refused])
  })

  test("C7: another VM's certificate is genuine, and not the snapshot's: refused before it is asked for anything", async () => {
    const before = asked(other)
    const roots = [...trust(), "--trust-root", other.trustRoot]
    const result = await run(["verify", "--url", other.url, "--ratls", ...roots, "-s", snapshot(), "--json"])
    expect(outcome(result)).toEqual({ exit: EXIT.tee, code: "ERR_TEE_MEASUREMENT" })
    expect(asked(other)).toBe(before)
  })

  test("an agent without evidence in its certificate, and a root that was not named, are refused", async () => {
    const roots = ["--trust-root", plain.trustRoot, ...OFFLINE]
    const bare = await run(["attestation", "get", "snp", "--url", plain.url, "--ratls", ...roots, "--json"])
    expect(outcome(bare)).toEqual({ exit: EXIT.tee, code: "ERR_RATLS_ABSENT" })
    const untrusted = await run([
      ...["verify", "--url", vm.url, "--ratls", ...OFFLINE],
      ...["-s", snapshot(), "--json"],
    ])
    expect(outcome(untrusted)).toEqual({ exit: EXIT.tee, code: "ERR_CERT_UNTRUSTED" })
  })

  test("C6: a restarted agent has a new certificate for the same key, so that applications with the key still pass", async () => {
    const fetched = async () => {
      const output = join(other.dir, "fetched")
      await run(["certtool", "ratls", "fetch", "--url", other.url, "-o", output])
      return readFileSync(join(output, "cert.ratls.pem"), "utf8")
    }
    const key = () => readFileSync(join(other.dir, "vm", "data", "key.pem"), "utf8")
    const [first, firstKey] = [await fetched(), key()]
    await other.stop()
    await other.start()
    expect(await fetched()).not.toBe(first)
    expect(key()).toBe(firstKey)
  })

  test("saved evidence holds no certificate: --ratls is refused there", async () => {
    const result = await run(["verify", "-s", snapshot(), "--evidence", "x", "--ratls"])
    expect(result.code).toBe(EXIT.usage)
  })
})

describe("connect", () => {
  let application: Server
  let heard = ""

  beforeAll(async () => {
    application = createServer(agentsKey(vm), (socket) => {
      socket.on("error", () => undefined)
      socket.on("data", (data) => {
        heard += data
        socket.write(`echo ${data}`)
      })
    })
    application.listen(0, "127.0.0.1")
    await once(application, "listening")
  })
  afterAll(() => application.close())

  const agentsKey = (machine: SimulatedVm) => ({
    key: readFileSync(join(machine.dir, "vm", "data", "key.pem")),
    cert: readFileSync(join(machine.dir, "vm", "data", "cert.pem")),
  })

  /** `connect` to the VM. */
  const proxy = (reference: string, ...options: string[]) =>
    startConnect(["--url", vm.url, "--ratls", ...trust(), "-s", reference, ...options])

  const target = () => {
    const address = application.address()
    return `127.0.0.1:${address === null || typeof address === "string" ? 0 : address.port}`
  }

  async function dial({ port }: ConnectProxy): Promise<Socket> {
    const socket = connect(port, "127.0.0.1")
    socket.on("error", () => undefined)
    await once(socket, "connect")
    return socket
  }

  test("a local program speaks with the application, and Ctrl-C ends it in order", async () => {
    const running = await proxy(snapshot(), "--target", target())
    const socket = await dial(running)
    socket.write("hello")
    const [answer] = await once(socket, "data", { signal: AbortSignal.timeout(10_000) })
    expect(`${answer}`).toBe("echo hello")
    running.child.kill("SIGINT")
    expect(await running.child.exited).toBe(0)
    socket.destroy()
  })

  test("C5: a target that does not have the VM's key hears nothing", async () => {
    const { key, cert } = await serverKey()
    let bytes = 0
    const stranger = createServer({ key, cert }, (socket) => {
      socket.on("error", () => undefined)
      socket.on("data", (data) => {
        bytes += data.length
      })
    })
    stranger.listen(0, "127.0.0.1")
    await once(stranger, "listening")
    const address = stranger.address()
    const port = address === null || typeof address === "string" ? 0 : address.port
    const running = await proxy(snapshot(), "--target", `127.0.0.1:${port}`)
    try {
      const socket = await dial(running)
      socket.write("secret")
      await new Promise((resolve) => socket.once("close", resolve))
      for (let waited = 0; waited < 5000 && !running.talk().includes("FAIL"); waited += 50)
        await Bun.sleep(50)
      expect(running.talk()).toContain("ERR_APPLICATION_KEY")
      expect(bytes).toBe(0)
    } finally {
      running.child.kill("SIGTERM")
      await running.child.exited
      stranger.close()
    }
  })

  test("a VM that does not verify is never listened for", async () => {
    const result = await run([
      ...["connect", "--url", vm.url, "--ratls", ...trust(), "--trust-root", other.trustRoot, "--json"],
      ...["--policy", wrongPolicy(), "--listen", "127.0.0.1:0", "--target", target()],
    ])
    expect(outcome(result)).toEqual({ exit: EXIT.tee, code: "ERR_TEE_MEASUREMENT" })
    const to = ["connect", "--url", vm.url, ...trust(), "--listen", "127.0.0.1:0", "--json"]
    const skipped = await run([...to, "-s", snapshot(), "--skip", "binding"])
    expect(outcome(skipped)).toMatchObject({ exit: EXIT.usage, code: "ERR_BAD_VALUE" })
  })

  test("C8: where nothing says which VM is meant, nothing is listened for", async () => {
    const result = await run([
      ...["connect", "--url", vm.url, "--ratls", ...trust(), "--listen", "127.0.0.1:0", "--json"],
    ])
    expect(outcome(result)).toMatchObject({ exit: EXIT.usage, code: "ERR_MISSING_ARGUMENT" })
  })

  const wrongPolicy = () => {
    const path = join(vm.dir, "wrong.toml")
    writeFileSync(path, `[snp]\nmeasurement = "${"00".repeat(48)}"\n`)
    return path
  }

  test("a VM that answers drop by drop gains no time: as long as it is not verified, nobody is let in", async () => {
    const between = await slowRelay()
    const running = await startConnect([
      ...["--url", `https://127.0.0.1:${between.port}`, "--allow-insecure-tls", ...trust()],
      ...["-s", snapshot(), "--target", target(), "--interval", "1", "--timeout", "3"],
    ])
    between.slowDown()
    for (let waited = 0; waited < 20_000 && !running.talk().includes("WARNING"); waited += 50)
      await Bun.sleep(50)
    expect(running.talk()).toContain("a whole verification within 9 s")
    const socket = await dial(running)
    await new Promise((resolve) => socket.once("close", resolve))
    running.child.kill("SIGTERM")
    await running.child.exited
    between.close()
  }, 60_000)

  /** Bytes. */
  const DROP = 256

  /** A relay that has the VM's own key, and hands answers on drop by drop once it is told to. */
  async function slowRelay() {
    let slow = false
    const relay = createServer(agentsKey(vm), (client) => {
      const agent = connectTls({ host: "127.0.0.1", port: vm.port, rejectUnauthorized: false })
      client.pipe(agent)
      client.on("error", () => agent.destroy()).on("close", () => agent.destroy())
      agent.on("error", () => client.destroy()).on("close", () => client.destroy())
      agent.on("data", async (data: Buffer) => {
        agent.pause()
        // The head of an answer comes at once.
        const head = slow ? data.indexOf("\r\n\r\n") + 4 : data.length
        client.write(data.subarray(0, head))
        for (let at = head; at < data.length && !client.destroyed; at += DROP) {
          client.write(data.subarray(at, at + DROP))
          await Bun.sleep(500)
        }
        agent.resume()
      })
    })
    relay.listen(0, "127.0.0.1")
    await once(relay, "listening")
    const address = relay.address()
    const port = address === null || typeof address === "string" ? 0 : address.port
    return {
      port,
      slowDown: () => {
        slow = true
      },
      close: () => relay.close(),
    }
  }

  test("an unknown program runs in the VM: the connections are cut, with the exit code of the check", async () => {
    const running = await proxy(snapshot(), "--target", target(), "--interval", "1")
    const socket = await dial(running)
    socket.write("before")
    await once(socket, "data", { signal: AbortSignal.timeout(10_000) })
    const cut = new Promise((resolve) => socket.once("close", resolve))
    const program = join(vm.dir, "implant")
    copyFileSync("/usr/bin/true", program)
    await vm.exec(program)
    await cut
    expect(await running.child.exited).toBe(EXIT.ima)
    expect(heard).toContain("before")
  }, 60_000)
})
