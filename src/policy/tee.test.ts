import { describe, expect, test } from "bun:test"
import { emptyTdxPolicy } from "../../test/fakes/snapshots.ts"
import { attested, fakeChip } from "../../test/fakes/snp.ts"
import type { SnpReportFields } from "../formats/snp/report.ts"
import { encodeTcb, type Tcb } from "../formats/snp/tcb.ts"
import type { SevPolicy, Snapshot, TeeReference } from "./snapshot.ts"
import { encodeSnapshot, parseSnapshot } from "./snapshot.ts"
import { appraiseTee, teeReferenceOf } from "./tee.ts"

const milan = await fakeChip("Milan")
const turin = await fakeChip("Turin")
const honest = attested(milan)
const taken = teeReferenceOf(honest)

const EMPTY: Omit<Snapshot, "tee_policy" | "tee_reference"> = {
  format: 2,
  cloud_type: null,
  tpm_policy: null,
  filehashes: null,
  taken_at: "2026-01-01T00:00:00Z",
  agent_version: "2.0.0",
  host: "vm",
  hash_algorithm: null,
  tpm_reference: null,
  ima_reference: null,
  unreadable: [],
}

/** The honest VM's snapshot, with these members changed. */
function snapshot(sev: Partial<SevPolicy> = {}, ours: Partial<TeeReference> | null = {}): Snapshot {
  return {
    ...EMPTY,
    tee_policy: { Sev: { ...taken.tee_policy.Sev, ...sev } },
    tee_reference: ours === null ? null : { ...taken.tee_reference, ...ours },
  }
}

const judge = (overrides: Partial<SnpReportFields> = {}, reference: Snapshot | null = snapshot()) =>
  appraiseTee(attested(milan, overrides), reference)
const codes = (claim: { findings: readonly { code: string }[] }) => claim.findings.map(({ code }) => code)
const POLICY = 0x30000n

test("the VM of the snapshot passes", () => {
  const { tee, tcb } = judge()
  expect([tee.status, tcb.status]).toEqual(["passed", "passed"])
})

test("the reference survives being written to a snapshot file", () => {
  const read = parseSnapshot(Buffer.from(encodeSnapshot(snapshot())))
  const { tee, tcb } = judge({}, read)
  expect([tee.status, tcb.status]).toEqual(["passed", "passed"])
})

test("what differs between two honest reports is not compared", () => {
  const { tee } = judge({ reportData: new Uint8Array(64), reportId: new Uint8Array(32), currentBuild: 99 })
  expect(tee.status).toBe("passed")
})

describe("a report that differs fails the TEE check", () => {
  const bytes = (size: number) => new Uint8Array(size).fill(9)
  for (const [what, overrides, code] of [
    ["debugging allowed", { policy: POLICY | (1n << 19n) }, "ERR_TEE_DEBUG"],
    ["migration agent allowed", { policy: POLICY | (1n << 18n) }, "ERR_TEE_MIGRATION"],
    ["a policy bit that is not known", { policy: POLICY | (1n << 26n) }, "ERR_TEE_POLICY"],
    ["SMT no longer allowed", { policy: 0x20000n }, "ERR_TEE_POLICY"],
    ["single socket", { policy: POLICY | (1n << 20n) }, "ERR_TEE_POLICY"],
    ["another ABI version", { policy: POLICY | 1n }, "ERR_TEE_POLICY"],
    ["VMPL 1", { vmpl: 1 }, "ERR_TEE_VMPL"],
    ["VMPL 2", { vmpl: 2 }, "ERR_TEE_VMPL"],
    ["VMPL 3", { vmpl: 3 }, "ERR_TEE_VMPL"],
    ["another measurement", { measurement: bytes(48) }, "ERR_TEE_MEASUREMENT"],
    ["other host data", { hostData: bytes(32) }, "ERR_TEE_HOST_DATA"],
    ["another ID key", { idKeyDigest: bytes(48) }, "ERR_TEE_ID_KEY"],
    ["another author key", { authorKeyDigest: bytes(48) }, "ERR_TEE_AUTHOR_KEY"],
    ["another family", { familyId: bytes(16) }, "ERR_TEE_IMAGE"],
    ["another image", { imageId: bytes(16) }, "ERR_TEE_IMAGE"],
    ["no alias check", { platformInfo: 0x05n }, "ERR_TEE_PLATFORM"],
    ["no ECC", { platformInfo: 0x21n }, "ERR_TEE_PLATFORM"],
  ] as const)
    test(`${what}: ${code}`, () => {
      const { tee, tcb } = judge(overrides)
      expect(tee).toMatchObject({ status: "failed", failureClass: "tee" })
      expect(codes(tee)).toContain(code)
      expect(tcb.status).toBe("passed")
    })

  test("SMT appearing: ERR_TEE_PLATFORM, disappearing: accepted", () => {
    expect(codes(judge({}, snapshot({}, { platform_info: 0x24 })).tee)).toEqual(["ERR_TEE_PLATFORM"])
    expect(judge({ platformInfo: 0x24n }).tee.status).toBe("passed")
  })

  test("a lower guest SVN: ERR_TEE_GUEST_SVN, a higher one: accepted", () => {
    expect(codes(judge({}, snapshot({ guest_svn: 1 })).tee)).toEqual(["ERR_TEE_GUEST_SVN"])
    expect(judge({ guestSvn: 7 }).tee.status).toBe("passed")
  })

  test("another processor family: ERR_TEE_PRODUCT, and the TCBs cannot be compared", () => {
    const { tee, tcb } = appraiseTee(attested(turin, { measurement: honest.report.measurement }), snapshot())
    expect(codes(tee)).toEqual(["ERR_TEE_PRODUCT"])
    expect(codes(tcb)).toContain("ERR_TCB_REFERENCE")
  })

  test("every mismatch is collected", () => {
    const overrides = { measurement: bytes(48), hostData: bytes(32), vmpl: 3, policy: POLICY | (1n << 19n) }
    expect(codes(judge(overrides).tee)).toEqual([
      "ERR_TEE_DEBUG",
      "ERR_TEE_VMPL",
      "ERR_TEE_POLICY",
      "ERR_TEE_MEASUREMENT",
      "ERR_TEE_HOST_DATA",
    ])
  })
})

describe("TCB", () => {
  const lowered = (component: keyof Tcb, by: number): Uint8Array =>
    encodeTcb({ ...milan.chip.tcb, [component]: (milan.chip.tcb[component] ?? 0) - by }, "Milan")

  for (const name of ["committedTcb", "launchTcb"] as const)
    for (const component of ["bootloader", "snp", "microcode"] as const)
      test(`${name} with a lower ${component}`, () => {
        const { tee, tcb } = judge({ [name]: lowered(component, 1) })
        expect(tcb).toMatchObject({ status: "failed", failureClass: "tcb" })
        expect(codes(tcb)).toEqual(["ERR_TCB_BELOW"])
        expect(tee.status).toBe("passed")
      })

  test("a lower reported TCB, honestly certified, is below the snapshot", async () => {
    const older = await fakeChip("Milan", { ...milan.chip.tcb, snp: 23 })
    const overrides = { measurement: honest.report.measurement }
    expect(codes(appraiseTee(attested(older, overrides), snapshot()).tcb)).toEqual([
      "ERR_TCB_BELOW",
      "ERR_TCB_BELOW",
      "ERR_TCB_BELOW",
    ])
  })

  test("a higher component makes up for no lower one", async () => {
    const mixed = await fakeChip("Milan", { ...milan.chip.tcb, bootloader: 3, snp: 200, microcode: 255 })
    const overrides = { measurement: honest.report.measurement }
    const { tcb } = appraiseTee(attested(mixed, overrides), snapshot())
    expect(tcb.findings.map(({ subject }) => subject)).toEqual([
      "reported_tcb bootloader",
      "committed_tcb bootloader",
      "launch_tcb bootloader",
    ])
  })

  test("higher components are accepted", async () => {
    const newer = await fakeChip("Milan", { ...milan.chip.tcb, snp: 25 })
    const { tcb } = appraiseTee(attested(newer, { measurement: honest.report.measurement }), snapshot())
    expect(tcb.status).toBe("passed")
  })

  test("a reference without one of the components is no reference", () => {
    const { snp: _, ...rest } = taken.tee_reference.committed_tcb
    const { tcb } = judge({}, snapshot({}, { committed_tcb: rest }))
    expect(codes(tcb)).toEqual(["ERR_TCB_REFERENCE"])
  })
})

describe("reference values that are missing", () => {
  test("each of the predecessor's members is needed", () => {
    for (const name of [
      "measurement",
      "family_id",
      "image_id",
      "guest_svn",
      "id_key_digest",
      "author_key_digest",
      "policy",
    ] as const)
      expect(codes(judge({}, snapshot({ [name]: null })).tee)).toEqual(["ERR_TEE_REFERENCE"])
  })

  test("a snapshot of the predecessor: compared as far as it goes, at VMPL 0, and without TCB", () => {
    const old: Snapshot = { ...snapshot({}, null), format: 1 }
    const { tee, tcb } = judge({}, old)
    expect(tee.status).toBe("passed")
    expect(codes(tcb)).toEqual(["ERR_TCB_REFERENCE"])
    expect(codes(judge({ vmpl: 1 }, old).tee)).toEqual(["ERR_TEE_VMPL"])
    expect(codes(judge({ measurement: new Uint8Array(48) }, old).tee)).toEqual(["ERR_TEE_MEASUREMENT"])
  })

  test("a snapshot of a VM without TEE, or with another, is none", () => {
    for (const tee_policy of [null, { Tdx: emptyTdxPolicy() }]) {
      const { tee, tcb } = judge({}, { ...EMPTY, tee_policy, tee_reference: null })
      expect(codes(tee)).toEqual(["ERR_TEE_REFERENCE"])
      expect(codes(tcb)).toEqual(["ERR_TCB_REFERENCE"])
    }
  })
})

describe("when a snapshot is about to be taken", () => {
  test("an ordinary VM passes", () => {
    const { tee, tcb } = judge({}, null)
    expect([tee.status, tcb.status]).toEqual(["passed", "passed"])
  })

  test("debugging and migration are refused all the same", () => {
    expect(codes(judge({ policy: POLICY | (3n << 18n) }, null).tee)).toEqual([
      "ERR_TEE_DEBUG",
      "ERR_TEE_MIGRATION",
    ])
  })

  test("another VMPL than 0 is a warning, and fixed by the snapshot", () => {
    expect(judge({ vmpl: 2 }, null).tee).toMatchObject({ status: "warning" })
    const reference = snapshot({}, { vmpl: 2 })
    expect(judge({ vmpl: 2 }, reference).tee.status).toBe("passed")
    expect(codes(judge({ vmpl: 0 }, reference).tee)).toEqual(["ERR_TEE_VMPL"])
  })
})
