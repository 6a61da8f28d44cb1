import { CATALOGUE, CodedError, EXIT, type FailureClass } from "../errors.ts"
import type { Shown, ShownRecord } from "../formats/describe/shown.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import type { BootLog } from "./boot-log.ts"
import type { Check, Claim, Finding } from "./verdict.ts"

/** What the evidence of one mode was found to be. */
export interface Judged {
  readonly claims: readonly Claim[]
  /** What is known of the platform's firmware; null: nothing. */
  readonly tcb: ShownRecord | null
  /** Everything that was decoded, proven or not; null where it could not be. */
  readonly evidence: Shown
  /** A root that is not the vendor's vouches for it. */
  readonly simulated: boolean
  /** Event logs that were given beside proven registers; absent: none. */
  readonly bootLogs?: readonly BootLog[]
}

/** Where no platform was judged. */
export const NOTHING = { tcb: null, evidence: null, simulated: false } as const

/**
 * A check that fell over. Codes that say nothing about a VM elsewhere (malformed bytes, a document that is not at hand) are a
 * refusal here: the check could not be made.
 */
export function failedBy(check: Check, failureClass: FailureClass, error: unknown): Claim {
  if (!(error instanceof CodedError) || error.code === "ERR_INTERNAL")
    return failedWith(check, "operational", {
      code: "ERR_INTERNAL",
      subject: check,
      found: error instanceof Error ? error.message : String(error),
      meaning: "the check could not be made because of a fault in this program",
      remedy: "report it, with the evidence",
    })
  return failedWith(check, refusalClass(error, failureClass), {
    code: error.code,
    subject: error.at ?? check,
    ...(error.expected === undefined ? {} : { expected: error.expected }),
    ...(error.found === undefined ? {} : { found: error.found }),
    meaning: error.message,
    remedy: error.hint ?? "do not trust this evidence until this is explained",
  })
}

function refusalClass(error: CodedError, otherwise: FailureClass): FailureClass {
  return EXIT[error.failureClass] > EXIT.usage ? error.failureClass : otherwise
}

export function failedWith(check: Check, failureClass: FailureClass, finding: Finding): Claim {
  return { check, status: "failed", failureClass, summary: finding.meaning, findings: [finding], facts: {} }
}

/** A check that rests on another one which did not pass. */
export function notJudged(check: Check, failureClass: FailureClass, because: Check): Claim {
  return failedWith(check, failureClass, {
    code: "ERR_NOT_JUDGED",
    subject: check,
    meaning: `this check rests on the ${because} check, which did not pass`,
    remedy: `see the ${because} check`,
  })
}

/** A claim with one more thing wrong. */
export function alsoFailing(claim: Claim, failureClass: FailureClass, findings: readonly Finding[]): Claim {
  if (findings.length === 0) return claim
  const failed = claim.status === "failed"
  return {
    ...claim,
    status: "failed",
    failureClass: claim.failureClass ?? failureClass,
    summary: failed ? claim.summary : findings.map(({ meaning }) => meaning).join("; "),
    findings: failed ? [...claim.findings, ...findings] : [...findings, ...claim.findings],
  }
}

/** Whether the report was made for what the verifier expects. @param expected null: the verifier does not say. */
export function reportDataClaim(expected: Uint8Array | null, found: Uint8Array): Claim {
  const facts = { reportData: Buffer.from(found).toString("hex") }
  if (expected === null)
    return {
      check: "binding",
      status: "warning",
      summary: "no --report-data was given: nothing shows for which request the evidence was made",
      findings: [],
      facts,
    }
  if (bytesEqual(expected, found))
    return {
      check: "binding",
      status: "passed",
      summary: "the report data are the expected ones",
      findings: [],
      facts,
    }
  return {
    ...failedWith("binding", "binding", {
      code: "ERR_BINDING_REPORT_DATA",
      subject: "report_data",
      expected: shortHex(expected, 64),
      found: shortHex(found, 64),
      meaning: "the evidence was not made for this request: it is an old one, or another's",
      remedy: "ask for new evidence, and give what it was asked with as --report-data",
    }),
    facts,
  }
}

/** Why a document is not there, in a few words. */
export function problemText({ code, at }: CodedError): string {
  return `${at === undefined ? "" : `${at}: `}${CATALOGUE[code].title}`
}
