import { afterAll, afterEach, beforeAll, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { zstdDecompressSync } from "node:zlib"
import { httpsServer, serverKey, type TlsServer } from "../../test/fakes/tls-server.ts"
import { SealingKey } from "../agent/sealing.ts"
import { encodeEvidence } from "../formats/evidence.ts"
import { toBase64 } from "../formats/hex.ts"
import { parseSealedContent, SEALING_KEY_HEADER } from "../formats/sealed-content.ts"
import { parseSnapshot } from "../policy/snapshot.ts"
import { CHECKS } from "../policy/verdict.ts"
import { initApp, orderApp } from "./app.ts"
import { NO_CREDENTIALS } from "./credentials.ts"
import { takeSnapshot } from "./snapshot.ts"
import { PLAIN, type Terminal } from "./terminal.ts"
import { verifyAgainstSnapshot } from "./verify.ts"

/** An agent that has nothing to prove itself with, and says about itself what it likes. */
const NOTHING = encodeEvidence({ tee: null, tpm: null, ima: null })
const CLAIMED = {
  cloud_type: "AWS",
  tee_policy: null,
  tpm_policy: { reset_count: 7, restart_count: 0 },
  filehashes: [["/bin/x", "ab".repeat(32)]],
  format: 2,
  hash_algorithm: "sha256",
  host: "what the agent says",
  tpm_reference: { ak_name: "000b00", pcrs: {} },
}

interface Seen {
  readonly line: string
  readonly authorization: string | undefined
  readonly body: string
}

const sealing = new SealingKey()
let spki: Uint8Array = Uint8Array.of()
let server: TlsServer
let dir = ""
const seen: Seen[] = []
let said = ""
const terminal: Terminal = {
  out: (text) => {
    said += text
  },
  talk: (text) => {
    said += text
  },
  outStyle: PLAIN,
  talkStyle: PLAIN,
  outColumns: null,
  live: false,
  columns: 80,
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "after-attestation-"))
  writeFileSync(join(dir, "token"), "secret-token\n")
  writeFileSync(join(dir, "app.conf"), "password = secret")
  const sealingKey = toBase64(await sealing.publicKey())
  const key = await serverKey()
  spki = key.spki
  server = await httpsServer(key, (request, response) => {
    let body = ""
    request.on("data", (chunk) => {
      body += chunk
    })
    request.on("end", () => {
      const line = `${request.method} ${request.url?.replace(/\?.*/, "")}`
      seen.push({ line, authorization: request.headers.authorization, body })
      if (line === "GET /v1/evidence") response.setHeader(SEALING_KEY_HEADER, sealingKey).end(NOTHING)
      else response.end(line === "GET /snapshot" ? JSON.stringify(CLAIMED) : "null")
    })
  })
})
afterEach(() => {
  seen.length = 0
  said = ""
})
afterAll(async () => {
  await server.close()
  rmSync(dir, { recursive: true, force: true })
})

function options(skip: readonly string[]) {
  return {
    url: `https://127.0.0.1:${server.port}`,
    insecureAllowed: true,
    timeout: "5",
    json: false,
    quiet: false,
    trustRoots: [],
    skip,
    collateral: {
      kdsUrl: "https://kds.invalid",
      pcsUrl: "https://pcs.invalid",
      cacheDir: null,
      offline: true,
    },
    credentials: { ...NO_CREDENTIALS, token: join(dir, "token") },
    policy: null,
    measurement: null,
    anyVm: true,
  }
}

/** Everything that this machine cannot prove, left out by name. */
const ALL = CHECKS.filter((check) => check !== "channel" && check !== "application")

test("S2: of a machine that does not attest no snapshot is taken, and no token is sent to it", async () => {
  const output = join(dir, "s2.snapshot")
  expect(await takeSnapshot({ ...options([]), output }, terminal)).toBe(11)
  expect(existsSync(output)).toBe(false)
  expect(seen.map(({ line }) => line)).toEqual(["GET /v1/evidence"])
  expect(seen[0]?.authorization).toBeUndefined()
  expect(said).toContain("[ FAIL ]")
  expect(said).toContain("no snapshot was written")
})

test("S2: an older snapshot at the same place stays as it is", async () => {
  const output = join(dir, "old.snapshot")
  writeFileSync(output, "old")
  await takeSnapshot({ ...options([]), output }, terminal)
  expect(readFileSync(output, "utf8")).toBe("old")
})

test("without --allow-insecure-tls a self-signed certificate is refused at snapshot time", async () => {
  const output = join(dir, "channel.snapshot")
  const code = await takeSnapshot({ ...options(ALL), insecureAllowed: false, output }, terminal)
  expect(code).toBe(10)
  expect(existsSync(output)).toBe(false)
})

test("a snapshot keeps no value that only the agent vouches for where evidence should", async () => {
  const output = join(dir, "twin.snapshot")
  expect(await takeSnapshot({ ...options(ALL), output }, terminal)).toBe(0)
  const snapshot = parseSnapshot(readFileSync(output))
  expect(snapshot.tpm_policy).toBeNull()
  expect(snapshot.tpm_reference).toBeNull()
  expect(snapshot.host).toBe(`127.0.0.1:${server.port}`)
  expect([...(snapshot.filehashes ?? [])]).toEqual([["/bin/x", "ab".repeat(32)]])
  expect(seen.map(({ line }) => line)).toEqual(["GET /v1/evidence", "DELETE /snapshot", "GET /snapshot"])
})

test("a snapshot whose name ends in .zst is compressed, and is verified against like another", async () => {
  const [plain, packed] = [join(dir, "plain.snapshot"), join(dir, "packed.snapshot.zst")]
  for (const output of [plain, packed])
    expect(await takeSnapshot({ ...options(ALL), output }, terminal)).toBe(0)
  const files = (text: Uint8Array) => [...(parseSnapshot(text).filehashes ?? [])]
  expect(files(zstdDecompressSync(readFileSync(packed)))).toEqual(files(readFileSync(plain)))
  const verify = { ...options(ALL), snapshot: packed, whitelist: null, applications: [] }
  expect(await verifyAgainstSnapshot(verify, terminal)).toBe(0)
})

test("neither configuration nor token is sent to a machine that does not attest", async () => {
  const init = { ...options([]), snapshot: null, configuration: join(dir, "app.conf") }
  expect(await initApp(init, terminal)).toBe(11)
  expect(await orderApp("restart", { ...options([]), snapshot: null }, terminal)).toBe(11)
  expect(seen.map(({ line }) => line)).toEqual(["GET /v1/evidence", "GET /v1/evidence"])
  expect(said).toContain("nothing was sent")
})

test("after attestation the configuration goes over the same connection", async () => {
  const before = server.connections
  const init = { ...options(ALL), snapshot: null, configuration: join(dir, "app.conf") }
  expect(await initApp(init, terminal)).toBe(0)
  expect(seen.map(({ line }) => line)).toEqual(["GET /v1/evidence", "POST /v1/app/init"])
  expect(seen[1]?.authorization).toBe("Bearer secret-token")
  // To the key that the evidence vouches for, and for this connection only.
  const sealed = parseSealedContent(Buffer.from(seen[1]?.body ?? ""), 10_000)
  const opened = await sealing.open(sealed, "app-init", spki)
  expect(Buffer.from(opened).toString()).toBe("password = secret")
  await expect(sealing.open(sealed, "bootstrap", spki)).rejects.toMatchObject({ code: "ERR_SEALED" })
  await expect(sealing.open(sealed, "app-init", Uint8Array.of(1))).rejects.toMatchObject({
    code: "ERR_SEALED",
  })
  expect(server.connections).toBe(before + 1)
  expect(said).not.toContain("secret")
})

test("C8: no token is sent for a snapshot where nothing says which VM is meant", async () => {
  const output = join(dir, "token.snapshot")
  const policy = join(dir, "token.toml")
  writeFileSync(policy, "[snp]\n")
  const take = (skip: readonly string[], changes: object) =>
    takeSnapshot({ ...options(skip), anyVm: false, output, ...changes }, terminal)
  await expect(take(ALL, {})).rejects.toMatchObject({ code: "ERR_MISSING_ARGUMENT" })
  await expect(take(["binding"], { policy })).rejects.toMatchObject({ code: "ERR_BAD_VALUE" })
  await expect(take([], { measurement: "00" })).rejects.toMatchObject({ code: "ERR_BAD_VALUE" })
  expect(seen).toEqual([])
  expect(await take([], { policy })).toBe(11)
  expect(seen.map(({ authorization }) => authorization)).toEqual([undefined])
  expect(existsSync(output)).toBe(false)
})

test("a snapshot without a secret is taken of any VM, as ever", async () => {
  const output = join(dir, "plain-token.snapshot")
  const without = { ...options(ALL), anyVm: false, output, credentials: NO_CREDENTIALS }
  expect(await takeSnapshot(without, terminal)).toBe(0)
  expect(seen.map(({ line }) => line)).toContain("GET /snapshot")
  expect(seen.every(({ authorization }) => authorization === undefined)).toBe(true)
})

test("C8: where nothing says which VM is meant, nobody is even asked", async () => {
  const init = { ...options(ALL), anyVm: false, snapshot: null, configuration: join(dir, "app.conf") }
  await expect(initApp(init, terminal)).rejects.toMatchObject({ code: "ERR_MISSING_ARGUMENT" })
  expect(seen).toEqual([])
})

test("C8: where nothing that is left ties the connection to the VM, nobody is even asked", async () => {
  const snapshot = join(dir, "c8.snapshot")
  const policy = join(dir, "c8.toml")
  const key = join(dir, "c8-key.toml")
  writeFileSync(snapshot, JSON.stringify(CLAIMED))
  writeFileSync(policy, "[snp]\n")
  writeFileSync(key, `[tpm]\nak_name = "000b${"ab".repeat(32)}"\n`)
  const order = (skip: readonly string[], by: { snapshot?: string; policy?: string }) =>
    orderApp("restart", { ...options(skip), anyVm: false, snapshot: null, policy: null, ...by }, terminal)
  for (const [skip, by] of [
    [["binding"], { policy }],
    [["tee"], { policy }],
    [["binding", "tpm"], { snapshot }],
    [["tee", "tpm"], { snapshot }],
    [["binding", "tpm"], { policy: key }],
  ] as const)
    await expect(order(skip, by)).rejects.toMatchObject({ code: "ERR_BAD_VALUE" })
  expect(seen).toEqual([])
  for (const [skip, by] of [
    [["tpm"], { policy }],
    [["binding", "tee"], { snapshot }],
    [["tee", "binding"], { policy: key }],
  ] as const)
    expect(await order(skip, by)).toBeGreaterThan(1)
})

test("verify needs a snapshot that is one", async () => {
  const snapshot = join(dir, "empty")
  writeFileSync(snapshot, "")
  const verify = verifyAgainstSnapshot(
    { ...options(ALL), snapshot, whitelist: null, applications: [] },
    terminal,
  )
  await expect(verify).rejects.toMatchObject({ code: "ERR_TRUNCATED" })
  expect(seen).toEqual([])
})

test("verify prints the verdict as an object with --json", async () => {
  const output = join(dir, "json.snapshot")
  await takeSnapshot({ ...options(ALL), output }, terminal)
  said = ""
  const verify = {
    ...options(ALL),
    json: true,
    snapshot: output,
    whitelist: null,
    applications: ["127.0.0.1:1"],
  }
  expect(await verifyAgainstSnapshot(verify, terminal)).toBe(18)
  expect(JSON.parse(said)).toMatchObject({ passed: false, exitCode: 18, skipped: ALL })
})

for (const [name, wrong] of [
  ["--timeout", { timeout: "soon" }],
  ["--url", { url: "ftp://x" }],
] as const)
  test(`a wrong ${name} is a usage error`, async () => {
    const verify = { ...options([]), ...wrong, snapshot: null }
    await expect(orderApp("restart", verify, terminal)).rejects.toMatchObject({
      code: "ERR_BAD_VALUE",
      at: name,
    })
  })
