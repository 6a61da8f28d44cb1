import { afterAll, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import type { RequestListener } from "node:http"
import { httpsServer, serverKey, type TlsServer, tlsServer } from "../../test/fakes/tls-server.ts"
import { CodedError } from "../errors.ts"
import { Connection } from "./connection.ts"

const key = await serverKey()
const servers: TlsServer[] = []
afterAll(() => Promise.all(servers.map((server) => server.close())))

async function serve(handler: RequestListener): Promise<TlsServer> {
  const server = await httpsServer(key, handler)
  servers.push(server)
  return server
}

function open(server: TlsServer, timeoutMs = 2000, signal?: AbortSignal): Promise<Connection> {
  return Connection.open(
    { host: "127.0.0.1", port: server.port },
    { timeoutMs, ...(signal === undefined ? {} : { signal }) },
  )
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return "nothing was thrown"
  } catch (error) {
    return error instanceof CodedError ? error.code : `${error}`
  }
}

test("the key is that of the connection, and a self-signed certificate is not authorised", async () => {
  const connection = await open(await serve((_, response) => response.end("x")))
  const { publicKey, raw } = new X509Certificate(key.cert)
  expect(connection.spki).toEqual(new Uint8Array(publicKey.export({ type: "spki", format: "der" })))
  expect(connection.leafDer).toEqual(new Uint8Array(raw))
  expect(connection.authorized).toBe(false)
  expect(connection.reason).toBe("it is self-signed")
  connection.close()
})

test("several requests go over one connection, bodies included", async () => {
  const ports: (number | undefined)[] = []
  const server = await serve((request, response) => {
    ports.push(request.socket.remotePort)
    let size = 0
    request.on("data", (chunk: Uint8Array) => {
      size += chunk.length
    })
    request.on("end", () => response.end(`${request.method} ${request.url} ${size}`))
  })
  const connection = await open(server)
  const text = async (body: string) => {
    const answer = await connection.request({ method: "POST", path: "/a?b=c", body, maxBytes: 100 })
    return `${answer.status} ${new TextDecoder().decode(answer.body)}`
  }
  expect(await text("x".repeat(100_000))).toBe("200 POST /a?b=c 100000")
  expect(await text("")).toBe("200 POST /a?b=c 0")
  expect(await text("abc")).toBe("200 POST /a?b=c 3")
  expect(new Set(ports).size).toBe(1)
  expect(server.connections).toBe(1)
  connection.close()
})

test("an answer over its limit is refused while it is read", async () => {
  const server = await serve((_, response) => {
    const more = () => {
      while (!response.destroyed && response.write(Buffer.alloc(65536)));
    }
    response.on("drain", more)
    more()
  })
  const connection = await open(server)
  const work = connection.request({ method: "GET", path: "/", maxBytes: 1_000_000 })
  expect(await codeOf(work)).toBe("ERR_TOO_LARGE")
  expect(connection.usable).toBe(false)
})

test("silence ends a request", async () => {
  const connection = await open(await serve(() => undefined), 200)
  const work = connection.request({ method: "GET", path: "/", maxBytes: 100 })
  expect(await codeOf(work)).toBe("ERR_TIMEOUT")
})

test("an answer that drips for ever ends at ten times the limit of silence", async () => {
  const server = await serve((_, response) => {
    const timer = setInterval(() => response.write("x"), 30)
    response.on("close", () => clearInterval(timer))
  })
  const connection = await open(server, 100)
  const work = connection.request({ method: "GET", path: "/", maxBytes: 10_000 })
  expect(await codeOf(work)).toBe("ERR_TIMEOUT")
})

test("a request that is known to take longer gets more time", async () => {
  const server = await serve((_, response) => void setTimeout(() => response.end("late"), 300))
  const connection = await open(server, 100)
  const answer = await connection.request({ method: "GET", path: "/", maxBytes: 100, patienceMs: 3000 })
  expect(answer.status).toBe(200)
  connection.close()
})

test("a cut answer is an error, not a short answer", async () => {
  const server = await tlsServer(key, (socket) => {
    socket.once("data", () => {
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
      setTimeout(() => socket.end(), 50)
    })
  })
  servers.push(server)
  const connection = await open(server)
  const work = connection.request({ method: "GET", path: "/", maxBytes: 1000 })
  expect(await codeOf(work)).toBe("ERR_CONNECTION_LOST")
})

test("a lost connection stays lost: there is no silent new one", async () => {
  const server = await serve((_, response) => response.end("x"))
  const connection = await open(server)
  await connection.request({ method: "GET", path: "/", maxBytes: 100 })
  server.dropConnections()
  await Bun.sleep(100)
  const work = connection.request({ method: "GET", path: "/", maxBytes: 100 })
  expect(await codeOf(work)).toBe("ERR_CONNECTION_LOST")
  expect(server.connections).toBe(1)
})

test("a server that ends the connection instead of answering is reported", async () => {
  const server = await serve((request) => request.socket.destroy())
  const connection = await open(server)
  const work = connection.request({ method: "GET", path: "/", maxBytes: 100 })
  expect(await codeOf(work)).toBe("ERR_CONNECTION_LOST")
})

test("a redirect is an answer, and is not followed", async () => {
  const server = await serve((_, response) => {
    response.writeHead(302, { location: "https://127.0.0.1:1/" })
    response.end()
  })
  const connection = await open(server)
  expect((await connection.request({ method: "GET", path: "/", maxBytes: 100 })).status).toBe(302)
  connection.close()
})

test("an interrupted request ends at once", async () => {
  const controller = new AbortController()
  const connection = await open(await serve(() => undefined), 10_000, controller.signal)
  setTimeout(() => controller.abort(), 50)
  const work = connection.request({ method: "GET", path: "/", maxBytes: 100 })
  expect(await codeOf(work)).toBe("ERR_INTERRUPTED")
})

test("nothing listens: ERR_CONNECT", async () => {
  const server = await httpsServer(key, (_, response) => response.end())
  await server.close()
  expect(await codeOf(open(server))).toBe("ERR_CONNECT")
})

test("a server that speaks no TLS: ERR_CONNECT; one that says nothing: ERR_TIMEOUT", async () => {
  const plain = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (socket) => void socket.end("SSH-2.0-x\r\n") },
  })
  const mute = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } })
  const to = (port: number) => Connection.open({ host: "127.0.0.1", port }, { timeoutMs: 300 })
  expect(await codeOf(to(plain.port))).toBe("ERR_CONNECT")
  expect(await codeOf(to(mute.port))).toBe("ERR_TIMEOUT")
  plain.stop(true)
  mute.stop(true)
})

test("a port that speaks no TLS is told so", async () => {
  const plain = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("x") })
  try {
    const opened = Connection.open({ host: "127.0.0.1", port: plain.port ?? 0 }, { timeoutMs: 2000 })
    expect(await opened.catch((error: unknown) => error)).toMatchObject({
      code: "ERR_CONNECT",
      hint: "check that the service on this port speaks TLS",
    })
  } finally {
    await plain.stop(true)
  }
})
