import { CodedError, VerifyError } from "../errors.ts"
import { type HclEnvelope, type HclKind, parseHclEnvelope } from "../formats/azure/hcl.ts"
import type { TeeEvidence } from "../formats/evidence.ts"
import { type AzureClaims, type HclHardware, verifyHcl } from "../verify/azure.ts"
import type { SnpAttestation } from "../verify/snp.ts"
import type { TdxAttestation } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { mismatch } from "./policy-findings.ts"
import { proveSnp, type SnpInput } from "./prove-snp.ts"
import type { Snapshot } from "./snapshot.ts"
import type { Paravisor, TdxReference, TeePolicy, TeeReference } from "./snapshot-tee.ts"
import { serviceTdFindings, tdxPolicyFor, tdxReferenceOf, withMissing } from "./tdx.ts"
import { teeReferenceOf } from "./tee.ts"
import { type IntelJudgement, judgeQuote } from "./validate-intel.ts"
import { alsoFailing, failedBy, notJudged } from "./validation-claims.ts"
import type { Check, Claim, Finding } from "./verdict.ts"

/** What the TEE part is judged by. All of it is the verifier's own. */
export interface TeeInput extends SnpInput {
  /** Intel's roots, and what Intel says about the platform. */
  readonly intel: Pick<IntelJudgement, "anchors" | "collateral" | "problems">
}

/** What a TEE part proves: genuine hardware, and what a paravisor in between adds to it. */
export interface ProvenTee {
  readonly attestation: Verified<SnpAttestation> | Verified<TdxAttestation>
  /** Null where the VM's own software asked the hardware. */
  readonly paravisor: ProvenParavisor | null
}

/** An HCL report with the hardware below it. */
export interface ProvenParavisor {
  readonly name: Paravisor
  readonly blob: Uint8Array
  readonly hardware: HclHardware
  /** What the hardware vouches for, whichever request it was made for; null where it vouches for none of it. */
  readonly claims: Verified<AzureClaims> | null
}

export interface TeeProof {
  readonly proven: ProvenTee | null
  readonly claims: readonly [tee: Claim, revocation: Claim, tcb: Claim]
}

/**
 * Proves and appraises the TEE part: the claims `tee`, `revocation` and `tcb`. The kind is the other side's word, so it decides
 * how each check is made and never whether; evidence of another kind than the snapshot's has nothing to be compared with,
 * and fails. Never throws on hostile evidence.
 */
export function proveTee(tee: TeeEvidence, input: TeeInput): TeeProof {
  try {
    return proveKind(tee, input)
  } catch (error) {
    const after = [notJudged("revocation", "tee", "tee"), notJudged("tcb", "tcb", "tee")] as const
    return { proven: null, claims: [failedBy("tee", "tee", error), ...after] }
  }
}

/** The snapshot members that hold the reference values. */
export function referenceOfTee({ attestation, paravisor }: ProvenTee): {
  tee_policy: TeePolicy
  tee_reference: TeeReference | TdxReference
} {
  const taken = "quote" in attestation ? tdxReferenceOf(attestation) : teeReferenceOf(attestation)
  const { tee_policy, tee_reference } = taken
  return {
    tee_policy,
    tee_reference: paravisor === null ? tee_reference : { ...tee_reference, paravisor: paravisor.name },
  }
}

function proveKind(tee: TeeEvidence, input: TeeInput): TeeProof {
  switch (tee.kind) {
    case "sev-snp": {
      const { attestation, claims } = proveSnp(tee, input)
      return asExpected({ attestation, paravisor: null }, claims, input.reference)
    }
    case "tdx": {
      const { attestation, claims } = proveTdx(tee.quote, input)
      return attestation === null
        ? { proven: null, claims }
        : asExpected({ attestation, paravisor: null }, claims, input.reference)
    }
    case "azure-snp": {
      const { hardwareReport } = envelopeOf(tee.hcl, "snp")
      const { attestation, claims } = proveSnp({ ...tee, report: hardwareReport }, input)
      const paravisor = paravisorOf(tee.hcl, { kind: "snp", attestation })
      return asExpected({ attestation, paravisor }, claims, input.reference)
    }
    case "azure-tdx": {
      envelopeOf(tee.hcl, "tdx")
      const { attestation, claims } = proveTdx(tee.quote, input)
      if (attestation === null) return { proven: null, claims }
      const paravisor = paravisorOf(tee.hcl, { kind: "tdx", attestation })
      return asExpected({ attestation, paravisor }, claims, input.reference)
    }
  }
}

/** Proves and appraises a TDX quote. What the user leaves out is tried all the same: the verdict says whether it would have passed. */
function proveTdx(
  quote: Uint8Array,
  { intel, at, reference }: TeeInput,
): { attestation: Verified<TdxAttestation> | null; claims: TeeProof["claims"] } {
  const policy = tdxPolicyFor(reference)
  const judged = judgeQuote("tdx", quote, { ...intel, at, policy, allowDebug: false, skip: new Set() })
  const claim = (check: Check) => claimOf(judged.claims, check)
  const { tee, tcb } = withMissing({ tee: claim("tee"), tcb: claim("tcb") }, reference)
  const attestation = judged.proven?.kind === "tdx" ? judged.proven : null
  const service = attestation === null ? [] : serviceTdFindings(attestation.quote.body.mrServiceTd, reference)
  return { attestation, claims: [alsoFailing(tee, "tee", service), claim("revocation"), tcb] }
}

function claimOf(claims: readonly Claim[], check: Check): Claim {
  return claims.find((claim) => claim.check === check) ?? notJudged(check, "tee", "tee")
}

/** An HCL report of the kind that the evidence says it is. @throws ParseError; VerifyError ERR_AZURE_HARDWARE_REPORT */
function envelopeOf(hcl: Uint8Array, kind: HclKind): HclEnvelope {
  const envelope = parseHclEnvelope(hcl)
  if (envelope.kind === kind) return envelope
  throw new VerifyError("ERR_AZURE_HARDWARE_REPORT", {
    at: "HCL report",
    expected: `a hardware report of kind ${kind}, as the evidence says`,
    found: envelope.kind,
  })
}

/** Where the hardware vouches for no claims, the binding check finds out why. */
function paravisorOf(blob: Uint8Array, hardware: HclHardware): ProvenParavisor {
  const found = { name: "azure", blob, hardware } as const
  try {
    return { ...found, claims: verifyHcl({ blob, hardware, userData: null }) }
  } catch (error) {
    if (error instanceof CodedError) return { ...found, claims: null }
    throw error
  }
}

/** With one more finding where the snapshot's VM attested by another way. */
function asExpected(proven: ProvenTee, claims: TeeProof["claims"], reference: Snapshot | null): TeeProof {
  const [tee, ...others] = claims
  const found = proven.paravisor?.name ?? null
  const shown = found === null ? tee : { ...tee, facts: { ...tee.facts, paravisor: found } }
  return { proven, claims: [alsoFailing(shown, "tee", paravisorFindings(found, reference)), ...others] }
}

/**
 * A VM without a paravisor can write claims of its own, which say what they like about its TPM. So by which way evidence comes is
 * a reference value.
 */
function paravisorFindings(found: Paravisor | null, reference: Snapshot | null): Finding[] {
  if (reference === null || reference.tee_policy === null) return []
  const expected = expectedParavisor(reference)
  if (found === expected) return []
  const text = (name: Paravisor | null) => (name === null ? "evidence of the VM itself" : "Azure's paravisor")
  return [
    mismatch("ERR_TEE_REFERENCE", "paravisor", text(expected), text(found), {
      meaning: "the evidence comes by another way than at the snapshot, and its TPM is kept by somebody else",
      remedy: "if the VM was moved on purpose, take a new snapshot; otherwise do not trust it",
    }),
  ]
}

/** The predecessor's files name the cloud only. */
function expectedParavisor({ format, cloud_type, tee_reference }: Snapshot): Paravisor | null {
  if (format === 1) return cloud_type === "Azure" ? "azure" : null
  return tee_reference?.paravisor ?? null
}
