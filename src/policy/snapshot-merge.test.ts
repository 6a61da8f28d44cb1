import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { indexFileHashes } from "./file-hashes.ts"
import { parseSnapshot, type Snapshot } from "./snapshot.ts"
import { mergeSnapshots } from "./snapshot-merge.ts"

const [A, B] = ["0a".repeat(32), "0b".repeat(32)] as const
type Pairs = readonly (readonly [string, string])[]

function snapshot(filehashes: Pairs | null, changes: Partial<Snapshot> = {}): Snapshot {
  const members = {
    format: 2,
    hash_algorithm: "sha256",
    tpm_policy: { reset_count: 3, restart_count: 0 },
    tpm_reference: { ak_name: "000b0000", pcrs: { "7": A }, clock: 10 },
  }
  const empty = parseSnapshot(Buffer.from(JSON.stringify(members)))
  return { ...empty, filehashes: filehashes === null ? null : indexFileHashes(filehashes), ...changes }
}

const merge = (...snapshots: Snapshot[]) =>
  mergeSnapshots(snapshots.map((each, index) => ({ name: `${index}.snapshot`, snapshot: each })))
const pairsOf = ({ filehashes }: Snapshot) =>
  [...(filehashes ?? [])].map(([path, digest]) => `${path} ${digest}`)

describe("merged snapshots", () => {
  test("hold the files of all, each pair once and in order", () => {
    const merged = merge(
      snapshot([
        ["/a", A],
        ["/b", A],
      ]),
      snapshot([
        ["/a", B],
        ["/b", A],
      ]),
      snapshot([["/0", A]]),
      snapshot(null),
    )
    expect(pairsOf(merged)).toEqual([`/0 ${A}`, `/a ${A}`, `/a ${B}`, `/b ${A}`])
    expect(merge(snapshot(null), snapshot(null)).filehashes).toBeNull()
  })

  test("are the union of sets, whatever the order", () => {
    const pairs = fc.array(fc.tuple(fc.constantFrom("/a b", "/a_b", "/a", "/c"), fc.constantFrom(A, B)), {
      maxLength: 8,
    })
    fc.assert(
      fc.property(pairs, pairs, (a, b) => {
        const union = new Set([...a, ...b].map(([path, digest]) => `${path} ${digest}`))
        const merged = pairsOf(merge(snapshot(a), snapshot(b)))
        expect(merged.toSorted()).toEqual([...union].sort())
        expect(pairsOf(merge(snapshot(b), snapshot(a)))).toEqual(merged)
      }),
    )
  })

  test("tell time and place of the latest, and keep the latest clock", () => {
    const early = snapshot([], { taken_at: "2026-01-01T23:00:00+01:00", host: "early" })
    const late = snapshot([], { taken_at: "2026-01-01T22:30:00Z", host: "late" })
    const { tpm_reference } = snapshot([])
    const ahead = { ...early, tpm_reference: tpm_reference && { ...tpm_reference, clock: 99 } }
    const unknown = { ...early, tpm_reference: tpm_reference && { ...tpm_reference, clock: null } }
    for (const merged of [merge(late, ahead), merge(ahead, late), merge(unknown, ahead, late)])
      expect([merged.host, merged.taken_at, merged.tpm_reference?.clock]).toEqual([
        "late",
        "2026-01-01T22:30:00Z",
        99,
      ])
  })

  test("list each file that could not be read once", () => {
    const merged = merge(
      snapshot([], { unreadable: [["/a", "EACCES"]] }),
      snapshot([], {
        unreadable: [
          ["/a", "EIO"],
          ["/b", "EIO"],
        ],
      }),
    )
    expect(merged.unreadable).toEqual([
      ["/a", "EACCES"],
      ["/b", "EIO"],
    ])
  })
})

describe("snapshots of another VM or state are not merged:", () => {
  const tpm = snapshot(null).tpm_reference
  const cases: readonly (readonly [string, Partial<Snapshot>])[] = [
    ["tpm_reference.ak_name", { tpm_reference: tpm && { ...tpm, ak_name: "000b0001" } }],
    ["tpm_reference.pcrs.7", { tpm_reference: tpm && { ...tpm, pcrs: { "7": B } } }],
    ["tpm_reference.pcrs.7", { tpm_reference: null }],
    ["tpm_policy.reset_count", { tpm_policy: { reset_count: 4, restart_count: 0 } }],
    ["ima_reference.template", { ima_reference: { template: "ima-ng", boot_aggregate: `sha256:${A}` } }],
    ["hash_algorithm", { hash_algorithm: "sha512" }],
    ["cloud_type", { cloud_type: "GCP" }],
    ["tee_policy.Sgx", { tee_policy: { Sgx: {} } }],
    ["format", { format: 1 }],
  ]
  for (const [name, changes] of cases)
    test(`${name} (${JSON.stringify(changes).slice(0, 60)})`, () => {
      for (const snapshots of [
        [snapshot([]), snapshot([]), snapshot([], changes)],
        [snapshot([], changes), snapshot([])],
      ])
        expect(errorOf(() => merge(...snapshots))).toMatchObject({
          code: "ERR_SNAPSHOT_MERGE",
          found: expect.stringContaining(`${name}: `),
        })
    })

  test("values that only look alike are not taken for equal", () => {
    const sgx = (values: Record<string, unknown>) => snapshot([], { tee_policy: { Sgx: values } })
    const values = [{ a: 1 }, { a: "1" }, { a: { b: 1 } }, { "a.b": 1 }, { a: [1] }, { a: {} }, { '"a"': 1 }]
    for (const [index, one] of values.entries())
      for (const [position, other] of values.entries())
        if (index === position) expect(merge(sgx(one), sgx(other)).tee_policy).toEqual({ Sgx: one })
        else expect(() => merge(sgx(one), sgx(other))).toThrowCode("ERR_SNAPSHOT_MERGE")
  })

  test("each difference is named", () => {
    const other = snapshot([], { cloud_type: "AWS", hash_algorithm: "sha512" })
    const { found, at } = errorOf(() => merge(snapshot([]), other))
    expect(at).toBe("1.snapshot")
    expect(found).toBe("hash_algorithm: sha512 instead of sha256; cloud_type: AWS instead of none")
  })
})

function errorOf(run: () => unknown): CodedError {
  try {
    run()
  } catch (error) {
    if (error instanceof CodedError) return error
    throw error
  }
  throw new Error("nothing was thrown")
}
