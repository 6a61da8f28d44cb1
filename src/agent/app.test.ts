import { describe, expect, test } from "bun:test"
import { createHash, generateKeyPairSync } from "node:crypto"
import { fakeDevices, fakeMeasurementList } from "../../test/fakes/devices.ts"
import { NativeError } from "../errors.ts"
import { evidenceQualifyingData, evidenceReportData, parseEvidence } from "../formats/evidence.ts"
import { fromBase64, toBase64 } from "../formats/hex.ts"
import { parseMeasurementList } from "../formats/ima/measurement-list.ts"
import { parseLegacySnpBlob } from "../formats/snp/legacy-blob.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { parseAttest } from "../formats/tpm/attest.ts"
import { credentialProof } from "../formats/tpm/credential.ts"
import { selectedPcrs } from "../formats/tpm/pcr-selection.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import type { Devices, Tpm } from "../native/ports.ts"
import { verifyQuote } from "../verify/tpm.ts"
import { type AgentApp, type AgentDependencies, createAgentApp } from "./app.ts"
import type { Applications } from "./applications.ts"
import { type AgentConfig, parseAgentConfig } from "./config.ts"
import { createLog } from "./log.ts"
import type { Snapshots } from "./snapshot.ts"

const IDENTITY = {
  certificatePem: "",
  privateKeyPem: "",
  leafDer: Uint8Array.of(1, 2, 3),
  spki: Uint8Array.of(4, 5, 6),
  notAfter: new Date(0),
}
const TOKEN = "correct horse"
const TOKENS = `[auth]\ntokens = ["${createHash("sha256").update(TOKEN).digest("hex")}"]\n`
const NONCE = new Uint8Array(32).map((_, index) => index * 8)
const QUERY = `nonce=${encodeURIComponent(toBase64(NONCE))}`
const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } })

interface Made {
  readonly app: AgentApp
  readonly log: string[]
  readonly snapshots: {
    state: "none" | "running" | "done"
    started: number
    cancelled: number
    readers: number
  }
  readonly written: string[]
}

function make(toml = "", devices: Devices = fakeDevices(), withApps = true): Made {
  const log: string[] = []
  const config: AgentConfig = parseAgentConfig(toml, "agent.toml")
  const state: Made["snapshots"] = { state: "none", started: 0, cancelled: 0, readers: 0 }
  const written: string[] = []
  const snapshots: Snapshots = {
    get running() {
      return state.state === "running"
    },
    progress: () => ({ state: state.state, files: 1, bytes: 2, total_files: 3, unreadable: 0, seconds: 4 }),
    start: () => {
      state.started++
      state.state = "running"
    },
    result: () => {
      if (state.state !== "done") return null
      state.readers++
      return new Response('{"filehashes":null}').body
    },
    takeFailure: () => null,
    cancel: async () => {
      if (state.state === "running") state.cancelled++
      state.state = "none"
    },
    clear: () => {
      state.state = "none"
    },
  }
  const apps: Applications = {
    init: async (content) => void written.push(Buffer.from(content).toString()),
    restart: async () => void written.push("restart"),
    stop: async () => void written.push("stop"),
    status: async () => ({ service: "app", state: "up", configured: true, busy: false }),
    logs: async (lines) => [`${lines} lines`],
    recover: async () => undefined,
  }
  const dependencies: AgentDependencies = {
    devices,
    identity: IDENTITY,
    config,
    version: "9.9.9",
    now: () => new Date(0),
    snapshots,
    apps: withApps ? apps : null,
    log: createLog(
      "json",
      (line) => log.push(line),
      () => new Date(0),
    ),
  }
  return { app: createAgentApp(dependencies), log, snapshots: state, written }
}

async function refusal(response: Response): Promise<[number, string]> {
  const body: unknown = await response.json()
  const code = typeof body === "object" && body !== null && "code" in body ? String(body.code) : "none"
  return [response.status, code]
}

describe("evidence", () => {
  test("report commits to nonce, TLS key and AK; quote commits to the report; the list is whole", async () => {
    const response = await make().app.request(`/v1/evidence?${QUERY}`)
    expect(response.status).toBe(200)
    expect(response.headers.get("content-type")).toBe("application/json")
    const { tee, tpm, ima } = parseEvidence(await response.text())
    if (tee?.kind !== "sev-snp" || tpm === null || ima === null) throw new Error("a part is missing")
    const akName = tpmName(parsePublic(tpm.akPublic))
    expect(parseSnpReport(tee.report).reportData).toEqual(evidenceReportData(NONCE, IDENTITY.spki, akName))
    const qualifyingData = evidenceQualifyingData(NONCE, IDENTITY.spki, tee.report)
    expect(() => verifyQuote(tpm, { qualifyingData, pcrSelection: [...Array(16).keys()] })).not.toThrow()
    expect(parseMeasurementList(ima.list).count).toBe(3)
  })

  test("the list begins where it is asked to, and at its start where it is shorter than that", async () => {
    const { app } = make()
    const counts = await Promise.all(
      [0, 1, 3, 4].map(async (from) => {
        const { ima } = parseEvidence(
          await (await app.request(`/v1/evidence?${QUERY}&ima_from=${from}`)).text(),
        )
        return ima === null ? null : [ima.from, parseMeasurementList(ima.list).count]
      }),
    )
    expect(counts).toEqual([
      [0, 3],
      [1, 2],
      [3, 0],
      [0, 3],
    ])
  })

  test("a machine without devices says so in the evidence", async () => {
    const response = await make("", { tee: null, tpm: null, ima: null }).app.request(`/v1/evidence?${QUERY}`)
    expect(parseEvidence(await response.text())).toEqual({ tee: null, tpm: null, ima: null })
  })

  for (const query of [
    "",
    "nonce=",
    `nonce=${toBase64(NONCE.subarray(1))}`,
    "nonce=!!",
    `${QUERY}&${QUERY}`,
    `${QUERY}&ima_from=-1`,
  ])
    test(`refused: ${query.slice(0, 30)}`, async () => {
      expect(await refusal(await make().app.request(`/v1/evidence?${query}`))).toEqual([400, "ERR_REQUEST"])
    })
})

describe("routes of Cosmian VM 1.3", () => {
  test("/quote/tee: bytes of report and certificates; report data is nonce and certificate digest", async () => {
    const body = await (await make().app.request(`/quote/tee?${QUERY}`)).text()
    const { report, certificates } = parseLegacySnpBlob(Uint8Array.from(JSON.parse(body)))
    const leafDigest = createHash("sha256").update(IDENTITY.leafDer).digest()
    expect(parseSnpReport(report).reportData).toEqual(new Uint8Array([...NONCE, ...leafDigest]))
    expect(certificates).toHaveLength(1)
  })

  test("/quote/tpm: PCR 10 of the SHA-256 bank, unpadded base64", async () => {
    const text = await (await make().app.request(`/quote/tpm?${QUERY}`)).text()
    expect(text).toMatch(
      /^\{"pcr_value_hash_method":"Sha256","quote":"[A-Za-z0-9+/]+","signature":"[A-Za-z0-9+/]+","public_key":"[A-Za-z0-9+/]+"\}$/,
    )
    const { quote } = JSON.parse(text)
    const attest = parseAttest(fromBase64(quote) ?? new Uint8Array(0))
    expect(attest.extraData).toEqual(NONCE)
    expect(attest.pcrSelect.map(selectedPcrs)).toEqual([[10]])
  })

  test("without devices: 500 with a code", async () => {
    const { app } = make("", { tee: null, tpm: null, ima: null })
    expect(await refusal(await app.request(`/quote/tpm?${QUERY}`))).toEqual([500, "ERR_NO_TPM"])
    expect(await refusal(await app.request(`/quote/tee?${QUERY}`))).toEqual([500, "ERR_NO_TEE"])
    expect(await refusal(await app.request("/ima/ascii"))).toEqual([500, "ERR_NO_IMA"])
  })

  test("/ima: a JSON string, a JSON array of bytes, or the bytes themselves", async () => {
    const { app } = make()
    const bytes = await fakeMeasurementList().readBinary()
    expect(await (await app.request("/ima/ascii")).json()).toBe(await fakeMeasurementList().readAscii())
    expect(await (await app.request("/ima/binary")).text()).toBe(JSON.stringify([...bytes]))
    const raw = await app.request("/ima/binary", { headers: { accept: "application/octet-stream" } })
    expect(Buffer.from(await raw.arrayBuffer()).equals(bytes)).toBe(true)
  })

  test("/ima/binary: long and empty lists are JSON too", async () => {
    for (const length of [0, 65_536, 200_001]) {
      const list = new Uint8Array(length).fill(7)
      const ima = { readBinary: async () => list, readAscii: async () => "" }
      const body: unknown = await (
        await make("", { tee: null, tpm: null, ima }).app.request("/ima/binary")
      ).json()
      expect(body).toEqual([...list])
    }
  })

  test("/snapshot: 202 null and a start, 202 while it runs, then the object until it is deleted", async () => {
    const { app, snapshots } = make()
    const first = await app.request("/snapshot")
    expect([first.status, await first.text()]).toEqual([202, "null"])
    expect((await app.request("/snapshot")).status).toBe(202)
    expect(snapshots.started).toBe(1)
    expect(await refusal(await app.request("/snapshot", { method: "DELETE" }))).toEqual([
      409,
      "ERR_SNAPSHOT_RUNNING",
    ])
    snapshots.state = "done"
    for (let times = 0; times < 2; times++) {
      const done = await app.request("/snapshot")
      expect([done.status, await done.text()]).toEqual([200, '{"filehashes":null}'])
    }
    const deleted = await app.request("/snapshot", { method: "DELETE" })
    expect([deleted.status, await deleted.text()]).toEqual([200, "null"])
    expect<string>(snapshots.state).toBe("none")
  })

  test("HEAD /snapshot opens no reader, who would never come and keep the snapshot for good", async () => {
    const { app, snapshots } = make()
    snapshots.state = "done"
    expect((await app.request("/snapshot", { method: "HEAD" })).status).toBe(200)
    expect(snapshots.readers).toBe(0)
  })

  test("DELETE /v1/snapshot cancels a running one", async () => {
    const { app, snapshots } = make()
    await app.request("/snapshot")
    expect((await app.request("/v1/snapshot", { method: "DELETE" })).status).toBe(200)
    expect(snapshots.cancelled).toBe(1)
  })
})

describe("writes", () => {
  const init = (headers: Record<string, string> = {}, content = "c2VjcmV0") => ({
    method: "POST",
    headers,
    body: JSON.stringify({ content }),
  })

  test("refused where no credentials are configured", async () => {
    const { app, written } = make()
    expect(await refusal(await app.request("/app/init", init()))).toEqual([403, "ERR_WRITES_DISABLED"])
    expect(await refusal(await app.request("/app/restart", { method: "POST" }))).toEqual([
      403,
      "ERR_WRITES_DISABLED",
    ])
    expect(written).toEqual([])
  })

  test("open where the old behaviour is switched on by name", async () => {
    const { app, written } = make("[auth]\nopen_writes = true\n")
    const response = await app.request("/app/init", init())
    expect([response.status, await response.text()]).toEqual([200, "null"])
    expect(written).toEqual(["secret"])
  })

  test("where a token is configured, nothing else is accepted", async () => {
    const { app, written } = make(TOKENS)
    expect(await refusal(await app.request("/app/init", init()))).toEqual([401, "ERR_UNAUTHORIZED"])
    for (const authorization of ["Bearer wrong", "Bearer ", "Basic Y29ycmVjdA==", TOKEN, "Bearer  "])
      expect((await app.request("/app/init", init({ authorization }))).status).toBe(401)
    expect(written).toEqual([])
  })

  test("a token opens the application and the snapshot", async () => {
    const token = "with-token"
    const hash = createHash("sha256").update(token).digest("hex")
    const { app, written, snapshots } = make(`[auth]\ntokens = ["${"0".repeat(64)}", "sha256:${hash}"]\n`)
    expect((await app.request("/app/restart", { method: "POST", ...bearer(token) })).status).toBe(200)
    expect(written).toEqual(["restart"])
    expect((await app.request("/snapshot")).status).toBe(401)
    expect((await app.request("/snapshot", { method: "DELETE" })).status).toBe(401)
    expect((await app.request("/v1/snapshot", { method: "DELETE" })).status).toBe(401)
    expect(snapshots.started).toBe(0)
    expect((await app.request("/snapshot", bearer(token))).status).toBe(202)
    // Waiting for it and reading it needs no token: nothing is changed.
    expect((await app.request("/snapshot")).status).toBe(202)
  })

  test("open_writes does not weaken a configured token", async () => {
    const { app } = make(`${TOKENS}open_writes = true\n`)
    expect((await app.request("/app/restart", { method: "POST" })).status).toBe(401)
  })

  for (const headers of [
    { origin: "https://evil.example" },
    { "sec-fetch-site": "cross-site" },
    { origin: "null" },
  ])
    test(`a web page is refused: ${JSON.stringify(headers)}`, async () => {
      const { app, written, snapshots } = make("[auth]\nopen_writes = true\n")
      const code = "ERR_CROSS_ORIGIN"
      expect(await refusal(await app.request("/app/init", init(headers)))).toEqual([403, code])
      expect(await refusal(await app.request("/snapshot", { headers }))).toEqual([403, code])
      expect(await refusal(await app.request("/snapshot", { method: "DELETE", headers }))).toEqual([
        403,
        code,
      ])
      expect([written.length, snapshots.started]).toEqual([0, 0])
    })

  test("without [app]: 400, with and without credentials configured", async () => {
    for (const auth of ["[auth]\nopen_writes = true\n", ""]) {
      const { app } = make(auth, fakeDevices(), false)
      expect(await refusal(await app.request("/app/init", init()))).toEqual([400, "ERR_NO_APPLICATION"])
    }
  })

  test("a body that is not understood: 400, and nothing of it in answer or log", async () => {
    const { app, log } = make("[auth]\nopen_writes = true\n")
    for (const body of [
      "topsecret",
      '{"content":"top secret!"}',
      '{"content":7}',
      "null",
      '{"topsecret":"eA"}',
    ]) {
      const response = await app.request("/app/init", { method: "POST", body })
      const text = await response.text()
      expect(response.status).toBe(400)
      expect(text + log.join("")).not.toContain("secret")
    }
  })

  test("A3: where no application is configured, a body of some kilobytes is too large", async () => {
    const body = "x".repeat(9000)
    for (const path of ["/v1/owner", "/v1/tpm/activate-credential", "/v1/app/restart"])
      expect(await refusal(await make().app.request(path, { method: "POST", body }))).toEqual([
        413,
        "ERR_TOO_LARGE",
      ])
  })

  test("A3: bodies that one client sends and does not end are held up to its share", async () => {
    const { app } = make("[limits]\nwaiting_per_client = 2\n[auth]\nopen_writes = true\n")
    const endless = () => ({
      method: "POST",
      body: new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(10_000)) }),
    })
    const held = [app.request("/app/init", endless()), app.request("/app/init", endless())]
    expect(await refusal(await app.request("/app/init", endless()))).toEqual([503, "ERR_BUSY"])
    const other = await app.request(
      "/app/init",
      { method: "POST", body: '{"content":""}' },
      { address: "::1" },
    )
    expect(other.status).toBe(200)
    expect(held).toHaveLength(2)
  })

  test("a body over the limit: 413", async () => {
    const { app } = make("[auth]\nopen_writes = true\n[limits]\nbody_bytes = 100\n")
    const response = await app.request("/app/init", init({ "content-length": "300" }, "A".repeat(280)))
    expect(await refusal(response)).toEqual([413, "ERR_TOO_LARGE"])
  })
})

test("faults that are not coded are told to the log, not to the client", async () => {
  const tee = { provider: "fake", getReport: () => Promise.reject(new Error("/secret/path is broken")) }
  const { app, log } = make("", { tee, tpm: null, ima: null })
  const response = await app.request(`/quote/tee?${QUERY}`)
  expect([response.status, await response.json()]).toEqual([
    500,
    { code: "ERR_INTERNAL", message: "internal error" },
  ])
  expect(log.join("")).toContain("/secret/path is broken")
})

test("an unknown route: 404 with a code", async () => {
  expect(await refusal(await make().app.request("/admin"))).toEqual([404, "ERR_NOT_FOUND"])
})

test("neither token nor nonce are logged", async () => {
  const { app, log } = make(TOKENS)
  await app.request(`/v1/evidence?${QUERY}`, bearer(TOKEN))
  await app.request("/app/restart", { method: "POST", ...bearer("another") })
  expect(log.length).toBeGreaterThan(1)
  expect(log.join("")).not.toMatch(/correct horse|another|nonce/)
})

test("/v1/info tells what the agent has", async () => {
  expect(await (await make(TOKENS).app.request("/v1/info")).json()).toEqual({
    version: "9.9.9",
    evidence: 1,
    snapshot_format: 2,
    tee: "fake",
    tpm: true,
    ima: true,
    application: true,
    token_required: true,
    credentials: ["token"],
  })
})

test("a flood of quotes from one address leaves room for another address", async () => {
  const waiting: (() => void)[] = []
  const devices = fakeDevices()
  const tee = {
    provider: "slow",
    getReport: async (reportData: Uint8Array) => {
      await new Promise<void>((resolve) => waiting.push(resolve))
      return (
        (devices.tee ?? fakeDevices().tee)?.getReport(reportData) ?? Promise.reject(new Error("no device"))
      )
    },
  }
  const { app } = make("[limits]\nconcurrent = 1\nwaiting = 20\nwaiting_per_client = 5\n", {
    ...devices,
    tee,
  })
  const ask = (address: string) => app.request(`/quote/tee?${QUERY}`, {}, { address })
  const flood = Array.from({ length: 50 }, () => ask("192.0.2.1"))
  const honest = ask("192.0.2.2")
  const busy = await Promise.race(
    flood.map(async (each) => ((await each).status === 503 ? each : new Promise<Response>(() => {}))),
  )
  expect(busy.headers.get("retry-after")).toBe("2")
  const end = setInterval(() => waiting.shift()?.(), 1)
  expect((await honest).status).toBe(200)
  const statuses = (await Promise.all(flood)).map(({ status }) => status)
  clearInterval(end)
  expect(statuses.filter((status) => status === 200)).toHaveLength(6)
  expect(statuses.filter((status) => status === 503)).toHaveLength(44)
})

describe("POST /v1/tpm/activate-credential", () => {
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const ek = Uint8Array.from(publicKey.export({ type: "spki", format: "der" }))
  const SECRET = new Uint8Array(32).fill(9)
  const honest = { ek, id_object: new Uint8Array(68), encrypted_secret: new Uint8Array(68) }
  type Parts = Record<keyof typeof honest, Uint8Array>

  const post = (devices: Devices, body: string, toml = "") =>
    make(toml, devices).app.request("/v1/tpm/activate-credential", { method: "POST", body })
  const bodyOf = (parts: Parts) =>
    JSON.stringify(Object.fromEntries(Object.entries(parts).map(([name, bytes]) => [name, toBase64(bytes)])))
  function withTpm(activateCredential: Tpm["activateCredential"]): Devices {
    const devices = fakeDevices()
    if (devices.tpm === null) throw new Error("no TPM")
    return { ...devices, tpm: { ...devices.tpm, activateCredential } }
  }

  test("answers with a digest over secret and TLS key, and never with the secret", async () => {
    const asked: Parameters<Tpm["activateCredential"]>[0][] = []
    const devices = withTpm(async (request) => {
      asked.push(request)
      return SECRET
    })
    const answer = await post(devices, bodyOf(honest), TOKENS)
    expect(answer.status).toBe(200)
    expect(await answer.json()).toEqual({ proof: toBase64(credentialProof(SECRET, IDENTITY.spki)) })
    expect(credentialProof(SECRET, Uint8Array.of(1))).not.toEqual(credentialProof(SECRET, IDENTITY.spki))
    // For the agent's own key: the request cannot name another.
    expect(asked).toMatchObject([{ ek: { type: "ecc" }, idObject: honest.id_object }])
    expect(asked[0]).not.toHaveProperty("keyHandle")
  })

  test("what is malformed or too large never reaches the TPM", async () => {
    const devices = withTpm(() => Promise.reject(new Error("asked")))
    const bodies = [
      "",
      "null",
      "[]",
      JSON.stringify({ ek: "" }),
      JSON.stringify(Object.create({ ...honest })),
      bodyOf({ ...honest, ek: new Uint8Array(91) }),
      bodyOf({ ...honest, ek: new Uint8Array(601) }),
      bodyOf({ ...honest, id_object: new Uint8Array(161) }),
      bodyOf({ ...honest, encrypted_secret: new Uint8Array(513) }),
      bodyOf(honest).replace(`"id_object":"A`, `"id_object":"*`),
    ]
    for (const body of bodies) expect((await post(devices, body)).status).toBe(400)
  })

  test("a TPM that refuses, and none at all, are told", async () => {
    const refusing = withTpm(() => Promise.reject(new NativeError("ERR_TPM_COMMAND")))
    const stranger = withTpm(() => Promise.reject(new NativeError("ERR_TPM_NO_EK")))
    expect((await post(refusing, bodyOf(honest))).status).toBe(500)
    expect((await post(stranger, bodyOf(honest))).status).toBe(400)
    expect((await post({ ...fakeDevices(), tpm: null }, bodyOf(honest))).status).toBe(500)
  })
})
