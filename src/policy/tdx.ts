import { toHex } from "../formats/hex.ts"
import type { TdxQuote } from "../formats/tdx/quote.ts"
import type { TdxAttestation } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { type AttestationPolicy, defaultPolicy } from "./attestation-policy.ts"
import { mismatch } from "./policy-findings.ts"
import { encodeU64 } from "./policy-values.ts"
import type { Snapshot, TdxPolicy, TdxReference } from "./snapshot.ts"
import { policyOfSnapshot } from "./snapshot-policy.ts"
import { alsoFailing } from "./validation-claims.ts"
import type { Claim, Finding } from "./verdict.ts"

/**
 * What a quote is appraised by; only TCB status UpToDate passes.
 * @param reference null only when a snapshot is about to be taken: then what needs no reference is judged.
 * @throws UsageError ERR_POLICY where the snapshot's `tee_policy` is for an enclave
 */
export function tdxPolicyFor(reference: Snapshot | null): AttestationPolicy {
  return reference === null ? defaultPolicy({ allowDebug: false }) : policyOfSnapshot(reference)
}

/** Claims that fail as well where the snapshot does not say what is expected: what it leaves out turns no check off. */
export function withMissing<T extends { readonly tee: Claim; readonly tcb: Claim }>(
  claims: T,
  reference: Snapshot | null,
): T {
  const policy = reference?.tee_policy ?? null
  if (reference === null || policy === null || !("Tdx" in policy)) return claims
  const { tee, tcb } = missingFrom(policy.Tdx, reference)
  return { ...claims, tee: alsoFailing(claims.tee, "tee", tee), tcb: alsoFailing(claims.tcb, "tcb", tcb) }
}

function missingFrom({ header, body }: TdxPolicy, snapshot: Snapshot): { tee: Finding[]; tcb: Finding[] } {
  const { qe_vendor_id, ...headerFloors } = header
  const { minimum_tee_tcb_svn, report_data: _, ...fixed } = body
  // The predecessor's files hold no RTMRs: those are compared as far as they go.
  const registers = snapshot.format === 1 || isTdxReference(snapshot.tee_reference) ? {} : { rtmrs: null }
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

/** Whether the snapshot's own member is that of a trust domain. */
export function isTdxReference(reference: Snapshot["tee_reference"]): reference is TdxReference {
  return reference !== null && "rtmr0" in reference
}

/** The snapshot members that hold a quote's reference values. */
export function tdxReferenceOf({ quote }: Verified<TdxAttestation>): {
  tee_policy: { readonly Tdx: TdxPolicy }
  tee_reference: TdxReference
} {
  const { rtmr0, rtmr1, rtmr2 } = quote.body
  return {
    tee_policy: { Tdx: tdxPolicyOf(quote) },
    tee_reference: { rtmr0: toHex(rtmr0), rtmr1: toHex(rtmr1), rtmr2: toHex(rtmr2) },
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
