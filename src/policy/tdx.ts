import { toHex } from "../formats/hex.ts"
import type { TdxQuote } from "../formats/tdx/quote.ts"
import type { TdxAttestation } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { type AttestationPolicy, defaultPolicy } from "./attestation-policy.ts"
import { CHANGE_POLICY, mismatch } from "./policy-findings.ts"
import { encodeU64 } from "./policy-values.ts"
import type { Snapshot, TdxPolicy, TdxReference } from "./snapshot.ts"
import { policyOfSnapshot } from "./snapshot-policy.ts"
import { tdxReferenceIn } from "./snapshot-tee.ts"
import { alsoFailing } from "./validation-claims.ts"
import type { Claim, Finding } from "./verdict.ts"

const RETAKE = "if the change was meant, take a new snapshot; otherwise do not trust this VM"

/**
 * What a quote is appraised by; only TCB status UpToDate passes.
 * @param reference null only when a snapshot is about to be taken: then what needs no reference is judged.
 * @throws UsageError ERR_POLICY where the snapshot's `tee_policy` is for an enclave
 */
export function tdxPolicyFor(reference: Snapshot | null): AttestationPolicy {
  return reference === null ? defaultPolicy({ allowDebug: false }) : policyOfSnapshot(reference)
}

/**
 * Claims of {@link tdxPolicyFor} as ones about a snapshot. They fail as well where that does not say what is expected: what it
 * leaves out turns no check off.
 */
export function withMissing<T extends { readonly tee: Claim; readonly tcb: Claim }>(
  claims: T,
  reference: Snapshot | null,
): T {
  const policy = reference?.tee_policy ?? null
  if (reference === null || policy === null || !("Tdx" in policy)) return claims
  const { tee, tcb } = missingFrom(policy.Tdx, reference)
  return {
    ...claims,
    tee: alsoFailing(ofSnapshot(claims.tee), "tee", tee),
    tcb: alsoFailing(ofSnapshot(claims.tcb), "tcb", tcb),
  }
}

function ofSnapshot(claim: Claim): Claim {
  const findings = claim.findings.map((finding) =>
    finding.remedy === CHANGE_POLICY ? { ...finding, remedy: RETAKE } : finding,
  )
  return { ...claim, findings }
}

function missingFrom({ header, body }: TdxPolicy, snapshot: Snapshot): { tee: Finding[]; tcb: Finding[] } {
  const { qe_vendor_id, ...headerFloors } = header
  const { minimum_tee_tcb_svn, report_data: _, ...fixed } = body
  // The predecessor's files hold no RTMRs: those are compared as far as they go.
  const registers =
    snapshot.format === 1 || tdxReferenceIn(snapshot.tee_reference) !== null ? {} : { rtmrs: null }
  return {
    tee: namesOfNulls({ ...fixed, qe_vendor_id, ...registers }).map((name) =>
      absent("ERR_TEE_REFERENCE", name),
    ),
    tcb: namesOfNulls({ ...headerFloors, minimum_tee_tcb_svn }).map((name) =>
      absent("ERR_TCB_REFERENCE", name),
    ),
  }
}

function namesOfNulls(members: Readonly<Record<string, unknown>>): string[] {
  return Object.keys(members).filter((name) => members[name] === null)
}

function absent(code: "ERR_TEE_REFERENCE" | "ERR_TCB_REFERENCE", name: string): Finding {
  return mismatch(code, name, "a value in the snapshot", "none", {
    meaning: `the snapshot does not say which ${name} is expected`,
    remedy: "take a new snapshot",
  })
}

/**
 * What a quote says about service TDs, against the snapshot. Only quotes of TDX 1.5 show them: one that no longer does, where the
 * snapshot's did, hides them.
 */
export function serviceTdFindings(mrServiceTd: Uint8Array | null, reference: Snapshot | null): Finding[] {
  const ours = tdxReferenceIn(reference?.tee_reference ?? null)
  if (ours === null) return []
  const found = mrServiceTd === null ? null : toHex(mrServiceTd)
  const expected = ours.mr_service_td ?? null
  if (found === expected || (expected === null && mrServiceTd?.every((byte) => byte === 0))) return []
  return [
    mismatch("ERR_TDX_CONFIGURATION", "mr_service_td", expected ?? "none bound", found ?? "not shown", {
      meaning: "other service TDs are bound to the TD than at the snapshot: they may be given its secrets",
      remedy: RETAKE,
    }),
  ]
}

/** The snapshot members that hold a quote's reference values. */
export function tdxReferenceOf({ quote }: Verified<TdxAttestation>): {
  tee_policy: { readonly Tdx: TdxPolicy }
  tee_reference: TdxReference
} {
  const { rtmr0, rtmr1, rtmr2, mrServiceTd } = quote.body
  const service = mrServiceTd === null ? {} : { mr_service_td: toHex(mrServiceTd) }
  return {
    tee_policy: { Tdx: tdxPolicyOf(quote) },
    tee_reference: { rtmr0: toHex(rtmr0), rtmr1: toHex(rtmr1), rtmr2: toHex(rtmr2), ...service },
  }
}

/** What a quote says, as the predecessor's snapshots hold it. The caller answers for where the quote comes from. */
export function tdxPolicyOf({ header, body }: TdxQuote): TdxPolicy {
  return {
    header: {
      minimum_qe_svn: header.qeSvn,
      minimum_pce_svn: header.pceSvn,
      qe_vendor_id: toHex(header.qeVendorId),
    },
    body: {
      minimum_tee_tcb_svn: toHex(body.teeTcbSvn),
      mr_seam: toHex(body.mrSeam),
      td_attributes: toHex(encodeU64(body.tdAttributes)),
      xfam: toHex(encodeU64(body.xfam)),
      mr_td: toHex(body.mrTd),
      mr_config_id: toHex(body.mrConfigId),
      mr_owner: toHex(body.mrOwner),
      mr_owner_config: toHex(body.mrOwnerConfig),
      // Belongs to one nonce: never a reference value.
      report_data: null,
    },
  }
}
