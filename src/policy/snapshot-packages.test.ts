import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import {
  encodeSnapshot,
  encodeSnapshotBytes,
  fileHashIndex,
  parseSnapshot,
  type Snapshot,
} from "./snapshot.ts"
import { diffSnapshots } from "./snapshot-diff.ts"
import { mergeSnapshots } from "./snapshot-merge.ts"

const [A, B, C] = ["0a".repeat(32), "0b".repeat(32), "0c".repeat(32)] as const
type Pairs = readonly (readonly [string, string])[]
type Files = readonly (string | readonly [number, number])[]

function dpkg(name: string, version: string, files: Files, superseded?: Files) {
  const more = superseded === undefined ? {} : { superseded }
  return { manager: "dpkg", name, version, architecture: "amd64", files, ...more }
}

function snapshot(filehashes: Pairs | null, packages?: readonly unknown[], superseded?: Pairs): Snapshot {
  return parseSnapshot(Buffer.from(JSON.stringify({ format: 2, packages, superseded, filehashes })))
}

/** Which package each pair belongs to, as the snapshot says. */
function owners(of: Snapshot): Record<string, string | null> {
  const index = fileHashIndex(of)
  return Object.fromEntries(
    [...index].map(([path, digest], at) => {
      const owner = of.packages?.[index.packageAt(at)]
      return [`${path} ${digest.slice(0, 2)}`, owner === undefined ? null : `${owner.name} ${owner.version}`]
    }),
  )
}

const FILES: Pairs = [
  ["/usr/bin/bash", A],
  ["/etc/local", B],
  ["/usr/bin/rbash", C],
]

describe("files belong to packages", () => {
  test("by place in the list of files, in the order of the text", () => {
    const read = snapshot(FILES, [
      dpkg("bash", "1", [
        [0, 1],
        [2, 1],
      ]),
    ])
    expect(owners(read)).toEqual({
      "/usr/bin/bash 0a": "bash 1",
      "/etc/local 0b": null,
      "/usr/bin/rbash 0c": "bash 1",
    })
  })

  test("by path, as an agent says it; what is no file of the snapshot is left out", () => {
    const read = snapshot(FILES, [
      dpkg("bash", "1", ["/usr/bin/rbash", "/usr/bin/bash", "/usr/bin/link"]),
      dpkg("later", "2", ["/usr/bin/bash"]),
    ])
    expect(owners(read)).toEqual({
      "/usr/bin/bash 0a": "bash 1",
      "/etc/local 0b": null,
      "/usr/bin/rbash 0c": "bash 1",
    })
  })

  test("by path, whose spaces and underscores are told apart", () => {
    const read = snapshot(
      [
        ["/a b", A],
        ["/a_b", B],
      ],
      [dpkg("one", "1", ["/a_b"]), dpkg("two", "1", ["/a b"])],
    )
    expect(owners(read)).toEqual({ "/a b 0a": "two 1", "/a_b 0b": "one 1" })
  })

  test("and stay with them when the snapshot is written and read", () => {
    const names = fc.constantFrom("/a", "/b", "/c d", "/c_d", "/e/f", "/é")
    fc.assert(
      fc.property(
        fc.uniqueArray(names),
        fc.array(fc.array(names, { maxLength: 4 }), { maxLength: 4 }),
        (files, lists) => {
          const packages = lists.map((list, at) => dpkg(`p${at}`, "1", list))
          const read = snapshot(
            files.map((path) => [path, A]),
            packages,
          )
          const text = encodeSnapshot(read)
          const again = parseSnapshot(Buffer.from(text))
          expect(owners(again)).toEqual(owners(read))
          expect(Buffer.from(encodeSnapshotBytes(again)).toString()).toBe(text)
        },
      ),
    )
  })

  test("a snapshot without packages has none, and is written as before", () => {
    const read = snapshot(FILES)
    expect(read.packages).toBeUndefined()
    expect(encodeSnapshot(read)).not.toMatch(/packages|superseded|taken_under/)
  })
})

describe("what is not understood is refused", () => {
  const cases: readonly (readonly [string, unknown])[] = [
    ["a range beyond the files", [dpkg("a", "1", [[2, 2]])]],
    ["a range of nothing known", [dpkg("a", "1", [[4294967295, 1]])]],
    ["a file of two packages", [dpkg("a", "1", [[0, 2]]), dpkg("b", "1", [[1, 1]])]],
    ["a range with three numbers", [{ ...dpkg("a", "1", []), files: [[0, 1, 2]] }]],
    ["a range without end", [{ ...dpkg("a", "1", []), files: [Array.from({ length: 1000 }, () => 1)] }]],
    ["a range of no file", [dpkg("a", "1", [[1, 0]])]],
    ["a negative number", [{ ...dpkg("a", "1", []), files: [[-1, 1]] }]],
    ["a path among replaced files", [dpkg("a", "1", [], ["/a"])]],
    ["another manager", [{ ...dpkg("a", "1", []), manager: "brew" }]],
    ["an unknown member", [{ ...dpkg("a", "1", []), more: 1 }]],
    ["no version", [{ ...dpkg("a", "", []) }]],
    ["files that are no list", [{ ...dpkg("a", "1", []), files: {} }]],
    ["no list at all", {}],
    ["true instead of files", [{ ...dpkg("a", "1", []), files: true }]],
  ]
  for (const [name, packages] of cases)
    test(name, () => {
      const text = JSON.stringify({ format: 2, filehashes: FILES, packages })
      expect(() => parseSnapshot(Buffer.from(text))).toThrowCode("ERR_MALFORMED")
    })

  test("packages in the predecessor's format", () => {
    const text = JSON.stringify({ filehashes: FILES, packages: [dpkg("a", "1", [])] })
    expect(() => parseSnapshot(Buffer.from(text))).toThrowCode("ERR_MALFORMED")
  })

  test("a package with a member twice", () => {
    const text = `{"format":2,"packages":[{"name":"a","name":"b"}]}`
    expect(() => parseSnapshot(Buffer.from(text))).toThrowCode("ERR_DUPLICATE_KEY")
  })
})

test("a merged snapshot has each file with the package that it was of", () => {
  const before = snapshot(FILES, [
    dpkg("other", "1", []),
    dpkg("bash", "1", [
      [0, 1],
      [2, 1],
    ]),
  ])
  const after = snapshot(
    [
      ["/usr/bin/bash", B],
      ["/etc/local", B],
      ["/usr/bin/rbash", C],
    ],
    [
      dpkg("bash", "2", [
        [0, 1],
        [2, 1],
      ]),
      dpkg("new", "1", []),
    ],
    [
      ["/usr/bin/bash", A],
      ["/usr/bin/bash", C],
    ],
  )
  const merged = mergeSnapshots([
    { name: "before", snapshot: before },
    { name: "after", snapshot: after },
  ])
  const read = parseSnapshot(Buffer.from(encodeSnapshot(merged)))
  expect(owners(read)).toEqual({
    "/usr/bin/bash 0a": "bash 1",
    "/usr/bin/bash 0b": "bash 2",
    "/etc/local 0b": null,
    "/usr/bin/rbash 0c": "bash 1",
  })
  expect(read.packages?.map(({ name, version }) => `${name} ${version}`)).toEqual([
    "other 1",
    "bash 1",
    "bash 2",
    "new 1",
  ])
  // What one of them accepts is accepted, and so superseded in neither.
  expect([...(read.superseded ?? [])]).toEqual([["/usr/bin/bash", C]])
})

describe("two snapshots differ", () => {
  test("by package first, with both versions, then by directory", () => {
    const { files, equal } = diffSnapshots(
      snapshot(FILES, [
        dpkg("bash", "1", ["/usr/bin/bash", "/usr/bin/rbash"]),
        dpkg("gone", "3", []),
        dpkg("same", "1", []),
      ]),
      snapshot(
        [
          ["/usr/bin/bash", B],
          ["/etc/local", C],
          ["/usr/bin/tool", C],
          ["/usr/bin/rbash", C],
        ],
        [
          dpkg("bash", "2", ["/usr/bin/bash", "/usr/bin/rbash"]),
          dpkg("tool", "1", ["/usr/bin/tool"]),
          dpkg("same", "1", []),
        ],
      ),
    )
    expect(equal).toBe(false)
    expect(
      files.groups.map(({ by, name, package: change, files: differing }) => [
        by,
        name,
        change?.kind,
        change?.before,
        change?.after,
        differing.length,
      ]),
    ).toEqual([
      ["package", "bash", "upgraded", ["1"], ["2"], 1],
      ["package", "gone", "removed", ["3"], [], 0],
      ["package", "tool", "added", [], ["1"], 1],
      ["directory", "/etc", undefined, undefined, undefined, 1],
    ])
  })

  test("by package also where only one of them knows packages; then no package has changed", () => {
    const { files } = diffSnapshots(
      snapshot(FILES),
      snapshot([["/usr/bin/bash", B]], [dpkg("bash", "2", ["/usr/bin/bash"]), dpkg("tool", "1", [])]),
    )
    expect(files.groups.map(({ name, package: change }) => [name, change?.kind, change?.before])).toEqual([
      ["bash", "same", null],
      ["/etc", undefined, undefined],
      ["/usr/bin", undefined, undefined],
    ])
  })

  test("not in what is superseded or known of packages, which no VM is verified against", () => {
    const one = snapshot(FILES, [dpkg("bash", "1", [])], [["/a", A]])
    expect(diffSnapshots(one, snapshot(FILES)).equal).toBe(true)
  })
})
