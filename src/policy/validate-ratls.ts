import { createHash } from "node:crypto"
import { CodedError, type ErrorCode } from "../errors.ts"
import { describeCertificate } from "../formats/describe/certificates.ts"
import type { Shown, ShownRecord } from "../formats/describe/shown.ts"
import { bytesEqual, toHex } from "../formats/hex.ts"
import { parseRatlsEvidence, RATLS_OID, type RatlsEvidence } from "../formats/ratls/evidence.ts"
import { parseSnpReport, SNP_REPORT_SIZE } from "../formats/snp/report.ts"
import { parseSnpReportFile } from "../formats/snp/report-file.ts"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import { EXTRA_DATA_SIZE, verifyRatlsCertificate, verifyRatlsKey } from "../verify/ratls.ts"
import type { Verified } from "../verify/verified.ts"
import { skipped } from "./validate.ts"
import { type IntelJudgement, judgeQuote } from "./validate-intel.ts"
import { judgeSnpReport, type SnpInput } from "./validate-snp.ts"
import { failedBy, failedWith, type Judged, NOTHING, notJudged } from "./validation-claims.ts"
import { CHECKS, type Check, type Claim, decidingClaim, exitCodeOf, type Verdict } from "./verdict.ts"

/** Checks that can be left out. That evidence is genuine and made for the certificate's key is no matter of choice. */
export const RATLS_SKIPPABLE = ["revocation", "tcb"] as const satisfies readonly Check[]

/** Everything that one result is made from. */
export interface RatlsInput {
  /** Where the certificate comes from, for the result. */
  readonly target: string
  /** DER. */
  readonly certificate: Uint8Array
  readonly at: Date
  /** 32 bytes that follow the key's hash in the report data. */
  readonly extraData: Uint8Array
  /** Documents and expectations for a piece of evidence. */
  readonly judgementOf: (evidence: RatlsEvidence) => {
    readonly snp: SnpInput
    readonly intel: IntelJudgement
  }
  readonly skip: ReadonlySet<Check>
  /** TLS showed that the server has the certificate's key; false for a certificate in a file. */
  readonly live: boolean
}

/** The answer. Terminal text, `--json` and exit code are made from this object and nothing else. */
export interface RatlsVerdict extends Verdict {
  /** Of the failure that decides the exit code; null for a pass. */
  readonly code: ErrorCode | null
  readonly certificate: Shown
  /** SHA-256 of the certificate's DER SubjectPublicKeyInfo, hex; null where it could not be read. */
  readonly spki_sha256: string | null
  readonly evidence: readonly ShownRecord[]
}

/**
 * Judges a certificate with evidence in it: that it is in date and signed by its own key, that each piece of evidence in it is
 * genuine and as expected, and that each was made for its key. Never throws on hostile input.
 */
export function validateRatls(input: RatlsInput): RatlsVerdict {
  let parsed: { certificate: Certificate; evidence: readonly RatlsEvidence[] }
  try {
    const certificate = parseCertificate(input.certificate)
    parsed = { certificate, evidence: parseRatlsEvidence(certificate) }
  } catch (error) {
    return verdictOf(input, [[failedBy("tee", "tee", error), ...afterTee()]], [], null)
  }
  const { certificate, evidence } = parsed
  let own: Verified<Certificate>
  try {
    own = verifyRatlsCertificate(certificate, input.at)
  } catch (error) {
    const claims = [failedBy("channel", "channel", error), notJudged("tee", "tee", "channel"), ...afterTee()]
    return verdictOf(input, [claims], [], certificate)
  }
  if (evidence.length === 0)
    return verdictOf(input, [[passedChannel(own, input), ...absent()]], [], certificate)
  const pieces = withoutCopies(evidence).map((piece) => judgePiece(own, piece, input))
  const claims = [[passedChannel(own, input)], ...pieces.map(({ claims: each }) => each)]
  return verdictOf(input, claims, pieces, certificate)
}

interface JudgedPiece extends Judged {
  readonly shown: ShownRecord
}

function judgePiece(own: Verified<Certificate>, piece: RatlsEvidence, input: RatlsInput): JudgedPiece {
  const { snp, intel } = input.judgementOf(piece)
  const { judged, reportData } = judgeEvidence(piece, snp, intel)
  const shown = {
    form: piece.form,
    oid: piece.oid,
    tee: piece.tee,
    extra_data: reportData === null ? null : toHex(reportData.subarray(-EXTRA_DATA_SIZE)),
    nonce: piece.claims?.nonce == null ? null : toHex(piece.claims.nonce),
    tcb: judged.tcb,
    content: judged.evidence,
  }
  const claims = [...judged.claims, bindingClaim(own, piece, reportData, input)]
  return { ...judged, claims, shown }
}

interface JudgedEvidence {
  readonly judged: Judged
  /** Of genuine evidence; null where it is not shown to be that. */
  readonly reportData: Uint8Array | null
}

function judgeEvidence(piece: RatlsEvidence, snp: SnpInput, intel: IntelJudgement): JudgedEvidence {
  if (piece.tee !== "snp") {
    const judged = judgeQuote(piece.tee, piece.content, intel)
    return { judged, reportData: judged.proven?.quote.body.reportData ?? null }
  }
  try {
    const file = parseSnpReportFile(piece.content)
    const report = parseSnpReport(file.report)
    const judged = judgeSnpReport(
      report,
      file.certificates.map(({ der }) => der),
      snp,
    )
    return { judged, reportData: judged.proven?.report.reportData ?? null }
  } catch (error) {
    const [revocation, tcb] = afterTee()
    return {
      judged: { ...NOTHING, claims: [failedBy("tee", "tee", error), revocation, tcb] },
      reportData: null,
    }
  }
}

function bindingClaim(
  own: Verified<Certificate>,
  piece: RatlsEvidence,
  reportData: Uint8Array | null,
  { extraData, live }: RatlsInput,
): Claim {
  if (reportData === null) return notJudged("binding", "binding", "tee")
  const facts = { reportData: toHex(reportData) }
  try {
    verifyRatlsKey(own, piece, reportData, extraData)
  } catch (error) {
    return { ...failedBy("binding", "binding", error), facts }
  }
  const extra = extraData.every((byte) => byte === 0) ? "" : " and the expected extra data"
  const whose = live ? "the TLS key of this connection" : "the certificate's key"
  return {
    check: "binding",
    status: "passed",
    summary: `the TEE's signature covers ${whose}${extra}`,
    findings: [],
    facts,
  }
}

/** A SEV-SNP report may stand in both forms: judged once, with the certificates that the predecessor's form has beside it. */
function withoutCopies(evidence: readonly RatlsEvidence[]): readonly RatlsEvidence[] {
  const first = evidence.find(({ oid }) => oid === RATLS_OID.snp)
  if (first === undefined) return evidence
  const report = first.content.subarray(0, SNP_REPORT_SIZE)
  return evidence.filter((piece) => piece === first || !bytesEqual(piece.content, report))
}

function passedChannel({ notAfter }: Certificate, { live }: RatlsInput): Claim {
  return {
    check: "channel",
    status: "passed",
    summary: live
      ? "TLS certificate in date and signed by its own key, which the server has; who that is, the evidence in it says"
      : "certificate in date and signed by its own key",
    findings: [],
    facts: { notAfter: notAfter.toISOString() },
  }
}

function absent(): Claim[] {
  const tee = failedWith("tee", "tee", {
    code: "ERR_RATLS_ABSENT",
    subject: "certificate",
    expected: `an extension ${Object.values(RATLS_OID).join(", ")}`,
    found: "none of them",
    meaning: "nothing in the certificate says that its key is in a TEE",
    remedy: "make one in the VM with certtool ratls generate, or verify the VM by its agent",
  })
  return [tee, ...afterTee()]
}

function afterTee(): [revocation: Claim, tcb: Claim, binding: Claim] {
  return [
    notJudged("revocation", "tee", "tee"),
    notJudged("tcb", "tcb", "tee"),
    notJudged("binding", "binding", "tee"),
  ]
}

function verdictOf(
  { target, at, skip }: RatlsInput,
  claims: readonly (readonly Claim[])[],
  pieces: readonly JudgedPiece[],
  certificate: Certificate | null,
): RatlsVerdict {
  const all = claims.flat()
  const together = CHECKS.flatMap((check) => joined(all.filter((claim) => claim.check === check)))
  const settled = together.map((claim) => (skip.has(claim.check) ? skipped(claim) : claim))
  const exitCode = exitCodeOf(settled)
  const simulated = pieces.some((piece) => piece.simulated)
  return {
    passed: exitCode === 0,
    code: exitCode === 0 ? null : (decidingClaim(settled)?.findings[0]?.code ?? "ERR_INTERNAL"),
    target,
    at: at.toISOString(),
    simulated,
    assurance: assuranceOf(exitCode === 0, simulated),
    skipped: CHECKS.filter((check) => skip.has(check)),
    claims: settled,
    exitCode,
    certificate: certificate === null ? null : shownCertificate(certificate),
    spki_sha256: certificate === null ? null : createHash("sha256").update(certificate.spki).digest("hex"),
    evidence: pieces.map(({ shown }) => shown),
  }
}

/** Evidence is shown decoded beside it. Null where there is something in it that cannot be shown. */
function shownCertificate({ der }: Certificate): Shown {
  try {
    const { extensions: _, ...shown } = describeCertificate(der)
    return shown
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

/** One claim of several about the same check: the worst one, with all findings. */
function joined(claims: readonly Claim[]): Claim[] {
  const worst =
    claims.find(({ status }) => status === "failed") ??
    claims.find(({ status }) => status === "warning") ??
    claims[0]
  return worst === undefined ? [] : [{ ...worst, findings: claims.flatMap(({ findings }) => findings) }]
}

function assuranceOf(passed: boolean, simulated: boolean): Verdict["assurance"] {
  if (simulated)
    return {
      label: "simulated",
      meaning: "a root that is not the vendor's: this proves nothing about hardware",
    }
  return passed
    ? {
        label: "no-tpm",
        meaning:
          "the vendor's signature over evidence made together with the certificate: it shows the launch, and nothing of what ran since",
      }
    : { label: "unproven", meaning: "nothing: a check that the answer rests on did not pass" }
}
