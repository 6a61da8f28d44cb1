import { describe, expect, test } from "bun:test"
import { CodedError } from "../errors.ts"
import { lineOfKey } from "./toml-place.ts"
import { parseTomlTable } from "./toml-table.ts"

const read = (text: string) => parseTomlTable(text, "x.toml", "ERR_POLICY")

describe("TOML table", () => {
  test("gives values of the kind asked for, and null for absent ones", () => {
    const table = read('a = "x"\nb = ["x", "y"]\nc = 3\nd = true\ne = 2026-12-31\n[t]\nu = 1\n[[l]]\n[[l]]\n')
    expect(table.string("a")).toBe("x")
    expect(table.strings("a")).toEqual(["x"])
    expect(table.strings("b")).toEqual(["x", "y"])
    expect(table.integer("c", 0, 3)).toBe(3)
    expect(table.boolean("d")).toBe(true)
    expect(table.lastMoment("e")?.toISOString()).toBe("2026-12-31T23:59:59.999Z")
    expect(table.table("t")?.integer("u", 0, 1)).toBe(1)
    expect(table.tables("l")).toHaveLength(2)
    expect([table.string("z"), table.strings("z"), table.integer("z", 0, 1), table.boolean("z")]).toEqual([
      null,
      null,
      null,
      null,
    ])
    expect(() => table.finish()).not.toThrow()
  })

  const WRONG: ReadonlyArray<readonly [string, (table: ReturnType<typeof read>) => unknown]> = [
    ["a = 1", (table) => table.string("a")],
    ["a = []", (table) => table.strings("a")],
    ["a = [1]", (table) => table.strings("a")],
    ["a = 4", (table) => table.integer("a", 0, 3)],
    ["a = 1.5", (table) => table.integer("a", 0, 3)],
    ["a = 1", (table) => table.boolean("a")],
    ["a = 1", (table) => table.table("a")],
    ["a = [1]", (table) => table.tables("a")],
    ["a = 10:00:00", (table) => table.lastMoment("a")],
    ["a = 2026-12-31T10:00:00", (table) => table.lastMoment("a")],
    ['a = "2026-12-31"', (table) => table.lastMoment("a")],
    ['a = "z"', (table) => table.choice("a", ["x", "y"])],
    ["a = 1", (table) => table.finish()],
  ]
  for (const [text, ask] of WRONG)
    test(`${text} is refused with its line`, () => {
      const table = read(`# comment\n${text}\n`)
      expect(() => ask(table)).toThrowCode("ERR_POLICY")
      expect(placeOf(() => ask(table))).toBe("x.toml:2: a")
    })

  test("text that is no TOML is refused with line and column", () => {
    expect(placeOf(() => read("a = 1\nb = = 2"))).toMatch(/^x\.toml:2:/)
  })
})

test("the line of a key in an array of tables is that of its own table", () => {
  const text = "[[t.a]]\nx = 1\n\n[[t.a]]\ny = 2\n"
  expect(lineOfKey(text, ["t", "a[0]"], "x")).toBe(2)
  expect(lineOfKey(text, ["t", "a[1]"], "y")).toBe(5)
  expect(lineOfKey(text, ["t", "a[1]"], "x")).toBe(4)
  expect(lineOfKey(text, ["t"], "a")).toBe(1)
})

function placeOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (error instanceof CodedError) return error.at ?? ""
  }
  return "nothing was thrown"
}
