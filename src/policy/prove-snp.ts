import { CodedError, VerifyError } from "../errors.ts"
import { type Crl, parseCrl } from "../formats/x509/crl.ts"
import { type SnpAttestation, type TrustAnchor, verifySnp } from "../verify/snp.ts"
import { verifySnpRevocation } from "../verify/snp-revocation.ts"
import type { Verified } from "../verify/verified.ts"
import type { Snapshot } from "./snapshot.ts"
import { appraiseTee } from "./tee.ts"
import { failedBy } from "./validation-claims.ts"
import type { Claim } from "./verdict.ts"

/** What a SEV-SNP report is judged by. */
export interface SnpInput {
  readonly at: Date
  /** Null only when a snapshot is about to be taken. */
  readonly reference: Snapshot | null
  /** AMD's roots, and simulated ones. */
  readonly anchors: readonly TrustAnchor[]
  /** Revocation list of the root (DER) that the verifier has itself; null: only one that came with the report can serve. */
  readonly crl: Uint8Array | null
  /** Why the verifier has none, for people; null where it has one or did not look. */
  readonly crlAbsence: string | null
}

/** A report and the certificates that came with it, DER. */
export interface ShippedReport {
  readonly report: Uint8Array
  readonly certificates: readonly Uint8Array[]
}

/**
 * Proves and appraises a SEV-SNP report.
 * @throws ParseError and VerifyError as verifySnp: what failed is the `tee` check.
 */
export function proveSnp(
  shipped: ShippedReport,
  input: SnpInput,
): { readonly attestation: Verified<SnpAttestation>; readonly claims: readonly [Claim, Claim, Claim] } {
  const { anchors, at } = input
  const attestation = verifySnp({ ...shipped, anchors, crl: null, at })
  const { tee, tcb } = appraiseTee(attestation, input.reference)
  return { attestation, claims: [tee, judgeRevocation(attestation, shipped, input), tcb] }
}

/**
 * The verifier's own list decides. Without one, a list that came beside the report may: it is signed by the same pinned
 * root and in date, so the other side can at most choose an older one that still holds. A simulated root has no
 * distribution service, and its list always comes this way. No list at all is a failure.
 */
function judgeRevocation(
  attestation: Verified<SnpAttestation>,
  shipped: ShippedReport,
  { crl: own, crlAbsence, at }: SnpInput,
): Claim {
  try {
    const { crl } = verifySnpRevocation(attestation, own ?? shippedList(shipped, crlAbsence), at)
    const dates = {
      thisUpdate: crl?.thisUpdate.toISOString() ?? "",
      nextUpdate: crl?.nextUpdate?.toISOString() ?? "",
    }
    const source = own === null ? "came with the report" : "the verifier has"
    return {
      check: "revocation",
      status: "passed",
      summary: `not on the revocation list of ${attestation.anchor.name} that ${source}, of ${dates.thisUpdate}`,
      findings: [],
      facts: { ...dates, source: own === null ? "evidence" : "verifier" },
    }
  } catch (error) {
    return failedBy("revocation", "tee", error)
  }
}

/** The newest list among the certificates that came with a report. */
function shippedList({ certificates }: ShippedReport, absence: string | null): Uint8Array {
  const lists = certificates.flatMap(listIn)
  const [newest] = lists.sort((a, b) => b.thisUpdate.getTime() - a.thisUpdate.getTime())
  if (newest === undefined)
    throw new VerifyError("ERR_REVOCATION_NOT_CHECKED", {
      at: "revocation list",
      expected: "the list of the chain's root",
      found: absence ?? "none",
      hint: "let this machine reach the vendor's service, or get the list elsewhere with collateral fetch and export; to do without: --skip revocation, and the verdict says so",
    })
  return newest.der
}

/** Most of them are certificates: what is no list is passed over. */
function listIn(der: Uint8Array): Crl[] {
  try {
    return [parseCrl(der)]
  } catch (error) {
    if (error instanceof CodedError) return []
    throw error
  }
}
