import { describe, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import { createSelfSigned } from "../agent/identity.ts"
import { readIssued, requireIssued } from "./certificate.ts"
import { certificateNamesOf, directoryOf } from "./names.ts"
import { type AcmeNetwork, exchange, retryAfter } from "./network.ts"
import { parseProblem, problemError } from "./problem.ts"
import { fetchRenewalWindow, renewalTime, timeWithin } from "./renewal-info.ts"
import { type CertificateSettings, type CertificateState, encodeSettings, parseSettings } from "./settings.ts"

const NOW = new Date("2026-06-01T00:00:00.000Z")
const DAY = 24 * 3600 * 1000

interface World {
  readonly network: AcmeNetwork
  /** Milliseconds that were waited. */
  readonly waits: number[]
  readonly requests: string[]
}

/** A network that gives these answers, one after the other. */
function world(...answers: (Response | Error)[]): World {
  const waits: number[] = []
  const requests: string[] = []
  return {
    waits,
    requests,
    network: {
      fetch: async (url, { method }) => {
        requests.push(`${method} ${url}`)
        const answer = answers.shift() ?? new Error("no answer left")
        if (answer instanceof Error) throw answer
        return answer
      },
      sleep: async (ms) => void waits.push(ms),
      now: () => NOW,
      random: () => 0.5,
      timeoutMs: 1000,
      signal: new AbortController().signal,
    },
  }
}

const busy = (seconds: string, status = 429) =>
  new Response("", { status, headers: { "retry-after": seconds } })
const GET = { method: "GET", url: "https://ca.test/x", headers: {}, body: null } as const
const POST = { ...GET, method: "POST", body: "{}" } as const

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return "no error"
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : `${error}`
  }
}

describe("network", () => {
  test("waits as long as the server says, in seconds or until a date", async () => {
    const { network, waits } = world(
      busy("7"),
      busy("Mon, 01 Jun 2026 00:00:05 GMT", 503),
      new Response("ok"),
    )
    expect((await exchange(network, POST)).text).toBe("ok")
    expect(waits).toEqual([7000, 5000])
    expect(retryAfter("soon", NOW)).toBeNull()
    expect(retryAfter("Thu, 01 Jan 1970 00:00:00 GMT", NOW)).toBe(0)
  })

  test("does not wait longer than a minute in all, and says when to come back", async () => {
    for (const seconds of ["61", "999999999", "86400"]) {
      const { network, waits } = world(busy(seconds))
      const failed = exchange(network, GET)
      expect(await codeOf(failed)).toBe("ERR_ACME_RATE_LIMITED")
      expect(await failed.catch((error) => error.until)).toEqual(
        new Date(NOW.getTime() + Number(seconds) * 1000),
      )
      expect(waits).toEqual([])
    }
    const { network, requests } = world(busy("1"), busy("1"), busy("1"), busy("1"), busy("1"))
    expect(await codeOf(exchange(network, GET))).toBe("ERR_ACME_RATE_LIMITED")
    expect(requests.length).toBe(4)
  })

  test("a read without an answer is tried again, a write is not", async () => {
    const lost = () => Object.assign(new Error("reset"), { code: "ECONNRESET" })
    const { network } = world(lost(), new Response("ok"))
    expect((await exchange(network, GET)).status).toBe(200)
    const { network: other, requests } = world(lost(), new Response("ok"))
    expect(await codeOf(exchange(other, POST))).toBe("ERR_ACME_UNREACHABLE")
    expect(requests.length).toBe(1)
  })

  test("addresses of the server's are https; answers are bounded; waiting can be ended", async () => {
    expect(await codeOf(exchange(world().network, { ...GET, url: "http://ca.test/" }))).toBe(
      "ERR_ACME_ANSWER",
    )
    expect(await codeOf(exchange(world().network, { ...GET, url: "file:///etc/passwd" }))).toBe(
      "ERR_ACME_ANSWER",
    )
    const large = new Response(new Uint8Array(1024 * 1024 + 1))
    expect(await codeOf(exchange(world(large).network, GET))).toBe("ERR_TOO_LARGE")
    const slow = { ...world().network, timeoutMs: 10, fetch: never }
    expect(await codeOf(exchange(slow, POST))).toBe("ERR_TIMEOUT")
    const ended = new AbortController()
    setTimeout(() => ended.abort(), 10)
    expect(await codeOf(exchange({ ...world().network, fetch: never, signal: ended.signal }, GET))).toBe(
      "ERR_INTERRUPTED",
    )
  })
})

const never: AcmeNetwork["fetch"] = (_url, { signal }) =>
  new Promise((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(new Error("aborted")))
  })

describe("problems", () => {
  test("each type of its own has its code; unknown ones are refusals", () => {
    const codeFor = (type: string, status = 403) =>
      problemError("https://x/", status, JSON.stringify({ type: `urn:ietf:params:acme:error:${type}` }), null)
        .error.code
    expect(codeFor("rateLimited")).toBe("ERR_ACME_RATE_LIMITED")
    expect(codeFor("accountDoesNotExist")).toBe("ERR_ACME_ACCOUNT")
    expect(codeFor("externalAccountRequired")).toBe("ERR_ACME_ACCOUNT_BINDING")
    expect(codeFor("invalidProfile")).toBe("ERR_ACME_PROFILE")
    expect(codeFor("rejectedIdentifier")).toBe("ERR_ACME_REFUSED")
    expect(codeFor("constructor")).toBe("ERR_ACME_REFUSED")
    expect(codeFor("malformed", 429)).toBe("ERR_ACME_RATE_LIMITED")
    expect(codeFor("serverInternal", 500)).toBe("ERR_ACME_UNREACHABLE")
    expect(problemError("https://x/", 404, "<html>", null).error.code).toBe("ERR_ACME_REFUSED")
  })

  test("what is no problem document is an empty one, and long texts are cut", () => {
    for (const value of [null, 1, "x", [], { type: 1, detail: {} }, { type: "about:blank" }])
      expect(parseProblem(value)).toEqual({ type: "", detail: "" })
    expect(parseProblem({ detail: "x".repeat(10_000) }).detail.length).toBe(500)
  })
})

test("names: lower case, ASCII, once each, and nothing that is no DNS name", () => {
  expect(
    certificateNamesOf(["Vm.Example.COM", "vm.example.com", "bücher.example", "*.a.example"], "-d"),
  ).toEqual(["vm.example.com", "xn--bcher-kva.example", "*.a.example"])
  for (const bad of [
    "",
    "x",
    "a..b",
    "10.0.0.1",
    "::1",
    "a b.example",
    "../a.example",
    "*.*.example",
    "a.*.example",
    "*.com",
    `${"a".repeat(64)}.example`,
    `${"a.".repeat(127)}example`,
  ])
    expect(() => certificateNamesOf([bad], "-d")).toThrowCode("ERR_BAD_VALUE")
  expect(directoryOf("*.a.example")).toBe("_wildcard.a.example")
})

describe("an issued certificate", () => {
  test("has to be for our key, for exactly our names, in date, with a chain that is one", async () => {
    const now = new Date()
    const mine = await createSelfSigned({ hosts: ["a.example", "b.example"], now })
    const other = await createSelfSigned({ hosts: ["a.example", "b.example"], now })
    const names = ["b.example", "a.example"]
    const check = (pem: string, key = mine.keyPem, wanted = names, at = now) =>
      requireIssued(pem, key, wanted, at)
    const issued = check(mine.certificatePem)
    expect(issued.serial).toBe(new X509Certificate(mine.certificatePem).serialNumber.toLowerCase())
    // Text around the certificates is not kept.
    expect(check(`evil\n${mine.certificatePem}`).chainPem).not.toContain("evil")
    const years = new Date(now.getTime() + 20 * 365 * DAY)
    for (const bad of [
      () => check(mine.certificatePem, other.keyPem),
      () => check(mine.certificatePem, mine.keyPem, ["a.example"]),
      () => check(mine.certificatePem, mine.keyPem, [...names, "c.example"]),
      () => check(mine.certificatePem, mine.keyPem, names, years),
      () => check(mine.certificatePem + other.certificatePem),
      () => check(mine.certificatePem.repeat(11)),
      () => check(mine.certificatePem + mine.keyPem),
      () => check(""),
      () => check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
      () => readIssued(""),
    ])
      expect(bad).toThrowCode("ERR_ACME_CERTIFICATE")
  })
})

describe("renewal", () => {
  const at = (text: string) => new Date(text)

  test("by the dates: a third before the end, half for short ones", () => {
    expect(renewalTime(at("2026-01-01"), at("2026-04-01"))).toEqual(at("2026-03-02"))
    expect(renewalTime(at("2026-01-01"), at("2026-01-07"))).toEqual(at("2026-01-04"))
  })

  test("by the authority's window, a time inside it", async () => {
    const window = { start: at("2026-05-01"), end: at("2026-05-03") }
    expect(timeWithin(window, 0)).toEqual(window.start)
    expect(timeWithin(window, 0.5)).toEqual(at("2026-05-02"))
    const text = JSON.stringify({ suggestedWindow: window, explanationURL: "https://x/" })
    const { network, requests } = world(new Response(text, { headers: { "retry-after": "3600" } }))
    const found = await fetchRenewalWindow(network, "https://ca.test/info/", "a.b")
    expect(found).toEqual({ window, checkAfter: new Date(NOW.getTime() + 3600_000) })
    expect(requests).toEqual(["GET https://ca.test/info/a.b"])
  })

  test("a window that is none is refused, and what the server says about asking again is bounded", async () => {
    const start = "2026-05-01T00:00:00Z"
    for (const bad of [
      "",
      "{}",
      `{"suggestedWindow":{"start":"${start}","end":"${start}"}}`,
      '{"suggestedWindow":{"start":"x","end":"y"}}',
    ])
      expect(await codeOf(fetchRenewalWindow(world(new Response(bad)).network, "https://x", "a.b"))).toBe(
        "ERR_ACME_ANSWER",
      )
    for (const [seconds, wait] of [
      ["0", 60_000],
      ["99999999", DAY],
    ] as const) {
      const body = `{"suggestedWindow":{"start":"${start}","end":"2026-05-02T00:00:00Z"}}`
      const { network } = world(new Response(body, { headers: { "retry-after": seconds } }))
      const { checkAfter } = await fetchRenewalWindow(network, "https://x", "a.b")
      expect(checkAfter.getTime() - NOW.getTime()).toBe(wait)
    }
  })
})

test("settings are written and read back, for each kind of challenge", () => {
  const base = {
    names: ["a.example"],
    directory: "https://ca.test/dir",
    caFile: null,
    email: null,
    key: { type: "p256", reuse: true, derived: { salt: "00ff", simulate: null }, file: null },
    profile: "short",
    output: "/x",
    deployHooks: [["nginx", "-s", "reload"]],
  } as const
  const state: CertificateState = {
    renewAt: NOW,
    checkAfter: null,
    retryAfter: NOW,
    deployed: "01",
    revokedAt: null,
  }
  for (const challenge of [
    { type: "http-01", webroot: "/www" },
    { type: "http-01", host: null, port: 80 },
    { type: "tls-alpn-01", host: "::1", port: 443 },
    { type: "dns-01", hook: ["/x", "y"], waitSeconds: 10 },
  ] as const) {
    const settings: CertificateSettings = { ...base, challenge }
    const text = encodeSettings(settings, state)
    expect(parseSettings(Buffer.from(text), "f")).toEqual([settings, state])
    for (const [from, to] of [
      ['"output": "/x"', '"output": "x"'],
      ['"reuse"', '"unknown"'],
      ['"2026', '"206'],
    ] as const)
      expect(() => parseSettings(Buffer.from(text.replace(from, to)), "f")).toThrowCode("ERR_ACME_WORKSPACE")
  }
})
