import { CodedError, VerifyError } from "../errors.ts"
import { type HclEnvelope, type HclKind, parseHclEnvelope } from "../formats/azure/hcl.ts"
import { describeHcl } from "../formats/describe/azure.ts"
import type { Shown } from "../formats/describe/shown.ts"
import { bytesEqual, shortHex, toHex } from "../formats/hex.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { parseKeyFile } from "../formats/tpm/key-file.ts"
import { type AzureClaims, type HclHardware, verifyHcl, verifyRuntimeData } from "../verify/azure.ts"
import { quoteKeyOf } from "../verify/stored-quote.ts"
import { bareKey, spkiOf } from "../verify/tpm-signature.ts"
import type { Verified } from "../verify/verified.ts"
import type { AttestationPolicy } from "./attestation-policy.ts"
import { type IntelJudgement, judgeQuote } from "./validate-intel.ts"
import { judgeSnpReport, type SnpInput } from "./validate-snp.ts"
import { judgeQuoteFiles, type QuoteFiles } from "./validate-tpm.ts"
import { failedBy, failedWith, type Judged, NOTHING, notJudged } from "./validation-claims.ts"
import type { Claim } from "./verdict.ts"

export interface AzureInput {
  /** The HCL report. */
  readonly blob: Uint8Array
  /** Over the TDREPORT inside `blob`; null: none, and a TDREPORT alone proves nothing. */
  readonly tdQuote: Uint8Array | null
  readonly quote: QuoteFiles
  readonly nonce: Uint8Array | null
  /** 64 bytes that the claims have to hold as user data; null: not compared. */
  readonly userData: Uint8Array | null
  readonly snp: SnpInput
  readonly intel: IntelJudgement
  readonly policy: AttestationPolicy
}

/** Judges an HCL report: `tee`, `revocation`, `tcb`, `binding` of its claims, and `tpm`, `boot` of the virtual TPM's quote. */
export function judgeAzure(kind: HclKind, input: AzureInput): Judged {
  const evidence = readable(() => describeHcl(input.blob))
  let envelope: HclEnvelope
  try {
    envelope = envelopeOf(kind, input.blob)
  } catch (error) {
    const rest = [
      notJudged("revocation", "tee", "tee"),
      notJudged("tcb", "tcb", "tee"),
      notJudged("binding", "binding", "tee"),
    ]
    return { ...NOTHING, evidence, claims: [failedBy("tee", "tee", error), ...rest, ...afterBinding()] }
  }
  const { judged, hardware } = judgeHardware(envelope, input)
  const { binding, claims } = judgeClaims(envelope, hardware, input)
  const tpm = claims === null ? { ...NOTHING, claims: afterBinding() } : judgeVirtualTpm(claims, input)
  return {
    tcb: judged.tcb,
    simulated: judged.simulated,
    evidence: { hcl: evidence, td_quote: kind === "tdx" ? judged.evidence : null, quote: tpm.evidence },
    bootLogs: tpm.bootLogs ?? [],
    claims: [...judged.claims, binding, ...tpm.claims],
  }
}

function envelopeOf(kind: HclKind, blob: Uint8Array): HclEnvelope {
  const envelope = parseHclEnvelope(blob)
  if (envelope.kind === kind) return envelope
  throw new VerifyError("ERR_HCL_REPORT_TYPE", {
    at: "HCL report",
    expected: `a hardware report of kind ${kind}`,
    found: envelope.kind,
    hint: `use --mode azure-${envelope.kind} if that is the machine you mean`,
  })
}

interface Hardware {
  readonly judged: Judged
  /** Null where it is not proven. */
  readonly hardware: HclHardware | null
}

function judgeHardware(envelope: HclEnvelope, input: AzureInput): Hardware {
  if (envelope.kind === "snp") {
    const judged = judgeSnpReport(parseSnpReport(envelope.hardwareReport), [], input.snp)
    return {
      judged,
      hardware: judged.proven === null ? null : { kind: "snp", attestation: judged.proven },
    }
  }
  if (input.tdQuote === null) return { judged: noTdQuote(), hardware: null }
  const judged = judgeQuote("tdx", input.tdQuote, input.intel)
  const attestation = judged.proven
  return {
    judged,
    hardware: attestation?.kind === "tdx" ? { kind: "tdx", attestation } : null,
  }
}

/** A TDREPORT is authenticated by a key that never leaves its processor. */
function noTdQuote(): Judged {
  return {
    ...NOTHING,
    claims: [
      failedWith("tee", "tee", {
        code: "ERR_TEE_ABSENT",
        subject: "TDX quote",
        expected: "a quote over the TDREPORT of the HCL report",
        found: "none",
        meaning:
          "a TDREPORT can be checked on its own processor only: nothing proves that the hardware made it",
        remedy: "have Azure's metadata service make a quote of it, and give that with --td-quote",
      }),
      notJudged("revocation", "tee", "tee"),
      notJudged("tcb", "tcb", "tee"),
    ],
  }
}

/** The claims are worth what the hardware says of them. That they do not fit the report is told in any case. */
function judgeClaims(
  envelope: HclEnvelope,
  hardware: HclHardware | null,
  { blob, userData }: AzureInput,
): { binding: Claim; claims: Verified<AzureClaims> | null } {
  try {
    verifyRuntimeData(envelope)
    if (hardware === null) return { binding: notJudged("binding", "binding", "tee"), claims: null }
    const pinned = userData !== null && isClaimsHash(userData)
    const claims = verifyHcl({ blob, hardware, userData: pinned ? null : userData })
    if (pinned) requireReportData(envelope, userData)
    return { binding: bindingClaim(envelope, claims, userData), claims }
  } catch (error) {
    return { binding: failedBy("binding", "binding", error), claims: null }
  }
}

/**
 * The user's value is either what the VM was asked with, which the claims hold as user data, or the report data itself: SHA-256
 * of the claims and 32 zeros. Its own form tells, and nothing that the VM sends.
 */
function isClaimsHash(value: Uint8Array): boolean {
  return value.subarray(32).every((byte) => byte === 0)
}

function requireReportData({ reportData }: HclEnvelope, expected: Uint8Array): void {
  if (!bytesEqual(reportData, expected))
    throw new VerifyError("ERR_BINDING_REPORT_DATA", {
      at: "hardware report, report data",
      expected: shortHex(expected, 64),
      found: shortHex(reportData, 64),
    })
}

function bindingClaim(envelope: HclEnvelope, claims: AzureClaims, expected: Uint8Array | null): Claim {
  const facts = {
    reportData: toHex(envelope.reportData),
    userData: claims.userData === null ? "" : toHex(claims.userData),
  }
  const vouched = "the hardware vouches for the paravisor's claims, and so for the key of its TPM"
  if (expected !== null)
    return {
      check: "binding",
      status: "passed",
      summary: `${vouched}; they were made for the expected value`,
      findings: [],
      facts,
    }
  return {
    check: "binding",
    status: "warning",
    summary: `${vouched}; no --report-data was given, so only a TPM quote for a nonce shows when`,
    findings: [],
    facts,
  }
}

function judgeVirtualTpm(
  claims: Verified<AzureClaims>,
  { quote, nonce, policy }: AzureInput,
): Pick<Judged, "claims" | "evidence" | "bootLogs"> {
  const nothingAsked =
    quote.quote === null && quote.signature === null && quote.pcrs === null && nonce === null
  if (nothingAsked && policy.tpm === null)
    return {
      evidence: null,
      claims: [
        {
          check: "tpm",
          status: "warning",
          summary:
            "no quote of the virtual TPM was given: nothing shows what booted, nor that the report is new",
          findings: [],
          facts: {},
        },
      ],
    }
  try {
    requireSameKey(claims, quote.ak)
  } catch (error) {
    return {
      evidence: null,
      claims: [failedBy("tpm", "tpm", error), notJudged("boot", "boot", "tpm")],
    }
  }
  // Azure's virtual TPM signs by this scheme alone; the claims hold the bare key.
  const key = bareKey(claims.akSpki, { scheme: ALG.rsassa, hash: ALG.sha256 })
  return judgeQuoteFiles(quote, nonce, policy, {
    key: { key, name: null },
    by: "the paravisor's claims name",
  })
}

/** The key that the user names decides nothing, but has to be the claims' own. */
function requireSameKey({ akSpki }: AzureClaims, ak: Uint8Array | null): void {
  if (ak === null) return
  const found = spkiOf(quoteKeyOf(parseKeyFile(ak)).key)
  if (!bytesEqual(found, akSpki))
    throw new VerifyError("ERR_AZURE_AK", {
      at: "attestation key",
      expected: "HCLAkPub of the runtime claims",
      found: "another key",
      hint: "the quote was made by another TPM or key than the one inside the TEE",
    })
}

function afterBinding(): Claim[] {
  return [notJudged("tpm", "tpm", "binding"), notJudged("boot", "boot", "binding")]
}

function readable(read: () => Shown): Shown {
  try {
    return read()
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}
