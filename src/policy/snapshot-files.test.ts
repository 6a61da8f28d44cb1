import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { CodedError } from "../errors.ts"
import { textToPath } from "../formats/path-text.ts"
import { JsonCursor } from "../formats/strict-json.ts"
import type { FileHashIndex } from "./file-hashes.ts"
import { readFileHashes } from "./snapshot-files.ts"

type Pair = readonly [path: string, digest: string]

function read(bytes: Uint8Array): FileHashIndex {
  const cursor = new JsonCursor("snapshot", bytes, 1 << 20)
  const builder = readFileHashes(cursor)
  cursor.end()
  return builder.build()
}

/** The text in the form that the quick reader knows, and with a space where it knows none. */
function plain(pairs: readonly Pair[]): Uint8Array {
  return Buffer.from(`[\n${pairs.map((pair) => JSON.stringify(pair)).join(",\n")}\n]`)
}
function spaced(pairs: readonly Pair[]): Uint8Array {
  const lines = pairs.map(([path, digest]) => `[ ${JSON.stringify(path)}, ${JSON.stringify(digest)}]`)
  return Buffer.from(`[${lines.join(" ,")}]`)
}

// Few characters, so that paths share beginnings and come in any order; some of them need an escape, one stands for no text.
const part = fc.constantFrom(
  "a",
  "b",
  "/",
  " ",
  "_",
  "ab_c",
  "ab c",
  "é",
  '"',
  "\\",
  "\n",
  "\u{1f600}",
  "\udcff",
)
const path = fc.array(part, { minLength: 1, maxLength: 9 }).map((parts) => `/usr/${parts.join("")}`)
const digest = fc.constantFrom("aa", "ab", "0f").chain((byte) => fc.constantFrom(byte, byte.toUpperCase()))
const pair = fc.tuple(
  path,
  fc.tuple(digest, fc.constantFrom(1, 20, 32, 64)).map(([byte, size]) => byte.repeat(size)),
)
const pairs = fc
  .tuple(fc.array(pair, { minLength: 1, maxLength: 30 }), fc.boolean())
  .map(([all, inOrder]) => (inOrder ? all.sort(([a], [b]) => (a < b ? -1 : 1)) : all))

describe("pairs of a snapshot", () => {
  test("are the same by the quick way and by the general one", () => {
    fc.assert(
      fc.property(pairs, fc.array(pair, { maxLength: 10 }), (known, others) => {
        const quick = read(plain(known))
        const general = read(spaced(known))
        expect([...quick]).toEqual([...general])
        expect([...quick].map((one) => one.join("\0")).sort()).toEqual(
          known.map(([name, hex]) => `${name}\0${hex.toLowerCase()}`).sort(),
        )
        for (let at = 1; at < quick.length; at++)
          expect(quick.compare(at - 1, quick, at)).toBeLessThanOrEqual(0)
        for (const [name, hex] of [...known, ...others]) {
          const bytes = Buffer.concat([textToPath(name), Buffer.from(hex, "hex")])
          const end = bytes.length - hex.length / 2
          const found = quick.find(bytes, 0, end, end, bytes.length)
          expect(found).toBe(general.find(bytes, 0, end, end, bytes.length))
          if (known.some(([other, same]) => other === name && same === hex)) expect(found).toBe("match")
        }
      }),
      { numRuns: 300 },
    )
  })

  test("with one byte changed are what JSON says that they are, or refused", () => {
    fc.assert(
      fc.property(
        pairs,
        fc.nat(),
        fc.constantFrom(...Buffer.from('"\\,[]\n g0F_\0')),
        (known, place, byte) => {
          const bytes = plain(known)
          bytes[place % bytes.length] = byte
          const expected = plainModel(bytes)
          if (expected === null) expect(() => read(bytes)).toThrow(CodedError)
          else expect([...read(bytes)].map((one) => one.join("\0")).sort()).toEqual(expected)
        },
      ),
      { numRuns: 2000 },
    )
  })

  test("an escape in a path is no part of the path before it, whose bytes it looks like", () => {
    const text = (path: string) =>
      Buffer.from(`[\n["/usr/lib\\\\bin","${"aa".repeat(32)}"],\n["/usr/lib${path}","${"bb".repeat(32)}"]\n]`)
    expect([...read(text("\\bin"))].map(([path]) => path)).toEqual(["/usr/lib\bin", "/usr/lib\\bin"])
    expect(read(text("\\\\bin")).length).toBe(2)
    expect(() => read(text("\\zin"))).toThrow(CodedError)
  })

  test("that end anywhere but at their end are refused", () => {
    const bytes = plain([
      ["/a", "aa".repeat(32)],
      ["/b\n", "bb".repeat(32)],
      ["/c", "cc".repeat(32)],
    ])
    expect(read(bytes).length).toBe(3)
    for (let end = 0; end < bytes.length; end++)
      expect(() => read(bytes.subarray(0, end))).toThrow(CodedError)
  })

  test("the text is left as it was", () => {
    const bytes = plain([
      ["/a", "aa".repeat(32)],
      ["/b\n", "bb".repeat(32)],
    ])
    const before = Buffer.from(bytes)
    read(bytes)
    expect(Buffer.compare(bytes, before)).toBe(0)
  })
})

/** What a general JSON reader makes of it; null where it is none, or no list of pairs of a path and hex. */
function plainModel(bytes: Uint8Array): string[] | null {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes))
    if (!Array.isArray(value)) return null
    return value
      .map((one: unknown) => {
        if (!Array.isArray(one) || one.length !== 2) throw new SyntaxError("no pair")
        const [name, hex]: unknown[] = one
        if (typeof name !== "string" || name === "" || name.includes("\0")) throw new SyntaxError("no path")
        if (typeof hex !== "string" || !/^(?:[0-9a-f]{2}){1,64}$/i.test(hex))
          throw new SyntaxError("no digest")
        textToPath(name)
        return `${name}\0${hex.toLowerCase()}`
      })
      .sort()
  } catch {
    return null
  }
}
