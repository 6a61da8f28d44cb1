import { expect, test } from "bun:test"
import { throughputOf, volumeResults } from "./volume-throughput.ts"

const pairs = (write: readonly string[]) => `${write.map((pair) => `write ${pair}\n`).join("")}read 2 2\n`

test("the middle of the pairs' ratios counts, not single fast or slow ones", () => {
  const output = `same\n${pairs(["1 1", "1 0.99", "0.5 1", "1 0.5", "1e0 0.97"])}`
  const [write, read] = volumeResults(throughputOf(output), "")
  expect([write?.ratio, write?.met, write?.spread]).toEqual([0.99, true, "0.500 to 2.000, 5 pairs"])
  expect([read?.ratio, read?.met]).toEqual([1, true])
  expect(write?.value).toBeCloseTo(4.194304)
})

test("below the target is a miss", () => {
  const [write] = volumeResults(throughputOf(`same\n${pairs(["1 0.97", "1 0.975", "1 0.979"])}`), "")
  expect(write?.met).toBeFalse()
})

test("volumes of different settings are not compared, nor is nothing", () => {
  const output = `differs\n< read_ahead_kb:128\n> read_ahead_kb:256\n${pairs(["1 1"])}`
  expect(() => volumeResults(throughputOf(output), "")).toThrow("read_ahead_kb:128")
  for (const nothing of [
    "",
    "same\n",
    "same\nwrite 1 1\n",
    "same\nwrite  1\nread 1 1\n",
    "same\nwrite x 1\nread 1 1\n",
  ])
    expect(() => throughputOf(nothing)).toThrow("nothing was measured")
})
