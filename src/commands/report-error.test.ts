import { expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { AgentError } from "../errors.ts"
import { codedFrom, reportError } from "./report-error.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

function report(error: unknown, json: boolean): { code: number; out: string; talk: string } {
  const said = { code: 0, out: "", talk: "" }
  const terminal: Terminal = {
    out: (text) => {
      said.out += text
    },
    talk: (text) => {
      said.talk += text
    },
    outStyle: PLAIN,
    talkStyle: PLAIN,
    outColumns: null,
    live: false,
    columns: 80,
  }
  said.code = reportError(error, terminal, json)
  return said
}

const REFUSED = new AgentError("ERR_AGENT_REFUSED", {
  at: "POST /app/init",
  expected: "x",
  found: "\u001b[31mevil",
  hint: "do this",
})

test("an error shows code, sentence, place, expected, found and what to do, on standard error", () => {
  const { code, out, talk } = report(REFUSED, false)
  expect(code).toBe(1)
  expect(out).toBe("")
  expect(talk.split("\n")).toEqual([
    "error ERR_AGENT_REFUSED: the agent refused the request",
    "  where:      POST /app/init",
    "  expected:   x",
    "  found:      \\x1b[31mevil",
    "  what to do: do this",
    "",
  ])
})

test("with --json the error is an object on standard output", () => {
  const { out, talk } = report(REFUSED, true)
  expect(talk).toBe("")
  expect(JSON.parse(out)).toEqual({ error: REFUSED.toJSON() })
})

test("a system error names its file; anything else is a fault of ours", () => {
  try {
    readFileSync("/nowhere/at/all")
  } catch (error) {
    const coded = codedFrom(error)
    expect([coded.code, coded.at, coded.found]).toEqual(["ERR_IO", "/nowhere/at/all", "ENOENT"])
  }
  expect(codedFrom(new TypeError("x")).code).toBe("ERR_INTERNAL")
  expect(codedFrom("text").exitCode).toBe(1)
})
