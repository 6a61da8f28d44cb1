import { CodedError, VerifyError } from "../errors.ts"
import { describeSgxQuote, describeTdxQuote } from "../formats/describe/intel.ts"
import type { Shown } from "../formats/describe/shown.ts"
import { toHex } from "../formats/hex.ts"
import type { IntelCollateral } from "../formats/intel/collateral.ts"
import type { SvnStatus, TcbVerdict } from "../formats/intel/document.ts"
import type { TcbStatus } from "../formats/intel/tcb-info.ts"
import type { IntelAnchor } from "../verify/intel-chain.ts"
import type { IntelCheck, IntelInput } from "../verify/intel-quote.ts"
import { type SgxAttestation, verifySgx } from "../verify/sgx.ts"
import { type TdxAttestation, verifyTdx } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { appraiseByPolicy } from "./appraise-by-policy.ts"
import { type AttestationPolicy, DEFAULT_SOURCE } from "./attestation-policy.ts"
import { mismatch } from "./policy-findings.ts"
import { ANY_SGX, appraiseSgx, type SgxExpectations } from "./sgx.ts"
import { eventLogClaim } from "./validate-event-log.ts"
import {
  alsoFailing,
  failedBy,
  type Judged,
  NOTHING,
  notJudged,
  problemText,
  reportDataClaim,
} from "./validation-claims.ts"
import type { Check, Claim } from "./verdict.ts"

export interface IntelJudgement {
  /** The documents; an error where they are there, but malformed; null where there are none. */
  readonly collateral: IntelCollateral | CodedError | null
  /** Why they could not be fetched. */
  readonly problems: readonly CodedError[]
  readonly anchors: readonly IntelAnchor[]
  readonly at: Date
  readonly policy: AttestationPolicy
  /** True: evidence of an enclave that may be debugged passes. */
  readonly allowDebug: boolean
  /** What is expected of an enclave; absent: nothing in particular. */
  readonly enclave?: Pick<SgxExpectations, "mrEnclaves" | "mrSigners">
  readonly skip: ReadonlySet<Check>
}

type Attestation = Verified<TdxAttestation> | Verified<SgxAttestation>
type Tee = Attestation["kind"]

export interface JudgedIntel extends Judged {
  readonly proven: Attestation | null
}

/**
 * Judges a quote of mode `tdx` or `sgx`.
 * @param reportData 64 bytes; null: not compared. @param eventLog of a TD; null: not compared.
 */
export function judgeIntelFile(
  tee: Tee,
  quote: Uint8Array,
  input: IntelJudgement,
  reportData: Uint8Array | null,
  eventLog: Uint8Array | null,
): Judged {
  const judged = judgeQuote(tee, quote, input)
  const binding =
    judged.proven === null
      ? notJudged("binding", "binding", "tee")
      : reportDataClaim(reportData, judged.proven.quote.body.reportData)
  const td = judged.proven?.kind === "tdx" ? judged.proven : null
  const boot = eventLog === null ? null : eventLogClaim(eventLog, td)
  const claims = [...judged.claims, binding, ...(boot === null ? [] : [boot.claim])]
  return { ...judged, claims, bootLogs: boot?.logs ?? [] }
}

/** Judges a quote: `tee`, `revocation`, `tcb`. What it was made for is for the caller. */
export function judgeQuote(tee: Tee, quote: Uint8Array, input: IntelJudgement): JudgedIntel {
  const evidence = readable(() => (tee === "sgx" ? describeSgxQuote(quote) : describeTdxQuote(quote)))
  const whole = attempt(() => verified(tee, quote, input, asked(input.skip)))
  if ("proven" in whole) return { ...judgedBy(whole.proven, input), evidence }
  // Which of the checks failed shows by leaving them out; the quote itself has to hold in any case.
  const bare = attempt(() => verified(tee, quote, input, new Set(["revocation", "tcb"])))
  if ("error" in bare)
    return {
      ...NOTHING,
      evidence,
      proven: null,
      claims: [
        failedBy("tee", "tee", bare.error),
        notJudged("revocation", "tee", "tee"),
        notJudged("tcb", "tcb", "tee"),
      ],
    }
  const revocation = attempt(() => verified(tee, quote, input, new Set(["tcb"])))
  const tcb = attempt(() => verified(tee, quote, input, new Set(["revocation"])))
  const judged = judgedBy("proven" in tcb ? tcb.proven : bare.proven, input)
  const faults = new Map<Check, CodedError>()
  if ("error" in tcb) faults.set("tcb", tcb.error)
  // Each alone may pass: then a list names one of those who signed the documents.
  const signer = "proven" in tcb && !asked(input.skip).has("revocation") ? whole.error : null
  const list = "error" in revocation ? revocation.error : signer
  if (list !== null) faults.set("revocation", list)
  return { ...judged, evidence, claims: judged.claims.map((claim) => faultOf(claim, faults, input)) }
}

function faultOf(claim: Claim, faults: ReadonlyMap<Check, CodedError>, { problems }: IntelJudgement): Claim {
  const fault = faults.get(claim.check)
  if (fault === undefined) return passedAlone(claim)
  return failedBy(claim.check, claim.check === "tcb" ? "tcb" : "tee", withProblems(fault, problems))
}

/** Revocation was checked, if not in the same run that gave the other claims. */
function passedAlone(claim: Claim): Claim {
  if (claim.check !== "revocation") return claim
  const summary = "the platform's key and its authority are on no revocation list"
  return { ...claim, status: "passed", summary }
}

function asked(skip: ReadonlySet<Check>): ReadonlySet<IntelCheck> {
  return new Set((["revocation", "tcb"] as const).filter((check) => skip.has(check)))
}

function verified(
  tee: Tee,
  quote: Uint8Array,
  { collateral, anchors, at }: IntelJudgement,
  skip: ReadonlySet<IntelCheck>,
): Attestation {
  const all = skip.has("revocation") && skip.has("tcb")
  if (collateral instanceof CodedError && !all) throw collateral
  const documents = collateral instanceof CodedError ? null : collateral
  const input: IntelInput & { quote: Uint8Array } = { quote, collateral: documents, anchors, at, skip }
  return tee === "sgx" ? verifySgx(input) : verifyTdx(input)
}

function judgedBy(proven: Attestation, input: IntelJudgement): JudgedIntel {
  const { tee, tcb } =
    proven.kind === "sgx" ? enclave(proven, input) : appraiseByPolicy(proven, input.policy, input.at)
  return {
    proven,
    simulated: proven.anchor.simulated,
    evidence: null,
    tcb: intelTcb(proven),
    claims: [tee, revocationClaim(proven), tcb],
  }
}

/** No policy format has a part for enclaves, so a policy that is given alone says nothing about one. */
function enclave(
  proven: Verified<SgxAttestation>,
  { policy, allowDebug, enclave: expected }: IntelJudgement,
): { tee: Claim; tcb: Claim } {
  const debug = allowDebug ? "allowed" : "refused"
  const { tee, tcb } = appraiseSgx(proven, { ...ANY_SGX, ...expected, debug })
  const silent =
    policy.source === DEFAULT_SOURCE || expected !== undefined
      ? []
      : [
          mismatch("ERR_POLICY_PLATFORM", "SGX", "expectations of an enclave", "none", {
            meaning: `${policy.source} says nothing about SGX enclaves`,
            remedy: "leave --policy out, and compare MRENCLAVE and MRSIGNER of the result",
          }),
        ]
  return { tee: alsoFailing(tee, "tee", silent), tcb }
}

function revocationClaim({ revocation, anchor }: Attestation): Claim {
  const checked = revocation === "checked"
  return {
    check: "revocation",
    status: checked ? "passed" : "skipped",
    summary: checked
      ? `neither the platform's key nor its authority is on a revocation list under ${anchor.name}`
      : "not checked",
    findings: [],
    facts: {},
  }
}

function withProblems(error: CodedError, problems: readonly CodedError[]): CodedError {
  const absent = error.code === "ERR_COLLATERAL_MISSING" || error.code === "ERR_REVOCATION_NOT_CHECKED"
  if (!absent || problems.length === 0) return error
  return new VerifyError(error.code, {
    at: error.at ?? "collateral",
    expected: error.expected ?? "Intel's documents about the platform",
    found: problems.map(problemText).join("; "),
    hint: "give the documents with --collateral, or let this machine reach Intel's service",
    cause: error,
  })
}

function attempt(run: () => Attestation): { proven: Attestation } | { error: CodedError } {
  try {
    return { proven: run() }
  } catch (error) {
    if (error instanceof CodedError) return { error }
    throw error
  }
}

function readable(read: () => Shown): Shown {
  try {
    return read()
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

function intelTcb({ tcb, platform, qe, kind, quote }: Attestation): NonNullable<Judged["tcb"]> {
  const own = {
    fmspc: toHex(platform.fmspc),
    sgx_components: [...platform.components],
    pce_svn: platform.pceSvn,
    qe_svn: qe.isvSvn,
    ...(kind === "tdx" && "teeTcbSvn" in quote.body ? { tee_tcb_svn: toHex(quote.body.teeTcbSvn) } : {}),
  }
  if (tcb === null) return { status: null, date: null, advisories: [], ...own }
  return {
    status: tcb.status,
    date: tcb.date.toISOString(),
    advisories: tcb.advisories,
    evaluation_data_number: tcb.evaluationDataNumber,
    ...own,
    platform: part(tcb.platform),
    qe: part(tcb.qe),
    module: tcb.module === null ? null : { id: tcb.module.id, ...part(tcb.module) },
    next_update: tcb.nextUpdate.toISOString(),
  }
}

function part({ status, date, advisories }: TcbVerdict<TcbStatus | SvnStatus>) {
  return { status, date: date.toISOString(), advisories }
}
