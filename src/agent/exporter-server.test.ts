import { afterEach, describe, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { connect as connectTcp, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect, type TLSSocket } from "node:tls"
import { Hono } from "hono"
import { AgentError } from "../errors.ts"
import { EXPORTER } from "../formats/channel-binding.ts"
import { toHex } from "../formats/hex.ts"
import type { AgentApp, AgentEnv } from "./app.ts"
import { type ExporterServerOptions, type Listener, listenWithExporter } from "./exporter-server.ts"
import { createSelfSigned } from "./identity.ts"

const BIG = randomBytes(3_000_000)
const ID = await createSelfSigned({ hosts: ["127.0.0.1"], now: new Date() })
const STRANGER = await createSelfSigned({ hosts: ["127.0.0.1"], now: new Date() })

const listeners: Listener[] = []
afterEach(async () => {
  await Promise.all(listeners.splice(0).map((listener) => listener.stop(true)))
})

function appFor(): AgentApp {
  const app: AgentApp = new Hono<AgentEnv>()
  app.onError((_, c) => c.text("failed", 500))
  app.get("/environment", (c) =>
    c.json({
      exporter: c.env?.exporter == null ? null : toHex(c.env.exporter),
      certified: c.env?.clientCertificate,
      address: c.env?.address,
    }),
  )
  app.post("/echo", async (c) => c.body(await c.req.arrayBuffer()))
  app.get("/big", () => new Response(new Blob([BIG]).stream()))
  app.get("/slow", async (c) => {
    c.env?.allowSeconds?.(30)
    await Bun.sleep(1500)
    return c.text("done")
  })
  return app
}

async function listen(options: Partial<ExporterServerOptions> = {}): Promise<Listener> {
  const listener = await listenWithExporter(
    {
      ...{ host: "127.0.0.1", port: 0, certificate: ID.certificatePem, privateKey: ID.keyPem },
      ...{ minVersion: "TLSv1.2", authority: null, app: appFor(), idleSeconds: 1 },
      ...options,
    },
    () => new AgentError("ERR_IO"),
  )
  listeners.push(listener)
  return listener
}

async function open(port: number, options: object = {}): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false, ...options })
  socket.once("secureConnect", resolve)
  socket.on("error", reject)
  await promise
  return socket
}

/** Everything that arrives until the other side closes. */
function rest(socket: TLSSocket): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  let text = ""
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1")
  })
  socket.once("close", () => resolve(text))
  return promise
}

const request = (path: string, more = "Connection: close\r\n") =>
  `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${more}\r\n`

describe("the exporter", () => {
  test("is that of the client's end, and no two connections have the same", async () => {
    const { port } = await listen()
    const seen = new Set<string>()
    for (let count = 0; count < 2; count++) {
      const socket = await open(port)
      const own = socket.exportKeyingMaterial(EXPORTER.bytes, EXPORTER.label, Buffer.alloc(0)).toString("hex")
      const text = rest(socket)
      socket.write(request("/environment"))
      expect(await text).toContain(`"exporter":"${own}"`)
      seen.add(own)
    }
    expect(seen.size).toBe(2)
  })

  test("is none under TLS 1.2", async () => {
    const { port } = await listen()
    const socket = await open(port, { maxVersion: "TLSv1.2" })
    const text = rest(socket)
    socket.write(request("/environment"))
    expect(await text).toContain('"exporter":null')
    await expect(
      open((await listen({ minVersion: "TLSv1.3" })).port, { maxVersion: "TLSv1.2" }),
    ).rejects.toThrow()
  })
})

test("only clients with a certificate of the authority are answered", async () => {
  const directory = mkdtempSync(join(tmpdir(), "clients-"))
  const openssl = (...args: string[]) => {
    const { exitCode, stderr } = Bun.spawnSync(["openssl", ...args], { cwd: directory })
    if (exitCode !== 0) throw new Error(String(stderr))
  }
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
  openssl("req", "-x509", ...newKey, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
  openssl("req", ...newKey, "-subj", "/CN=client", "-keyout", "client.key", "-out", "client.csr")
  openssl(
    ...["x509", "-req", "-in", "client.csr", "-CA", "ca.pem", "-CAkey", "ca.key"],
    ...["-CAcreateserial", "-out", "client.pem"],
  )
  const [authority, key, cert] = ["ca.pem", "client.key", "client.pem"].map((name) =>
    readFileSync(join(directory, name), "utf8"),
  )
  rmSync(directory, { recursive: true })
  const { port } = await listen({ authority: authority ?? null })
  const asks = async (options: object) => {
    const socket = await open(port, options)
    socket.removeAllListeners("error")
    socket.on("error", () => undefined)
    const text = rest(socket)
    socket.write(request("/environment"))
    return text
  }
  for (const options of [{}, { key: STRANGER.keyPem, cert: STRANGER.certificatePem }])
    expect(await asks(options)).toBe("")
  expect(await asks({ key, cert })).toContain('"certified":true')
})

test("bodies go both ways whole", async () => {
  const { port } = await listen()
  const ask = (path: string, init: RequestInit = {}) =>
    fetch(`https://127.0.0.1:${port}${path}`, { ...init, tls: { rejectUnauthorized: false } })
  expect(Buffer.from(await (await ask("/big")).arrayBuffer()).equals(BIG)).toBe(true)
  const echoed = await ask("/echo", { method: "POST", body: BIG })
  expect(Buffer.from(await echoed.arrayBuffer()).equals(BIG)).toBe(true)
})

describe("a client that dawdles is cut", () => {
  const endOf = async (socket: Socket): Promise<number> => {
    socket.on("error", () => undefined)
    const start = performance.now()
    await new Promise((resolve) => socket.once("close", resolve))
    return performance.now() - start
  }
  const trickle = (socket: Socket, text: string) => {
    const timer = setInterval(() => socket.write(text), 200)
    socket.once("close", () => clearInterval(timer))
  }

  test("in its handshake", async () => {
    const { port } = await listen()
    expect(await endOf(connectTcp(port, "127.0.0.1"))).toBeLessThan(4000)
  })

  test("in its headers", async () => {
    const socket = await open((await listen()).port)
    socket.write("GET / HTTP/1.1\r\n")
    trickle(socket, "a: b\r\n")
    expect(await endOf(socket)).toBeLessThan(4000)
  })

  test("in its body", async () => {
    const socket = await open((await listen()).port)
    socket.write("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
    trickle(socket, "x")
    expect(await endOf(socket)).toBeLessThan(4000)
  })
})

test("a request that was given time gets it, also while the server stops", async () => {
  const listener = await listen()
  const socket = await open(listener.port)
  const text = rest(socket)
  socket.write(request("/slow", ""))
  await Bun.sleep(300)
  await listener.stop(false)
  expect(await text).toContain("done")
})

test("what is no request of ours is not routed", async () => {
  const { port } = await listen()
  for (const line of ["GET https://other/environment", "OPTIONS *", "TRACE /environment"]) {
    const socket = await open(port)
    const text = rest(socket)
    socket.write(`${line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    expect([line, await text]).toEqual([line, expect.not.stringContaining("exporter")])
  }
})
