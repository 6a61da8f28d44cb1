import { isUnproven, UNPROVEN } from "./ak.ts"
import { type NitroJudgement, nitroAssurance } from "./nitro.ts"
import type { ProvenTee } from "./prove-tee.ts"
import type { Snapshot } from "./snapshot.ts"
import type { AkProof, Assurance, Check, Claim, Verdict } from "./verdict.ts"

const ASSURANCE: Record<Assurance, string> = {
  simulated: "a simulated TEE: this proves nothing about hardware and is for trying the product out",
  "tpm-inside-tee":
    "the TPM runs inside the TEE: boot and IMA results rest on the TEE's signature, and on the firmware (paravisor) that its measurement names",
  "tpm-by-host":
    "the TPM is run by the host: the TEE report proves memory encryption and launch state, while boot and IMA results hold as far as the host's TPM is honest",
  "no-tee": "no TEE: boot and IMA results hold as far as the host and its TPM are honest",
  "no-tpm": "no TPM: nothing proves what booted and what ran",
  unproven: "not proven: a check that the answer rests on did not pass",
}

/** Who runs the TPM, what the results rest on, and how the attestation key is proven. */
export function assuranceOf(
  claims: readonly Claim[],
  proven: {
    readonly tee: ProvenTee | null
    readonly nitro: NitroJudgement
    readonly akProvenBy: AkProof | null
    readonly reference: Snapshot | null
  },
): Verdict["assurance"] {
  const { tee, nitro, akProvenBy, reference } = proven
  const enrolled = reference?.tpm_reference?.ak_enrolment
  const label = assuranceLabel(claims, tee)
  if (akProvenBy === null) return { label, meaning: ASSURANCE[label] }
  const aws = nitroAssurance(nitro, claims, reference)
  if (aws !== null && label !== "unproven" && label !== "no-tpm")
    return {
      label,
      meaning: `${ASSURANCE[label]}${reference === null ? unprovenKey(label, akProvenBy) : ""}; ${aws.meaning}`,
      akProvenBy,
      nitroInstance: aws.instance,
    }
  const byGivenKey = akProvenBy === "ek-key" || (akProvenBy === "enrolled" && enrolled?.kind === "ek-key")
  const key = byGivenKey ? GIVEN_KEY : unprovenKey(label, akProvenBy)
  return { label, meaning: `${ASSURANCE[label]}${key}`, akProvenBy }
}

const GIVEN_KEY =
  "; that it is a TPM rests on the endorsement key which the administrator gave (--ek), and on no maker's certificate"

/** An honest TPM is no answer where it is not known that there is one. */
function unprovenKey(label: Assurance, proof: AkProof): string {
  if (!isUnproven(proof) || label === "no-tpm" || label === "unproven") return ""
  return `; nothing proves that its attestation key is held by a TPM at all: ${UNPROVEN[proof]}`
}

function assuranceLabel(claims: readonly Claim[], tee: ProvenTee | null): Assurance {
  const status = (check: Check) => claims.find((claim) => claim.check === check)?.status
  if (tee?.attestation.anchor.simulated) return "simulated"
  if (status("tee") === "skipped" || status("binding") === "skipped") return "no-tee"
  if (status("tee") !== "passed" || status("binding") !== "passed") return "unproven"
  if (status("revocation") === "failed") return "unproven"
  if (status("tpm") === "skipped") return "no-tpm"
  if (status("tpm") !== "passed") return "unproven"
  return tee === null || tee.paravisor === null ? "tpm-by-host" : "tpm-inside-tee"
}
