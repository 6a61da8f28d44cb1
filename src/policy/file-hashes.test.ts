import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { FileHashIndex, indexFileHashes } from "./file-hashes.ts"

const A = "aa".repeat(32)
const B = "bb".repeat(32)

function find(index: FileHashIndex, path: string, digest: string) {
  const name = Buffer.from(path)
  const bytes = Buffer.concat([Buffer.from("junk"), name, Buffer.from(digest, "hex")])
  return index.find(bytes, 4, 4 + name.length, 4 + name.length, bytes.length)
}

describe("index of files", () => {
  test("tells a match, another digest and an unknown path apart", () => {
    const index = indexFileHashes([
      ["/usr/bin/b", A],
      ["/usr/bin/a", A],
      ["/usr/bin/a", B],
    ])
    expect(find(index, "/usr/bin/a", A)).toBe("match")
    expect(find(index, "/usr/bin/a", B)).toBe("match")
    expect(find(index, "/usr/bin/b", B)).toBe("other-digest")
    expect(find(index, "/usr/bin/", A)).toBe("unknown")
    expect(find(index, "/usr/bin/ab", A)).toBe("unknown")
    expect(find(index, "/usr/bin/c", A)).toBe("unknown")
    expect(find(index, "/usr/bin/a", "cc".repeat(32))).toBe("other-digest")
    expect(find(index, "/usr/bin/a", "aa".repeat(20))).toBe("other-digest")
    expect(find(FileHashIndex.EMPTY, "/usr/bin/a", A)).toBe("unknown")
  })

  test("a space in a path equals the underscore that the kernel writes for it", () => {
    const index = indexFileHashes([["/opt/my app/run", A]])
    expect(find(index, "/opt/my_app/run", A)).toBe("match")
    expect(find(index, "/opt/my app/run", A)).toBe("match")
    expect(find(index, "/opt/my-app/run", A)).toBe("unknown")
  })

  test("gives the digests that it holds for a path", () => {
    const index = indexFileHashes([
      ["/a", A],
      ["/a", B],
      ["/b", A],
    ])
    expect(index.digestsOf(Buffer.from("/a"), 9)).toEqual([A, B])
    expect(index.digestsOf(Buffer.from("/a"), 1)).toEqual([A])
    expect(index.digestsOf(Buffer.from("/c"), 9)).toEqual([])
  })

  test("is a list of pairs in order of path, whatever order they came in", () => {
    const index = indexFileHashes([
      ["/b", A],
      ["/a\udcff", B],
      ["/a", B],
      ["/a", A],
    ])
    const pairs = [
      ["/a", A],
      ["/a", B],
      ["/a\udcff", B],
      ["/b", A],
    ]
    expect([...index].map((pair) => [...pair])).toEqual(pairs)
    expect(JSON.stringify(index)).toBe(JSON.stringify(pairs))
    expect(index.length).toBe(4)
    expect(indexFileHashes(index)).toBe(index)
  })

  test("finds what a plain search finds", () => {
    // Few characters, so that paths share prefixes and collide.
    const path = fc
      .array(fc.constantFrom("a", "b", " ", "_", "/"), { minLength: 1, maxLength: 5 })
      .map((parts) => parts.join(""))
    const pair = fc.tuple(path, fc.constantFrom(A, B))
    const folded = (text: string) => text.replaceAll(" ", "_")
    fc.assert(
      fc.property(fc.array(pair, { maxLength: 40 }), fc.array(pair, { maxLength: 20 }), (pairs, sought) => {
        const index = indexFileHashes(pairs)
        for (const [name, digest] of sought) {
          const same = pairs.filter(([other]) => folded(other) === folded(name))
          const expected =
            same.length === 0
              ? "unknown"
              : same.some((other) => other[1] === digest)
                ? "match"
                : "other-digest"
          expect(find(index, name, digest)).toBe(expected)
        }
      }),
      { numRuns: 500 },
    )
  })

  test("a hundred thousand files of one name are still searched quickly", () => {
    const pairs = Array.from(
      { length: 100_000 },
      (_, n) => ["/same", n.toString(16).padStart(64, "0")] as const,
    )
    const index = indexFileHashes(pairs)
    const start = performance.now()
    for (const [path, digest] of pairs) expect(find(index, path, digest) === "match").toBe(true)
    expect(performance.now() - start).toBeLessThan(5000)
  })
})
