/** The tunnel in front of a TLS server on loopback whose key may be another one. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { codeOf } from "../../test/fakes/simulated.ts"
import { type ServerKey, serverKey, type TlsServer, tlsServer } from "../../test/fakes/tls-server.ts"
import { AttestedTunnel, type TunnelEvent, type TunnelOptions } from "./attested-tunnel.ts"

let key: ServerKey
let other: ServerKey
let server: TlsServer
/** What the server has heard, over all connections. */
let heard = ""

const spkiOf = ({ cert }: ServerKey) =>
  new Uint8Array(new X509Certificate(cert).publicKey.export({ type: "spki", format: "der" }))

beforeAll(async () => {
  key = await serverKey()
  other = await serverKey()
  server = await tlsServer(key, (socket) =>
    socket.on("data", (data) => {
      heard += data
      socket.write(`echo ${data}`)
    }),
  )
})
afterAll(() => server.close())

/** A tunnel, a way to connect to it, and what it told. Closed afterwards. */
async function withTunnel(
  change: Partial<TunnelOptions>,
  use: (tunnel: AttestedTunnel, dial: () => Promise<Socket>, refusals: () => string[]) => Promise<void>,
): Promise<void> {
  const events: TunnelEvent[] = []
  const tunnel = await AttestedTunnel.listen({
    listen: { host: "127.0.0.1", port: 0 },
    target: { host: "127.0.0.1", port: server.port },
    maxConnections: 4,
    timeoutMs: 5000,
    alpn: [],
    onEvent: (event) => events.push(event),
    ...change,
  })
  const dialled: Socket[] = []
  const dial = async () => {
    const socket = connect(tunnel.address.port, "127.0.0.1")
    socket.on("error", () => undefined)
    dialled.push(socket)
    await once(socket, "connect")
    return socket
  }
  const refusals = () => events.flatMap((event) => (event.kind === "refused" ? [event.error.code] : []))
  try {
    await use(tunnel, dial, refusals)
  } finally {
    for (const socket of dialled) socket.destroy()
    await tunnel.close()
  }
}

async function answerTo(socket: Socket, message: string): Promise<string> {
  socket.write(message)
  const [data] = await once(socket, "data", { signal: AbortSignal.timeout(5000) })
  return `${data}`
}

/** By an orderly end or by a reset: that the tunnel leaves open. */
const ended = (socket: Socket) =>
  new Promise<void>((resolve) => {
    if (socket.destroyed) resolve()
    else socket.resume().once("close", () => resolve())
  })

test("bytes go both ways, to the key that is trusted", () =>
  withTunnel({}, async (tunnel, dial) => {
    tunnel.trust(spkiOf(key))
    const socket = await dial()
    expect(await answerTo(socket, "hello")).toBe("echo hello")
    expect(tunnel.open).toBe(1)
    socket.end()
    await ended(socket)
    expect(tunnel.open).toBe(0)
  }))

test("C5: a target with another key is refused before a byte of the program's is sent", () =>
  withTunnel({}, async (tunnel, dial, refusals) => {
    tunnel.trust(spkiOf(other))
    heard = ""
    const socket = await dial()
    socket.write("secret")
    await ended(socket)
    expect(refusals()).toEqual(["ERR_APPLICATION_KEY"])
    expect(heard).toBe("")
  }))

test("without a trusted key, and after hold, new connections are refused; those that there are stay", () =>
  withTunnel({}, async (tunnel, dial, refusals) => {
    await ended(await dial())
    expect(refusals()).toEqual(["ERR_NOT_JUDGED"])
    tunnel.trust(spkiOf(key))
    const socket = await dial()
    expect(await answerTo(socket, "one")).toBe("echo one")
    tunnel.hold()
    await ended(await dial())
    expect(refusals()).toEqual(["ERR_NOT_JUDGED", "ERR_NOT_JUDGED"])
    expect(await answerTo(socket, "two")).toBe("echo two")
  }))

test("when another key is trusted, connections of the former one are cut", () =>
  withTunnel({}, async (tunnel, dial) => {
    tunnel.trust(spkiOf(key))
    const socket = await dial()
    await answerTo(socket, "one")
    tunnel.trust(spkiOf(key))
    expect(await answerTo(socket, "two")).toBe("echo two")
    tunnel.trust(spkiOf(other))
    await ended(socket)
    expect(tunnel.open).toBe(0)
  }))

test("close cuts all connections and frees the port", () =>
  withTunnel({}, async (tunnel, dial) => {
    tunnel.trust(spkiOf(key))
    const socket = await dial()
    await answerTo(socket, "one")
    const { port } = tunnel.address
    await tunnel.close()
    await ended(socket)
    const again = connect(port, "127.0.0.1")
    again.on("error", () => undefined)
    await expect(once(again, "connect")).rejects.toThrow()
  }))

test("more connections than allowed are refused, and there is room again when one ends", () =>
  withTunnel({ maxConnections: 1 }, async (tunnel, dial, refusals) => {
    tunnel.trust(spkiOf(key))
    const first = await dial()
    await answerTo(first, "one")
    await ended(await dial())
    expect(refusals()).toEqual(["ERR_BUSY"])
    first.destroy()
    while (tunnel.open > 0) await Bun.sleep(10)
    expect(await answerTo(await dial(), "two")).toBe("echo two")
  }))

test("a target that is not there ends the connection, with its reason", () =>
  withTunnel({ target: { host: "127.0.0.1", port: 1 } }, async (tunnel, dial, refusals) => {
    tunnel.trust(spkiOf(key))
    await ended(await dial())
    expect(refusals()).toEqual(["ERR_CONNECT"])
    expect(tunnel.open).toBe(0)
  }))

test("an address in use is said so", () =>
  withTunnel({}, async (tunnel) => {
    const again = AttestedTunnel.listen({
      listen: tunnel.address,
      target: { host: "127.0.0.1", port: server.port },
      maxConnections: 1,
      timeoutMs: 1000,
      alpn: [],
      onEvent: () => undefined,
    })
    expect(await codeOf(again)).toBe("ERR_PORT_IN_USE")
  }))

test("ten megabytes arrive whole, though the reader is slow", async () => {
  const size = 10 * 1024 * 1024
  const source = await tlsServer(key, (socket) => socket.end(Buffer.alloc(size, 7)))
  try {
    await withTunnel({ target: { host: "127.0.0.1", port: source.port } }, async (tunnel, dial) => {
      tunnel.trust(spkiOf(key))
      const socket = await dial()
      let got = 0
      let whole = true
      socket.on("data", (data: Uint8Array) => {
        got += data.length
        whole &&= data.every((byte) => byte === 7)
        socket.pause()
        setTimeout(() => socket.resume(), 1)
      })
      await once(socket, "close", { signal: AbortSignal.timeout(30_000) })
      expect(got).toBe(size)
      expect(whole).toBe(true)
    })
  } finally {
    await source.close()
  }
}, 40_000)
