import { CodedError, VerifyError } from "../errors.ts"
import { plainFields, type Shown } from "../formats/describe/shown.ts"
import { describeSnpReport } from "../formats/describe/snp.ts"
import { parseSnpReport, type SnpReport } from "../formats/snp/report.ts"
import { parseSnpReportFile } from "../formats/snp/report-file.ts"
import type { SnpProduct, Tcb } from "../formats/snp/tcb.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { parseCertificateFile } from "../formats/x509/certificate-file.ts"
import { type Crl, parseCrl } from "../formats/x509/crl.ts"
import { type SnpAttestation, type TrustAnchor, verifySnp } from "../verify/snp.ts"
import { verifySnpRevocation } from "../verify/snp-revocation.ts"
import type { Verified } from "../verify/verified.ts"
import { appraiseSnpByPolicy } from "./appraise-snp.ts"
import type { AttestationPolicy } from "./attestation-policy.ts"
import { mismatch } from "./policy-findings.ts"
import {
  alsoFailing,
  failedBy,
  type Judged,
  NOTHING,
  notJudged,
  problemText,
  reportDataClaim,
} from "./validation-claims.ts"
import type { Claim } from "./verdict.ts"

/** Vendor's documents for a report, as files or fetched. */
export interface SnpEndorsements {
  /** VCEK or VLEK, PEM or DER, that the user names; null: one that came with the report, or was fetched. */
  readonly leaf: Uint8Array | null
  /** ASK or ASVK, PEM or DER; null likewise. */
  readonly chain: Uint8Array | null
  /** The root's revocation list, PEM or DER; null likewise. */
  readonly crl: Uint8Array | null
  readonly fetched: FetchedSnp
}

/** What a vendor's service gave. */
export interface FetchedSnp {
  /** DER. */
  readonly certificates: readonly Uint8Array[]
  /** DER. */
  readonly crl: Uint8Array | null
  /** Why certificates could not be had. */
  readonly problems: readonly CodedError[]
  /** Why the list could not be had; null: it was not looked for, or is there. */
  readonly crlProblem: CodedError | null
}

export interface SnpInput {
  readonly endorsements: SnpEndorsements
  readonly anchors: readonly TrustAnchor[]
  readonly at: Date
  readonly policy: AttestationPolicy
  /** The processor family that the user expects; null: any. */
  readonly product: SnpProduct | null
}

/** Judges a report file of mode `snp`. @param reportData 64 bytes; null: not compared. */
export function judgeSnpFile(file: Uint8Array, input: SnpInput, reportData: Uint8Array | null): Judged {
  let read: { report: SnpReport; certificates: readonly Uint8Array[] }
  try {
    const { report, certificates } = parseSnpReportFile(file)
    read = { report: parseSnpReport(report), certificates: certificates.map(({ der }) => der) }
  } catch (error) {
    return { ...NOTHING, claims: [failedBy("tee", "tee", error), ...afterReport()] }
  }
  const judged = judgeSnpReport(read.report, read.certificates, input)
  const binding =
    judged.proven === null
      ? notJudged("binding", "binding", "tee")
      : reportDataClaim(reportData, read.report.reportData)
  return { ...judged, claims: [...judged.claims, binding] }
}

export interface JudgedSnp extends Judged {
  readonly proven: Verified<SnpAttestation> | null
}

/** Judges a report: `tee`, `revocation`, `tcb`. What it was made for is for the caller. */
export function judgeSnpReport(
  report: SnpReport,
  shipped: readonly Uint8Array[],
  input: SnpInput,
): JudgedSnp {
  const { anchors, at, policy, product } = input
  let proven: Verified<SnpAttestation>
  try {
    const certificates = poolOf(shipped, input.endorsements)
    proven = verifySnp({ report: report.raw, certificates, anchors, crl: null, at })
  } catch (error) {
    const tee = failedBy("tee", "tee", withProblems(error, input.endorsements.fetched.problems))
    const [revocation, tcb] = afterReport()
    return {
      ...NOTHING,
      evidence: describeSnpReport(report, report.product),
      proven: null,
      claims: [tee, revocation, tcb],
    }
  }
  const { tee, tcb } = appraiseSnpByPolicy(proven, policy)
  const wrongProduct =
    product === null || proven.product === product
      ? []
      : [
          mismatch("ERR_TEE_PRODUCT", "product", product, proven.product, {
            meaning: "another processor family made the report than --product names",
            remedy: "check which machine the report comes from",
          }),
        ]
  return {
    evidence: describeSnpReport(report, proven.product),
    tcb: snpTcb(proven),
    simulated: proven.anchor.simulated,
    proven,
    claims: [alsoFailing(tee, "tee", wrongProduct), judgeRevocation(proven, shipped, input), tcb],
  }
}

function afterReport(): [revocation: Claim, tcb: Claim, binding: Claim] {
  return [
    notJudged("revocation", "tee", "tee"),
    notJudged("tcb", "tcb", "tee"),
    notJudged("binding", "binding", "tee"),
  ]
}

/** A leaf that the user names takes the place of those that came with the report. */
function poolOf(shipped: readonly Uint8Array[], endorsements: SnpEndorsements): readonly Uint8Array[] {
  const { leaf, chain, fetched } = endorsements
  const own = [
    ...(leaf === null ? [] : strictly(leaf, "leaf certificate")),
    ...(chain === null ? [] : strictly(chain, "certificate chain")),
  ]
  return [
    ...own,
    ...(leaf === null ? shipped : shipped.filter((der) => !isLeaf(der))),
    ...fetched.certificates,
  ]
}

/** Among what a host sends, entries that are no certificates are passed over; in a file that the user names, they are a fault. */
function strictly(file: Uint8Array, place: string): readonly Uint8Array[] {
  const ders = parseCertificateFile(file, "certificate", place)
  for (const der of ders) parseCertificate(der)
  return ders
}

function isLeaf(der: Uint8Array): boolean {
  const certificate = readable(() => parseCertificate(der))
  return /(^| )SEV-V[CL]EK$/.test(certificate?.subject.commonName ?? "")
}

/**
 * The user's list decides, then a fetched one. Without either, one that came with the report may: it is signed by the same
 * pinned root and in date, so the other side can at most choose an older one that still holds.
 */
function judgeRevocation(
  proven: Verified<SnpAttestation>,
  shipped: readonly Uint8Array[],
  { endorsements, at }: SnpInput,
): Claim {
  try {
    const list = listOf(endorsements) ?? newestList(shipped)
    if (list === null) throw notChecked(endorsements.fetched.crlProblem)
    const { crl } = verifySnpRevocation(proven, list, at)
    const thisUpdate = crl?.thisUpdate.toISOString() ?? ""
    return {
      check: "revocation",
      status: "passed",
      summary: `not on the revocation list of ${proven.anchor.name} of ${thisUpdate}`,
      findings: [],
      facts: { thisUpdate, nextUpdate: crl?.nextUpdate?.toISOString() ?? "" },
    }
  } catch (error) {
    return failedBy("revocation", "tee", error)
  }
}

function listOf({ crl, fetched }: SnpEndorsements): Uint8Array | null {
  if (crl === null) return fetched.crl
  const [only, ...more] = parseCertificateFile(crl, "crl", "revocation list")
  if (only !== undefined && more.length === 0) return only
  throw new VerifyError("ERR_MALFORMED", {
    at: "revocation list",
    expected: "one list",
    found: `${more.length + (only === undefined ? 0 : 1)}`,
  })
}

function newestList(shipped: readonly Uint8Array[]): Uint8Array | null {
  const lists = shipped.flatMap((der): readonly Crl[] => readable(() => [parseCrl(der)]) ?? [])
  const [newest] = lists.toSorted((a, b) => b.thisUpdate.getTime() - a.thisUpdate.getTime())
  return newest?.der ?? null
}

/** Null for bytes that are something else. */
function readable<T>(read: () => T): T | null {
  try {
    return read()
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

function notChecked(problem: CodedError | null): VerifyError {
  return new VerifyError("ERR_REVOCATION_NOT_CHECKED", {
    at: "revocation list",
    expected: "the list of the chain's root",
    found: problem === null ? "none" : problemText(problem),
    hint: "give it with --crl, or let this machine reach AMD's service; to do without: --skip revocation, and the result says so",
  })
}

/** Where a certificate is missing, why it could not be fetched belongs to the answer. */
function withProblems(error: unknown, problems: readonly CodedError[]): unknown {
  if (!(error instanceof VerifyError) || error.code !== "ERR_SNP_ENDORSEMENT_MISSING") return error
  const why = problems.map(problemText).join("; ")
  return new VerifyError(error.code, {
    ...(error.at === undefined ? {} : { at: error.at }),
    ...(error.expected === undefined ? {} : { expected: error.expected }),
    found: [error.found ?? "none", why].filter((part) => part !== "").join("; "),
    hint: "give the certificates with --vcek (or --vlek) and --chain, or let this machine reach AMD's service",
    cause: error,
  })
}

/** AMD names no statuses, advisories or dates of TCB levels: what counts is that no component is below what is asked for. */
function snpTcb(proven: SnpAttestation): NonNullable<Judged["tcb"]> {
  const { product, reportedTcb, committedTcb, currentTcb, launchTcb } = proven
  const plain = (tcb: Tcb): Shown => plainFields(tcb)
  return {
    status: null,
    date: null,
    advisories: [],
    product,
    reported: plain(reportedTcb),
    committed: plain(committedTcb),
    current: plain(currentTcb),
    launch: plain(launchTcb),
  }
}
