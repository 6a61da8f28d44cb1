import { expect, test } from "bun:test"
import { remembered } from "./remembered.ts"

function counting() {
  const seen: number[] = []
  const parse = remembered((bytes: Uint8Array) => {
    seen.push(bytes[0] ?? -1)
    if (bytes[0] === 99) throw new Error("refused")
    return { first: bytes[0] }
  }, 2)
  return { seen, parse }
}

test("equal bytes are read once, wherever they stand", () => {
  const { seen, parse } = counting()
  expect(parse(Uint8Array.of(1, 2))).toBe(parse(Uint8Array.of(0, 1, 2).subarray(1)))
  expect(seen).toEqual([1])
})

test("an array that was changed is read anew", () => {
  const { parse } = counting()
  const bytes = Uint8Array.of(1)
  const before = parse(bytes)
  bytes[0] = 2
  expect(parse(bytes)).toEqual({ first: 2 })
  expect(before).toEqual({ first: 1 })
})

test("what is refused is refused each time", () => {
  const { seen, parse } = counting()
  expect(() => parse(Uint8Array.of(99))).toThrow("refused")
  expect(() => parse(Uint8Array.of(99))).toThrow("refused")
  expect(seen).toEqual([99, 99])
})

test("only the last inputs are kept", () => {
  const { seen, parse } = counting()
  for (const first of [1, 2, 3, 3, 2, 1]) parse(Uint8Array.of(first))
  expect(seen).toEqual([1, 2, 3, 1])
})

test("large inputs are not kept", () => {
  const { seen, parse } = counting()
  const large = new Uint8Array(64 * 1024 + 1)
  parse(large)
  parse(large)
  expect(seen).toEqual([0, 0])
})
