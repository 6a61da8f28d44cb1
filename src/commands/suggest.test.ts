import { expect, test } from "bun:test"
import { editDistance, suggest } from "./suggest.ts"

test("edit distance counts insertions, deletions, substitutions and swaps", () => {
  expect(editDistance("verify", "verify")).toBe(0)
  expect(editDistance("verfy", "verify")).toBe(1)
  expect(editDistance("veriffy", "verify")).toBe(1)
  expect(editDistance("verifi", "verify")).toBe(1)
  expect(editDistance("evrify", "verify")).toBe(1)
  expect(editDistance("", "abc")).toBe(3)
  expect(editDistance("snapshot", "verify")).toBe(8)
})

test("the nearest candidate is suggested, and none where all are far", () => {
  const names = ["snapshot", "verify", "app", "agent"]
  expect(suggest("snpashot", names)).toBe("snapshot")
  expect(suggest("agnet", names)).toBe("agent")
  expect(suggest("ver", names)).toBe("verify")
  expect(suggest("banana", names)).toBeNull()
  expect(suggest("--snap", ["--snapshot", "--url"])).toBe("--snapshot")
  expect(suggest("-x", ["-s", "--url"])).toBeNull()
})
