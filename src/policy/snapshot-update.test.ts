import { describe, expect, test } from "bun:test"
import "../../test/setup.ts"
import { encodeSnapshot, parseSnapshot, type Snapshot } from "./snapshot.ts"
import { type NewFile, type UpdateOptions, updateSnapshot } from "./snapshot-update.ts"

const [A, B, C] = ["0a".repeat(32), "0b".repeat(32), "0c".repeat(32)] as const
type Pairs = readonly (readonly [string, string])[]
const IDENTITY = { manager: "dpkg", name: "tool", architecture: "amd64" } as const

function snapshot(filehashes: Pairs, files: readonly string[] = [], more: object = {}): Snapshot {
  const packages = [{ ...IDENTITY, version: "1", files }]
  const json = { format: 2, hash_algorithm: "sha256", packages, filehashes, ...more }
  return parseSnapshot(Buffer.from(JSON.stringify(json)))
}

function update(
  before: Snapshot,
  files: readonly (readonly [string, string])[],
  { version = "2", ...options }: Partial<UpdateOptions> & { version?: string } = {},
) {
  const wanted: NewFile[] = files.map(([path, digest]) => ({ path, digest, isConfiguration: false }))
  const one = { package: { ...IDENTITY, version, source: "digest" as const }, files: wanted }
  const result = updateSnapshot(before, [one], { keepOld: false, allowDowngrade: false, ...options })
  // Whatever comes out can be written and read.
  const after = parseSnapshot(Buffer.from(encodeSnapshot(result.snapshot)))
  return { after, files: [...(after.filehashes ?? [])], superseded: [...(after.superseded ?? [])], ...result }
}

describe("files are replaced", () => {
  test("by path, also where the snapshot does not know to which package they belong", () => {
    const { files, superseded } = update(snapshot([["/usr/bin/tool", A]]), [["/usr/bin/tool", B]])
    expect([files, superseded]).toEqual([[["/usr/bin/tool", B]], [["/usr/bin/tool", A]]])
  })

  test("in all their versions, as the kernel's list names them: with underscores for spaces", () => {
    const before = snapshot([
      ["/opt/my tool", A],
      ["/opt/my_tool", C],
    ])
    const { files, superseded } = update(before, [["/opt/my tool", B]])
    expect(files).toEqual([["/opt/my tool", B]])
    expect(superseded.map(([, digest]) => digest)).toEqual([A, C])
  })

  test("of the package alone: another package's stay", () => {
    const before = snapshot(
      [
        ["/usr/bin/other", A],
        ["/usr/bin/tool", A],
      ],
      ["/usr/bin/tool"],
    )
    expect(update(before, []).files).toEqual([["/usr/bin/other", A]])
  })

  test("and one that comes back is superseded no more", () => {
    const first = update(snapshot([["/usr/bin/tool", A]], ["/usr/bin/tool"]), [["/usr/bin/tool", B]])
    const back = update(first.after, [["/usr/bin/tool", A]], { version: "3" })
    expect([back.files, back.superseded]).toEqual([[["/usr/bin/tool", A]], [["/usr/bin/tool", B]]])
    expect(back.after.packages?.map(({ version, replaced }) => [version, replaced])).toEqual([
      ["1", true],
      ["2", true],
      ["3", undefined],
    ])
  })

  test("once: the same package again changes nothing", () => {
    const first = update(snapshot([["/usr/bin/tool", A]], ["/usr/bin/tool"]), [["/usr/bin/tool", B]])
    const again = update(first.after, [["/usr/bin/tool", B]])
    expect(again.files).toEqual(first.files)
    expect(again.superseded).toEqual(first.superseded)
  })
})

describe("directories that have moved below /usr", () => {
  const update1 = (before: Pairs) => update(snapshot(before), [["/bin/new", B]]).files.map(([path]) => path)

  test("are found where the snapshot has its files", () => {
    expect(update1([["/usr/bin/bash", A]])).toContain("/usr/bin/new")
    expect(update1([["/bin/bash", A]])).toContain("/bin/new")
    // An initial RAM disk may have one by its old name.
    expect(
      update1([
        ["/usr/bin/a", A],
        ["/usr/bin/b", A],
        ["/bin/busybox", A],
      ]),
    ).toContain("/usr/bin/new")
    expect(update(snapshot([["/usr/bin/a", A]]), [["/binary", B]]).files).toContainEqual(["/binary", B])
  })
})

test("an older version is refused, an equal one is not", () => {
  const before = snapshot([["/usr/bin/tool", A]], ["/usr/bin/tool"])
  expect(() => update(before, [], { version: "0.9" })).toThrowCode("ERR_PACKAGE_DOWNGRADE")
  expect(update(before, [["/usr/bin/tool", A]], { version: "1" }).superseded).toEqual([])
})
