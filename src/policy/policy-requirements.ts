import type { TpmAttestation } from "../verify/tpm.ts"
import type { Verified } from "../verify/verified.ts"
import { appraiseByPolicy } from "./appraise-by-policy.ts"
import { akNameFindings, policyPcrFindings, quotedPcrs } from "./appraise-pcrs.ts"
import type { AttestationPolicy } from "./attestation-policy.ts"
import type { BootLog } from "./boot-log.ts"
import { bootEventFindings } from "./boot-requirements.ts"
import type { ProvenTee } from "./prove-tee.ts"
import type { Check, Finding } from "./verdict.ts"
import type { BootLogs } from "./verify-vm.ts"

/** What was proven of a VM, by the checks that prove; null: not proven, so that the check which should have fails already. */
export interface ProvenParts {
  readonly tee: ProvenTee | null
  readonly tpm: Verified<TpmAttestation> | null
  readonly boot: BootLogs
  /** The time for acceptances that end; the same as for the verification. */
  readonly at: Date
}

/** What a policy does not accept, by the check that it fails. */
export type PolicyFindings = { readonly [C in Check]?: readonly Finding[] }

/**
 * What a policy asks for beside the snapshot's reference values: it can only make a verdict worse. A part of the VM that was not
 * proven has nothing to compare, and its own check fails.
 */
export function policyFindings(policy: AttestationPolicy | null, proven: ProvenParts): PolicyFindings {
  if (policy === null) return {}
  const { tee, tpm } = proven
  return {
    ...(tee === null || (policy.snp === null && policy.tdx === null)
      ? {}
      : teeFindings(policy, tee, proven.at)),
    ...(tpm === null ? {} : { tpm: akNameFindings(tpm, policy.tpm) }),
    boot: [
      ...(tpm === null ? [] : policyPcrFindings(quotedPcrs(tpm), policy.tpm)),
      ...bootEventFindings(policy.boot, logsOf(proven)),
    ],
  }
}

/**
 * The logs that have to meet the policy: the firmware's where a TPM vouches for it, and that of a trust domain, which may only be
 * missing beside the other one.
 */
function logsOf({ tpm, boot: { tcg, td } }: ProvenParts): BootLog[] {
  const firmware = tpm === null ? [] : [tcg]
  const own = td === null || (td.log.state === "absent" && tpm !== null) ? [] : [td.log]
  return [...firmware, ...own]
}

function teeFindings(policy: AttestationPolicy, { attestation }: ProvenTee, at: Date): PolicyFindings {
  const claims = appraiseByPolicy(attestation, policy, at)
  const wrong = ({ status, findings }: (typeof claims)["tee"]) => (status === "failed" ? findings : [])
  return { tee: wrong(claims.tee), tcb: wrong(claims.tcb) }
}
