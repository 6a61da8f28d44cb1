import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect, type TLSSocket } from "node:tls"
import { fakeDevices } from "../../test/fakes/devices.ts"
import { evidenceReportData, parseEvidence } from "../formats/evidence.ts"
import { toBase64 } from "../formats/hex.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import type { Devices } from "../native/ports.ts"
import { startAgent } from "./agent.ts"
import { type AgentConfig, parseAgentConfig } from "./config.ts"
import { createSelfSigned } from "./identity.ts"
import { createLog } from "./log.ts"
import type { AgentServer } from "./serve.ts"

const NONCE = new Uint8Array(32).fill(9)
const EVIDENCE = `/v1/evidence?nonce=${encodeURIComponent(toBase64(NONCE))}`

let directory: string
let running: AgentServer[]
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "serve-"))
  running = []
})
afterEach(async () => {
  await Promise.all(running.map((agent) => agent.stop()))
  rmSync(directory, { recursive: true })
})

function configOf(toml = "", port = 0): AgentConfig {
  return parseAgentConfig(`[agent]\nport = ${port}\n[limits]\ndrain_seconds = 1\n${toml}`, "test", directory)
}

async function start(config = configOf(), devices: Devices = fakeDevices()): Promise<AgentServer> {
  const now = () => new Date()
  const log = createLog("json", () => undefined, now)
  const obtainCertificate = async () => {
    throw new Error("nothing asks for one")
  }
  const deriveTlsKey = obtainCertificate
  const fixed = { version: "1", now, log, guard: null, obtainCertificate, deriveTlsKey }
  const agent = await startAgent({ config, devices, ...fixed })
  running.push(agent)
  return agent
}

async function newCertificate(): Promise<void> {
  const { keyPem, certificatePem } = await createSelfSigned({ hosts: ["localhost"], now: new Date() })
  writeFileSync(join(directory, "data/key.pem"), keyPem)
  writeFileSync(join(directory, "data/cert.pem"), certificatePem)
}

function open(
  port: number,
  options: { maxVersion?: "TLSv1.1" | "TLSv1.2" | "TLSv1.3" } = {},
): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>()
  const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false, ...options })
  socket.once("secureConnect", () => resolve(socket))
  socket.once("error", reject)
  return promise
}

/** SPKI of the certificate of this very connection. */
function spkiOf(socket: TLSSocket): Buffer {
  const { raw } = socket.getPeerCertificate()
  return new X509Certificate(raw).publicKey.export({ format: "der", type: "spki" })
}

/** One request on a connection that stays open. */
function get(socket: TLSSocket, path: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  let text = ""
  const take = (chunk: Buffer) => {
    text += chunk.toString("latin1")
    const [head = "", body] = text.split("\r\n\r\n")
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1])
    if (body?.length !== length) return
    socket.off("data", take)
    resolve(body)
  }
  socket.on("data", take)
  socket.once("close", () => reject(new Error("closed")))
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  return promise
}

async function expectBound(socket: TLSSocket, spki: Uint8Array): Promise<void> {
  const { tee, tpm } = parseEvidence(await get(socket, EVIDENCE))
  if (tee?.kind !== "sev-snp" || tpm === null) throw new Error("a part is missing")
  const akName = tpmName(parsePublic(tpm.akPublic))
  expect(parseSnpReport(tee.report).reportData).toEqual(evidenceReportData(NONCE, spki, akName))
}

/** Makes connection after connection until it is told to end by its input; prints how many, and what went wrong. */
const CLIENT = `
  const [port] = process.argv.slice(1)
  let end = false, requests = 0
  const failures = []
  process.stdin.once("data", () => (end = true))
  while (!end) {
    const options = { tls: { rejectUnauthorized: false }, keepalive: false }
    const ask = () => fetch("https://127.0.0.1:" + port + "/v1/info", options).then((r) => r.status, (e) => e.code)
    // The kernel resets a connection that it made in the very instant in which the former listener closes
    // (see net.ipv4.tcp_migrate_req): such a client asks again, once.
    const first = await ask()
    const status = first === 200 ? first : await ask()
    if (status === 200) requests++
    else failures.push(status)
  }
  console.log(JSON.stringify({ requests, failures }))
  process.exit(0)
`

describe("the certificate", () => {
  test("of a connection is the one its evidence is bound to, also of one made before a change", async () => {
    const agent = await start()
    const before = await open(agent.port)
    const spkiBefore = spkiOf(before)
    await newCertificate()
    expect(await agent.reload()).toBe(true)
    const after = await open(agent.port)
    const spkiAfter = spkiOf(after)
    expect(spkiAfter).not.toEqual(spkiBefore)
    await expectBound(after, spkiAfter)
    await expectBound(before, spkiBefore)
    for (const socket of [before, after]) socket.destroy()
  })

  test("changes while a client makes one connection after the other, and none goes unanswered", async () => {
    const agent = await start()
    const client = Bun.spawn([process.execPath, "-e", CLIENT, String(agent.port)], {
      stdin: "pipe",
      stdout: "pipe",
    })
    for (let turn = 0; turn < 3; turn++) {
      await newCertificate()
      expect(await agent.reload()).toBe(true)
    }
    client.stdin.write("end\n")
    await client.stdin.flush()
    const { requests, failures } = JSON.parse(await new Response(client.stdout).text())
    expect(failures).toEqual([])
    expect(requests).toBeGreaterThan(10)
  })

  test("stays where the new files do not fit together or are the same", async () => {
    const agent = await start()
    expect(await agent.reload()).toBe(false)
    writeFileSync(
      join(directory, "data/key.pem"),
      (await createSelfSigned({ hosts: ["x"], now: new Date() })).keyPem,
    )
    expect(await agent.reload()).toBe(false)
    const socket = await open(agent.port)
    await expectBound(socket, spkiOf(socket))
    socket.destroy()
  })

  test("is offered over TLS 1.2 and 1.3, and nothing older", async () => {
    const agent = await start()
    for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
      const socket = await open(agent.port, { maxVersion })
      expect(socket.getProtocol()).toBe(maxVersion)
      socket.destroy()
    }
    await expect(open(agent.port, { maxVersion: "TLSv1.1" })).rejects.toThrow()
  })
})

test("a second agent on the same port is refused, and the first one stays", async () => {
  const first = await start()
  await expect(start(configOf("", first.port))).rejects.toMatchObject({ code: "ERR_PORT_IN_USE" })
  const socket = await open(first.port)
  await expectBound(socket, spkiOf(socket))
  socket.destroy()
})

test("an address that is not this machine's is refused", async () => {
  await expect(start({ ...configOf(), host: "192.0.2.1" })).rejects.toMatchObject({ code: "ERR_IO" })
})

test("a body over the limit is refused before it is read, with and without its length", async () => {
  const agent = await start(configOf("body_bytes = 1000\n"))
  const url = `https://127.0.0.1:${agent.port}/app/init`
  const body = new Uint8Array(100_000)
  const stream = () =>
    new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(body)
        controller.close()
      },
    })
  for (const each of [body, stream()]) {
    const response = await fetch(url, { method: "POST", body: each, tls: { rejectUnauthorized: false } })
    expect(response.status).toBe(413)
  }
})

test("a request in flight is answered while the agent stops", async () => {
  const devices = fakeDevices()
  const ima = {
    readBinary: async () => new Uint8Array(0),
    readAscii: async () => {
      await Bun.sleep(300)
      return "slow"
    },
  }
  const agent = await start(configOf(), { ...devices, ima })
  const answer = fetch(`https://127.0.0.1:${agent.port}/ima/ascii`, { tls: { rejectUnauthorized: false } })
  await Bun.sleep(100)
  running = []
  await agent.stop()
  expect(await (await answer).json()).toBe("slow")
  await expect(open(agent.port)).rejects.toThrow()
})

test("a TPM that does not answer at the start does not keep the agent from serving", async () => {
  const devices = fakeDevices()
  if (devices.tpm === null) throw new Error("no TPM")
  const tpm = { ...devices.tpm, ensureKeys: () => Promise.reject(new Error("broken")) }
  const agent = await start(configOf(), { ...devices, tpm })
  const response = await fetch(`https://127.0.0.1:${agent.port}/v1/info`, {
    tls: { rejectUnauthorized: false },
  })
  expect(response.status).toBe(200)
})
