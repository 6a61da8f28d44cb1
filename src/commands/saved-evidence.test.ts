import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { httpsServer, serverKey, type TlsServer } from "../../test/fakes/tls-server.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { trustAnchorFromPem } from "../endorsements/amd-roots.ts"
import { encodeEvidence } from "../formats/evidence.ts"
import { encodePem } from "../formats/pem.ts"
import { encodeSavedEvidence, parseSavedEvidence, type SavedEvidence } from "../formats/saved-evidence.ts"
import { CHECKS, type Check, type Verdict } from "../policy/verdict.ts"
import { appraisalOf } from "./appraisal.ts"
import { judgeSaved, readSavedEvidence } from "./saved-evidence.ts"
import { PLAIN, type Terminal } from "./terminal.ts"
import { type VerifyOptions, verifyAgainstSnapshot } from "./verify.ts"

/** An agent without anything to prove itself by: what is judged does not matter here, only that it is the same. */
const NOTHING = encodeEvidence({ tee: null, tpm: null, ima: null })
let server: TlsServer
let dir = ""
let requests = 0
let said = ""
const terminal: Terminal = {
  out: (text) => {
    said += text
  },
  talk: () => undefined,
  outStyle: PLAIN,
  talkStyle: PLAIN,
  outColumns: null,
  live: false,
  columns: 80,
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "saved-evidence-"))
  writeFileSync(join(dir, "s"), JSON.stringify({ tee_policy: null, tpm_policy: null, filehashes: null }))
  server = await httpsServer(await serverKey(), (_, response) => {
    requests += 1
    response.end(NOTHING)
  })
})
afterEach(() => {
  said = ""
  requests = 0
})
afterAll(async () => {
  await server.close()
  rmSync(dir, { recursive: true, force: true })
})

async function verify(more: Partial<VerifyOptions>): Promise<Verdict> {
  said = ""
  await verifyAgainstSnapshot(
    {
      url: `https://127.0.0.1:${server.port}`,
      insecureAllowed: true,
      timeout: "10",
      json: true,
      quiet: true,
      trustRoots: [],
      skip: CHECKS.filter((check) => check !== "channel"),
      collateral: {
        kdsUrl: "https://127.0.0.1:1",
        pcsUrl: "https://127.0.0.1:1",
        cacheDir: join(dir, "cache"),
        offline: true,
      },
      snapshot: join(dir, "s"),
      whitelist: null,
      applications: [],
      ...more,
    },
    terminal,
  )
  return JSON.parse(said)
}

const channelOf = ({ claims }: Verdict) => claims.find(({ check }) => check === "channel")

describe("verify --save-evidence, --evidence", () => {
  test.each(["e.json", "e.json.zst"])(
    "%s: the same claims without a connection, save the channel's",
    async (name) => {
      const file = join(dir, name)
      const live = await verify({ outputs: { evidence: file } })
      expect(readFileSync(file)[0]).toBe(name.endsWith(".zst") ? 0x28 : 0x7b)
      requests = 0
      const later = await verify({ evidence: file })
      expect(requests).toBe(0)
      expect(later.target).toBe(live.target)
      expect(later.exitCode).toBe(live.exitCode)
      expect(later.claims.slice(1).map(({ check, status }) => [check, status])).toEqual(
        live.claims.slice(1).map(({ check, status }) => [check, status]),
      )
    },
  )

  test("the channel claim says that freshness was seen by somebody else, and is never just passed", async () => {
    const file = join(dir, "authorized")
    await verify({ outputs: { evidence: file } })
    writeFileSync(file, readFileSync(file, "utf8").replace('"authorized":false', '"authorized":true'))
    const claim = channelOf(await verify({ evidence: file }))
    expect(claim).toMatchObject({ status: "warning", facts: { savedEvidence: true } })
    expect(claim?.summary).toContain("not proven here")
  })

  test("what the one who saved it allowed is not allowed by that", async () => {
    const file = join(dir, "insecure")
    await verify({ outputs: { evidence: file } })
    expect(channelOf(await verify({ evidence: file, insecureAllowed: false }))).toMatchObject({
      status: "failed",
      findings: [{ code: "ERR_CHANNEL_UNTRUSTED" }],
    })
  })

  test("time is the verifier's clock, or what the verifier says; never the file's", async () => {
    const file = join(dir, "time")
    await verify({ outputs: { evidence: file } })
    writeFileSync(file, readFileSync(file, "utf8").replace(/"collected_at":"20\d\d/, '"collected_at":"2019'))
    const { at } = await verify({ evidence: file })
    expect(Math.abs(Date.parse(at) - Date.now())).toBeLessThan(60_000)
    expect((await verify({ evidence: file, at: "2026-01-31T12:00:00+01:00" })).at).toBe(
      "2026-01-31T11:00:00.000Z",
    )
  })

  test("an application that was not asked then fails; one that was is judged unasked", async () => {
    const file = join(dir, "applications")
    const app = `127.0.0.1:${server.port}`
    await verify({ outputs: { evidence: file }, applications: [app] })
    expect(readSavedEvidence(file).applications).toMatchObject([{ target: app, failure: null }])
    const skip = CHECKS.filter((check) => check !== "channel" && check !== "application")
    const claimsOf = async (applications: string[]) =>
      (await verify({ evidence: file, applications, skip })).claims.find(
        ({ check }) => check === "application",
      )
    expect((await claimsOf([]))?.findings).toHaveLength(1)
    expect((await claimsOf([app, "127.0.0.1:1"]))?.findings).toHaveLength(2)
  })

  test("a compressed file that was cut or goes on after its end is refused", async () => {
    const file = join(dir, "cut.zst")
    await verify({ outputs: { evidence: file } })
    const whole = readFileSync(file)
    for (const damaged of [
      whole.subarray(0, whole.length - 3),
      Buffer.concat([whole, Buffer.from("more")]),
    ]) {
      writeFileSync(file, damaged)
      expect(() => readSavedEvidence(file)).toThrowCode("ERR_COMPRESSION")
    }
  })

  test("--at without --evidence, and --evidence with --save-evidence, are usage errors", async () => {
    const code = (more: Partial<VerifyOptions>) =>
      verify(more).then(
        () => null,
        (error: { code: string }) => error.code,
      )
    expect(await code({ at: "2026-01-31T12:00:00Z" })).toBe("ERR_BAD_VALUE")
    expect(await code({ evidence: "x", outputs: { evidence: "y" } })).toBe("ERR_BAD_VALUE")
    expect(await code({ evidence: "x", at: "yesterday" })).toBe("ERR_BAD_VALUE")
    expect(requests).toBe(0)
  })
})

const AT = new Date("2026-06-01T00:00:00Z")

describe.skipIf(!HAVE_VECTORS)("vendors' documents in the file", () => {
  /** The machine of the test PKI, which sent nothing but its report. */
  function judged(documents: readonly string[], crl: string | null, at = AT) {
    const file = (name: string) => vector(`snp-testpki/${name}`)
    const report = file("report.bin")
    const saved: SavedEvidence = {
      target: "vm",
      collectedAt: AT,
      nonce: new Uint8Array(32),
      channel: { spki: new Uint8Array(91), authorized: true, reason: null },
      evidence: { tee: { kind: "sev-snp", report, certificates: [] }, tpm: null, ima: null },
      documents: { certificates: documents.map(file), crl: crl === null ? null : file(crl), intel: null },
      applications: [],
    }
    const again = parseSavedEvidence(new TextEncoder().encode(encodeSavedEvidence(saved)))
    const ark = trustAnchorFromPem(encodePem("CERTIFICATE", file("ark.der")))
    const offline = { kdsUrl: "", pcsUrl: "", cacheDir: null, offline: true }
    const appraisal = {
      ...appraisalOf({ trustRoots: [], skip: [], collateral: offline }),
      anchors: { amd: [{ ...ark, simulated: false }], intel: [], nitro: [] },
    }
    const { claims } = judgeSaved(again, appraisal, { at, insecureAllowed: false }).verdict
    return (check: Check) => claims.find((claim) => claim.check === check)
  }
  const CHAIN = ["vcek.der", "ask.der", "ark.der"]

  test("are what certificates and revocation rest on", () => {
    const of = judged(CHAIN, "crl-empty.der")
    expect(of("tee")?.status).toBe("warning")
    expect(of("revocation")).toMatchObject({ status: "passed", facts: { source: "evidence" } })
  })

  test("are judged like all others: revoked, by another authority, out of date at the given time, missing", () => {
    const revocation = (crl: string | null, at = AT) => judged(CHAIN, crl, at)("revocation")?.status
    for (const crl of ["crl-ask-revoked.der", "crl-wrong-signer.der", "crl-expired.der", null])
      expect(revocation(crl)).toBe("failed")
    expect(revocation("crl-empty.der", new Date("2031-01-01T00:00:00Z"))).toBe("failed")
    expect(judged(["ask.der", "ark.der"], "crl-empty.der")("tee")?.status).toBe("failed")
  })
})

describe("outputs", () => {
  test("all are written, also of a verdict that failed, and nothing else is left", async () => {
    const place = mkdtempSync(join(dir, "out-"))
    const outputs = {
      report: join(place, "r.html"),
      junit: join(place, "r.xml"),
      sarif: join(place, "r.json"),
    }
    const { passed } = await verify({ outputs, skip: [] })
    expect(passed).toBeFalse()
    expect(readdirSync(place).sort()).toEqual(["r.html", "r.json", "r.xml"])
    for (const file of Object.values(outputs)) expect(readFileSync(file, "utf8")).toContain("ERR_TEE_ABSENT")
  })

  test("without a verdict, what was there stays", async () => {
    const place = mkdtempSync(join(dir, "out-"))
    const report = join(place, "r.html")
    writeFileSync(report, "old")
    await expect(verify({ outputs: { report }, url: "https://127.0.0.1:1" })).rejects.toThrow()
    await expect(
      verify({ outputs: { report, junit: `${place}/../${place.split("/").at(-1)}/r.html` } }),
    ).rejects.toThrow()
    await expect(verify({ outputs: { report, junit: place } })).rejects.toThrow()
    expect(readFileSync(report, "utf8")).toBe("old")
    expect(readdirSync(place)).toEqual(["r.html"])
  })
})
