import { describe, expect, test } from "bun:test"
import { formatDataSize, parseDataSize } from "./data-size.ts"

describe("sizes as people write them", () => {
  for (const [text, bytes] of [
    ["100GB", 100e9],
    ["100GiB", 100 * 2 ** 30],
    ["100g", 100 * 2 ** 30],
    ["500mb", 500e6],
    ["1.5TB", 1.5e12],
    ["0.5 MiB", 2 ** 19],
    ["4096", 4096],
    ["7B", 7],
    ["8PiB", 2 ** 53],
  ] as const)
    test(`${text} is ${bytes} bytes`, () => expect(parseDataSize(text, "--size")).toBe(bytes))

  for (const text of [
    "",
    "0",
    "0GB",
    "-5GB",
    "GB",
    "5XB",
    "1e9",
    "9PiB",
    "5 G B",
    "1.GB",
    "５GB",
    "constructor",
    "9".repeat(40),
  ])
    test(`${JSON.stringify(text)} is refused`, () => {
      expect(() => parseDataSize(text, "--size")).toThrowCode("ERR_BAD_VALUE")
    })

  for (const [bytes, text] of [
    [500e6, "500 MB"],
    [512 * 2 ** 20, "512 MiB"],
    [1536 * 2 ** 20, "1.5 GiB"],
    [123_456_789, "123.5 MB"],
    [17, "17 B"],
  ] as const)
    test(`${bytes} bytes are shown as ${text}`, () => expect(formatDataSize(bytes)).toBe(text))
})
