import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { generateKeyPairSync, type KeyObject } from "node:crypto"
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fakeDevices } from "../../test/fakes/devices.ts"
import { seal } from "../client/sealing.ts"
import { fromBase64, toBase64 } from "../formats/hex.ts"
import { encodeOwnerAuthorization } from "../formats/owner-request.ts"
import { encodeSealedContent, SEALING_KEY_HEADER, sealingNonce } from "../formats/sealed-content.ts"
import { keyIdOf } from "../verify/ed25519-key.ts"
import { signOwnerRequest } from "../verify/owner-signature.ts"
import { type AgentApp, createAgentApp } from "./app.ts"
import { parseAgentConfig } from "./config.ts"
import { createLog } from "./log.ts"
import { RequestNonces } from "./request-nonces.ts"

const SPKI = Uint8Array.of(4, 5, 6)
const OWNER = generateKeyPairSync("ed25519")
const STRANGER = generateKeyPairSync("ed25519")
const ORDER = "/v1/app/restart"
const MINUTE = 60_000
let directory: string
let now = 0
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "owner-"))
  now = 1_000_000
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const spkiText = (key: KeyObject) => key.export({ type: "spki", format: "der" }).toString("base64")
const OWNED = `[auth]\nowner_keys = ["${spkiText(OWNER.publicKey)}"]\n`

interface Made {
  readonly app: AgentApp
  readonly done: string[]
}

function make(toml: string, spki = SPKI, nonces?: RequestNonces): Made {
  const done: string[] = []
  const app = createAgentApp({
    devices: fakeDevices(),
    identity: { certificatePem: "", privateKeyPem: "", leafDer: spki, spki, notAfter: new Date(0) },
    config: parseAgentConfig(toml, "agent.toml", directory),
    version: "1",
    now: () => new Date(now),
    snapshots: {
      running: false,
      progress: () => ({ state: "none", files: 0, bytes: 0, total_files: 0, unreadable: 0, seconds: 0 }),
      start: () => void done.push("snapshot"),
      result: () => null,
      takeFailure: () => null,
      cancel: async () => undefined,
      clear: () => undefined,
    },
    apps: {
      init: async (content) => void done.push(`init ${Buffer.from(content)}`),
      restart: async () => void done.push("restart"),
      stop: async () => void done.push("stop"),
      status: async () => ({ service: "app", state: "up", configured: true, busy: false }),
      logs: async (lines) => [`${lines} lines`],
      recover: async () => undefined,
    },
    log: createLog(
      "json",
      () => undefined,
      () => new Date(0),
    ),
    ...(nonces === undefined ? {} : { nonces }),
  })
  return { app, done }
}

async function nonceOf(app: AgentApp): Promise<Uint8Array> {
  return fromBase64(memberOf(await (await app.request("/v1/auth/nonce")).json(), "nonce")) ?? Uint8Array.of()
}

interface Signed {
  readonly method: string
  readonly path: string
  readonly body: string
  readonly spki: Uint8Array
  readonly key: KeyObject
}
const HONEST: Signed = { method: "POST", path: ORDER, body: "", spki: SPKI, key: OWNER.privateKey }

/** The header for a request; what is signed may differ from what is sent. */
function authorization(nonce: Uint8Array, signed: Partial<Signed> = {}): Record<string, string> {
  const { key, body, ...rest } = { ...HONEST, ...signed }
  const signature = signOwnerRequest({ ...rest, body: Buffer.from(body), nonce }, key)
  return { authorization: encodeOwnerAuthorization(nonce, signature) }
}

async function refusal(response: Response): Promise<string> {
  return `${response.status} ${memberOf(await response.json(), "code")}`
}

function memberOf(value: unknown, name: string): string {
  return typeof value === "object" && value !== null ? `${Reflect.get(value, name)}` : ""
}

describe("A1: signed requests", () => {
  test("an owner's signature over this request opens it", async () => {
    const { app, done } = make(OWNED)
    const headers = authorization(await nonceOf(app))
    expect((await app.request(ORDER, { method: "POST", headers })).status).toBe(200)
    expect(done).toEqual(["restart"])
  })

  for (const [name, signed] of [
    ["by another key", { key: STRANGER.privateKey }],
    ["over another route", { path: "/v1/app/stop" }],
    ["over another query", { path: `${ORDER}?now=1` }],
    ["over another method", { method: "GET" }],
    ["over another body", { body: "{}" }],
    ["for the connection of another VM or of a relay", { spki: Uint8Array.of(9) }],
  ] as const)
    test(`a signature ${name} is refused`, async () => {
      const { app, done } = make(OWNED)
      const headers = authorization(await nonceOf(app), signed)
      expect(await refusal(await app.request(ORDER, { method: "POST", headers }))).toBe(
        "401 ERR_OWNER_SIGNATURE",
      )
      expect(done).toEqual([])
    })

  test("replayed: refused, also by the server of a new certificate with the same key", async () => {
    const nonces = new RequestNonces(() => new Date(now))
    const { app, done } = make(OWNED, SPKI, nonces)
    const headers = authorization(await nonceOf(app))
    expect((await app.request(ORDER, { method: "POST", headers })).status).toBe(200)
    for (const each of [app, make(OWNED, SPKI, nonces).app])
      expect(await refusal(await each.request(ORDER, { method: "POST", headers }))).toBe(
        "401 ERR_UNAUTHORIZED",
      )
    expect(done).toEqual(["restart"])
  })

  test("after a minute the nonce has run out; a moment before it has not", async () => {
    const { app } = make(OWNED)
    const [late, timely] = [await nonceOf(app), await nonceOf(app)]
    now += MINUTE - 1
    const sent = (nonce: Uint8Array) => app.request(ORDER, { method: "POST", headers: authorization(nonce) })
    expect((await sent(timely)).status).toBe(200)
    now += 1
    expect(await refusal(await sent(late))).toBe("401 ERR_UNAUTHORIZED")
  })

  test("replayed after the clock went forward and back again, as a host can make it: refused", () => {
    const nonces = new RequestNonces(() => new Date(now))
    const nonce = nonces.issue()
    nonces.spend(nonce)
    now += 2 * MINUTE
    nonces.spend(nonces.issue())
    now -= 2 * MINUTE
    expect(() => nonces.spend(nonce)).toThrowCode("ERR_UNAUTHORIZED")
  })

  test("a nonce that the agent did not give, or gave with another time, is refused", async () => {
    const { app } = make(OWNED)
    const nonce = await nonceOf(app)
    const later = Uint8Array.from(nonce)
    later[21] = (later[21] ?? 0) ^ 1
    for (const each of [later, new Uint8Array(38), new Uint8Array(0), nonce.subarray(1)])
      expect((await app.request(ORDER, { method: "POST", headers: authorization(each) })).status).toBe(401)
    expect((await app.request(ORDER, { method: "POST", headers: authorization(nonce) })).status).toBe(200)
  })

  test("no signature, or something else in its place, is refused", async () => {
    const { app } = make(OWNED)
    for (const value of ["", "Cosmian-Owner", "Cosmian-Owner a", "Cosmian-Owner a.b", "Bearer x"])
      expect((await app.request(ORDER, { method: "POST", headers: { authorization: value } })).status).toBe(
        401,
      )
  })

  test("status and log are an owner's to see", async () => {
    const { app } = make(OWNED)
    for (const path of ["/v1/app/status", "/v1/app/logs?lines=7"]) {
      expect((await app.request(path)).status).toBe(401)
      const headers = authorization(await nonceOf(app), { method: "GET", path })
      expect((await app.request(path, { headers })).status).toBe(200)
    }
  })

  test("a configured owner closes the snapshot, too", async () => {
    const { app, done } = make(OWNED)
    expect((await app.request("/snapshot")).status).toBe(401)
    const headers = authorization(await nonceOf(app), { method: "GET", path: "/snapshot" })
    expect((await app.request("/snapshot", { headers })).status).toBe(202)
    expect(done).toEqual(["snapshot"])
  })

  test("nothing is kept of nonces that nobody used", () => {
    const nonces = new RequestNonces(() => new Date(now))
    for (let count = 0; count < 10_000; count++) nonces.issue()
    const nonce = nonces.issue()
    nonces.spend(nonce)
    expect(() => nonces.spend(nonce)).toThrowCode("ERR_UNAUTHORIZED")
  })
})

describe("claims", () => {
  const CLAIMABLE = "[auth]\nfirst_owner = true\n"
  const file = () => join(directory, "data/owner.pem")

  async function claim(app: AgentApp, pair = OWNER, signedBy = pair.privateKey): Promise<Response> {
    const body = JSON.stringify({
      public_key: toBase64(pair.publicKey.export({ type: "spki", format: "der" })),
    })
    const signed = { path: "/v1/owner", body, key: signedBy }
    return app.request("/v1/owner", {
      method: "POST",
      headers: authorization(await nonceOf(app), signed),
      body,
    })
  }

  test("the first to ask becomes owner, and stays it when the agent starts again", async () => {
    const { app, done } = make(CLAIMABLE)
    expect(
      (await app.request(ORDER, { method: "POST", headers: authorization(await nonceOf(app)) })).status,
    ).toBe(401)
    expect(await (await claim(app)).json()).toEqual({ key: keyIdOf(OWNER.publicKey) })
    expect(statSync(file()).mode & 0o777).toBe(0o600)
    const again = make(CLAIMABLE)
    for (const each of [app, again.app]) {
      const headers = authorization(await nonceOf(each))
      expect((await each.request(ORDER, { method: "POST", headers })).status).toBe(200)
    }
    expect([done, again.done]).toEqual([["restart"], ["restart"]])
  })

  test("the second is refused, and told whose the VM is", async () => {
    const { app } = make(CLAIMABLE)
    expect((await claim(app)).status).toBe(200)
    expect(await refusal(await claim(app, STRANGER))).toBe("409 ERR_OWNER_EXISTS")
    expect(readFileSync(file(), "utf8")).toBe(
      OWNER.publicKey.export({ type: "spki", format: "pem" }).toString(),
    )
  })

  test("a key that the sender does not hold is not made owner", async () => {
    const { app } = make(CLAIMABLE)
    expect(await refusal(await claim(app, OWNER, STRANGER.privateKey))).toBe("401 ERR_OWNER_SIGNATURE")
    expect(existsSync(file())).toBe(false)
  })

  for (const [name, toml] of [
    ["by default", ""],
    ["where the image has an owner", `${OWNED}first_owner = true\n`],
  ] as const)
    test(`no claims ${name}`, async () => {
      expect(await refusal(await claim(make(toml).app, STRANGER))).toBe("409 ERR_OWNER_EXISTS")
      expect(existsSync(file())).toBe(false)
    })

  test("a damaged file of the owner stops the start: it never means that there is none", async () => {
    await claim(make(CLAIMABLE).app)
    writeFileSync(file(), "")
    expect(() => make(CLAIMABLE)).toThrow()
  })
})

describe("sealed configuration", () => {
  const NONCE = `nonce=${encodeURIComponent(toBase64(new Uint8Array(32)))}`

  async function sent(app: AgentApp, use: string, aad: Uint8Array, key?: Uint8Array): Promise<Response> {
    const { headers } = await app.request(`/v1/evidence?${NONCE}&sealing=1`)
    const shown = fromBase64(headers.get(SEALING_KEY_HEADER) ?? "") ?? Uint8Array.of()
    const sealed = await seal(Buffer.from("secret"), key ?? shown, use, aad)
    return app.request("/v1/app/init", { method: "POST", body: encodeSealedContent(sealed) })
  }
  const OPEN = "[auth]\nopen_writes = true\n"

  test("what is sealed to the key that the evidence shows reaches the application", async () => {
    const { app, done } = make(OPEN)
    expect((await sent(app, "app-init", SPKI)).status).toBe(200)
    expect(done).toEqual(["init secret"])
  })

  test("without being asked the evidence shows no key", async () => {
    const { headers } = await make("").app.request(`/v1/evidence?${NONCE}`)
    expect(headers.get(SEALING_KEY_HEADER)).toBeNull()
  })

  test("a relay with the TLS key cannot get plain evidence that stands for a sealing key of its own", async () => {
    const { app } = make("")
    const drawn = new Uint8Array(32)
    const wanted = sealingNonce(drawn, new Uint8Array(32).fill(7))
    const answer = await app.request(`/v1/evidence?nonce=${encodeURIComponent(toBase64(wanted))}`)
    expect(await refusal(answer)).toBe("400 ERR_REQUEST")
  })

  test("sealed for something else, for another connection, to another agent: refused", async () => {
    const { app, done } = make(OPEN)
    const other = new Uint8Array(32).fill(9)
    for (const response of [
      await sent(app, "bootstrap", SPKI),
      await sent(app, "app-init", Uint8Array.of(1)),
      await sent(app, "app-init", SPKI, other),
    ])
      expect(await refusal(response)).toBe("400 ERR_SEALED")
    expect(done).toEqual([])
  })

  for (const body of ["", "{", "{}", '{"enc":"AA","ciphertext":"AA"}', '{"content":"c2VjcmV0"}'])
    test(`not a sealed content: ${body}`, async () => {
      const { app, done } = make(OPEN)
      const response = await app.request("/v1/app/init", { method: "POST", body })
      expect(response.status).toBe(400)
      expect(done).toEqual([])
    })
})
