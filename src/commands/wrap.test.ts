import { expect, test } from "bun:test"
import { wrapLine } from "./wrap.ts"

test("words are kept whole, following lines are indented, colours do not count", () => {
  const line = `\u001b[32m[ OK ]\u001b[39m one two three four five six seven eight nine ten`
  expect(wrapLine(line, 40, 4)).toEqual([
    "\u001b[32m[ OK ]\u001b[39m one two three four five six seven",
    "    eight nine ten",
  ])
})

test("a word longer than the line stays whole", () => {
  const path = `/${"x".repeat(60)}`
  expect(wrapLine(`${" ".repeat(9)}${path} found`, 40, 9)).toEqual([
    `${" ".repeat(9)}${path}`,
    `${" ".repeat(9)}found`,
  ])
})

test("what is not for a terminal is left alone", () => {
  const line = "word ".repeat(50)
  expect(wrapLine(line, null, 4)).toEqual([line])
  expect(wrapLine("short", 80, 4)).toEqual(["short"])
})
