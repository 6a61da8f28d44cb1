import { describe, expect, test } from "bun:test"
import { type Change, scenario } from "../../test/fakes/intel.ts"
import { type TdxAttestation, verifyTdx } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { appraiseByPolicy } from "./appraise-by-policy.ts"
import { parseSnapshot, type Snapshot } from "./snapshot.ts"
import { tdxPolicyFor, tdxReferenceOf, withMissing } from "./tdx.ts"
import type { Claim } from "./verdict.ts"

const zeros = (size: number) => new Uint8Array(size)

function codes({ findings, status }: Claim): string[] {
  return status === "failed" ? findings.map(({ code }) => code) : []
}

/** A snapshot as the file would hold it, taken of an honest TD. */
function snapshot(): Snapshot {
  const { tee_policy } = tdxReferenceOf(verifyTdx(scenario()))
  const members = { cloud_type: null, tee_policy, tpm_policy: null, filehashes: null }
  return parseSnapshot(new Uint8Array(Buffer.from(JSON.stringify(members))))
}

function appraised(attestation: Verified<TdxAttestation>, reference: Snapshot | null) {
  return withMissing(appraiseByPolicy(attestation, tdxPolicyFor(reference), attestation.at), reference)
}

function judged(change: Change, reference: Snapshot | null = snapshot()) {
  const { tee, tcb } = appraised(verifyTdx(scenario(change)), reference)
  return { tee: codes(tee), tcb: codes(tcb) }
}

describe("appraisal of a TDX quote", () => {
  test("the TD of the snapshot passes", () => {
    expect(judged({})).toEqual({ tee: [], tcb: [] })
  })

  test("another nonce changes nothing here", () => {
    expect(judged({ body: { reportData: zeros(64).fill(9) } })).toEqual({ tee: [], tcb: [] })
  })

  test("every difference is named", () => {
    const other = zeros(48).fill(2)
    const body = {
      mrTd: other,
      mrSeam: other,
      mrConfigId: other,
      mrOwner: other,
      mrOwnerConfig: other,
      xfam: 3n,
    }
    expect(judged({ body }).tee.sort()).toEqual([
      "ERR_TDX_CONFIGURATION",
      "ERR_TDX_CONFIGURATION",
      "ERR_TDX_CONFIGURATION",
      "ERR_TDX_SEAM",
      "ERR_TDX_XFAM",
      "ERR_TEE_MEASUREMENT",
    ])
    expect(judged({ body: { tdAttributes: 1n << 30n } }).tee).toEqual(["ERR_TDX_ATTRIBUTES"])
  })

  test("a lower SVN is a matter of the TCB, a higher one is none", () => {
    expect(judged({ body: { teeTcbSvn: Uint8Array.of(4, 1, 3, ...zeros(13)) } }).tcb).toEqual([])
    const tdxtcbcomponents = new Array(16).fill({ svn: 0 })
    const tcbInfo = { tcbLevels: [lowest(tdxtcbcomponents)] }
    expect(judged({ tcbInfo, body: { teeTcbSvn: Uint8Array.of(3, 1, 2, ...zeros(13)) } }).tcb).toEqual([
      "ERR_TCB_BELOW",
    ])
  })

  test("debugging is refused without a reference too", () => {
    expect(judged({ body: { tdAttributes: 1n } }, null).tee).toEqual(["ERR_TEE_DEBUG"])
    expect(judged({}, null)).toEqual({ tee: [], tcb: [] })
  })

  test("a TD that may be moved is refused, unless its attributes are fixed so", () => {
    const tdAttributes = (1n << 28n) | (1n << 29n)
    expect(judged({ body: { tdAttributes } }, null).tee).toEqual(["ERR_TEE_MIGRATION"])
    const { tee_policy } = tdxReferenceOf(verifyTdx(scenario({ body: { tdAttributes } })))
    expect(judged({ body: { tdAttributes } }, { ...snapshot(), tee_policy })).toEqual({ tee: [], tcb: [] })
  })

  test("any status but UpToDate fails, and says which", () => {
    const tcbInfo = { tcbLevels: [lowest(new Array(16).fill({ svn: 0 }), "OutOfDate", ["INTEL-SA-00837"])] }
    const { tcb } = appraised(verifyTdx(scenario({ tcbInfo })), null)
    expect(tcb).toMatchObject({ status: "failed", failureClass: "tcb" })
    expect(tcb.findings.map(({ code, found }) => [code, found])).toEqual([
      ["ERR_TCB_STATUS", "OutOfDate (INTEL-SA-00837)"],
    ])
    expect(tcb.facts).toMatchObject({
      status: "OutOfDate",
      advisories: "INTEL-SA-00837",
      evaluationDataNumber: 17,
    })
  })

  test("a status that was not looked up is no pass", () => {
    const skip = new Set(["tcb"] as const)
    expect(codes(appraised(verifyTdx({ ...scenario(), skip }), null).tcb)).toEqual(["ERR_TCB_NOT_EVALUATED"])
  })
})

function lowest(tdxtcbcomponents: unknown, tcbStatus = "UpToDate", advisoryIDs: string[] = []) {
  return {
    tcb: { sgxtcbcomponents: new Array(16).fill({ svn: 0 }), pcesvn: 0, tdxtcbcomponents },
    tcbDate: "2025-01-01T00:00:00Z",
    tcbStatus,
    advisoryIDs,
  }
}
