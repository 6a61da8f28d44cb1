import { beforeAll, describe, expect, test } from "bun:test"
import { attested, type FakeChip, fakeChip } from "../../test/fakes/snp.ts"
import { SNP_PLATFORM_INFO, SNP_POLICY, type SnpReportFields } from "../formats/snp/report.ts"
import { encodeTcb, parseTcb } from "../formats/snp/tcb.ts"
import { appraiseByPolicy } from "./appraise-by-policy.ts"
import {
  ANY_SNP,
  ANY_TDX,
  type AttestationPolicy,
  defaultPolicy,
  PLACEHOLDER,
  type SnpExpectations,
} from "./attestation-policy.ts"
import { exactGuestPolicy, guestPolicyBounds, maskOf, PERMISSIONS, RESTRICTIONS } from "./guest-policy.ts"
import { policyOfUnverifiedReport } from "./report-policy.ts"
import type { Claim } from "./verdict.ts"

const AT = new Date("2026-01-01T00:00:00Z")
const bit = (number: number) => 1n << BigInt(number)
const filled = (size: number, value: number) => new Uint8Array(size).fill(value)

let chip: FakeChip
beforeAll(async () => {
  chip = await fakeChip()
})

function policyOf(snp: Partial<SnpExpectations>): AttestationPolicy {
  return {
    ...defaultPolicy({ allowDebug: false }),
    source: "test",
    snp: { ...ANY_SNP, measurements: null, ...snp },
  }
}

function judge(policy: AttestationPolicy, overrides: Partial<SnpReportFields> = {}) {
  return appraiseByPolicy(attested(chip, overrides), policy, AT)
}

function codes({ tee, tcb }: { tee: Claim; tcb: Claim }): string[] {
  return [tee, tcb]
    .filter(({ status }) => status === "failed")
    .flatMap(({ findings }) => findings.map(({ code }) => code))
}

describe("a report that fits its own policy", () => {
  const own = () => policyOfUnverifiedReport(attested(chip).report, "Milan", "report.bin")

  test("passes", () => {
    const claims = judge(own())
    expect([claims.tee.status, claims.tcb.status]).toEqual(["passed", "passed"])
    expect(claims.tee.summary).toContain("report.bin")
  })

  const CHANGES: ReadonlyArray<readonly [string, Partial<SnpReportFields>, string]> = [
    ["measurement", { measurement: filled(48, 1) }, "ERR_TEE_MEASUREMENT"],
    ["host data", { hostData: filled(32, 1) }, "ERR_TEE_HOST_DATA"],
    ["family", { familyId: filled(16, 1) }, "ERR_TEE_IMAGE"],
    ["image", { imageId: filled(16, 1) }, "ERR_TEE_IMAGE"],
    ["VMPL", { vmpl: 1 }, "ERR_TEE_VMPL"],
    ["debugging", { policy: 0x30000n | bit(SNP_POLICY.debug) }, "ERR_TEE_DEBUG"],
    ["migration agent", { policy: 0x30000n | bit(SNP_POLICY.migrationAgent) }, "ERR_TEE_MIGRATION"],
    ["CXL", { policy: 0x30000n | bit(SNP_POLICY.cxlAllowed) }, "ERR_TEE_POLICY"],
    ["policy bit without a name", { policy: 0x30000n | bit(40) }, "ERR_TEE_POLICY"],
  ]
  for (const [name, overrides, code] of CHANGES)
    test(`is refused with another ${name}`, () => expect(codes(judge(own(), overrides))).toEqual([code]))

  test("all mismatches are told together", () => {
    const claims = judge(own(), { measurement: filled(48, 1), vmpl: 2, hostData: filled(32, 9) })
    expect(codes(claims).sort()).toEqual(["ERR_TEE_HOST_DATA", "ERR_TEE_MEASUREMENT", "ERR_TEE_VMPL"])
  })
})

describe("values", () => {
  const VALUES: ReadonlyArray<readonly [keyof SnpExpectations, keyof SnpReportFields, number, string]> = [
    ["measurements", "measurement", 48, "ERR_TEE_MEASUREMENT"],
    ["hostData", "hostData", 32, "ERR_TEE_HOST_DATA"],
    ["familyIds", "familyId", 16, "ERR_TEE_IMAGE"],
    ["imageIds", "imageId", 16, "ERR_TEE_IMAGE"],
    ["reportData", "reportData", 64, "ERR_TEE_REPORT_DATA"],
    ["reportIds", "reportId", 32, "ERR_TEE_REPORT_ID"],
    ["reportIdMas", "reportIdMa", 32, "ERR_TEE_REPORT_ID"],
    ["idKeyDigests", "idKeyDigest", 48, "ERR_TEE_ID_KEY"],
    ["authorKeyDigests", "authorKeyDigest", 48, "ERR_TEE_AUTHOR_KEY"],
  ]
  for (const [expectation, field, size, code] of VALUES)
    test(`${expectation}: one of several passes, another is refused`, () => {
      const policy = policyOf({ [expectation]: [filled(size, 1), filled(size, 2)] })
      expect(codes(judge(policy, { [field]: filled(size, 2) }))).toEqual([])
      expect(codes(judge(policy, { [field]: filled(size, 3) }))).toEqual([code])
    })

  test("a value that was never filled in fits nothing", () => {
    expect(codes(judge(policyOf({ measurements: [PLACEHOLDER] })))).toEqual(["ERR_TEE_MEASUREMENT"])
    expect(codes(judge(policyOf({ measurements: [PLACEHOLDER] }), { measurement: filled(48, 0) }))).toEqual([
      "ERR_TEE_MEASUREMENT",
    ])
  })

  test("chips: one of the list passes, another and a hidden one are refused", async () => {
    const { chipId } = attested(chip).report
    expect(codes(judge(policyOf({ chipIds: [filled(64, 1), chipId] })))).toEqual([])
    expect(codes(judge(policyOf({ chipIds: [filled(64, 1)] })))).toEqual(["ERR_TEE_CHIP"])
    const turin = await fakeChip("Turin")
    const attestation = attested(turin)
    const policy = policyOf({ chipIds: [turin.chip.hwId] })
    expect(codes(appraiseByPolicy(attestation, policy, AT))).toEqual([])
    expect(codes(appraiseByPolicy(attestation, policyOf({ chipIds: [filled(8, 1)] }), AT))).toEqual([
      "ERR_TEE_CHIP",
    ])
  })

  test("products: the family, and its stepping where that is asked for", () => {
    const { cpuid } = attested(chip).report
    const stepping = cpuid?.stepping ?? 0
    expect(codes(judge(policyOf({ products: [{ product: "Milan", stepping }] })))).toEqual([])
    for (const wrong of [
      { product: "Genoa", stepping: null },
      { product: "Milan", stepping: stepping + 1 },
    ] as const)
      expect(codes(judge(policyOf({ products: [wrong] })))).toEqual(["ERR_TEE_PRODUCT"])
  })

  test("guest SVN and VMPL", () => {
    expect(codes(judge(policyOf({ minimumGuestSvn: 3, vmpls: [1, 2] }), { guestSvn: 3, vmpl: 2 }))).toEqual(
      [],
    )
    expect(
      codes(judge(policyOf({ minimumGuestSvn: 3, vmpls: [1, 2] }), { guestSvn: 2, vmpl: 0 })).sort(),
    ).toEqual(["ERR_TEE_GUEST_SVN", "ERR_TEE_VMPL"])
  })
})

describe("guest policy", () => {
  const bounds = guestPolicyBounds({
    permissions: [PERMISSIONS.debug],
    restrictions: [RESTRICTIONS.singleSocket],
    minimumAbi: { major: 1, minor: 5 },
  })
  const good = bit(17) | bit(SNP_POLICY.singleSocket) | 0x0105n
  const CASES: ReadonlyArray<readonly [string, bigint, readonly string[]]> = [
    ["the least", good, []],
    ["more restrictions", good | bit(SNP_POLICY.ciphertextHidingDram), []],
    ["a higher ABI version", good + 1n, []],
    ["a permission that is granted", good | bit(SNP_POLICY.debug), []],
    ["a permission that is not", good | bit(SNP_POLICY.smtAllowed), ["ERR_TEE_POLICY"]],
    ["a restriction less", bit(17) | 0x0105n, ["ERR_TEE_POLICY"]],
    ["a lower ABI version", good - 1n, ["ERR_TEE_POLICY"]],
  ]
  for (const [name, policy, expected] of CASES)
    test(`bounds: ${name}`, () =>
      expect(codes(judge(policyOf({ guestPolicy: bounds }), { policy }))).toEqual([...expected]))

  test("exact: any other bit or ABI version is refused", () => {
    const exact = policyOf({ guestPolicy: exactGuestPolicy(0x3001fn) })
    expect(codes(judge(exact, { policy: 0x3001fn }))).toEqual([])
    for (const policy of [0x2001fn, 0x3001en, 0x30020n, 0x13001fn, 0xb001fn])
      expect(codes(judge(exact, { policy }))).toHaveLength(1)
  })

  test("debugging that the policy allows is a warning", () => {
    const { tee } = judge(policyOf({ guestPolicy: bounds, measurements: [filled(48, 1)] }), {
      policy: good | bit(SNP_POLICY.debug),
      measurement: filled(48, 1),
    })
    expect([tee.status, tee.findings.map(({ code }) => code)]).toEqual(["warning", ["ERR_TEE_DEBUG"]])
    const { tee: byDefault } = judge(defaultPolicy({ allowDebug: true }), { policy: 0xb0000n })
    expect(byDefault.status).toBe("warning")
    expect(judge(defaultPolicy({ allowDebug: false }), { policy: 0xb0000n }).tee.status).toBe("failed")
  })
})

test("platform: what may be on, and what must be", () => {
  const { smtEnabled, eccEnabled, tsmeEnabled } = SNP_PLATFORM_INFO
  const platform = { allowed: maskOf([smtEnabled, eccEnabled]), required: maskOf([eccEnabled]) }
  const judged = (on: readonly number[]) => codes(judge(policyOf({ platform }), { platformInfo: maskOf(on) }))
  expect(judged([eccEnabled])).toEqual([])
  expect(judged([eccEnabled, smtEnabled])).toEqual([])
  expect(judged([])).toEqual(["ERR_TEE_PLATFORM"])
  expect(judged([eccEnabled, tsmeEnabled])).toEqual(["ERR_TEE_PLATFORM"])
  expect(judged([eccEnabled, 63])).toEqual(["ERR_TEE_PLATFORM"])
})

describe("launch signer", () => {
  const [mine, theirs] = [filled(48, 1), filled(48, 2)]
  const AUTHOR = 1 // AUTHOR_KEY_EN
  const signer = (changes: Partial<SnpExpectations["signer"]>) =>
    policyOf({ signer: { ...ANY_SNP.signer, ...changes } })
  const CASES: ReadonlyArray<
    readonly [string, Partial<SnpExpectations["signer"]>, Partial<SnpReportFields>, string | null]
  > = [
    [
      "an ID key that is trusted",
      { requireIdBlock: true, trustedIdKeys: [mine] },
      { idKeyDigest: mine },
      null,
    ],
    [
      "one that is not",
      { requireIdBlock: true, trustedIdKeys: [mine] },
      { idKeyDigest: theirs },
      "ERR_TEE_ID_KEY",
    ],
    ["no ID key", { requireIdBlock: true, trustedIdKeys: [mine] }, {}, "ERR_TEE_ID_KEY"],
    ["nobody trusted", { requireIdBlock: true }, { idKeyDigest: mine }, "ERR_TEE_ID_KEY"],
    ["a list without the requirement", { trustedIdKeys: [mine] }, { idKeyDigest: theirs }, "ERR_TEE_ID_KEY"],
    [
      "any ID key behind which a trusted author stands",
      { requireIdBlock: true, trustedAuthorKeys: [mine] },
      { idKeyDigest: theirs, authorKeyDigest: mine, flags: AUTHOR },
      null,
    ],
    [
      "an author's digest without the author key being on",
      { requireIdBlock: true, trustedAuthorKeys: [mine] },
      { idKeyDigest: theirs, authorKeyDigest: mine },
      "ERR_TEE_ID_KEY",
    ],
    [
      "a trusted ID key where an author is required",
      { requireAuthorKey: true, trustedIdKeys: [mine], trustedAuthorKeys: [mine] },
      { idKeyDigest: mine },
      "ERR_TEE_AUTHOR_KEY",
    ],
    [
      "an author who is not trusted",
      { requireAuthorKey: true, trustedAuthorKeys: [mine] },
      { idKeyDigest: mine, authorKeyDigest: theirs, flags: AUTHOR },
      "ERR_TEE_AUTHOR_KEY",
    ],
  ]
  for (const [name, changes, overrides, code] of CASES)
    test(`${name}: ${code ?? "passes"}`, () =>
      expect(codes(judge(signer(changes), overrides))).toEqual(code === null ? [] : [code]))
})

describe("firmware", () => {
  test("each component of each TCB is compared alone", () => {
    const { reportedTcb } = attested(chip)
    for (const kind of ["reported", "committed", "launch"] as const)
      for (const [component, level] of Object.entries(reportedTcb)) {
        const floors = (minimum: number) => ({
          minimumTcb: { ...ANY_SNP.minimumTcb, [kind]: { Milan: { ...ZERO, [component]: minimum } } },
        })
        expect(codes(judge(policyOf(floors(level))))).toEqual([])
        expect(codes(judge(policyOf(floors(level + 1))))).toEqual(["ERR_TCB_BELOW"])
      }
  })

  const ZERO = { bootloader: 0, tee: 0, snp: 0, microcode: 0 }

  test("a floor for other processors only is no floor for this one", () => {
    const policy = policyOf({ minimumTcb: { ...ANY_SNP.minimumTcb, reported: { Genoa: ZERO } } })
    expect(codes(judge(policy))).toEqual(["ERR_TCB_REFERENCE"])
  })

  const VERSION = { currentMajor: 1, currentMinor: 55, currentBuild: 7 } as const
  const COMMITTED = { committedMajor: 1, committedMinor: 55, committedBuild: 7 } as const
  const CASES: ReadonlyArray<
    readonly [string, Partial<SnpExpectations["firmware"]>, Partial<SnpReportFields>, readonly string[]]
  > = [
    ["version and build reached", { minimumVersion: { major: 1, minor: 55 }, minimumBuild: 7 }, {}, []],
    ["older version", { minimumVersion: { major: 1, minor: 56 } }, {}, ["ERR_TCB_FIRMWARE"]],
    ["major before minor", { minimumVersion: { major: 0, minor: 99 } }, {}, []],
    ["older build", { minimumBuild: 8 }, {}, ["ERR_TCB_FIRMWARE"]],
    ["committed", { provisional: "refused" }, {}, []],
    ["build not committed", { provisional: "refused" }, { committedBuild: 6 }, ["ERR_TCB_PROVISIONAL"]],
    ["version not committed", { provisional: "refused" }, { committedMinor: 54 }, ["ERR_TCB_PROVISIONAL"]],
    ["not committed, but allowed", { provisional: "allowed" }, { committedBuild: 6 }, []],
    [
      "committed to more than runs",
      { provisional: "allowed" },
      { committedBuild: 8 },
      ["ERR_TCB_PROVISIONAL"],
    ],
  ]
  for (const [name, firmware, overrides, expected] of CASES)
    test(`${name}: ${expected.join() || "passes"}`, () => {
      const policy = policyOf({ firmware: { ...ANY_SNP.firmware, ...firmware } })
      expect(codes(judge(policy, { ...VERSION, ...COMMITTED, ...overrides }))).toEqual([...expected])
    })

  test("a TCB that is not committed", () => {
    const { report } = attested(chip)
    const current = parseTcb(report.currentTcb, "Milan")
    const lower = { committedTcb: encodeTcb({ ...current, snp: current.snp - 1 }, "Milan") }
    const refused = policyOf({ firmware: { ...ANY_SNP.firmware, provisional: "refused" } })
    expect(codes(judge(refused, lower))).toEqual(["ERR_TCB_PROVISIONAL"])
    expect(codes(judge(policyOf({}), lower))).toEqual([])
  })
})

describe("what a policy leaves open", () => {
  test("a policy for other evidence refuses this", () => {
    const { tee } = judge({
      ...defaultPolicy({ allowDebug: false }),
      source: "test",
      snp: null,
      tdx: ANY_TDX,
    })
    expect([tee.status, tee.findings.map(({ code }) => code)]).toEqual(["failed", ["ERR_POLICY_PLATFORM"]])
  })

  test("the default policy passes, and warns of another privilege level", () => {
    const policy = defaultPolicy({ allowDebug: false })
    expect(judge(policy).tee.status).toBe("passed")
    expect(judge(policy, { vmpl: 1 }).tee.status).toBe("warning")
  })

  test("a policy that fixes no software warns of that", () => {
    const { tee } = judge(policyOf({ vmpls: [0] }))
    expect([tee.status, tee.findings.map(({ code }) => code)]).toEqual(["warning", ["ERR_TEE_MEASUREMENT"]])
  })
})
