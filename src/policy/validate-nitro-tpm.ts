import { CodedError } from "../errors.ts"
import type { ShownRecord } from "../formats/describe/shown.ts"
import { toHex } from "../formats/hex.ts"
import { type NitroDocument, parseNitroDocument } from "../formats/nitro/document.ts"
import { type NitroTpmInput, type NitroTpmStatement, verifyNitroTpm } from "../verify/nitro-tpm.ts"
import type { Verified } from "../verify/verified.ts"
import { appraisePcrs } from "./appraise-pcrs.ts"
import type { AttestationPolicy } from "./attestation-policy.ts"
import { mismatch, notOneOf, policyClaim } from "./policy-findings.ts"
import { readQuotedLog, withLog } from "./validate-event-log.ts"
import { failedBy, type Judged, NOTHING, notJudged } from "./validation-claims.ts"
import type { Claim } from "./verdict.ts"

export interface NitroTpmJudgement extends Pick<NitroTpmInput, "document" | "roots" | "nonce" | "at"> {
  readonly policy: AttestationPolicy
  /** The firmware's event log; null: not compared with the PCRs. */
  readonly eventLog: Uint8Array | null
}

/**
 * Judges a NitroTPM attestation document: `tpm`, `boot`. The PCRs are compared in the SHA-384 bank, the only one that a document
 * has: a policy that fixes a PCR in other banks alone is not met.
 */
export function judgeNitroTpm(input: NitroTpmJudgement): Judged {
  const evidence = evidenceOf(input.document)
  try {
    const statement = verifyNitroTpm(input)
    const pcrs = { sha384: statement.document.pcrs }
    const boot = appraisePcrs(pcrs, input.policy)
    const log = input.eventLog === null ? null : readQuotedLog(input.eventLog, pcrs)
    return {
      ...NOTHING,
      evidence,
      claims: [tpmClaim(statement, input.policy), log === null ? boot : withLog(boot, log)],
      bootLogs: log === null ? [] : [log],
    }
  } catch (error) {
    return { ...NOTHING, evidence, claims: [refused(error), notJudged("boot", "boot", "tpm")] }
  }
}

/** Certificates that do not hold are elsewhere those of a TEE: here they are about the TPM. */
function refused(error: unknown): Claim {
  const claim = failedBy("tpm", "tpm", error)
  return claim.failureClass === "tee" ? { ...claim, failureClass: "tpm" } : claim
}

function tpmClaim(statement: Verified<NitroTpmStatement>, policy: AttestationPolicy): Claim {
  const { document, root, rootFingerprint, signer, freshness } = statement
  const unanswered = notOneOf(
    "ERR_TPM_AK_CHANGED",
    "AK Name",
    new Uint8Array(0),
    policy.tpm?.akNames ?? null,
    "the document says nothing about an attestation key, and the policy names one",
  )
  const warnings =
    freshness === "nonce"
      ? []
      : [
          mismatch("ERR_NITRO_NONCE", "nonce", "--nonce", "none", {
            meaning: `nothing shows for which request the document was made: the certificate limits its age (from ${signer.notBefore.toISOString()})`,
            remedy: "give the nonce of the request with --nonce",
          }),
        ]
  return policyClaim({
    check: "tpm",
    failureClass: "tpm",
    findings: unanswered,
    warnings,
    summary: `the hypervisor under ${JSON.stringify(root.subject.commonName ?? "a root without name")} signed the PCRs of an instance's NitroTPM; that a key is in that TPM it does not say`,
    facts: {
      moduleId: document.moduleId,
      timestamp: timeOf(document),
      root: rootFingerprint,
      userData: document.userData === null ? "none" : toHex(document.userData),
      publicKey: document.publicKey === null ? "none" : toHex(document.publicKey),
    },
  })
}

/** The document as it says of itself; empty where it cannot be read. */
function evidenceOf(bytes: Uint8Array): ShownRecord {
  try {
    const document = parseNitroDocument(bytes)
    const { moduleId, pcrs, publicKey, userData, nonce } = document
    return {
      module_id: moduleId,
      timestamp: timeOf(document),
      digest: "SHA384",
      nitrotpm_pcrs: Object.fromEntries([...pcrs].map(([pcr, value]) => [pcr, toHex(value)])),
      public_key: publicKey === null ? null : toHex(publicKey),
      user_data: userData === null ? null : toHex(userData),
      nonce: nonce === null ? null : toHex(nonce),
    }
  } catch (error) {
    if (error instanceof CodedError) return {}
    throw error
  }
}

function timeOf({ timestamp }: NitroDocument): string {
  return new Date(Number(timestamp)).toISOString()
}
