import type { ErrorCode } from "../errors.ts"
import type { Shown, ShownRecord } from "../formats/describe/shown.ts"
import type { AttestationPolicy } from "./attestation-policy.ts"
import { bootEventFindings } from "./boot-requirements.ts"
import { judgeAzure } from "./validate-azure.ts"
import { type IntelJudgement, judgeIntelFile } from "./validate-intel.ts"
import { judgeNitroTpm } from "./validate-nitro-tpm.ts"
import { judgeSnpFile, type SnpInput } from "./validate-snp.ts"
import { judgeQuoteFiles, type QuoteFiles } from "./validate-tpm.ts"
import { alsoFailing, failedBy, failedWith, type Judged, NOTHING } from "./validation-claims.ts"
import {
  CHECKS,
  type Check,
  type Claim,
  decidingClaim,
  exitCodeOf,
  type Finding,
  type Verdict,
} from "./verdict.ts"

/** Kinds of evidence that are validated on their own. */
export const VALIDATE_MODES = [
  "snp",
  "tdx",
  "vtpm",
  "nitro-tpm",
  "snp-vtpm",
  "azure-snp",
  "azure-tdx",
  "sgx",
] as const
export type ValidateMode = (typeof VALIDATE_MODES)[number]

/** Everything that one result is made from. Files are as they were read: what is malformed is found here. */
export interface ValidateInput {
  readonly mode: ValidateMode
  /** Of the file, for the result. */
  readonly target: string
  readonly file: Uint8Array
  readonly at: Date
  /** 64 bytes; null: not compared. */
  readonly reportData: Uint8Array | null
  /** Of the TPM quote or the NitroTPM document; null: not compared. */
  readonly nonce: Uint8Array | null
  readonly snp: SnpInput
  readonly intel: IntelJudgement
  /** Beside `file`. */
  readonly quote: QuoteFiles
  readonly tdQuote: Uint8Array | null
  /** Roots of NitroTPM documents: SHA-256 of their DER, lower-case hex. */
  readonly nitroRoots: ReadonlySet<string>
  /** Of the TD in mode tdx, else of the firmware; null: not compared with RTMRs or PCRs. */
  readonly eventLog: Uint8Array | null
  readonly skip: ReadonlySet<Check>
}

/** One check, as `--json` shows it: what is wrong first, and everything under `findings`. */
export interface ShownClaim {
  readonly name: Check
  readonly status: Claim["status"]
  readonly code: ErrorCode | null
  readonly expected: string | null
  readonly found: string | null
  readonly meaning: string
  readonly remedy: string | null
  readonly findings: readonly Finding[]
  readonly facts: Claim["facts"]
}

/** The answer. Terminal text, `--json` and exit code are made from this object and nothing else. */
export interface Validation {
  readonly verdict: "pass" | "fail"
  /** Of the failure that decides the exit code; null for a pass. */
  readonly code: ErrorCode | null
  readonly exitCode: number
  readonly mode: ValidateMode
  readonly target: string
  readonly at: string
  /** A root that is not the vendor's vouches for it: this proves nothing about hardware. */
  readonly simulated: boolean
  /** What a pass rests on. */
  readonly assurance: Verdict["assurance"]
  /** Checks left out by name. */
  readonly skipped: readonly Check[]
  readonly claims: readonly ShownClaim[]
  readonly tcb: ShownRecord
  readonly evidence: Shown
}

/** Nothing is known of the platform's firmware. */
const NO_TCB: ShownRecord = { status: null, date: null, advisories: [] }

/** The check that evidence of a mode is made for: where bytes are malformed, this one fails. */
const MAIN_CHECK = {
  snp: "tee",
  tdx: "tee",
  vtpm: "tpm",
  "nitro-tpm": "tpm",
  "snp-vtpm": "tee",
  "azure-snp": "tee",
  "azure-tdx": "tee",
  sgx: "tee",
} as const satisfies Record<ValidateMode, Check>

const ALONE = {
  label: "no-tpm",
  meaning: "the vendor's signature over this evidence: it shows the launch, and nothing of what ran since",
} as const
const IN_TEE = {
  label: "tpm-inside-tee",
  meaning: "the TPM runs inside the TEE: what it says rests on the TEE's signature",
} as const
const ASSURANCE: Readonly<Record<ValidateMode, Verdict["assurance"]>> = {
  snp: ALONE,
  tdx: ALONE,
  sgx: ALONE,
  vtpm: {
    label: "no-tee",
    meaning: "the attestation key that was given: that it is a genuine TPM's is for you to know",
  },
  "nitro-tpm": {
    label: "no-tee",
    meaning:
      "the signature of AWS, or of the root that --tpm-ca names in its place, over the PCRs of an instance's NitroTPM: it shows what booted, and nothing of keys or of files that ran since",
  },
  "snp-vtpm": {
    label: "tpm-by-host",
    meaning:
      "two signatures, each for itself: that report and quote are of one machine shows only where the report data name the TPM's key",
  },
  "azure-snp": IN_TEE,
  "azure-tdx": IN_TEE,
}

function assuranceOf(mode: ValidateMode, passed: boolean, simulated: boolean): Verdict["assurance"] {
  if (simulated)
    return {
      label: "simulated",
      meaning: "a root that is not the vendor's: this proves nothing about hardware",
    }
  return passed
    ? ASSURANCE[mode]
    : { label: "unproven", meaning: "nothing: a check that the answer rests on did not pass" }
}

/** Judges evidence. Never throws on hostile evidence: a check that cannot be made is a failed check. */
export function validate(input: ValidateInput): Validation {
  return resultOf(input, withBootRules(judge(input), input.snp.policy))
}

/** What a policy asks of boot events is asked of every kind of evidence: what comes without a log does not meet it. */
function withBootRules(judged: Judged, { boot }: AttestationPolicy): Judged {
  const findings = bootEventFindings(boot, judged.bootLogs ?? [])
  const [first, ...more] = findings
  if (first === undefined) return judged
  const known = judged.claims.find(({ check }) => check === "boot")
  const others = judged.claims.filter((claim) => claim !== known)
  const claim = known ?? failedWith("boot", "boot", first)
  return { ...judged, claims: [...others, alsoFailing(claim, "boot", known === undefined ? more : findings)] }
}

/** The result for evidence that could not even be read. */
export function refusal(
  input: Pick<ValidateInput, "mode" | "target" | "at" | "skip">,
  error: unknown,
): Validation {
  const check = MAIN_CHECK[input.mode]
  return resultOf(input, { ...NOTHING, claims: [failedBy(check, check, error)] })
}

function judge(input: ValidateInput): Judged {
  const { mode, file, reportData, nonce, snp, intel, quote } = input
  switch (mode) {
    case "snp":
      return judgeSnpFile(file, snp, reportData)
    case "tdx":
    case "sgx":
      return judgeIntelFile(mode, file, intel, reportData, input.eventLog)
    case "vtpm":
      return judgeQuoteFiles({ ...quote, quote: file }, nonce, snp.policy)
    case "nitro-tpm":
      return judgeNitroTpm({
        document: file,
        roots: input.nitroRoots,
        nonce,
        at: input.at,
        policy: snp.policy,
        eventLog: input.eventLog,
      })
    case "snp-vtpm":
      return judgeSnpAndTpm(input)
    case "azure-snp":
    case "azure-tdx":
      return judgeAzure(mode === "azure-snp" ? "snp" : "tdx", {
        blob: file,
        tdQuote: input.tdQuote,
        quote,
        nonce,
        userData: reportData,
        snp,
        intel,
        policy: snp.policy,
      })
  }
}

/** Report and quote, each for itself. Which of the report's data name the TPM's key, whoever asked for it has to say. */
function judgeSnpAndTpm({ file, reportData, nonce, snp, quote }: ValidateInput): Judged {
  const tee = judgeSnpFile(file, snp, reportData)
  const tpm = judgeQuoteFiles(quote, nonce, snp.policy)
  return {
    ...tee,
    evidence: { snp: tee.evidence, quote: tpm.evidence },
    bootLogs: tpm.bootLogs ?? [],
    claims: [...tee.claims, ...tpm.claims],
  }
}

function resultOf(
  { mode, target, at, skip }: Pick<ValidateInput, "mode" | "target" | "at" | "skip">,
  judged: Judged,
): Validation {
  const inOrder = CHECKS.flatMap((check) => judged.claims.filter((claim) => claim.check === check))
  const claims = inOrder.map((claim) => (skip.has(claim.check) ? skipped(claim) : claim))
  const exitCode = exitCodeOf(claims)
  const [worst] = decidingClaim(claims)?.findings ?? []
  return {
    verdict: exitCode === 0 ? "pass" : "fail",
    code: exitCode === 0 ? null : (worst?.code ?? "ERR_INTERNAL"),
    exitCode,
    mode,
    target,
    at: at.toISOString(),
    simulated: judged.simulated,
    assurance: assuranceOf(mode, exitCode === 0, judged.simulated),
    skipped: CHECKS.filter((check) => skip.has(check)),
    claims: claims.map(shown),
    tcb: judged.tcb ?? NO_TCB,
    evidence: judged.evidence,
  }
}

/** A claim that the user leaves out, with what would have come of it. */
export function skipped(claim: Claim): Claim {
  const would = claim.status === "failed" ? "it would have failed" : "nothing speaks against it"
  return { ...claim, status: "skipped", summary: `left out by --skip ${claim.check}; ${would}` }
}

function shown({ check, status, summary, findings, facts }: Claim): ShownClaim {
  const [first] = findings
  return {
    name: check,
    status,
    code: status === "failed" ? (first?.code ?? null) : null,
    expected: first?.expected ?? null,
    found: first?.found ?? null,
    meaning: status === "failed" ? (first?.meaning ?? summary) : summary,
    remedy: first?.remedy ?? null,
    findings,
    facts,
  }
}
