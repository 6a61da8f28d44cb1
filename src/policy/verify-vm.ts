import { type CodedError, type FailureClass, VerifyError } from "../errors.ts"
import { exporterNonce } from "../formats/channel-binding.ts"
import {
  committedBytes,
  EVIDENCE_PCRS,
  type Evidence,
  evidenceQualifyingData,
  evidenceReportData,
  type TpmEvidence,
} from "../formats/evidence.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { parseMeasurementList } from "../formats/ima/measurement-list.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import { type AzureClaims, verifyAzureQuote, verifyHcl } from "../verify/azure.ts"
import { type QuotedMeasurements, verifyMeasurementList } from "../verify/ima.ts"
import type { ImaKey } from "../verify/ima-signature.ts"
import type { NitroAnchor, NitroTpmStatement } from "../verify/nitro-tpm.ts"
import { type TpmAttestation, verifyQuote } from "../verify/tpm.ts"
import type { TpmAuthorities } from "../verify/tpm-certificate.ts"
import type { CredentialAnswer } from "../verify/tpm-credential.ts"
import { spkiOf } from "../verify/tpm-signature.ts"
import type { Verified } from "../verify/verified.ts"
import { appraiseAk } from "./ak.ts"
import { type ApplicationProbe, appraiseApplications } from "./application.ts"
import { assuranceOf } from "./assurance.ts"
import type { AttestationPolicy } from "./attestation-policy.ts"
import { type BootLog, NO_LOG, readBootLog } from "./boot-log.ts"
import { type ProvenTd, provenTd, tdBootClaim, tdFindings } from "./boot-rtmr.ts"
import { explain, withSnapshotNotes } from "./explain.ts"
import { appraiseIma } from "./ima.ts"
import { imaArgumentsOf } from "./ima-command-line.ts"
import type { KnownImaPolicy } from "./ima-coverage.ts"
import type { ImaExpectations } from "./ima-expectations.ts"
import { appraiseNitro, type NitroJudgement, NO_NITRO, nitroPcr10, withNitro } from "./nitro.ts"
import { policyFindings } from "./policy-requirements.ts"
import { type ProvenTee, proveTee, type TeeInput } from "./prove-tee.ts"
import type { AkEnrolment } from "./snapshot.ts"
import { appraiseTpm } from "./tpm.ts"
import { alsoFailing, failedBy, failedWith, notJudged } from "./validation-claims.ts"
import { type AkProof, CHECKS, type Check, type Claim, exitCodeOf, type Verdict } from "./verdict.ts"
import type { Whitelist } from "./whitelist.ts"

/** The connection that carried the evidence, as the client saw it. */
export interface Channel {
  /** DER SubjectPublicKeyInfo of the leaf certificate of that very connection. */
  readonly spki: Uint8Array
  /** Whether a web certificate authority vouches for the certificate and the host name. */
  readonly authorized: boolean
  /** Why not, where it does not. */
  readonly reason: string | null
  /** The user said that no authority is needed (`--allow-insecure-tls`). */
  readonly insecureAllowed: boolean
  /** The certificate holds evidence that its key is in the TEE, and the client verified it before it sent anything (`--ratls`). */
  readonly attested?: boolean
  /**
   * When whoever saved the evidence says that they collected it. Absent: the verifier's own connection, just now. Present: nonce
   * and all of the above are that person's word.
   */
  readonly savedAt?: Date
  /**
   * 32 bytes of that very connection (RFC 9266) that report and quote have to cover. Absent: they cover the key alone, and whoever has
   * a copy of it could have passed on what the VM says on another connection.
   */
  readonly exporter?: Uint8Array
}

/** Everything that one verdict is made from. Time, nonce and anchors are the verifier's own. */
export interface JudgeInput extends TeeInput {
  readonly target: string
  /** 32 random bytes that the verifier drew for this verification; of evidence that vouches for a sealing key, 64 that cover both. */
  readonly nonce: Uint8Array
  readonly evidence: Evidence
  readonly channel: Channel
  readonly whitelist: Whitelist
  /** Keys that files may be signed with instead of being in the snapshot; none where absent. */
  readonly imaKeys?: readonly ImaKey[]
  readonly applications: readonly ApplicationProbe[]
  /** Checks that the user asked to leave out, by name. */
  readonly skip: ReadonlySet<Check>
  /** Whom to believe about TPMs. Present: that the attestation key is in a TPM has to be proven by their certificates. */
  readonly tpmAuthorities?: TpmAuthorities | null
  /** Roots that NitroTPM documents may rest on; absent: none. */
  readonly nitroAnchors?: readonly NitroAnchor[]
  /** DER SubjectPublicKeyInfo of the endorsement key that the TPM has to have; absent or null: any. */
  readonly endorsementKey?: Uint8Array | null
  /** What a challenge to the TPM gave, or why there was none; absent: none was tried. */
  readonly credential?: CredentialAnswer | CodedError | null
  /** Restarts are no failure where TPM key and boot PCRs are the snapshot's. Absent: they are. */
  readonly acceptReboot?: boolean
  /** Requirements beside those of the snapshot; none where null or absent. */
  readonly policy?: AttestationPolicy | null
  /** Whether violations fail, whatever the policy says; absent: as the policy says, and they do without one. */
  readonly violations?: "fail" | "report"
  /** Texts of IMA policies, beside that of the packages. */
  readonly imaPolicies?: readonly KnownImaPolicy[]
}

/** The verdict, and what was proven on the way (null: not proven). */
export interface Judgement {
  readonly verdict: Verdict
  readonly tee: ProvenTee | null
  readonly tpm: Verified<TpmAttestation> | null
  readonly ima: Verified<QuotedMeasurements> | null
  /** How the attestation key was proven by certificates just now; null: it was not. */
  readonly enrolment: AkEnrolment | null
  readonly boot: BootLogs
  /** What AWS signed about the TPM; null: nothing, or something is wrong with it. */
  readonly nitro: Verified<NitroTpmStatement> | null
}

/** What the event logs of a VM are worth. */
export interface BootLogs {
  /** The firmware's, compared with the TPM's quote. */
  readonly tcg: BootLog
  /** That of a trust domain, compared with its quote; null where the VM is none. */
  readonly td: ProvenTd | null
}

/**
 * Judges evidence, in the order channel, TEE, revocation, TCB, binding, TPM, reboot, boot, IMA, applications. Never throws on hostile
 * evidence: a check that cannot be made is a failed check.
 */
export function judge(input: JudgeInput): Judgement {
  const channel = asSaved(judgeChannel(input.channel), input.channel.savedAt)
  const tee = proveTeePart(input)
  const binding = judgeBinding(input, tee.proven)
  const td = provenTd(tee.proven, input.evidence)
  const tpm = proveTpm(input, tee.proven, td)
  const boot = { tcg: tpm.log, td }
  const ak = judgeAk(input, tee, binding, tpm.proven)
  const ima = proveIma(input, tpm)
  const attestedSpki = binding.status === "passed" ? input.channel.spki : null
  const applications =
    input.applications.length > 0 ? [appraiseApplications(input.applications, attestedSpki)] : []

  const made = [channel, ...tee.claims, binding, ...tpm.claims, ...ak.claims, ima.claim, ...applications]
  const required = policyFindings(input.policy ?? null, {
    tee: tee.proven,
    tpm: tpm.proven,
    boot,
    at: input.at,
  })
  const claims = inOrder(made)
    .map((claim) => alsoFailing(claim, classOf(claim.check), required[claim.check] ?? []))
    .map((claim) => withSnapshotNotes(claim, input.reference))
    .map((claim) => (input.skip.has(claim.check) ? skipped(claim) : claim))
  const exitCode = exitCodeOf(claims)
  const explanation = explain(claims)
  return {
    verdict: {
      passed: exitCode === 0,
      target: input.target,
      at: input.at.toISOString(),
      simulated: tee.proven?.attestation.anchor.simulated === true || tpm.nitro.simulated,
      assurance: assuranceOf(claims, {
        tee: tee.proven,
        nitro: tpm.nitro,
        akProvenBy: ak.provenBy,
        reference: input.reference,
      }),
      skipped: CHECKS.filter((check) => input.skip.has(check)),
      claims,
      exitCode,
      ...(explanation === undefined ? {} : { explanation }),
    },
    tee: tee.proven,
    tpm: tpm.proven,
    ima: ima.proven,
    enrolment: ak.enrolment,
    boot,
    nitro: tpm.nitro.statement,
  }
}

function judgeChannel(channel: Channel): Claim {
  const facts = {
    spki: shortHex(channel.spki.subarray(-16), 16),
    authorized: channel.authorized,
    ...(channel.attested === true ? { ratls: true } : {}),
  }
  if (channel.attested === true)
    return {
      check: "channel",
      status: "passed",
      summary: "TLS certificate with evidence of the TEE, verified before anything was sent",
      findings: [],
      facts,
    }
  if (channel.authorized)
    return {
      check: "channel",
      status: "passed",
      summary: "TLS certificate vouched for by a certificate authority",
      findings: [],
      facts,
    }
  const reason = channel.reason ?? "unknown reason"
  if (channel.insecureAllowed)
    return {
      check: "channel",
      status: "warning",
      summary: `TLS certificate not vouched for by an authority (${reason}), allowed by --allow-insecure-tls; the binding check has to prove the key`,
      findings: [],
      facts,
    }
  return failedWith("channel", "channel", {
    code: "ERR_CHANNEL_UNTRUSTED",
    subject: "TLS certificate",
    expected: "a certificate that a known authority signed for this host",
    found: reason,
    meaning: "the certificate alone does not say who answers",
    remedy:
      "add --allow-insecure-tls: the TEE report then proves the key instead, or install a certificate with certtool",
  })
}

/** What a file cannot prove to whoever did not make it. The TEE's and the TPM's signatures hold all the same. */
function asSaved(claim: Claim, savedAt: Date | undefined): Claim {
  if (savedAt === undefined) return claim
  const facts = { ...claim.facts, savedEvidence: true, collectedAt: savedAt.toISOString() }
  if (claim.status === "failed") return { ...claim, facts }
  return {
    ...claim,
    status: "warning",
    summary: `saved evidence, collected ${savedAt.toISOString()} by its own account: freshness, connection and answers of applications were seen by the one who saved it and are not proven here; they saw: ${claim.summary}`,
    facts,
  }
}

interface Proof<T> {
  readonly proven: Verified<T> | null
  readonly claims: readonly Claim[]
}

function proveTeePart(input: JudgeInput): { proven: ProvenTee | null; claims: readonly Claim[] } {
  const { tee } = input.evidence
  if (tee === null) {
    const absent = {
      code: "ERR_TEE_ABSENT" as const,
      subject: "TEE report",
      expected: "a report of SEV-SNP or a quote of TDX",
      found: "none",
      meaning:
        "the machine gave no proof that it is a confidential VM; its operator may read and change everything in it",
      remedy:
        "run it as a confidential VM; on a machine without TEE: --skip tee --skip revocation --skip tcb --skip binding, and the verdict says so",
    }
    return {
      proven: null,
      claims: [
        failedWith("tee", "tee", absent),
        notJudged("revocation", "tee", "tee"),
        notJudged("tcb", "tcb", "tee"),
      ],
    }
  }
  return proveTee(tee, input)
}

function judgeBinding(input: JudgeInput, tee: ProvenTee | null): Claim {
  if (tee === null) return notJudged("binding", "binding", "tee")
  try {
    const ak = input.evidence.tpm === null ? null : parsePublic(input.evidence.tpm.akPublic)
    const expected = evidenceReportData(nonceOf(input), input.channel.spki, ak === null ? null : tpmName(ak))
    if (tee.paravisor !== null) {
      const { blob, hardware } = tee.paravisor
      const claims = verifyHcl({ blob, hardware, userData: expected })
      if (ak !== null) verifyClaimedAk(claims, spkiOf(ak))
    } else if (!bytesEqual(expected, reportDataOf(tee))) return unbound(expected, reportDataOf(tee))
    const bound = input.channel.exporter === undefined ? "the TLS key" : "the TLS session, its key"
    const what = ak === null ? `${bound} and the nonce` : `${bound}, the TPM's attestation key and the nonce`
    const who = tee.paravisor === null ? "the TEE report commits" : "the paravisor's claims commit"
    return {
      check: "binding",
      status: "passed",
      summary: `${who} to ${what} of ${input.channel.savedAt === undefined ? "this connection" : "the connection in the saved evidence"}`,
      findings: [],
      facts: {
        reportData: shortHex(expected, 64),
        boundTo: input.channel.exporter === undefined ? "tls-key" : "tls-exporter",
      },
    }
  } catch (error) {
    return failedBy("binding", "binding", error)
  }
}

/** What the evidence has to be made for. Which binding it is says the verifier's side, and never the evidence. */
function nonceOf({ nonce, channel }: JudgeInput): Uint8Array {
  return channel.exporter === undefined ? nonce : exporterNonce(nonce, channel.exporter)
}

function reportDataOf({ attestation }: ProvenTee): Uint8Array {
  return "quote" in attestation ? attestation.quote.body.reportData : attestation.report.reportData
}

function unbound(expected: Uint8Array, found: Uint8Array): Claim {
  return failedWith("binding", "binding", {
    code: "ERR_BINDING_REPORT_DATA",
    subject: "report_data",
    expected: shortHex(expected),
    found: shortHex(found),
    meaning:
      "the report was not made for this connection: the TLS connection ends outside the VM (a relay or proxy), or the report is an old one, or the TPM key is another's",
    remedy:
      "reach the agent without a proxy that ends TLS; if there is none, somebody is in between: do not send secrets",
  })
}

/** The virtual TPM that the TEE vouches for is the one that answers. @throws VerifyError ERR_AZURE_AK */
function verifyClaimedAk(claims: AzureClaims, akSpki: Uint8Array): void {
  if (!bytesEqual(claims.akSpki, akSpki))
    throw new VerifyError("ERR_AZURE_AK", {
      at: "attestation key",
      expected: `HCLAkPub, ${shortHex(claims.akSpki.subarray(-16), 16)}`,
      found: shortHex(akSpki.subarray(-16), 16),
      hint: "the quote is by another TPM or key than the one inside the TEE",
    })
}

function proveTpm(
  input: JudgeInput,
  proven: ProvenTee | null,
  td: ProvenTd | null,
): Proof<TpmAttestation> & { readonly log: BootLog; readonly nitro: NitroJudgement } {
  const { tpm, tee } = input.evidence
  if (tpm === null) {
    const absent = {
      code: "ERR_TPM_ABSENT" as const,
      subject: "TPM quote",
      expected: "a quote over PCRs 0-15",
      found: "none",
      meaning: "without a TPM nothing proves what booted and what ran",
      remedy:
        "give the VM a (v)TPM; without one: --skip tpm --skip reboot --skip boot --skip ima, and the verdict says so",
    }
    const [reboot, boot] = afterTpm()
    const byTd = td === null ? null : tdBootClaim(td, input.reference)
    const claims = [failedWith("tpm", "tpm", absent), reboot, byTd ?? boot]
    return { proven: null, log: NO_LOG, nitro: NO_NITRO, claims }
  }
  try {
    const committed = tee === null ? null : committedBytes(tee)
    const qualifyingData = evidenceQualifyingData(nonceOf(input), input.channel.spki, committed)
    const vouched = proven?.paravisor?.claims ?? null
    const quoted = quoteOf(tpm, qualifyingData, vouched)
    const log = readBootLog(input.evidence.eventLog, bootPcrs(quoted), {
      kind: "tcg",
      bank: "sha256",
      claimedCommandLine: input.evidence.kernelCommandLine,
    })
    const {
      tpm: identity,
      reboot,
      boot,
    } = appraiseTpm(quoted, input.reference, {
      acceptReboot: input.acceptReboot === true,
      log,
    })
    const facts = vouched === null ? {} : { akVouchedBy: "paravisor" }
    const shown = { ...identity, facts: { ...identity.facts, ...facts } }
    const explained = td === null ? boot : alsoFailing(boot, "boot", tdFindings(td, input.reference))
    const nitro = appraiseNitro({
      document: tpm.nitroDocument,
      binding: qualifyingData,
      anchors: input.nitroAnchors ?? [],
      reference: input.reference?.tpm_reference?.nitro_tpm ?? null,
      log,
      eventLog: input.evidence.eventLog,
      at: input.at,
    })
    const [judged, booted] = withNitro(shown, explained, nitro)
    return { proven: quoted, log, nitro, claims: [judged, reboot, booted] }
  } catch (error) {
    const claims = [failedBy("tpm", "tpm", error), ...afterTpm()]
    return { proven: null, log: NO_LOG, nitro: NO_NITRO, claims }
  }
}

/**
 * A quote by the key that is shown. Where a TEE vouches for the TPM, that has to be the key of its claims. These hold a bare
 * key: that it has the attributes which are shown rests on the paravisor.
 */
function quoteOf(
  tpm: TpmEvidence,
  qualifyingData: Uint8Array,
  vouched: Verified<AzureClaims> | null,
): Verified<TpmAttestation> {
  const expected = { qualifyingData, pcrSelection: EVIDENCE_PCRS }
  if (vouched !== null)
    verifyAzureQuote(vouched, { ...tpm, akSpki: spkiOf(parsePublic(tpm.akPublic)) }, expected)
  return verifyQuote(tpm, expected)
}

/** Nothing to ask where no quote was proven: unless a proof is asked for, which is then not given. */
function judgeAk(
  input: JudgeInput,
  tee: { readonly proven: ProvenTee | null; readonly claims: readonly Claim[] },
  binding: Claim,
  quoted: Verified<TpmAttestation> | null,
): { provenBy: AkProof | null; enrolment: AkEnrolment | null; claims: readonly Claim[] } {
  const { evidence, at, credential = null, tpmAuthorities: authorities = null, endorsementKey = null } = input
  const reference = input.reference?.tpm_reference ?? null
  if (quoted === null || evidence.tpm === null) {
    const asked = authorities !== null || endorsementKey !== null || reference?.ak_enrolment !== undefined
    return { provenBy: null, enrolment: null, claims: asked ? [notJudged("ak", "tpm", "tpm")] : [] }
  }
  const teePassed = tee.claims.some(({ check, status }) => check === "tee" && status === "passed")
  const compared = teePassed && input.reference !== null ? "compared" : "unknown"
  const { claim, provenBy, enrolment } = appraiseAk({
    quoted,
    evidence: evidence.tpm,
    paravisor: tee.proven?.paravisor == null ? null : compared,
    bound: binding.status === "passed",
    reference,
    authorities,
    endorsementKey,
    credential,
    at,
  })
  return { provenBy, enrolment, claims: [claim] }
}

/** PCR 10 is IMA's, and in no event log. */
function bootPcrs({ pcrSelection, pcrs }: Verified<TpmAttestation>): Map<number, Uint8Array> {
  const values = pcrSelection.map((pcr, index) => [pcr, pcrs[index] ?? new Uint8Array(0)] as const)
  return new Map(values.filter(([pcr]) => pcr !== 10))
}

function afterTpm(): [reboot: Claim, boot: Claim] {
  return [notJudged("reboot", "reboot", "tpm"), notJudged("boot", "boot", "tpm")]
}

function proveIma(
  input: JudgeInput,
  { proven: tpm, claims, log, nitro }: ReturnType<typeof proveTpm>,
): { proven: Verified<QuotedMeasurements> | null; claim: Claim } {
  const { ima } = input.evidence
  const pcr10 = tpm?.pcrs[10]
  if (tpm === null || pcr10 === undefined) return { proven: null, claim: notJudged("ima", "ima", "tpm") }
  if (ima === null || ima.from !== 0) {
    const absent = {
      code: "ERR_IMA_ABSENT" as const,
      subject: "IMA measurement list",
      expected: "the list from its first entry",
      found: ima === null ? "none" : `a list from entry ${ima.from}`,
      meaning: "nothing says which files ran",
      remedy: "install the IMA policy of the package as /etc/ima/ima-policy in the VM, and reboot it",
    }
    return { proven: null, claim: failedWith("ima", "ima", absent) }
  }
  try {
    const proven = verifyMeasurementList(parseMeasurementList(ima.list), pcr10, nitroPcr10(nitro))
    return {
      proven,
      claim: appraiseIma(proven, input.reference, {
        whitelist: input.whitelist,
        pcrs: tpm.pcrs,
        at: input.at,
        imaKeys: input.imaKeys ?? [],
        expectations: imaExpectations(input),
        knownPolicies: input.imaPolicies ?? [],
        commandLine: isBootPassed(input, claims)
          ? imaArgumentsOf(log, input.policy?.boot?.commandLine.initrds)
          : null,
      }),
    }
  } catch (error) {
    return { proven: null, claim: failedBy("ima", "ima", error) }
  }
}

/** What a boot loader measured says what the kernel was given only where the boot loader is the one that is expected. */
function isBootPassed({ skip }: JudgeInput, claims: readonly Claim[]): boolean {
  return !skip.has("boot") && claims.some(({ check, status }) => check === "boot" && status === "passed")
}

/** What the command line says of violations stands above what the policy's file says. */
function imaExpectations({ policy, violations }: JudgeInput): ImaExpectations | null {
  const ima = policy?.ima ?? null
  return violations === undefined ? ima : { required: ima?.required ?? [], violations: { mode: violations } }
}

/** The failure class of what a policy does not accept. */
function classOf(check: Check): FailureClass {
  if (check === "ak") return "tpm"
  return check === "revocation" ? "tee" : check
}

function skipped(claim: Claim): Claim {
  const would = claim.status === "failed" ? "it would have failed" : "it would have passed"
  return {
    check: claim.check,
    status: "skipped",
    summary: `left out by --skip ${claim.check}; ${would}`,
    findings: claim.findings,
    facts: claim.facts,
  }
}

function inOrder(claims: readonly Claim[]): Claim[] {
  return CHECKS.flatMap((check) => claims.filter((claim) => claim.check === check))
}
