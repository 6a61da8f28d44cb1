import { expect, test } from "bun:test"
import { updatedVerdict } from "../../test/fakes/verdicts.ts"
import { EXIT } from "../errors.ts"
import type { Claim, Finding, Verdict } from "../policy/verdict.ts"
import { jsonText } from "./json-text.ts"
import { renderVerdict } from "./render.ts"
import { PLAIN, styleOf } from "./terminal.ts"
import { classOf } from "./verdict-words.ts"

const OPTIONS = { style: PLAIN, columns: null, quiet: false, passedMeans: "is good" }

function finding(subject: string, code: Finding["code"] = "ERR_APPLICATION_KEY"): Finding {
  return { code, subject, expected: "a", found: "b", meaning: "it means", remedy: "do this" }
}

function claim(status: Claim["status"], findings: readonly Finding[] = []): Claim {
  return { check: "ima", status, summary: "in short", findings, facts: {} }
}

function verdict(claims: readonly Claim[], more: Partial<Verdict> = {}): Verdict {
  return {
    passed: true,
    target: "vm:5555",
    at: "2026-01-01T00:00:00.000Z",
    simulated: false,
    assurance: { label: "tpm-by-host", meaning: "something" },
    skipped: [],
    claims,
    exitCode: 0,
    ...more,
  }
}

test("claims keep the predecessor's marks at the beginning of the line", () => {
  const lines = renderVerdict(
    verdict([claim("passed"), claim("failed"), claim("skipped"), claim("warning")]),
    OPTIONS,
  ).split("\n")
  expect(lines.slice(0, 4).map((line) => line.slice(0, line.indexOf("]") + 1))).toEqual([
    "[ OK ]",
    "[ FAIL ]",
    "[ SKIP ]",
    "[ WARNING ]",
  ])
})

test("a finding shows code, expected, found, meaning and remedy", () => {
  const text = renderVerdict(verdict([claim("failed", [finding("/bin/x")])]), OPTIONS)
  for (const part of ["/bin/x", "ERR_APPLICATION_KEY", "a", "b", "it means", "do this"])
    expect(text).toContain(part)
})

test("neighbours with the same advice share it; of many findings the number is told", () => {
  const many = Array.from({ length: 30 }, (_, index) => finding(`/bin/${index}`))
  const text = renderVerdict(verdict([claim("failed", many)]), OPTIONS)
  expect(text.match(/do this/g)).toHaveLength(1)
  expect(text).toContain("and 10 more")
  expect(text).not.toContain("/bin/20")
})

test("terminal escapes, line breaks and direction marks in hostile text do not reach the terminal", () => {
  const hostile = "/tmp/\u001b[2J\n[ OK ] fake\u009b31m\u202e\r\u2028"
  const bad: Claim = {
    ...claim("failed", [
      { ...finding(hostile), found: hostile, expected: hostile, meaning: hostile, remedy: hostile },
    ]),
    summary: hostile,
  }
  const text = renderVerdict(
    verdict([bad], { target: hostile, assurance: { label: "unproven", meaning: hostile }, passed: false }),
    OPTIONS,
  )
  expect(text.replaceAll("\n", "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e\u2028]/)
  expect(text.split("\n").filter((line) => line.startsWith("[ OK ]"))).toEqual([])
})

test("a failed verdict begins with what matters, by package, and hostile names of files stay harmless", () => {
  const text = renderVerdict(updatedVerdict(), OPTIONS)
  const place = (part: string) => text.indexOf(part)
  expect(text.startsWith("FAILED")).toBe(true)
  expect(place("libssl3 3.0.16")).toBeLessThan(place("nginx 1.22.1"))
  expect(place("nginx 1.22.1")).toBeLessThan(place("[ FAIL ]"))
  expect(text.match(/what to do: {2}if you updated|what to do: if you updated/g)).toHaveLength(1)
  const hostile = renderVerdict(updatedVerdict(true), OPTIONS)
  expect(hostile.replaceAll("\n", "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e\u2028]/)
})

test("where more than files failed, what decides the exit code comes first", () => {
  const { claims, ...rest } = updatedVerdict()
  const tee: Claim = {
    ...claim("failed", [finding("MEASUREMENT", "ERR_TEE_MEASUREMENT")]),
    check: "tee",
    failureClass: "tee",
  }
  const text = renderVerdict({ ...rest, claims: [tee, ...claims], exitCode: EXIT.tee }, OPTIONS)
  const [, headline = ""] = text.split("\n")
  expect(headline).toContain("MEASUREMENT")
  expect(headline).not.toContain("libssl3")
  expect(text).toContain("libssl3")
})

test("--json of hostile text is the same value, and harmless on a terminal", () => {
  const value = { path: "\u009b31m\u202e\u{e0001}\u001b[2J\udc80" }
  const text = jsonText(value)
  expect(JSON.parse(text)).toEqual(value)
  expect(text.replaceAll("\n", "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e\u{e0001}]/u)
})

test("quiet says only what is wrong", () => {
  expect(renderVerdict(verdict([claim("passed"), claim("warning")]), { ...OPTIONS, quiet: true })).toBe("")
  const failed = verdict([claim("passed"), claim("failed")], { passed: false, exitCode: EXIT.ima })
  const text = renderVerdict(failed, { ...OPTIONS, quiet: true })
  expect(text).toContain("[ FAIL ]")
  expect(text).not.toContain("[ OK ]")
  expect(text).toContain("exit code 16, ima")
})

test("a simulated TEE is said on every verdict, even a quiet one", () => {
  const simulated = verdict([claim("passed")], { simulated: true })
  for (const quiet of [true, false])
    expect(renderVerdict(simulated, { ...OPTIONS, quiet })).toContain("SIMULATED")
})

test("what was left out is repeated at the end", () => {
  const text = renderVerdict(verdict([claim("skipped")], { skipped: ["ima"] }), OPTIONS)
  expect(text).toContain("Left out by --skip: ima")
  expect(text).not.toContain("is good")
})

test("colour is used only where it is asked for", () => {
  const painted = renderVerdict(verdict([claim("passed")]), { ...OPTIONS, style: styleOf(true) })
  expect(painted).toContain("\u001b[32m[ OK ]")
  expect(renderVerdict(verdict([claim("passed")]), OPTIONS)).not.toContain("\u001b")
})

test("each exit code has the name of its class", () => {
  for (const [name, code] of Object.entries(EXIT)) expect(classOf(code) as string).toBe(name)
})
