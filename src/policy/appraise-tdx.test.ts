import { describe, expect, test } from "bun:test"
import { bundle } from "../../test/fakes/intel-vectors.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { INTEL_ANCHORS } from "../endorsements/intel-roots.ts"
import { type TdxAttestation, verifyTdx } from "../verify/tdx.ts"
import { markVerified, type Verified } from "../verify/verified.ts"
import { appraiseByPolicy } from "./appraise-by-policy.ts"
import {
  type AcceptedStatus,
  ANY_SNP,
  ANY_TDX,
  type AttestationPolicy,
  defaultPolicy,
  type TdxExpectations,
} from "./attestation-policy.ts"
import { parseCocosPolicy } from "./cocos-policy.ts"
import { policyOfUnverifiedQuote } from "./report-policy.ts"
import type { Claim } from "./verdict.ts"

const GOOD = { quote: "tdx/v4-phala-uptodate/quote.bin", at: new Date("2025-07-04T10:16:31Z") }
const GOOD_COLLATERAL = "tdx/v4-phala-uptodate/collateral-202506.json"
const OLD = { quote: "tdx/v4-gcp-automata/quote.bin", at: new Date("2025-07-22T09:13:34Z") }
const OLD_COLLATERAL = "tdx/v4-gcp-automata/collateral-202507-outofdate.json"
const OLD_ADVISORIES = ["INTEL-SA-00960", "INTEL-SA-00982", "INTEL-SA-00986"]

function verified({ quote, at }: typeof GOOD, collateral: string): Verified<TdxAttestation> {
  return verifyTdx({ quote: vector(quote), collateral: bundle(collateral), anchors: INTEL_ANCHORS, at })
}

function policyOf(tdx: Partial<TdxExpectations>): AttestationPolicy {
  return { ...defaultPolicy({ allowDebug: false }), source: "test", tdx: { ...ANY_TDX, ...tdx } }
}

function codes({ tee, tcb }: { tee: Claim; tcb: Claim }): string[] {
  return [tee, tcb]
    .filter(({ status }) => status === "failed")
    .flatMap(({ findings }) => findings.map(({ code }) => code))
}

describe.skipIf(!HAVE_VECTORS)("a genuine quote", () => {
  const good = () => verified(GOOD, GOOD_COLLATERAL)
  const judge = (policy: AttestationPolicy, at = GOOD.at) => codes(appraiseByPolicy(good(), policy, at))
  const wrong = (size: number) => [new Uint8Array(size).fill(1)]

  test("fits the policy made of it", () => {
    expect(judge(policyOfUnverifiedQuote(good().quote, "quote.bin"))).toEqual([])
  })

  test("is of Cocos' sample policy in all but what was started later", () => {
    const { tee, tcb } = appraiseByPolicy(
      good(),
      parseCocosPolicy(vector("policy/cocos-tdx-latest.json")),
      GOOD.at,
    )
    expect(tee.findings.map(({ code, subject }) => `${code} ${subject}`)).toEqual([
      "ERR_TDX_RTMR rtmr0",
      "ERR_TDX_RTMR rtmr1",
      "ERR_TDX_RTMR rtmr2",
    ])
    expect(tcb.status).toBe("passed")
  })

  const CASES: ReadonlyArray<readonly [string, () => Partial<TdxExpectations>, readonly string[]]> = [
    ["one of several measurements", () => ({ mrTds: [...wrong(48), good().quote.body.mrTd] }), []],
    ["another measurement", () => ({ mrTds: wrong(48) }), ["ERR_TEE_MEASUREMENT"]],
    ["another module", () => ({ mrSeams: wrong(48) }), ["ERR_TDX_SEAM"]],
    ["another configuration", () => ({ mrConfigIds: wrong(48) }), ["ERR_TDX_CONFIGURATION"]],
    [
      "another owner",
      () => ({ mrOwners: wrong(48), mrOwnerConfigs: wrong(48) }),
      ["ERR_TDX_CONFIGURATION", "ERR_TDX_CONFIGURATION"],
    ],
    ["another RTMR", () => ({ rtmrs: [null, wrong(48), null, null] }), ["ERR_TDX_RTMR"]],
    ["other report data", () => ({ reportData: wrong(64) }), ["ERR_TEE_REPORT_DATA"]],
    ["another vendor", () => ({ qeVendorIds: wrong(16) }), ["ERR_QUOTE_VENDOR"]],
    ["other attributes", () => ({ tdAttributes: 0n }), ["ERR_TDX_ATTRIBUTES"]],
    ["other XFAM", () => ({ xfam: 3n }), ["ERR_TDX_XFAM"]],
    ["a TD that may be debugged", () => ({ debug: "required" }), ["ERR_TDX_ATTRIBUTES"]],
    ["its own TCB as the least", () => ({ minimumTeeTcbSvn: good().quote.body.teeTcbSvn }), []],
    [
      "one component more",
      () => ({ minimumTeeTcbSvn: Uint8Array.from([0, 0, 9, ...new Uint8Array(13)]) }),
      ["ERR_TCB_BELOW"],
    ],
    [
      "newer QE and PCE",
      () => ({ minimumQeSvn: 999, minimumPceSvn: 999 }),
      ["ERR_TCB_BELOW", "ERR_TCB_BELOW"],
    ],
    ["the evaluation number", () => ({ minimumEvaluationNumber: 17 }), []],
    ["a newer evaluation number", () => ({ minimumEvaluationNumber: 18 }), ["ERR_TCB_EVALUATION"]],
  ]
  for (const [name, expectations, expected] of CASES)
    test(`${name}: ${expected.join() || "passes"}`, () =>
      expect(judge(policyOf(expectations()))).toEqual([...expected]))

  test("debugging is refused, and a warning where the policy allows it", () => {
    const { quote, ...rest } = good()
    const body = { ...quote.body, tdAttributes: quote.body.tdAttributes | 1n }
    const debugged = markVerified<TdxAttestation>({ ...rest, quote: { ...quote, body } })
    expect(codes(appraiseByPolicy(debugged, policyOf({}), GOOD.at))).toEqual(["ERR_TEE_DEBUG"])
    const allowed = appraiseByPolicy(debugged, defaultPolicy({ allowDebug: true }), GOOD.at)
    expect(allowed.tee.status).toBe("warning")
    const reserved = { ...quote.body, tdAttributes: quote.body.tdAttributes | 2n }
    const untrusted = markVerified<TdxAttestation>({ ...rest, quote: { ...quote, body: reserved } })
    expect(codes(appraiseByPolicy(untrusted, defaultPolicy({ allowDebug: true }), GOOD.at))).toEqual([
      "ERR_TDX_ATTRIBUTES",
    ])
  })

  test("a policy for other evidence refuses it", () => {
    const policy = { ...policyOf({}), snp: ANY_SNP, tdx: null }
    expect(judge(policy)).toEqual(["ERR_POLICY_PLATFORM"])
  })

  test("without Intel's documents nothing is known of the TCB", () => {
    const unknown = markVerified<TdxAttestation>({ ...good(), tcb: null })
    expect(codes(appraiseByPolicy(unknown, policyOf({}), GOOD.at))).toEqual(["ERR_TCB_NOT_EVALUATED"])
  })
})

describe.skipIf(!HAVE_VECTORS)("a platform that is out of date", () => {
  const accepted = (changes: Partial<AcceptedStatus>): Partial<TdxExpectations> => ({
    accept: [
      {
        status: "OutOfDate",
        until: new Date("2025-07-31T23:59:59Z"),
        advisories: OLD_ADVISORIES,
        ...changes,
      },
    ],
  })
  const judge = (tdx: Partial<TdxExpectations>, at = OLD.at) =>
    appraiseByPolicy(verified(OLD, OLD_COLLATERAL), policyOf(tdx), at).tcb

  test("is refused by default, with status and advisories", () => {
    const claim = judge({})
    expect([claim.failureClass, claim.findings.map(({ code }) => code)]).toEqual(["tcb", ["ERR_TCB_STATUS"]])
    for (const advisory of OLD_ADVISORIES) expect(claim.findings[0]?.found).toContain(advisory)
    expect(claim.facts).toMatchObject({ status: "OutOfDate", advisories: OLD_ADVISORIES.join(", ") })
  })

  const PASSES: ReadonlyArray<readonly [string, Partial<AcceptedStatus>, boolean]> = [
    ["with all advisories weighed", {}, true],
    ["with more weighed than apply", { advisories: [...OLD_ADVISORIES, "INTEL-SA-99999"] }, true],
    ["with any advisory", { advisories: null }, true],
    ["with one advisory not weighed", { advisories: OLD_ADVISORIES.slice(1) }, false],
    ["with none weighed", { advisories: [] }, false],
    ["with another status accepted", { status: "SWHardeningNeeded" }, false],
    ["after the acceptance ended", { until: new Date("2025-07-22T09:13:33Z") }, false],
    ["at the last moment", { until: OLD.at }, true],
  ]
  for (const [name, changes, passes] of PASSES)
    test(`${name} ${passes ? "passes" : "is refused"}`, () =>
      expect(judge(accepted(changes)).status).toBe(passes ? "passed" : "failed"))
})
