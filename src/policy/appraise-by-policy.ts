import type { SnpAttestation } from "../verify/snp.ts"
import type { TdxAttestation } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { appraiseSnpByPolicy } from "./appraise-snp.ts"
import { appraiseTdxByPolicy } from "./appraise-tdx.ts"
import type { AttestationPolicy } from "./attestation-policy.ts"
import type { Claim } from "./verdict.ts"

/**
 * Appraises genuine evidence of a TEE by a policy. All mismatches are findings of the two claims. Evidence of a kind that the
 * policy says nothing about is refused.
 * @param at the time for acceptances that end; the same as for the verification.
 */
export function appraiseByPolicy(
  attestation: Verified<SnpAttestation> | Verified<TdxAttestation>,
  policy: AttestationPolicy,
  at: Date,
): { tee: Claim; tcb: Claim } {
  return "quote" in attestation
    ? appraiseTdxByPolicy(attestation, policy, at)
    : appraiseSnpByPolicy(attestation, policy)
}
