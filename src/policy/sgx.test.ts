import { describe, expect, test } from "bun:test"
import { type Change, fakeSgxQuote, scenario } from "../../test/fakes/intel.ts"
import type { SgxReport } from "../formats/sgx/report.ts"
import { verifySgx } from "../verify/sgx.ts"
import { ANY_SGX, appraiseSgx, type SgxExpectations } from "./sgx.ts"
import type { Claim } from "./verdict.ts"

const QE_SIGNER = Buffer.from("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff", "hex")
const CHANGE: Change = {
  qeReport: { mrSigner: QE_SIGNER, isvProdId: 1 },
  tcbInfo: { id: "SGX" },
  qeIdentity: { id: "QE", mrsigner: QE_SIGNER.toString("hex"), isvprodid: 1 },
}
const ENCLAVE = new Uint8Array(32).fill(1)
const SIGNER = new Uint8Array(32).fill(2)

function codes({ findings, status }: Claim): string[] {
  return status === "failed" ? findings.map(({ code }) => code) : []
}

function judged(body: Partial<SgxReport>, expected: Partial<SgxExpectations>, change: Change = CHANGE) {
  const quote = fakeSgxQuote(
    { mrEnclave: ENCLAVE, mrSigner: SIGNER, isvProdId: 7, isvSvn: 4, ...body },
    change,
  )
  const attestation = verifySgx({ ...scenario(change), quote })
  return appraiseSgx(attestation, { ...ANY_SGX, ...expected })
}

describe("appraisal of an SGX quote", () => {
  test("an enclave as expected passes", () => {
    const { tee, tcb } = judged(
      {},
      { mrEnclaves: [ENCLAVE], mrSigners: [SIGNER], isvProdId: 7, minimumIsvSvn: 4 },
    )
    expect([tee.status, tcb.status]).toEqual(["passed", "passed"])
    expect(tee.summary).toContain("SIMULATED")
  })

  test("every difference is named", () => {
    const expected = {
      mrEnclaves: [SIGNER],
      mrSigners: [ENCLAVE],
      reportData: [new Uint8Array(64).fill(1)],
      isvProdId: 8,
      minimumIsvSvn: 5,
    }
    const debug = { attributes: Uint8Array.of(0x17, ...new Uint8Array(15)) }
    const { tee } = judged(debug, expected)
    expect(tee.failureClass).toBe("tee")
    expect(codes(tee).sort()).toEqual([
      "ERR_SGX_SIGNER",
      "ERR_SGX_SIGNER",
      "ERR_TEE_DEBUG",
      "ERR_TEE_GUEST_SVN",
      "ERR_TEE_MEASUREMENT",
      "ERR_TEE_REPORT_DATA",
    ])
    expect(codes(judged(debug, { debug: "allowed" }).tee)).toEqual([])
  })

  test("a status passes where it is accepted, for as long as it is", () => {
    const level = {
      tcb: { sgxtcbcomponents: new Array(16).fill({ svn: 0 }), pcesvn: 0 },
      tcbDate: "2025-01-01T00:00:00Z",
      tcbStatus: "SWHardeningNeeded",
      advisoryIDs: ["INTEL-SA-00615"],
    }
    const change = { ...CHANGE, tcbInfo: { id: "SGX", tcbLevels: [level] } }
    const accept = (until: string, advisories: string[] | null) =>
      codes(
        judged({}, { accept: [{ status: "SWHardeningNeeded", until: new Date(until), advisories }] }, change)
          .tcb,
      )
    expect(codes(judged({}, {}, change).tcb)).toEqual(["ERR_TCB_STATUS"])
    expect(accept("2026-07-01T00:00:00Z", ["INTEL-SA-00615"])).toEqual([])
    expect(accept("2026-07-01T00:00:00Z", null)).toEqual([])
    expect(accept("2026-05-01T00:00:00Z", null)).toEqual(["ERR_TCB_STATUS"])
    expect(accept("2026-07-01T00:00:00Z", ["INTEL-SA-00001"])).toEqual(["ERR_TCB_STATUS"])
  })

  test("old documents are refused where the policy says how new they have to be", () => {
    expect(codes(judged({}, { minimumEvaluationNumber: 18 }).tcb)).toEqual(["ERR_TCB_EVALUATION"])
  })

  test("a status that was not looked up is no pass", () => {
    const quote = fakeSgxQuote({}, CHANGE)
    const attestation = verifySgx({ ...scenario(CHANGE), quote, skip: new Set(["tcb"]) })
    expect(codes(appraiseSgx(attestation, ANY_SGX).tcb)).toEqual(["ERR_TCB_NOT_EVALUATED"])
  })
})
