import type { PckPlatform } from "../formats/intel/pck-extension.ts"
import type { SgxReport } from "../formats/sgx/report.ts"
import { parseTdxQuote, type TdxQuote } from "../formats/tdx/quote.ts"
import type { IntelAnchor } from "./intel-chain.ts"
import { type IntelInput, verifyIntelQuote } from "./intel-quote.ts"
import { evaluateTdxTcb, type TcbEvaluation } from "./intel-tcb.ts"
import { markVerified, type Verified } from "./verified.ts"

/** What holds for every quote of Intel's that was verified. */
export interface IntelAttestation {
  readonly anchor: IntelAnchor
  /** The platform by its PCK certificate. */
  readonly platform: PckPlatform
  /** The quoting enclave. */
  readonly qe: SgxReport
  /** Null where the user left the check out: nothing is known then. Whether a status is good enough is for appraisal. */
  readonly tcb: TcbEvaluation | null
  readonly revocation: "checked" | "not-checked"
  /** The time for which all of this holds. */
  readonly at: Date
}

/** What a genuine TDX quote proves. */
export interface TdxAttestation extends IntelAttestation {
  readonly kind: "tdx"
  readonly quote: TdxQuote
}

/**
 * Proves that a TD of an Intel platform made a quote, and what Intel says about that platform. Certificates and
 * collateral come from anywhere; trust comes from `anchors` alone. Every step throws at the first fault. A TCB status other
 * than UpToDate is no fault here, for appraisal to judge; a platform that Intel's documents do not cover is one.
 * @param input.quote version 4 or 5, zeros behind its end allowed.
 * @throws ParseError where anything is malformed
 * @throws VerifyError ERR_QUOTE_*, ERR_QE_*, ERR_PCK_MISSING, ERR_CERT_*, ERR_CRL_*, ERR_REVOCATION_NOT_CHECKED,
 *   ERR_COLLATERAL_*, ERR_TDX_MODULE, ERR_TCB_NO_LEVEL
 */
export function verifyTdx(input: IntelInput & { readonly quote: Uint8Array }): Verified<TdxAttestation> {
  const quote = parseTdxQuote(input.quote)
  const { chain, documents, revocation } = verifyIntelQuote(quote, "TDX", input)
  const { qeReport } = quote.signature
  return markVerified({
    kind: "tdx" as const,
    quote,
    anchor: chain.anchor,
    platform: chain.platform,
    qe: qeReport,
    tcb: documents === null ? null : evaluateTdxTcb(documents, chain.platform, qeReport, quote.body),
    revocation,
    at: input.at,
  })
}
