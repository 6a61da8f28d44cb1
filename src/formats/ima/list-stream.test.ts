import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { bootAggregate, file, listOf, violation } from "../../../test/fakes/measurement-list.ts"
import "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { type NewEntry, templateHashInput } from "./encode.ts"
import { readMeasurementList } from "./list-stream.ts"
import { measurementEntry } from "./measurement-list.ts"

const ENTRIES: NewEntry[] = [
  bootAggregate(),
  file("/usr/bin/a"),
  violation("/usr/bin/b"),
  { template: "ima", algorithm: "sha1", digest: new Uint8Array(20).fill(1), path: "/usr/bin/c" },
  file("/usr/bin/d", "d", { template: "ima-sig", signature: Uint8Array.of(3, 2) }),
]
const LIST = listOf(...ENTRIES)

async function* inChunks(bytes: Uint8Array, size: number) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function paths(bytes: Uint8Array, size = bytes.length || 1): Promise<string[]> {
  const out: string[] = []
  for await (const { list, first } of readMeasurementList(inChunks(bytes, size))) {
    expect(first).toBe(out.length)
    for (let index = 0; index < list.count; index++) out.push(measurementEntry(list, index).path)
  }
  return out
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return "none"
  } catch (error) {
    return error instanceof CodedError ? error.code : String(error)
  }
}

/** An entry of a list for one bank: the same with another template digest. */
function forBank(entry: NewEntry, algorithm: string): NewEntry {
  const isViolation = entry.templateDigest !== undefined
  const digest = createHash(algorithm).update(templateHashInput(entry)).digest()
  return { ...entry, templateDigest: isViolation ? new Uint8Array(digest.length) : new Uint8Array(digest) }
}

describe("a list in parts", () => {
  const expected = ENTRIES.map(({ path }) => path)

  test("of any size gives the same entries", async () => {
    for (const size of [1, 7, 100, LIST.length]) expect(await paths(LIST, size)).toEqual(expected)
    expect(await paths(new Uint8Array(0))).toEqual([])
  })

  test("larger than one read gives the same entries", async () => {
    const many = Array.from({ length: 60_000 }, (_, index) =>
      file(`/usr/bin/program-${index}`, `${index % 9}`),
    )
    const list = listOf(...many)
    expect(list.length).toBeGreaterThan(4 * 1024 * 1024)
    expect(await paths(list, 1024 * 1024)).toEqual(many.map(({ path }) => path))
  })

  test("cut anywhere but between entries is refused", async () => {
    const ends = new Set(ENTRIES.map((_, index) => listOf(...ENTRIES.slice(0, index)).length))
    for (let end = 1; end < LIST.length; end++)
      expect(await codeOf(paths(LIST.subarray(0, end)))).toBe(ends.has(end) ? "none" : "ERR_TRUNCATED")
  })

  test("with a length that cannot be is refused before it is waited for", async () => {
    const huge = Uint8Array.from(LIST)
    huge.fill(0xff, 24, 28)
    expect(await codeOf(paths(huge, 10))).toBe("ERR_TOO_LARGE")
  })

  test.each(["sha256", "sha384", "sha512"])(
    "for the bank of %s is told by its digests' size",
    async (name) => {
      const entries = ENTRIES.map((entry) => forBank(entry, name))
      expect(await paths(listOf(...entries))).toEqual(expected)
    },
  )

  test("as text with a line that never ends is refused", async () => {
    const line = new Uint8Array(5 * 1024 * 1024).fill(0x31)
    expect(await codeOf(paths(line))).toBe("ERR_TOO_LARGE")
  })
})
