import { expect, test } from "bun:test"
import fc from "fast-check"
import { twoDigits, utcTime } from "./utc-time.ts"

test("every time that there is comes out as itself", () => {
  const time = fc.date({
    min: new Date("0100-01-01"),
    max: new Date("9999-12-31T23:59:59Z"),
    noInvalidDate: true,
  })
  fc.assert(
    fc.property(time, (any) => {
      const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = any
        .toISOString()
        .split(/[^0-9]/)
        .map(Number)
      const found = utcTime(year, month, day, hour, minute, second)
      return found?.getTime() === Math.floor(any.getTime() / 1000) * 1000
    }),
  )
})

test("times that there are not are none", () => {
  for (const [month, day, hour, minute, second] of [
    [0, 1, 0, 0, 0],
    [13, 1, 0, 0, 0],
    [2, 30, 0, 0, 0],
    [4, 31, 0, 0, 0],
    [1, 0, 0, 0, 0],
    [1, 1, 24, 0, 0],
    [1, 1, 0, 60, 0],
    [1, 1, 0, 0, 60],
    [Number.NaN, 1, 0, 0, 0],
    [1, 1, 0, 0, Number.NaN],
  ] as const)
    expect(utcTime(2025, month, day, hour, minute, second)).toBe(null)
  expect(utcTime(Number.NaN, 1, 1, 0, 0, 0)).toBe(null)
  expect(utcTime(99, 1, 1, 0, 0, 0)).toBe(null)
})

test("29 February is there in leap years only", () => {
  expect([2024, 2000, 2023, 1900].map((year) => utcTime(year, 2, 29, 0, 0, 0) !== null)).toEqual([
    true,
    true,
    false,
    false,
  ])
})

test("two digits in ASCII", () => {
  const read = (text: string) => twoDigits(Buffer.from(text), 0)
  expect([read("00"), read("59"), read("5"), read("a1"), read("1 ")]).toEqual([
    0,
    59,
    Number.NaN,
    Number.NaN,
    Number.NaN,
  ])
})
