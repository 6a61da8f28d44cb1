import { beforeAll, describe, expect, test } from "bun:test"
import { bundle } from "../../test/fakes/intel-vectors.ts"
import { attested, type FakeChip, fakeChip } from "../../test/fakes/snp.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { INTEL_ANCHORS } from "../endorsements/intel-roots.ts"
import { CodedError, type ErrorCode } from "../errors.ts"
import { SNP_PLATFORM_INFO, type SnpReportFields } from "../formats/snp/report.ts"
import { verifyTdx } from "../verify/tdx.ts"
import { appraiseByPolicy } from "./appraise-by-policy.ts"
import { parseSnapshot, type Snapshot } from "./snapshot.ts"
import { policyOfSnapshot } from "./snapshot-policy.ts"
import { tdxReferenceOf } from "./tdx.ts"
import { teeReferenceOf } from "./tee.ts"
import type { Claim } from "./verdict.ts"

const AT = new Date("2026-01-01T00:00:00Z")
const EMPTY = parseSnapshot(new TextEncoder().encode('{"format":2}'))

let chip: FakeChip
beforeAll(async () => {
  chip = await fakeChip()
})

const codes = ({ tee, tcb }: { tee: Claim; tcb: Claim }) =>
  [tee, tcb]
    .filter(({ status }) => status === "failed")
    .flatMap(({ findings }) => findings.map(({ code }) => code))

describe("snapshot of a SEV-SNP VM", () => {
  const taken = (overrides: Partial<SnpReportFields> = {}): Snapshot => ({
    ...EMPTY,
    ...teeReferenceOf(attested(chip, overrides)),
  })
  const judge = (snapshot: Snapshot, overrides: Partial<SnpReportFields> = {}) =>
    codes(appraiseByPolicy(attested(chip, overrides), policyOfSnapshot(snapshot), AT))

  test("fits the same VM again", () => expect(judge(taken())).toEqual([]))

  test("neither REPORT_DATA nor REPORT_ID is compared", () => {
    expect(
      judge(taken(), { reportData: new Uint8Array(64).fill(3), reportId: new Uint8Array(32).fill(3) }),
    ).toEqual([])
  })

  const CHANGES: ReadonlyArray<readonly [Partial<SnpReportFields>, ErrorCode]> = [
    [{ measurement: new Uint8Array(48).fill(1) }, "ERR_TEE_MEASUREMENT"],
    [{ hostData: new Uint8Array(32).fill(1) }, "ERR_TEE_HOST_DATA"],
    [{ idKeyDigest: new Uint8Array(48).fill(1) }, "ERR_TEE_ID_KEY"],
    [{ vmpl: 1 }, "ERR_TEE_VMPL"],
    [{ policy: 0x20000n }, "ERR_TEE_POLICY"],
  ]
  for (const [overrides, code] of CHANGES)
    test(`another ${Object.keys(overrides)[0]} is refused`, () =>
      expect(judge(taken(), overrides)).toEqual([code]))

  test("protections of the host must stay, and SMT must not come", () => {
    const { smtEnabled, eccEnabled } = SNP_PLATFORM_INFO
    const [smt, ecc] = [1n << BigInt(smtEnabled), 1n << BigInt(eccEnabled)]
    expect(judge(taken({ platformInfo: ecc }), { platformInfo: ecc })).toEqual([])
    expect(judge(taken({ platformInfo: ecc }), { platformInfo: 0n })).toEqual(["ERR_TEE_PLATFORM"])
    expect(judge(taken({ platformInfo: ecc }), { platformInfo: ecc | smt })).toEqual(["ERR_TEE_PLATFORM"])
    expect(judge(taken({ platformInfo: ecc | smt }), { platformInfo: ecc })).toEqual([])
  })

  test("a lower TCB is refused", () => {
    const snapshot = taken()
    const { tee_reference } = snapshot
    if (tee_reference === null || !("product" in tee_reference)) throw new Error("no reference")
    const higher = { ...tee_reference.committed_tcb, snp: 255 }
    expect(judge({ ...snapshot, tee_reference: { ...tee_reference, committed_tcb: higher } })).toEqual([
      "ERR_TCB_BELOW",
    ])
  })

  test("without a measurement it fits no report", () => {
    const snapshot = taken()
    const sev = snapshot.tee_policy !== null && "Sev" in snapshot.tee_policy ? snapshot.tee_policy.Sev : null
    if (sev === null) throw new Error("no policy")
    expect(judge({ ...snapshot, tee_policy: { Sev: { ...sev, measurement: null } } })).toEqual([
      "ERR_TEE_MEASUREMENT",
    ])
  })

  test("of no TEE it refuses evidence of one", () => expect(judge(EMPTY)).toEqual(["ERR_POLICY_PLATFORM"]))

  test("of a product or component that is not known it is refused", () => {
    const snapshot = taken()
    const { tee_reference } = snapshot
    if (tee_reference === null || !("product" in tee_reference)) throw new Error("no reference")
    for (const wrong of [{ product: "Naples" }, { reported_tcb: { fmc: 1 } }])
      expect(() =>
        policyOfSnapshot({ ...snapshot, tee_reference: { ...tee_reference, ...wrong } }),
      ).toThrowCode("ERR_POLICY")
  })
})

test("PCR values and the key's Name come from the snapshot", () => {
  const snapshot: Snapshot = {
    ...EMPTY,
    tpm_reference: {
      ak_name: "000b".padEnd(68, "1"),
      pcrs: { 0: "aa".repeat(32), 15: "bb".repeat(32) },
      clock: null,
    },
  }
  const { tpm } = policyOfSnapshot(snapshot)
  expect(tpm?.akNames?.[0]?.length).toBe(34)
  expect([...(tpm?.pcrs.sha256?.keys() ?? [])]).toEqual([0, 15])
})

describe("snapshot of a TD", () => {
  const tdx = (header: unknown, body: unknown): Snapshot => {
    const text = JSON.stringify({ format: 2, tee_policy: { Tdx: { header, body } } })
    return parseSnapshot(new TextEncoder().encode(text))
  }

  test.skipIf(!HAVE_VECTORS)("fixes what the TD's own reference says", () => {
    const attestation = verifyTdx({
      quote: vector("tdx/v4-phala-uptodate/quote.bin"),
      collateral: bundle("tdx/v4-phala-uptodate/collateral-202506.json"),
      anchors: INTEL_ANCHORS,
      at: new Date("2025-07-04T10:16:31Z"),
    })
    const { quote } = attestation
    const { tdx: expected } = policyOfSnapshot({ ...EMPTY, ...tdxReferenceOf(attestation) })
    expect(expected).toMatchObject({
      mrTds: [quote.body.mrTd],
      tdAttributes: quote.body.tdAttributes,
      xfam: quote.body.xfam,
      minimumTeeTcbSvn: quote.body.teeTcbSvn,
      minimumQeSvn: quote.header.qeSvn,
      reportData: null,
    })
  })

  test("without a measurement it fits no quote", () => {
    const { tdx: expected } = policyOfSnapshot(tdx({}, {}))
    expect(expected?.mrTds?.[0]?.length).toBe(1)
  })

  const WRONG: readonly (readonly [unknown, unknown])[] = [
    [{ minimum_qe_svn: -1 }, {}],
    [{ minimum_qe_svn: "1" }, {}],
    [{ surprise: 1 }, {}],
    [[], {}],
    [{}, { mr_td: "00" }],
    [{}, { mr_td: [1, 2] }],
    [{}, { mr_td: 7 }],
    [{}, { surprise: null }],
  ]
  for (const [header, body] of WRONG)
    test(`${JSON.stringify({ header, body })} is refused`, () => {
      expect(() => policyOfSnapshot(tdx(header, body))).toThrow(CodedError)
    })

  test("an SGX enclave is no VM", () => {
    expect(() => policyOfSnapshot({ ...EMPTY, tee_policy: { Sgx: {} } })).toThrowCode("ERR_POLICY")
  })
})
