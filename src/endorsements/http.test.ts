import { describe, expect, test } from "bun:test"
import { codeOf } from "../../test/fakes/simulated.ts"
import { testHttp, vendorServices } from "../../test/fakes/vendor-services.ts"
import { fetchDocument, type Http } from "./http.ts"

const REQUEST = {
  url: "https://vendor.test/document",
  what: "a document",
  accept: "*/*",
  maxBytes: 1000,
  etag: null,
  lastModified: null,
}
const NOW = new Date("2026-06-01T00:00:00Z")

/** A client whose service gives these answers, one after the other; a string is a connection that fails. */
function scripted(...answers: (Response | string)[]) {
  const seen: Record<string, string>[] = []
  const fetch: Http["fetch"] = async (_, { headers }) => {
    seen.push({ ...headers })
    const next = answers.shift() ?? "no more answers"
    if (typeof next === "string") throw new TypeError(next)
    return next
  }
  return { ...testHttp({ fetch, now: () => NOW }), seen }
}

const answer = (status: number, headers: Record<string, string> = {}, body = "") =>
  new Response(status === 304 ? null : body, { status, headers })
const text = (bytes: Uint8Array | null) => (bytes === null ? null : Buffer.from(bytes).toString())

describe("one document", () => {
  test("a good answer is taken as it is, with its headers", async () => {
    const http = scripted(answer(200, { etag: '"1"' }, "body"))
    const { body, headers } = await fetchDocument(http, REQUEST)
    expect([text(body), headers.get("etag"), http.seen]).toEqual(["body", '"1"', [{ accept: "*/*" }]])
  })

  test("validators are sent, and an unchanged document is not", async () => {
    const http = scripted(answer(304))
    const conditional = { ...REQUEST, etag: '"1"', lastModified: "Mon, 01 Jun 2026 00:00:00 GMT" }
    expect((await fetchDocument(http, conditional)).body).toBe(null)
    expect(http.seen[0]).toMatchObject({
      "if-none-match": '"1"',
      "if-modified-since": "Mon, 01 Jun 2026 00:00:00 GMT",
    })
  })

  test("304 to a question that was not asked is refused", async () => {
    expect(await codeOf(fetchDocument(scripted(answer(304)), REQUEST))).toBe("ERR_COLLATERAL_REFUSED")
  })

  for (const [status, code] of [
    [400, "ERR_COLLATERAL_REFUSED"],
    [401, "ERR_COLLATERAL_REFUSED"],
    [404, "ERR_COLLATERAL_NOT_FOUND"],
    [410, "ERR_COLLATERAL_NOT_FOUND"],
    [204, "ERR_COLLATERAL_REFUSED"],
  ] as const)
    test(`${status} is final: ${code}`, async () => {
      const http = scripted(status === 204 ? new Response(null, { status }) : answer(status))
      expect(await codeOf(fetchDocument(http, REQUEST))).toBe(code)
      expect([http.seen.length, http.slept]).toEqual([1, []])
    })
})

describe("failures that pass", () => {
  test("are tried again with growing pauses", async () => {
    const http = scripted("refused", answer(503), answer(500), answer(200, {}, "at last"))
    expect(text((await fetchDocument(http, REQUEST)).body)).toBe("at last")
    expect(http.slept).toEqual([500, 1000, 2000])
  })

  test("are given up after four attempts", async () => {
    const http = scripted("refused", "refused", "refused", "refused", answer(200))
    expect(await codeOf(fetchDocument(http, REQUEST))).toBe("ERR_COLLATERAL_UNREACHABLE")
    expect(http.seen.length).toBe(4)
  })

  test("pauses are spread at random, down to a half", async () => {
    const http = { ...scripted("refused", answer(200)), random: () => 0 }
    await fetchDocument(http, REQUEST)
    expect(http.slept).toEqual([250])
  })

  test("429: the time that the service asks for, in seconds or as a date, else a longer pause", async () => {
    const http = scripted(
      answer(429, { "retry-after": "7" }),
      answer(429, { "retry-after": "Mon, 01 Jun 2026 00:00:09 GMT" }),
      answer(429),
      answer(200, {}, "body"),
    )
    expect(text((await fetchDocument(http, REQUEST)).body)).toBe("body")
    expect(http.slept).toEqual([7000, 9000, 20_000])
  })

  test("429 for longer than anybody waits is an error that says when to come back", async () => {
    const http = scripted(answer(429, { "retry-after": "3600" }))
    const error = await fetchDocument(http, REQUEST).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: "ERR_COLLATERAL_RATE_LIMITED", hint: "try again in 3600 seconds" })
    expect(http.slept).toEqual([])
  })

  test("a Retry-After that nobody can read counts as none", async () => {
    const http = scripted(answer(503, { "retry-after": "soon" }), answer(200))
    await fetchDocument(http, REQUEST)
    expect(http.slept).toEqual([500])
  })
})

describe("limits", () => {
  test("an announced size over the limit is refused before anything is read", async () => {
    const http = scripted(answer(200, { "content-length": "1001" }, "x".repeat(1001)))
    expect(await codeOf(fetchDocument(http, REQUEST))).toBe("ERR_TOO_LARGE")
  })

  test("a body that does not end is cut off", async () => {
    let pulled = 0
    const endless = new ReadableStream({
      pull(controller) {
        pulled += 1
        controller.enqueue(new Uint8Array(400))
      },
    })
    const http = scripted(new Response(endless))
    expect(await codeOf(fetchDocument(http, REQUEST))).toBe("ERR_TOO_LARGE")
    expect(pulled).toBeLessThan(10)
  })

  test("a service that accepts and says nothing, or drips, runs into the time limit", async () => {
    const drip = Bun.serve({
      port: 0,
      fetch: ({ url }) =>
        url.endsWith("/silent")
          ? new Promise<Response>(() => undefined)
          : new Response(
              new ReadableStream({
                async pull(controller) {
                  controller.enqueue(new Uint8Array(1))
                  await Bun.sleep(20)
                },
              }),
            ),
    })
    try {
      for (const path of ["silent", "drip"]) {
        const started = performance.now()
        const http = testHttp({ timeoutMs: 60 })
        const request = { ...REQUEST, url: `http://127.0.0.1:${drip.port}/${path}` }
        expect(await codeOf(fetchDocument(http, request))).toBe("ERR_TIMEOUT")
        expect(performance.now() - started).toBeLessThan(2000)
      }
    } finally {
      await drip.stop(true)
    }
  })

  test("what nobody waits for any more ends at once, also in a pause", async () => {
    const aborted = AbortSignal.abort()
    expect(await codeOf(fetchDocument(testHttp({ signal: aborted }), REQUEST))).toBe("ERR_INTERRUPTED")
    const controller = new AbortController()
    const http = testHttp({
      signal: controller.signal,
      fetch: async () => answer(503),
      sleep: async () => {
        controller.abort()
        throw new Error("woken")
      },
    })
    expect(await codeOf(fetchDocument(http, REQUEST))).toBe("ERR_INTERRUPTED")
  })
})

test("a real server: compressed, and closed", async () => {
  const server = await vendorServices([["/document", { body: "body", type: "text/plain" }]])
  const request = { ...REQUEST, url: `${server.url}/document` }
  expect(text((await fetchDocument(testHttp(), request)).body)).toBe("body")
  await server.close()
  expect(await codeOf(fetchDocument(testHttp(), request))).toBe("ERR_COLLATERAL_UNREACHABLE")
})
