import { describe, expect, test } from "bun:test"
import { failedVerdict, HOSTILE, passedVerdict, updatedVerdict } from "../../test/fakes/verdicts.ts"
import type { Verdict } from "../policy/verdict.ts"
import { junitReport } from "./report-junit.ts"
import { sarifReport } from "./report-sarif.ts"

const CONTEXT = { passedMeans: "is the machine of the snapshot", generator: "cosmian_vm 2.0.0 (test)" }
/** What XML 1.0 calls Char, without the controls that it allows. */
const NO_XML = /[^\n\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u

describe("JUnit", () => {
  test("has a test case per check, and counts them", () => {
    const xml = junitReport(failedVerdict(), CONTEXT)
    expect(xml.match(/<testcase /g)).toHaveLength(9)
    expect(xml).toContain('tests="9" failures="1" errors="0" skipped="1"')
    expect(xml).toContain('<failure type="ERR_IMA_UNKNOWN_FILE" message="4 of 1204 files')
    expect(xml).toContain('<skipped message="left out by --skip tcb')
  })

  test("tells of each file that failed its package, and first what differs by package", () => {
    const xml = junitReport(updatedVerdict(), CONTEXT)
    expect(xml).toContain("  package: libssl3 3.0.16-1~deb12u1 (amd64)\n")
    expect(xml).toContain("  older version: libssl3 3.0.15-1~deb12u1 (amd64)\n")
    expect(xml).toContain("  first measured: entry 8\n")
    expect(xml).toContain("nginx 1.22.1-9+deb12u1: 3 files changed\n")
    expect(junitReport(updatedVerdict(true), CONTEXT)).not.toMatch(NO_XML)
  })

  test("a check that could not be made is an error", () => {
    const { claims, ...verdict } = failedVerdict()
    const operational = claims.map((claim) =>
      claim.status === "failed" ? { ...claim, failureClass: "operational" as const } : claim,
    )
    const xml = junitReport({ ...verdict, claims: operational }, CONTEXT)
    expect(xml).toContain('failures="0" errors="1"')
    expect(xml).toContain("<error ")
  })

  test("hostile text ends no element, and leaves nothing that XML cannot hold", () => {
    const xml = junitReport({ ...failedVerdict(), target: HOSTILE }, CONTEXT)
    expect(xml).not.toMatch(NO_XML)
    expect(xml).not.toMatch(/<script|<img|]]>/)
    const tags = xml.match(/<\/?[a-z-]+/g) ?? []
    const known = [
      "testsuites",
      "testsuite",
      "testcase",
      "properties",
      "property",
      "system-out",
      "skipped",
      "failure",
    ]
    expect([...new Set(tags.map((tag) => tag.replace(/<\/?/, "")))].sort()).toEqual(known.sort())
  })
})

interface Log {
  version: string
  runs: {
    tool: { driver: { rules: { id: string }[] } }
    invocations: { exitCode: number }[]
    results: {
      ruleId: string
      ruleIndex: number
      level: string
      message: { text: string }
      properties?: Record<string, string>
      suppressions?: unknown[]
      locations: { physicalLocation?: { artifactLocation: { uri: string } } }[]
    }[]
    properties: Record<string, unknown>
  }[]
}

function sarif(verdict: Verdict) {
  const log: Log = JSON.parse(sarifReport(verdict, CONTEXT))
  const [run] = log.runs
  if (run === undefined) throw new Error("a run")
  return { log, run, results: run.results, rules: run.tool.driver.rules }
}

describe("SARIF", () => {
  test("has a result per finding, each with its rule", () => {
    const { log, results, rules, run } = sarif(failedVerdict())
    expect(log.version).toBe("2.1.0")
    expect(results.filter(({ level }) => level === "error")).toHaveLength(4)
    for (const { ruleId, ruleIndex } of results) expect(rules[ruleIndex]?.id).toBe(ruleId)
    expect(run.invocations).toMatchObject([{ exitCode: 16 }])
    expect(run.properties).toMatchObject({ passed: false, simulated: true, skipped: ["tcb"] })
  })

  test("a result about a file tells package, version, position and state", () => {
    const { results, run } = sarif(updatedVerdict())
    const about = (code: string) => results.find(({ ruleId }) => ruleId === code)?.properties
    expect(about("ERR_IMA_OLD_VERSION")).toMatchObject({
      package: "libssl3",
      packageVersion: "3.0.16-1~deb12u1",
      olderVersion: "3.0.15-1~deb12u1",
      position: "9",
      state: "rolled-back",
    })
    expect(about("ERR_IMA_UNKNOWN_FILE")).toMatchObject({ position: "8", state: "unknown" })
    expect(run.properties["points"]).toHaveLength(5)
  })

  test("a skipped check is a suppressed result, and a passed one none", () => {
    const { results } = sarif(failedVerdict())
    const [left] = results.filter(({ ruleId }) => ruleId === "CHECK_TCB")
    expect(left?.suppressions).toHaveLength(1)
    expect(sarif(passedVerdict()).results).toEqual([])
  })

  test("a failed check without findings is still a result", () => {
    const { claims, ...verdict } = failedVerdict()
    const bare = claims.map((claim) => ({ ...claim, findings: [] }))
    const { results } = sarif({ ...verdict, claims: bare })
    expect(results.filter(({ level }) => level === "error").map(({ ruleId }) => ruleId)).toEqual([
      "CHECK_IMA",
    ])
  })

  test("of very many findings the log holds some, and says how many more there are", () => {
    const { results, run } = sarif(failedVerdict(Array.from({ length: 3000 }, (_, index) => `/bin/${index}`)))
    expect(results.filter(({ level }) => level === "error")).toHaveLength(2000)
    expect(run.properties["resultsLeftOut"]).toBe(1003)
    expect(results.some(({ ruleId }) => ruleId === "ERR_REBOOTED")).toBeTrue()
  })

  test("hostile text makes no link and no placeholder, and no location outside the VM", () => {
    const { results } = sarif(
      failedVerdict([HOSTILE, "/usr/../../etc/passwd", "//evil.example/x", "/a:b/\udc80 c"]),
    )
    for (const { message } of results) {
      expect(message.text).not.toMatch(/(?<!\\)\[/)
      expect(message.text.replaceAll("{{", "").replaceAll("}}", "")).not.toMatch(/[{}]/)
      expect(message.text).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/)
    }
    const uris = results.flatMap(
      ({ locations }) => locations[0]?.physicalLocation?.artifactLocation.uri ?? [],
    )
    expect(uris).toEqual([
      "usr/bin/nc.openbsd",
      "opt/backup/agent-2.1.4/lib/libtransport.so.3",
      "a%3Ab/%80%20c",
      "usr/lib/x86_64-linux-gnu/libssl.so.3",
    ])
  })
})
