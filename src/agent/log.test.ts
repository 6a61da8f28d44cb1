import { expect, test } from "bun:test"
import { AgentError } from "../errors.ts"
import { createLog, errorFields } from "./log.ts"

const NOW = () => new Date("2026-01-02T03:04:05Z")

test("a JSON line holds time, level, message and fields", () => {
  const lines: string[] = []
  createLog("json", (line) => lines.push(line), NOW).warn("a\nb", { path: "/x\ny" })
  expect(lines).toHaveLength(1)
  expect(JSON.parse(lines[0] ?? "")).toEqual({
    time: "2026-01-02T03:04:05.000Z",
    level: "warn",
    message: "a\nb",
    path: "/x\ny",
  })
})

test("hostile text stays in one line without escape sequences", () => {
  const lines: string[] = []
  createLog("text", (line) => lines.push(line), NOW).info("x\n\u001b[2J", {
    path: "a\n\u001b[31mb\u007f\u009b2J\u2028",
  })
  expect(lines[0]).not.toMatch(/[\n\u001b\u007f-\u009f\u2028]/)
})

test("an error is told with its code and cause", () => {
  const error = new AgentError("ERR_SERVICE", { at: "app", cause: new Error("exit 3") })
  expect(errorFields(error)).toMatchObject({ code: "ERR_SERVICE", cause: "exit 3" })
  expect(errorFields(new Error("x"))).toEqual({ code: "ERR_INTERNAL", error: "x" })
})
