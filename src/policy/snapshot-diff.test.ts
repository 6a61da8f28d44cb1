import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import { indexFileHashes } from "./file-hashes.ts"
import { encodeSnapshot, parseSnapshot, type Snapshot } from "./snapshot.ts"
import { diffSnapshots, type FileDifference } from "./snapshot-diff.ts"

const [A, B, C] = ["0a".repeat(32), "0b".repeat(32), "0c".repeat(32)] as const
type Pairs = readonly (readonly [string, string])[]

function snapshot(filehashes: Pairs | null, changes: Partial<Snapshot> = {}): Snapshot {
  const empty = parseSnapshot(Buffer.from('{"format":2}'))
  return { ...empty, filehashes: filehashes === null ? null : indexFileHashes(filehashes), ...changes }
}

function files(before: Pairs, after: Pairs): FileDifference[] {
  return diffSnapshots(snapshot(before), snapshot(after)).files.groups.flatMap((group) => group.files)
}

describe("files", () => {
  test("that are the same differ in nothing", () => {
    const diff = diffSnapshots(snapshot([["/a", A]]), snapshot([["/a", A]]))
    expect(diff.equal).toBe(true)
    expect(diff.files).toEqual({
      added: 0,
      removed: 0,
      changed: 0,
      unchanged: 1,
      digestsCompared: true,
      groups: [],
    })
  })

  test("are added, removed and changed, by directory and in order", () => {
    const { files, equal } = diffSnapshots(
      snapshot([
        ["/usr/bin/gone", A],
        ["/usr/bin/kept", A],
        ["/usr/bin/new-content", A],
        ["/init", A],
      ]),
      snapshot([
        ["/usr/bin/kept", A],
        ["/usr/bin/new-content", B],
        ["/usr/lib/added", C],
        ["/init", B],
        ["boot_aggregate", A],
      ]),
    )
    expect(equal).toBe(false)
    expect([files.added, files.removed, files.changed, files.unchanged]).toEqual([2, 1, 2, 1])
    expect(
      files.groups.map(({ by, name, added, removed, changed }) => [by, name, added, removed, changed]),
    ).toEqual([
      ["directory", "/", 1, 0, 1],
      ["directory", "/usr/bin", 0, 1, 1],
      ["directory", "/usr/lib", 1, 0, 0],
    ])
    expect(files.groups[1]?.files).toEqual([
      { path: "/usr/bin/gone", kind: "removed", before: [A], after: [] },
      { path: "/usr/bin/new-content", kind: "changed", before: [A], after: [B] },
    ])
  })

  test("with several digests are changed when one of them differs, and only then", () => {
    const two: Pairs = [
      ["/a", A],
      ["/a", B],
    ]
    expect(files(two, [...two].reverse())).toEqual([])
    expect(files(two, [...two, ["/a", A]])).toEqual([])
    expect(files(two, [["/a", B]])).toEqual([{ path: "/a", kind: "changed", before: [A, B], after: [B] }])
  })

  test("whose names differ in a space and an underscore are two files", () => {
    const moved = files([["/a b", A]], [["/a_b", A]])
    expect(moved.map(({ path, kind }) => [path, kind])).toEqual([
      ["/a b", "removed"],
      ["/a_b", "added"],
    ])
    const both: Pairs = [
      ["/a b", A],
      ["/a_b", B],
    ]
    expect(files(both, [...both].reverse())).toEqual([])
  })

  test("with digests of another algorithm are compared by name", () => {
    const sha1 = snapshot(
      [
        ["/a", "0a".repeat(20)],
        ["/b", "0a".repeat(20)],
      ],
      { hash_algorithm: "sha1" },
    )
    const sha256 = snapshot([["/a", A]], { hash_algorithm: "sha256" })
    const diff = diffSnapshots(sha1, sha256)
    expect([diff.files.changed, diff.files.removed, diff.files.digestsCompared]).toEqual([0, 1, false])
    expect(diff.references.map(({ name }) => name)).toEqual(["hash_algorithm"])
  })

  test("differ as sets of their pairs do, and the other way round with added and removed swapped", () => {
    const pairs = fc.array(
      fc.tuple(fc.constantFrom("/a b", "/a_b", "/a", "/b/c", "/b c", "/b_c"), fc.constantFrom(A, B, C)),
      { maxLength: 12 },
    )
    fc.assert(
      fc.property(pairs, pairs, (before, after) => {
        const expected = new Map<string, string>()
        const digests = (of: Pairs, path: string) =>
          [...new Set(of.filter(([each]) => each === path).map(([, digest]) => digest))].sort()
        for (const path of new Set([...before, ...after].map(([each]) => each))) {
          const [a, b] = [digests(before, path), digests(after, path)]
          if (`${a}` !== `${b}`)
            expected.set(path, a.length === 0 ? "added" : b.length === 0 ? "removed" : "changed")
        }
        const found = new Map(files(before, after).map(({ path, kind }) => [path, `${kind}`]))
        expect(found).toEqual(expected)
        const swapped = { added: "removed", removed: "added", changed: "changed" } as const
        const back = new Map(files(after, before).map(({ path, kind }) => [path, `${swapped[kind]}`]))
        expect(back).toEqual(found)
      }),
    )
  })
})

describe("reference values", () => {
  const tpm = (seven: string, clock: number): Partial<Snapshot> => ({
    tpm_policy: { reset_count: 3, restart_count: 0 },
    tpm_reference: { ak_name: "000b0000", pcrs: { "0": A, "7": seven }, clock },
  })

  test("that differ are named, with what they mean", () => {
    const { references, equal } = diffSnapshots(snapshot(null, tpm(A, 1)), snapshot(null, tpm(B, 1)))
    expect(equal).toBe(false)
    expect(references).toEqual([
      {
        name: "tpm_reference.pcrs.7",
        meaning: expect.stringContaining("secure boot"),
        before: A,
        after: B,
      },
    ])
  })

  test("that only one of them has are named", () => {
    const { references } = diffSnapshots(snapshot(null), snapshot(null, tpm(A, 1)))
    expect(references.map(({ name, before }) => [name, before])).toEqual([
      ["tpm_policy.reset_count", null],
      ["tpm_policy.restart_count", null],
      ["tpm_reference.ak_name", null],
      ["tpm_reference.pcrs.0", null],
      ["tpm_reference.pcrs.7", null],
    ])
  })

  test("time, place and the TPM's clock tell the origin, and make no difference", () => {
    const later = snapshot(null, { ...tpm(A, 2), taken_at: "2026-01-02T00:00:00Z", host: "vm" })
    const diff = diffSnapshots(snapshot(null, tpm(A, 1)), later)
    expect(diff.equal).toBe(true)
    expect(diff.origin.map(({ name }) => name).sort()).toEqual(["host", "taken_at", "tpm_reference.clock"])
  })

  test("of Intel's and AMD's hardware are compared too, and a snapshot equals itself as read", () => {
    const text = JSON.stringify({
      tee_policy: { Tdx: { header: {}, body: { mr_td: "11".repeat(48) } } },
      filehashes: [["/a", A]],
    })
    const read = parseSnapshot(Buffer.from(text))
    const other = parseSnapshot(Buffer.from(text.replace("1111", "1112")))
    expect(diffSnapshots(read, parseSnapshot(Buffer.from(encodeSnapshot(read)))).equal).toBe(true)
    expect(diffSnapshots(read, other).references.map(({ name }) => name)).toEqual([
      "tee_policy.Tdx.body.mr_td",
    ])
  })
})
