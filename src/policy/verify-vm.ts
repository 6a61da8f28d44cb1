import { CodedError, type ErrorCode, type FailureClass } from "../errors.ts"
import {
  EVIDENCE_PCRS,
  type Evidence,
  evidenceQualifyingData,
  evidenceReportData,
  type TpmEvidence,
} from "../formats/evidence.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { parseMeasurementList } from "../formats/ima/measurement-list.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import { type QuotedMeasurements, verifyMeasurementList } from "../verify/ima.ts"
import { type SnpAttestation, type TrustAnchor, verifySnp } from "../verify/snp.ts"
import { type TpmAttestation, verifyQuote } from "../verify/tpm.ts"
import type { Verified } from "../verify/verified.ts"
import { type ApplicationProbe, appraiseApplications } from "./application.ts"
import { appraiseIma } from "./ima.ts"
import type { Snapshot } from "./snapshot.ts"
import { appraiseTee } from "./tee.ts"
import { appraiseTpm } from "./tpm.ts"
import { type Assurance, CHECKS, type Check, type Claim, exitCodeOf, type Verdict } from "./verdict.ts"
import type { Whitelist } from "./whitelist.ts"

/** The connection that carried the evidence, as the client saw it. */
export interface Channel {
  /** DER SubjectPublicKeyInfo of the leaf certificate of that very connection. */
  readonly spki: Uint8Array
  /** Whether a web certificate authority vouches for the certificate and the host name. */
  readonly authorized: boolean
  /** Why not, where it does not. */
  readonly reason: string | null
  /** The user said that no authority is needed (`--allow-insecure-tls`). */
  readonly insecureAllowed: boolean
}

/** Everything that one verdict is made from. Time, nonce and anchors are the verifier's own. */
export interface JudgeInput {
  readonly target: string
  readonly at: Date
  /** 32 random bytes that the verifier drew for this verification. */
  readonly nonce: Uint8Array
  readonly evidence: Evidence
  readonly channel: Channel
  /** Null only when a snapshot is about to be taken: then there is nothing to compare with yet. */
  readonly reference: Snapshot | null
  readonly whitelist: Whitelist
  readonly anchors: readonly TrustAnchor[]
  readonly applications: readonly ApplicationProbe[]
  /** Checks that the user asked to leave out, by name. */
  readonly skip: ReadonlySet<Check>
}

/** The verdict, and what was proven on the way (null: not proven). */
export interface Judgement {
  readonly verdict: Verdict
  readonly tee: Verified<SnpAttestation> | null
  readonly tpm: Verified<TpmAttestation> | null
  readonly ima: Verified<QuotedMeasurements> | null
}

/**
 * Judges evidence, in the order channel, TEE, TCB, binding, TPM, reboot, boot, IMA, applications. Never throws on hostile
 * evidence: a check that cannot be made is a failed check.
 */
export function judge(input: JudgeInput): Judgement {
  const channel = judgeChannel(input.channel)
  const tee = proveTee(input)
  const binding = judgeBinding(input, tee.proven)
  const tpm = proveTpm(input)
  const ima = proveIma(input, tpm.proven)
  const attestedSpki = binding.status === "passed" ? input.channel.spki : null
  const applications =
    input.applications.length > 0 ? [appraiseApplications(input.applications, attestedSpki)] : []

  const made = [channel, ...tee.claims, binding, ...tpm.claims, ima.claim, ...applications]
  const claims = inOrder(made).map((claim) => (input.skip.has(claim.check) ? skipped(claim) : claim))
  const exitCode = exitCodeOf(claims)
  return {
    verdict: {
      passed: exitCode === 0,
      target: input.target,
      at: input.at.toISOString(),
      simulated: tee.proven?.anchor.simulated ?? false,
      assurance: assuranceOf(claims, tee.proven),
      skipped: CHECKS.filter((check) => input.skip.has(check)),
      claims,
      exitCode,
    },
    tee: tee.proven,
    tpm: tpm.proven,
    ima: ima.proven,
  }
}

function judgeChannel(channel: Channel): Claim {
  const facts = { spki: shortHex(channel.spki.subarray(-16), 16), authorized: channel.authorized }
  if (channel.authorized)
    return {
      check: "channel",
      status: "passed",
      summary: "TLS certificate vouched for by a certificate authority",
      findings: [],
      facts,
    }
  const reason = channel.reason ?? "unknown reason"
  if (channel.insecureAllowed)
    return {
      check: "channel",
      status: "warning",
      summary: `TLS certificate not vouched for by an authority (${reason}), allowed by --allow-insecure-tls; the binding check has to prove the key`,
      findings: [],
      facts,
    }
  return failed("channel", "channel", {
    code: "ERR_CHANNEL_UNTRUSTED",
    subject: "TLS certificate",
    expected: "a certificate that a known authority signed for this host",
    found: reason,
    meaning: "the certificate alone does not say who answers",
    remedy:
      "add --allow-insecure-tls: the TEE report then proves the key instead, or install a certificate with certtool",
  })
}

interface Proof<T> {
  readonly proven: Verified<T> | null
  readonly claims: readonly Claim[]
}

function proveTee(input: JudgeInput): Proof<SnpAttestation> {
  const { tee } = input.evidence
  if (tee === null) {
    const absent = {
      code: "ERR_TEE_ABSENT" as const,
      subject: "TEE report",
      expected: "a SEV-SNP report",
      found: "none",
      meaning:
        "the machine gave no proof that it is a confidential VM; its operator may read and change everything in it",
      remedy:
        "run it as a confidential VM; on a machine without TEE: --skip tee --skip tcb --skip binding, and the verdict says so",
    }
    return { proven: null, claims: [failed("tee", "tee", absent), notJudged("tcb", "tcb", "tee")] }
  }
  try {
    const proven = verifySnp({
      report: tee.report,
      certificates: tee.certificates,
      anchors: input.anchors,
      at: input.at,
    })
    const claims = appraiseTee(proven, input.reference)
    return { proven, claims: [claims.tee, claims.tcb] }
  } catch (error) {
    return { proven: null, claims: [failedBy("tee", "tee", error), notJudged("tcb", "tcb", "tee")] }
  }
}

function judgeBinding(input: JudgeInput, tee: Verified<SnpAttestation> | null): Claim {
  if (tee === null) return notJudged("binding", "binding", "tee")
  try {
    const akName = input.evidence.tpm === null ? null : tpmName(parsePublic(input.evidence.tpm.akPublic))
    const expected = evidenceReportData(input.nonce, input.channel.spki, akName)
    if (!bytesEqual(expected, tee.report.reportData))
      return failed("binding", "binding", {
        code: "ERR_BINDING_REPORT_DATA",
        subject: "report_data",
        expected: shortHex(expected),
        found: shortHex(tee.report.reportData),
        meaning:
          "the report was not made for this connection: the TLS connection ends outside the VM (a relay or proxy), or the report is an old one, or the TPM key is another's",
        remedy:
          "reach the agent without a proxy that ends TLS; if there is none, somebody is in between: do not send secrets",
      })
    const what =
      akName === null ? "the TLS key and the nonce" : "the TLS key, the TPM's attestation key and the nonce"
    return {
      check: "binding",
      status: "passed",
      summary: `the TEE report commits to ${what} of this connection`,
      findings: [],
      facts: { reportData: shortHex(expected, 64) },
    }
  } catch (error) {
    return failedBy("binding", "binding", error)
  }
}

function proveTpm(input: JudgeInput): Proof<TpmAttestation> {
  const { tpm, tee } = input.evidence
  if (tpm === null) {
    const absent = {
      code: "ERR_TPM_ABSENT" as const,
      subject: "TPM quote",
      expected: "a quote over PCRs 0-15",
      found: "none",
      meaning: "without a TPM nothing proves what booted and what ran",
      remedy:
        "give the VM a (v)TPM; without one: --skip tpm --skip reboot --skip boot --skip ima, and the verdict says so",
    }
    return { proven: null, claims: [failed("tpm", "tpm", absent), ...afterTpm()] }
  }
  try {
    const proven = quoteOf(tpm, evidenceQualifyingData(input.nonce, input.channel.spki, tee?.report ?? null))
    const claims = appraiseTpm(proven, input.reference)
    return { proven, claims: [claims.tpm, claims.reboot, claims.boot] }
  } catch (error) {
    return { proven: null, claims: [failedBy("tpm", "tpm", error), ...afterTpm()] }
  }
}

function quoteOf(tpm: TpmEvidence, qualifyingData: Uint8Array): Verified<TpmAttestation> {
  return verifyQuote(tpm, { qualifyingData, pcrSelection: EVIDENCE_PCRS })
}

function afterTpm(): Claim[] {
  return [notJudged("reboot", "reboot", "tpm"), notJudged("boot", "boot", "tpm")]
}

function proveIma(
  input: JudgeInput,
  tpm: Verified<TpmAttestation> | null,
): { proven: Verified<QuotedMeasurements> | null; claim: Claim } {
  const { ima } = input.evidence
  const pcr10 = tpm?.pcrs[10]
  if (tpm === null || pcr10 === undefined) return { proven: null, claim: notJudged("ima", "ima", "tpm") }
  if (ima === null || ima.from !== 0) {
    const absent = {
      code: "ERR_IMA_ABSENT" as const,
      subject: "IMA measurement list",
      expected: "the list from its first entry",
      found: ima === null ? "none" : `a list from entry ${ima.from}`,
      meaning: "nothing says which files ran",
      remedy: "install the IMA policy of the package as /etc/ima/ima-policy in the VM, and reboot it",
    }
    return { proven: null, claim: failed("ima", "ima", absent) }
  }
  try {
    const proven = verifyMeasurementList(parseMeasurementList(ima.list), pcr10)
    return {
      proven,
      claim: appraiseIma(proven, input.reference, { whitelist: input.whitelist, pcrs: tpm.pcrs }),
    }
  } catch (error) {
    return { proven: null, claim: failedBy("ima", "ima", error) }
  }
}

/** A check that fell over: the coded error is the finding. Anything else is a fault of ours, and fails the check too. */
function failedBy(check: Check, failureClass: FailureClass, error: unknown): Claim {
  if (!(error instanceof CodedError))
    return failed(check, "operational", {
      code: "ERR_INTERNAL",
      subject: check,
      found: error instanceof Error ? error.message : String(error),
      meaning: "the check could not be made because of a fault in this program",
      remedy: "report it, with the evidence",
    })
  return failed(check, failureClass, {
    code: error.code,
    subject: error.at ?? check,
    ...(error.expected === undefined ? {} : { expected: error.expected }),
    ...(error.found === undefined ? {} : { found: error.found }),
    meaning: error.message,
    remedy: error.hint ?? "do not trust this machine until this is explained",
  })
}

function notJudged(check: Check, failureClass: FailureClass, because: Check): Claim {
  return failed(check, failureClass, {
    code: "ERR_NOT_JUDGED",
    subject: check,
    meaning: `this check rests on the ${because} check, which did not pass`,
    remedy: `see the ${because} check`,
  })
}

function failed(
  check: Check,
  failureClass: FailureClass,
  finding: Claim["findings"][number] & { code: ErrorCode },
): Claim {
  return { check, status: "failed", failureClass, summary: finding.meaning, findings: [finding], facts: {} }
}

function skipped(claim: Claim): Claim {
  const would = claim.status === "failed" ? "it would have failed" : "it would have passed"
  return {
    check: claim.check,
    status: "skipped",
    summary: `left out by --skip ${claim.check}; ${would}`,
    findings: claim.findings,
    facts: claim.facts,
  }
}

function inOrder(claims: readonly Claim[]): Claim[] {
  return CHECKS.flatMap((check) => claims.filter((claim) => claim.check === check))
}

const ASSURANCE: Record<Assurance, string> = {
  simulated: "a simulated TEE: this proves nothing about hardware and is for trying the product out",
  "tpm-inside-tee": "the TPM runs inside the TEE: boot and IMA results rest on the TEE's signature",
  "tpm-by-host":
    "the TPM is run by the host: the TEE report proves memory encryption and launch state, while boot and IMA results hold as far as the host's TPM is honest",
  "no-tee": "no TEE: boot and IMA results hold as far as the host and its TPM are honest",
  "no-tpm": "no TPM: nothing proves what booted and what ran",
  unproven: "not proven: a check that the answer rests on did not pass",
}

function assuranceOf(claims: readonly Claim[], tee: Verified<SnpAttestation> | null): Verdict["assurance"] {
  const label = assuranceLabel(claims, tee)
  return { label, meaning: ASSURANCE[label] }
}

function assuranceLabel(claims: readonly Claim[], tee: Verified<SnpAttestation> | null): Assurance {
  const status = (check: Check) => claims.find((claim) => claim.check === check)?.status
  if (tee?.anchor.simulated) return "simulated"
  if (status("tee") === "skipped" || status("binding") === "skipped") return "no-tee"
  if (status("tee") !== "passed" || status("binding") !== "passed") return "unproven"
  if (status("tpm") === "skipped") return "no-tpm"
  return status("tpm") === "passed" ? "tpm-by-host" : "unproven"
}
