import { createHash } from "node:crypto"
import { AgentError, CodedError, VerifyError } from "../errors.ts"
import type { TpmEvidence } from "../formats/evidence.ts"
import { toHex } from "../formats/hex.ts"
import { parsePublic } from "../formats/tpm/public.ts"
import { gceInstance } from "../formats/x509/gce-instance.ts"
import type { TpmAttestation } from "../verify/tpm.ts"
import {
  type TpmAuthorities,
  type TpmCertificate,
  verifyAkCertificate,
  verifyEkCertificate,
} from "../verify/tpm-certificate.ts"
import { type CredentialAnswer, verifyCredential } from "../verify/tpm-credential.ts"
import { spkiOf } from "../verify/tpm-signature.ts"
import type { Verified } from "../verify/verified.ts"
import type { AkEnrolment, TpmReference } from "./snapshot.ts"
import { failedBy } from "./validation-claims.ts"
import type { AkProof, Claim, Finding } from "./verdict.ts"

/** What the question how an attestation key is proven is answered from. */
export interface AkInput {
  /** A quote by the key, and what came with it. */
  readonly quoted: Verified<TpmAttestation>
  readonly evidence: TpmEvidence
  /**
   * Claims of a paravisor name the key. `compared`: the launch measurement is the snapshot's, so that it is known whose paravisor
   * speaks; anybody's virtual machine can write claims.
   */
  readonly paravisor: "compared" | "unknown" | null
  /** The TEE report commits to the key. */
  readonly bound: boolean
  readonly reference: TpmReference | null
  /** The user's directory; null: none, and then certificates say nothing. */
  readonly authorities: TpmAuthorities | null
  /** DER SubjectPublicKeyInfo of the endorsement key that the user knows the TPM by; null: none. */
  readonly endorsementKey: Uint8Array | null
  /** What a challenge to the TPM gave, or why there was none; null: none was tried. */
  readonly credential: CredentialAnswer | CodedError | null
  readonly at: Date
}

export interface AkJudgement {
  readonly claim: Claim
  readonly provenBy: AkProof
  /** For the snapshot: what was proven by certificates just now; null where nothing was. */
  readonly enrolment: AkEnrolment | null
}

/**
 * Judges what says that the attestation key is held by a TPM. Where the user named authorities or the TPM's own key, or the snapshot says
 * that it was proven, nothing less passes: what the VM sends or leaves out cannot lower it.
 */
export function appraiseAk(input: AkInput): AkJudgement {
  if (input.endorsementKey !== null) return byEndorsementKey(input, input.endorsementKey)
  if (input.paravisor === "compared") return byParavisor(input)
  if (input.authorities !== null) return byCertificates(input, input.authorities)
  const enrolled = input.reference?.ak_enrolment ?? null
  if (enrolled !== null)
    return isSameKey(input) ? byEnrolment(enrolled) : unproven(input, [anotherKey(input, enrolled)])
  return input.paravisor === null ? byNobody(input) : byParavisor(input)
}

function byParavisor({ paravisor }: AkInput): AkJudgement {
  const named = "claims that the TEE report covers name this key as that of the TPM inside the TEE"
  const claim: Claim =
    paravisor === "compared"
      ? passed("azure-claims", named, {})
      : {
          ...passed("azure-claims", named, {}),
          status: "warning",
          summary: `${named}; that it is Azure's paravisor which claims it rests on the launch measurement, which is compared with a snapshot's only`,
        }
  return { claim, provenBy: "azure-claims", enrolment: null }
}

const ENROLLED_BY: Readonly<Record<AkEnrolment["kind"], string>> = {
  "ak-certificate": "its certificate",
  "ek-certificate": "the TPM's certificate and a challenge to it",
  "ek-key": "an endorsement key that the administrator gave, and a challenge to its TPM",
}

function byEnrolment(enrolment: AkEnrolment): AkJudgement {
  const { kind, at } = enrolment
  const what =
    "certificate" in enrolment
      ? { certificate: enrolment.certificate }
      : { endorsementKey: enrolment.endorsement_key }
  return {
    claim: passed(
      "enrolled",
      `it is the key that was proven to be in a TPM when the snapshot was taken or enrolled, by ${ENROLLED_BY[kind]}`,
      { ...what, enrolledAt: at },
    ),
    provenBy: "enrolled",
    enrolment: null,
  }
}

/** The key in the file is the user's word, so that the TPM which opens what is made for it is the one that they mean. */
function byEndorsementKey(input: AkInput, spki: Uint8Array): AkJudgement {
  const { credential, quoted, at } = input
  try {
    if (credential === null) throw unasked()
    if (credential instanceof CodedError)
      throw isOtherTpm(credential) ? otherTpm(spki, credential) : credential
    verifyCredential(credential, spki, quoted.akName)
  } catch (error) {
    return unproven(input, failedBy("ak", "tpm", error).findings)
  }
  const enrolment = { kind: "ek-key", endorsement_key: fingerprint(spki), at: at.toISOString() } as const
  return {
    claim: passed(
      "ek-key",
      `the TPM with the endorsement key that was given has just shown that it holds the key`,
      {
        endorsementKey: enrolment.endorsement_key,
      },
    ),
    provenBy: "ek-key",
    enrolment,
  }
}

/** By the agent's word: one that lies about it proves nothing either. */
function isOtherTpm(error: CodedError): boolean {
  return error instanceof AgentError && /\bERR_TPM_NO_EK\b/.test(error.found ?? "")
}

function otherTpm(spki: Uint8Array, cause: CodedError): VerifyError<"ERR_TPM_EK_OTHER"> {
  return new VerifyError("ERR_TPM_EK_OTHER", {
    at: "endorsement key",
    expected: `a TPM with the key of --ek, SHA-256 ${fingerprint(spki)}`,
    found: "a TPM that does not have it",
    hint: "another TPM answers than the one whose key you have: do not trust this VM, or get the key of its TPM again",
    cause,
  })
}

function byCertificates(input: AkInput, authorities: TpmAuthorities): AkJudgement {
  const { akCertificate, ekCertificate } = input.evidence
  const findings: Finding[] = []
  for (const attempt of [
    ...(akCertificate === null ? [] : [() => byAkCertificate(input, akCertificate, authorities)]),
    ...(ekCertificate === null ? [] : [() => byEkCertificate(input, ekCertificate, authorities)]),
  ])
    try {
      return attempt()
    } catch (error) {
      findings.push(...failedBy("ak", "tpm", error).findings)
    }
  return unproven(input, findings.length === 0 ? [noCertificate()] : findings)
}

function byAkCertificate(input: AkInput, der: Uint8Array, authorities: TpmAuthorities): AkJudgement {
  const { evidence, at } = input
  const akSpki = spkiOf(parsePublic(evidence.akPublic))
  const found = verifyAkCertificate(der, evidence.certificates ?? [], authorities, akSpki, at)
  return byCertificate("ak-certificate", found, at, "vouches for the key itself")
}

function byEkCertificate(input: AkInput, der: Uint8Array, authorities: TpmAuthorities): AkJudgement {
  const { evidence, credential, quoted, at } = input
  const found = verifyEkCertificate(der, evidence.certificates ?? [], authorities, at)
  if (credential instanceof CodedError) throw credential
  if (credential !== null) {
    verifyCredential(credential, found.certificate.spki, quoted.akName)
    return byCertificate(
      "ek-certificate",
      found,
      at,
      "vouches for the TPM, which has just shown that it holds the key",
    )
  }
  const enrolled = input.reference?.ak_enrolment ?? null
  const same = enrolled !== null && "certificate" in enrolled && enrolled.certificate === fingerprint(der)
  if (same && isSameKey(input)) return byEnrolment(enrolled)
  throw unasked()
}

function unasked(): VerifyError<"ERR_TPM_AK_UNPROVEN"> {
  return new VerifyError("ERR_TPM_AK_UNPROVEN", {
    at: "attestation key",
    expected: "a TPM that shows that it holds the key",
    found: "evidence without a challenge to the TPM",
    hint: "verify the running VM, or use a snapshot that was enrolled (cosmian_vm enroll): saved evidence holds no challenge",
  })
}

function byCertificate(
  kind: "ak-certificate" | "ek-certificate",
  { certificate, root }: TpmCertificate,
  at: Date,
  what: string,
): AkJudgement {
  const instance = gceInstance(certificate)
  const enrolment = {
    kind,
    certificate: fingerprint(certificate.der),
    root: fingerprint(root.der),
    at: at.toISOString(),
  }
  const issuer = root.subject.commonName ?? "a root without name"
  return {
    claim: passed(kind, `a certificate under ${JSON.stringify(issuer)} ${what}`, {
      certificate: enrolment.certificate,
      root: enrolment.root,
      ...(instance === null
        ? {}
        : {
            instance: `${instance.project}/${instance.zone}/${instance.instanceName} (${instance.instanceId})`,
          }),
    }),
    provenBy: kind,
    enrolment,
  }
}

/** What is left where nobody vouches for the key: told, and no failure, as most TPMs of virtual machines have no certificate. */
function byNobody(input: AkInput): AkJudgement {
  const provenBy = unprovenBy(input)
  return {
    claim: {
      check: "ak",
      status: "warning",
      summary: `nothing proves that the key is held by a TPM: ${UNPROVEN[provenBy]}`,
      findings: [
        {
          code: "ERR_TPM_AK_UNPROVEN",
          subject: "attestation key",
          expected: "a certificate chain or an enrolment",
          found: provenBy,
          meaning:
            "whoever was root in the VM when that happened could have made the key in software, and could then state any boot and any list of files",
          remedy:
            "give the certificates of the TPM's maker by --tpm-ca DIR, at best when the snapshot is taken; where the TPM has no certificate, this stays so",
        },
      ],
      facts: { akProvenBy: provenBy },
    },
    provenBy,
    enrolment: null,
  }
}

type Unproven = Extract<AkProof, "snapshot" | "tee-report" | "none">

/** What says anything about the key, where no proof is. */
export const UNPROVEN: Readonly<Record<Unproven, string>> = {
  snapshot: "it is the key that the VM showed when the snapshot was taken",
  "tee-report": "the TEE report only shows that software in the VM chose it",
  none: "nobody says anything about it",
}

export function isUnproven(proof: AkProof): proof is Unproven {
  return proof in UNPROVEN
}

function unprovenBy(input: AkInput): Unproven {
  if (isSameKey(input)) return "snapshot"
  return input.bound ? "tee-report" : "none"
}

function unproven(input: AkInput, findings: readonly Finding[]): AkJudgement {
  const provenBy = unprovenBy(input)
  const claim: Claim = {
    check: "ak",
    status: "failed",
    failureClass: "tpm",
    summary: `it is not proven that the key is held by a TPM, and a proof is asked for`,
    findings,
    facts: { akProvenBy: provenBy },
  }
  return { claim, provenBy, enrolment: null }
}

function anotherKey({ quoted }: AkInput, { at }: AkEnrolment): Finding {
  return {
    code: "ERR_TPM_AK_UNPROVEN",
    subject: "attestation key",
    expected: `the key that was proven to be in a TPM at ${at}`,
    found: toHex(quoted.akName),
    meaning: "another key signed the quote, and nothing says that it is in a TPM",
    remedy:
      "do not trust this VM until it is explained; after a change of its TPM, take a new snapshot with --tpm-ca",
  }
}

function noCertificate(): Finding {
  return {
    code: "ERR_TPM_AK_UNPROVEN",
    subject: "attestation key",
    expected: "a certificate of the TPM, for --tpm-ca",
    found: "none in the evidence",
    meaning: "the VM shows no certificate for its TPM: there may be none, or software plays the TPM",
    remedy: "leave --tpm-ca out if this TPM has no certificate; the verdict then says what is not proven",
  }
}

function isSameKey({ reference, quoted }: AkInput): boolean {
  return reference !== null && reference.ak_name === toHex(quoted.akName)
}

function passed(provenBy: AkProof, summary: string, facts: Claim["facts"]): Claim {
  return { check: "ak", status: "passed", summary, findings: [], facts: { akProvenBy: provenBy, ...facts } }
}

/** SHA-256 over the DER, hex. */
function fingerprint(der: Uint8Array): string {
  return createHash("sha256").update(der).digest("hex")
}
