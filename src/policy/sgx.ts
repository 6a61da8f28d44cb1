import { toHex } from "../formats/hex.ts"
import { hasSgxFlag, SGX_FLAG } from "../formats/sgx/report.ts"
import type { SgxAttestation } from "../verify/sgx.ts"
import type { Verified } from "../verify/verified.ts"
import { advisoriesText, notEvaluated, statusFindings, tcbFacts } from "./appraise-tdx.ts"
import { type AcceptedStatus, ANY_TDX, type OneOf } from "./attestation-policy.ts"
import { mismatch, notOneOf, policyClaim } from "./policy-findings.ts"
import type { Claim, Finding } from "./verdict.ts"

/** What is expected of an SGX enclave. Field names are those of its report. */
export interface SgxExpectations {
  /** 32 bytes each; null: not compared. */
  readonly mrEnclaves: OneOf
  /** 32 bytes each. Without it, product and SVN say nothing: any signer may choose them. */
  readonly mrSigners: OneOf
  /** 64 bytes each. */
  readonly reportData: OneOf
  /** Null: not compared. */
  readonly isvProdId: number | null
  readonly minimumIsvSvn: number
  readonly debug: "refused" | "allowed"
  /** TCB evaluation data number of Intel's documents. */
  readonly minimumEvaluationNumber: number
  /** TCB statuses other than UpToDate that pass for a while. */
  readonly accept: readonly AcceptedStatus[]
}

/** Expectations that fix nothing, to build others from. Debugging stays refused, and so is any status but UpToDate. */
export const ANY_SGX: SgxExpectations = {
  mrEnclaves: null,
  mrSigners: null,
  reportData: null,
  isvProdId: null,
  minimumIsvSvn: 0,
  debug: "refused",
  minimumEvaluationNumber: 0,
  accept: [],
}

/** Appraises a genuine SGX quote, as of the time for which it was verified. Every mismatch is a finding. */
export function appraiseSgx(
  attestation: Verified<SgxAttestation>,
  expected: SgxExpectations,
): { tee: Claim; tcb: Claim } {
  return { tee: appraiseEnclave(attestation, expected), tcb: appraiseStatus(attestation, expected) }
}

function appraiseEnclave({ anchor, quote, revocation }: SgxAttestation, expected: SgxExpectations): Claim {
  const { body, header } = quote
  return policyClaim({
    check: "tee",
    failureClass: "tee",
    findings: enclaveFindings(quote, expected),
    warnings: [],
    summary: `${anchor.simulated ? "SIMULATED Intel SGX" : "Intel SGX"} enclave, chain ends at the pinned ${anchor.name}`,
    facts: {
      anchor: anchor.name,
      revocation,
      quoteVersion: header.version,
      mrEnclave: toHex(body.mrEnclave),
      mrSigner: toHex(body.mrSigner),
      isvProdId: body.isvProdId,
      isvSvn: body.isvSvn,
      attributes: toHex(body.attributes),
    },
  })
}

function enclaveFindings({ body }: SgxAttestation["quote"], expected: SgxExpectations): Finding[] {
  const signer = "the enclave was signed by somebody else"
  const findings = [
    ...notOneOf(
      "ERR_TEE_MEASUREMENT",
      "mr_enclave",
      body.mrEnclave,
      expected.mrEnclaves,
      "other software runs in the enclave",
    ),
    ...notOneOf("ERR_SGX_SIGNER", "mr_signer", body.mrSigner, expected.mrSigners, signer),
    ...notOneOf(
      "ERR_TEE_REPORT_DATA",
      "report_data",
      body.reportData,
      expected.reportData,
      "the quote was made for another request, or by other software",
    ),
  ]
  if (expected.debug === "refused" && hasSgxFlag(body, SGX_FLAG.debug))
    findings.push(
      mismatch("ERR_TEE_DEBUG", "attributes debug", "clear", "set", {
        meaning: "the host may read and write the enclave's memory",
        remedy: "build and start the enclave without debugging",
      }),
    )
  if (expected.isvProdId !== null && body.isvProdId !== expected.isvProdId)
    findings.push(
      mismatch("ERR_SGX_SIGNER", "isv_prod_id", `${expected.isvProdId}`, `${body.isvProdId}`, {
        meaning: "the enclave is another product of its signer's",
      }),
    )
  if (body.isvSvn < expected.minimumIsvSvn)
    findings.push(
      mismatch("ERR_TEE_GUEST_SVN", "isv_svn", `${expected.minimumIsvSvn} or higher`, `${body.isvSvn}`, {
        meaning: "the enclave went back to a version with known weaknesses",
        remedy: "start the current version",
      }),
    )
  return findings
}

function appraiseStatus({ tcb, at }: SgxAttestation, expected: SgxExpectations): Claim {
  const { accept, minimumEvaluationNumber } = expected
  const status = tcb?.status ?? "unknown"
  return policyClaim({
    check: "tcb",
    failureClass: "tcb",
    findings:
      tcb === null
        ? [notEvaluated()]
        : statusFindings(tcb, { ...ANY_TDX, accept, minimumEvaluationNumber }, at),
    warnings: [],
    summary:
      status === "UpToDate"
        ? "the platform is up to date"
        : `TCB status ${status}${tcb === null ? "" : advisoriesText(tcb)} is accepted for now`,
    facts: {
      status,
      ...tcbFacts(tcb),
    },
  })
}
