import { describe, expect, test } from "bun:test"
import { CodedError } from "../../errors.ts"
import { runSteps, type Step } from "./steps.ts"

/** Steps `a`, `b`, …, that note what happens; the one called `failing` throws. */
function stepsOf(log: string[], names: string, failing: string, undoFails = ""): Step<null>[] {
  return [...names].map((name) => ({
    name,
    title: name,
    async run() {
      log.push(name)
      if (name === failing) throw new CodedError("ERR_NO_SPACE", { at: name, hint: "make room" })
    },
    async undo() {
      log.push(`-${name}`)
      if (name === undoFails) throw new Error("busy")
    },
  }))
}

const watching = { before: () => {} }

describe("steps", () => {
  test("run in their order, and nothing is undone when all succeed", async () => {
    const log: string[] = []
    await runSteps(stepsOf(log, "abc", ""), null, watching)
    expect(log).toEqual(["a", "b", "c"])
  })

  test("the one that fails and those before it are undone, the last one first", async () => {
    const log: string[] = []
    await expect(runSteps(stepsOf(log, "abcd", "c"), null, watching)).rejects.toMatchObject({
      code: "ERR_NO_SPACE",
    })
    expect(log).toEqual(["a", "b", "c", "-c", "-b", "-a"])
  })

  test("what cannot be undone does not keep the rest from being undone, and is told", async () => {
    const log: string[] = []
    const failure = await runSteps(stepsOf(log, "abc", "c", "b"), null, watching).catch((error) => error)
    expect(log.slice(3)).toEqual(["-c", "-b", "-a"])
    expect(failure.code).toBe("ERR_NO_SPACE")
    expect(failure.hint).toContain("b: busy")
  })

  test("an interruption before a step undoes those before it", async () => {
    const log: string[] = []
    const before = (step: Step<null>) => {
      if (step.name === "c") throw new CodedError("ERR_INTERRUPTED")
    }
    await expect(runSteps(stepsOf(log, "abcd", ""), null, { before })).rejects.toMatchObject({
      code: "ERR_INTERRUPTED",
    })
    expect(log).toEqual(["a", "b", "-b", "-a"])
  })
})
