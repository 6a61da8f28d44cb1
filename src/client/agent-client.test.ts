import { afterAll, beforeAll, expect, test } from "bun:test"
import type { IncomingMessage, ServerResponse } from "node:http"
import { httpsServer, type ServerKey, serverKey, type TlsServer } from "../../test/fakes/tls-server.ts"
import { CodedError } from "../errors.ts"
import { encodeEvidence } from "../formats/evidence.ts"
import { AgentClient, type SnapshotProgress } from "./agent-client.ts"

let key: ServerKey
let otherKey: ServerKey
const servers: TlsServer[] = []
beforeAll(async () => {
  key = await serverKey()
  otherKey = await serverKey()
})
afterAll(() => Promise.all(servers.map((server) => server.close())))

type Handler = (request: IncomingMessage, response: ServerResponse, body: string) => void

async function serve(handler: Handler): Promise<TlsServer> {
  const server = await httpsServer(key, (request, response) => {
    let body = ""
    request.on("data", (chunk) => {
      body += chunk
    })
    request.on("end", () => handler(request, response, body))
  })
  servers.push(server)
  return server
}

function answer(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { "content-type": "application/json" })
  response.end(body)
}

function connect(server: TlsServer, token: string | null = null): Promise<AgentClient> {
  return AgentClient.connect({ host: "127.0.0.1", port: server.port }, { timeoutMs: 2000, token })
}

async function errorOf(work: Promise<unknown>): Promise<CodedError> {
  try {
    await work
  } catch (error) {
    if (error instanceof CodedError) return error
    throw error
  }
  throw new Error("nothing was thrown")
}

const EVIDENCE = encodeEvidence({ tee: null, tpm: null, ima: { from: 0, list: new Uint8Array(5) } })

test("evidence is asked for with the nonce, in the agent's base64", async () => {
  let url = ""
  const server = await serve((request, response) => {
    url = request.url ?? ""
    answer(response, 200, EVIDENCE)
  })
  const client = await connect(server)
  const evidence = await client.evidence(new Uint8Array(32).fill(0xfb))
  expect(evidence.ima?.list).toEqual(new Uint8Array(5))
  const nonce = new URL(url, "https://x").searchParams.get("nonce") ?? ""
  expect(nonce).toBe(Buffer.alloc(32, 0xfb).toString("base64").replace("=", ""))
  client.close()
})

test("an agent without evidence is named as too old", async () => {
  const client = await connect(await serve((_, response) => answer(response, 404, "")))
  const error = await errorOf(client.evidence(new Uint8Array(32)))
  expect(error.code).toBe("ERR_AGENT_REFUSED")
  expect(error.hint).toContain("older")
  client.close()
})

test("evidence comes over the first connection or not at all", async () => {
  const server = await serve((_, response) => answer(response, 200, EVIDENCE))
  const client = await connect(server)
  await client.evidence(new Uint8Array(32))
  server.dropConnections()
  await Bun.sleep(100)
  expect((await errorOf(client.evidence(new Uint8Array(32)))).code).toBe("ERR_CONNECTION_LOST")
  expect(server.connections).toBe(1)
  client.close()
})

test("a snapshot: the old one is removed, then the agent is asked until it is done", async () => {
  const log: string[] = []
  let pending = 2
  const server = await serve((request, response) => {
    log.push(`${request.method} ${request.url}`)
    if (request.url === "/v1/snapshot/progress")
      return answer(response, 200, '{"state":"running","files":3,"bytes":40,"total_files":null}')
    if (request.method === "DELETE") return answer(response, 200, "null")
    pending -= 1
    return pending < 0 ? answer(response, 200, '{"x":1}') : answer(response, 202, "null")
  })
  const client = await connect(server)
  const seen: (SnapshotProgress | null)[] = []
  const bytes = await client.snapshot((progress) => seen.push(progress))
  expect(new TextDecoder().decode(bytes)).toBe('{"x":1}')
  expect(log[0]).toBe("DELETE /snapshot")
  expect(log.filter((line) => line === "GET /snapshot")).toHaveLength(3)
  expect(seen).toEqual([
    { files: 3, bytes: 40, total: null },
    { files: 3, bytes: 40, total: null },
  ])
  expect(server.connections).toBe(1)
  client.close()
})

test("an agent that does not tell its progress is waited for all the same", async () => {
  let pending = 1
  const server = await serve((request, response) => {
    if (request.url === "/v1/snapshot/progress") return answer(response, 404, "")
    if (request.method === "DELETE") return answer(response, 200, "null")
    pending -= 1
    return pending < 0 ? answer(response, 200, "{}") : answer(response, 202, "null")
  })
  const client = await connect(server)
  const seen: unknown[] = []
  await client.snapshot((progress) => seen.push(progress))
  expect(seen).toEqual([null])
  client.close()
})

test("a running snapshot of somebody else is waited for, then a new one is taken", async () => {
  const log: string[] = []
  let running = true
  const server = await serve((request, response) => {
    log.push(`${request.method} ${request.url}`)
    if (request.url === "/v1/snapshot/progress") return answer(response, 200, "{}")
    if (request.method === "DELETE" && running) {
      running = false
      return answer(response, 409, '{"code":"ERR_SNAPSHOT_RUNNING","message":"x"}')
    }
    return answer(response, 200, request.method === "DELETE" ? "null" : "{}")
  })
  const client = await connect(server)
  await client.snapshot(() => undefined)
  expect(log).toEqual(["DELETE /snapshot", "GET /v1/snapshot/progress", "DELETE /snapshot", "GET /snapshot"])
  client.close()
})

/** Drops the connection at the second question, so that the client has to come back. */
async function forgetfulServer(onDrop: (server: TlsServer) => void): Promise<TlsServer> {
  let asked = 0
  const server: TlsServer = await serve((request, response) => {
    if (request.url?.startsWith("/v1/evidence")) return answer(response, 200, EVIDENCE)
    if (request.url === "/v1/snapshot/progress" || request.method === "DELETE")
      return answer(response, 200, "null")
    asked += 1
    if (asked === 2) {
      onDrop(server)
      request.socket.destroy()
      return
    }
    answer(response, asked > 2 ? 200 : 202, asked > 2 ? "{}" : "null")
  })
  return server
}

test("a connection lost while waiting is made again to the same key", async () => {
  const server = await forgetfulServer(() => undefined)
  const client = await connect(server)
  await client.evidence(new Uint8Array(32))
  await client.snapshot(() => undefined)
  expect(server.connections).toBe(2)
  client.close()
})

test("C6: the server's key changes between two requests of one command: refused, nothing more is sent", async () => {
  let afterChange = 0
  const server = await forgetfulServer((self) => self.changeKey(otherKey))
  const client = await connect(server)
  await client.evidence(new Uint8Array(32))
  const counted = client.snapshot(() => {
    afterChange += 1
  })
  const error = await errorOf(counted)
  expect(error.code).toBe("ERR_CHANNEL_KEY_CHANGED")
  expect(error.exitCode).toBe(10)
  expect(afterChange).toBe(1)
  client.close()
})

test("the token is sent with writes and never repeated in an error", async () => {
  const seen: (string | undefined)[] = []
  const server = await serve((request, response, body) => {
    seen.push(request.headers.authorization, body)
    answer(response, 401, '{"code":"ERR_UNAUTHORIZED","message":"no"}')
  })
  const client = await connect(server, "secret-token")
  const error = await errorOf(client.appRestart())
  expect(seen).toEqual(["Bearer secret-token", ""])
  expect(error.code).toBe("ERR_AGENT_REFUSED")
  expect(error.hint).toContain("--token-file")
  expect(JSON.stringify(error)).not.toContain("secret-token")
  client.close()
})

test("a write is not repeated on a new connection", async () => {
  const server = await serve((request) => request.socket.destroy())
  const client = await connect(server)
  expect((await errorOf(client.appRestart())).code).toBe("ERR_CONNECTION_LOST")
  expect(server.connections).toBe(1)
  client.close()
})

test("the evidence's request carries no token", async () => {
  let authorization: string | undefined = "none seen"
  const server = await serve((request, response) => {
    authorization = request.headers.authorization
    answer(response, 200, EVIDENCE)
  })
  const client = await connect(server, "secret-token")
  await client.evidence(new Uint8Array(32))
  expect(authorization).toBeUndefined()
  client.close()
})

test("a client that gives up tells the agent over a new connection", async () => {
  const log: string[] = []
  const controller = new AbortController()
  const server = await serve((request, response) => {
    log.push(`${request.method} ${request.url}`)
    if (request.url === "/v1/snapshot/progress") return answer(response, 200, "null")
    answer(response, request.method === "DELETE" ? 200 : 202, "null")
  })
  const client = await AgentClient.connect(
    { host: "127.0.0.1", port: server.port },
    { timeoutMs: 2000, token: null, signal: controller.signal },
  )
  const error = await errorOf(client.snapshot(() => controller.abort()))
  expect(error.code).toBe("ERR_INTERRUPTED")
  expect(await client.abandonSnapshot()).toBe(true)
  expect(log.at(-1)).toBe("DELETE /v1/snapshot")
  client.close()
})
