import type { ErrorCode } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { TD_ATTRIBUTE, TD_UNTRUSTED } from "../formats/tdx/body.ts"
import type { TcbEvaluation } from "../verify/intel-tcb.ts"
import type { TdxAttestation } from "../verify/tdx.ts"
import {
  type AttestationPolicy,
  DEFAULT_SOURCE,
  type OneOf,
  type TdxExpectations,
} from "./attestation-policy.ts"
import { mismatch, notOneOf, policyClaim, silentPolicy } from "./policy-findings.ts"
import type { Claim, Finding } from "./verdict.ts"

const DEBUG = 1n << TD_ATTRIBUTE.debug
const MIGRATABLE = 1n << TD_ATTRIBUTE.migratable

/**
 * Appraises a genuine TDX quote by a policy: every mismatch is a finding. A TCB status other than UpToDate passes only where
 * the policy accepts it at `at`, with all its advisories.
 */
export function appraiseTdxByPolicy(
  attestation: TdxAttestation,
  policy: AttestationPolicy,
  at: Date,
): { tee: Claim; tcb: Claim } {
  const { tdx } = policy
  const { anchor, quote } = attestation
  const hardware = anchor.simulated ? "SIMULATED Intel TDX" : "Intel TDX"
  const means =
    policy.source === DEFAULT_SOURCE
      ? "no policy says which software it has to run"
      : `it is as ${policy.source} wants it`
  const tee = policyClaim({
    check: "tee",
    failureClass: "tee",
    findings: tdx === null ? [silentPolicy(policy, "Intel TDX", "[tdx]")] : bodyFindings(attestation, tdx),
    warnings: tdx === null ? [] : bodyWarnings(attestation, tdx, policy),
    summary: `${hardware} platform, chain ends at the pinned ${anchor.name}; ${means}`,
    facts: {
      anchor: anchor.name,
      revocation: attestation.revocation,
      quoteVersion: quote.header.version,
      bodyVersion: quote.body.version,
      mrTd: toHex(quote.body.mrTd),
      ...Object.fromEntries(quote.body.rtmrs.map((rtmr, index) => [`rtmr${index}`, toHex(rtmr)])),
      mrSeam: toHex(quote.body.mrSeam),
      tdAttributes: hex(quote.body.tdAttributes),
      xfam: hex(quote.body.xfam),
      teeTcbSvn: toHex(quote.body.teeTcbSvn),
    },
  })
  return { tee, tcb: appraiseStatus(attestation, tdx, at) }
}

type Value = readonly [code: ErrorCode, subject: string, found: Uint8Array, expected: OneOf, meaning: string]

function bodyFindings({ quote }: TdxAttestation, tdx: TdxExpectations): Finding[] {
  const { body, header } = quote
  const configured = "the TD was built with another configuration or owner"
  const values: readonly Value[] = [
    [
      "ERR_TEE_MEASUREMENT",
      "mr_td",
      body.mrTd,
      tdx.mrTds,
      "the TD was built from other firmware or settings",
    ],
    ["ERR_TDX_SEAM", "mr_seam", body.mrSeam, tdx.mrSeams, "another TDX module runs on the platform"],
    ["ERR_TDX_CONFIGURATION", "mr_config_id", body.mrConfigId, tdx.mrConfigIds, configured],
    ["ERR_TDX_CONFIGURATION", "mr_owner", body.mrOwner, tdx.mrOwners, configured],
    ["ERR_TDX_CONFIGURATION", "mr_owner_config", body.mrOwnerConfig, tdx.mrOwnerConfigs, configured],
    [
      "ERR_TEE_REPORT_DATA",
      "report_data",
      body.reportData,
      tdx.reportData,
      "the quote was made for another request, or by other software",
    ],
    [
      "ERR_QUOTE_VENDOR",
      "qe_vendor_id",
      header.qeVendorId,
      tdx.qeVendorIds,
      "another vendor's enclave made the quote",
    ],
  ]
  const rtmrs = body.rtmrs.flatMap((rtmr, index) =>
    notOneOf("ERR_TDX_RTMR", `rtmr${index}`, rtmr, tdx.rtmrs[index] ?? null, RTMR_MEANING[index] ?? ""),
  )
  return [
    ...attributeFindings(body.tdAttributes, tdx),
    ...numberFindings("ERR_TDX_XFAM", "xfam", body.xfam, tdx.xfam, "the TD may use other processor features"),
    ...values.flatMap((value) => notOneOf(...value)),
    ...rtmrs,
  ]
}

/** Source: TCG and UEFI Forum, UEFI 2.11, section 38.4.1 "Intel Trust Domain Extension". */
const RTMR_MEANING = [
  "the firmware's configuration differs",
  "another boot loader or kernel was started",
  "another kernel command line, initial RAM disk or application was started",
  "software of the TD measured something else",
] as const

function attributeFindings(attributes: bigint, tdx: TdxExpectations): Finding[] {
  const findings: Finding[] = []
  const debug = (attributes & DEBUG) !== 0n
  if (debug && tdx.debug === "refused")
    findings.push(
      mismatch("ERR_TEE_DEBUG", "td_attributes debug", "clear", "set", {
        meaning: "the host may read and write the TD's memory",
        remedy: "start the TD without debugging",
      }),
    )
  if (!debug && tdx.debug === "required")
    findings.push(
      mismatch("ERR_TDX_ATTRIBUTES", "td_attributes debug", "set", "clear", {
        meaning: "the policy is for a TD that may be debugged, and this is none",
      }),
    )
  // As with SEV-SNP: whoever wants this says so, by fixing all attributes.
  if ((attributes & MIGRATABLE) !== 0n && tdx.tdAttributes === null)
    findings.push(
      mismatch("ERR_TEE_MIGRATION", "td_attributes migratable", "clear", "set", {
        meaning: "a migration TD may move the TD to another platform, with its memory",
        remedy: "start the TD without migration, or fix td_attributes in the policy",
      }),
    )
  // The other bits that make a TD untrusted have no meaning yet: nothing can allow them.
  const unknown = attributes & TD_UNTRUSTED & ~DEBUG
  if (unknown !== 0n)
    findings.push(
      mismatch("ERR_TDX_ATTRIBUTES", "td_attributes", "bits 1 to 7 clear", hex(attributes), {
        meaning: "the TD has an attribute that makes it untrusted",
        remedy: "start the TD without it",
      }),
    )
  const meaning = "the TD was built with other attributes"
  return [
    ...findings,
    ...numberFindings("ERR_TDX_ATTRIBUTES", "td_attributes", attributes, tdx.tdAttributes, meaning),
  ]
}

function numberFindings(
  code: ErrorCode,
  subject: string,
  found: bigint,
  expected: bigint | null,
  meaning: string,
): Finding[] {
  if (expected === null || expected === found) return []
  return [mismatch(code, subject, hex(expected), hex(found), { meaning })]
}

function bodyWarnings({ quote }: TdxAttestation, tdx: TdxExpectations, policy: AttestationPolicy): Finding[] {
  const warnings: Finding[] = []
  if ((quote.body.tdAttributes & DEBUG) !== 0n)
    warnings.push(
      mismatch("ERR_TEE_DEBUG", "td_attributes debug", "clear", "set", {
        meaning: "the host may read and write the TD's memory; the policy accepts that",
        remedy: "use this for tests only",
      }),
    )
  if (policy.source !== DEFAULT_SOURCE && tdx.mrTds === null)
    warnings.push(
      mismatch("ERR_TEE_MEASUREMENT", "mr_td", "a value in the policy", "none", {
        meaning: "the policy fixes no measurement: any firmware may run",
        remedy: "write the measurement into the policy",
      }),
    )
  return warnings
}

function appraiseStatus(attestation: TdxAttestation, tdx: TdxExpectations | null, at: Date): Claim {
  const { tcb, quote } = attestation
  const findings = [
    ...(tcb === null ? [notEvaluated()] : statusFindings(tcb, tdx, at)),
    ...(tdx === null ? [] : svnFindings(attestation, tdx)),
  ]
  const status = tcb?.status ?? "unknown"
  return policyClaim({
    check: "tcb",
    failureClass: "tcb",
    findings,
    warnings: [],
    summary:
      status === "UpToDate"
        ? "the platform is up to date"
        : `the policy accepts TCB status ${status}${tcb === null ? "" : advisoriesText(tcb)} for now`,
    facts: {
      status,
      ...tcbFacts(tcb),
      teeTcbSvn: toHex(quote.body.teeTcbSvn),
    },
  })
}

/** What Intel's documents say about a platform; nothing where it was not compared with them. */
export function tcbFacts(tcb: TcbEvaluation | null): Claim["facts"] {
  if (tcb === null) return {}
  return {
    date: tcb.date.toISOString(),
    advisories: tcb.advisories.join(", "),
    evaluationDataNumber: tcb.evaluationDataNumber,
    fmspc: toHex(tcb.fmspc),
  }
}

/** The finding where the check of the TCB was left out. */
export function notEvaluated(): Finding {
  return mismatch("ERR_TCB_NOT_EVALUATED", "TCB status", "UpToDate", "unknown", {
    meaning: "the platform was not compared with Intel's documents",
    remedy: "give the collateral, or leave this check out by --skip tcb",
  })
}

/** What is wrong with a TCB of Intel's, for TDX and SGX alike. */
export function statusFindings(tcb: TcbEvaluation, tdx: TdxExpectations | null, at: Date): Finding[] {
  const findings: Finding[] = []
  const minimum = tdx?.minimumEvaluationNumber ?? 0
  if (tcb.evaluationDataNumber < minimum)
    findings.push(
      mismatch(
        "ERR_TCB_EVALUATION",
        "tcbEvaluationDataNumber",
        `${minimum} or higher`,
        `${tcb.evaluationDataNumber}`,
        {
          meaning: "the platform was judged by documents that do not know the newest weaknesses",
          remedy: "fetch newer collateral",
        },
      ),
    )
  if (tcb.status === "UpToDate") return findings
  const refusal = whyNotAccepted(tcb, tdx, at)
  if (refusal === null) return findings
  const text = `${tcb.status}${advisoriesText(tcb)}`
  return [
    ...findings,
    mismatch("ERR_TCB_STATUS", "TCB status", "UpToDate", text, {
      meaning: `Intel says that the platform is ${text}; ${refusal}`,
      remedy:
        "have the platform updated; or weigh the advisories and accept them for a while under [[tdx.accept]] in the policy",
    }),
  ]
}

/** Null where some entry of the policy accepts the status now. */
function whyNotAccepted(tcb: TcbEvaluation, tdx: TdxExpectations | null, at: Date): string | null {
  const entries = (tdx?.accept ?? []).filter(({ status }) => status === tcb.status)
  if (entries.length === 0) return "the policy does not accept that"
  const current = entries.filter(({ until }) => at.getTime() <= until.getTime())
  if (current.length === 0) {
    const last = Math.max(...entries.map(({ until }) => until.getTime()))
    return `the policy accepted that until ${new Date(last).toISOString()}`
  }
  const missing = current.map(({ advisories }) =>
    advisories === null ? [] : tcb.advisories.filter((advisory) => !advisories.includes(advisory)),
  )
  const fewest = missing.toSorted((a, b) => a.length - b.length)[0] ?? []
  return fewest.length === 0 ? null : `the policy does not accept ${fewest.join(", ")}`
}

function svnFindings({ quote }: TdxAttestation, tdx: TdxExpectations): Finding[] {
  const below = (subject: string, minimum: number, found: number): Finding[] =>
    found >= minimum
      ? []
      : [
          mismatch("ERR_TCB_BELOW", subject, `${minimum} or higher`, `${found}`, {
            meaning: "the platform is below the policy's least TCB",
            remedy: "have the platform updated",
          }),
        ]
  const { minimumTeeTcbSvn, minimumQeSvn, minimumPceSvn } = tdx
  const components = [...quote.body.teeTcbSvn].flatMap((found, index) =>
    below(`tee_tcb_svn component ${index}`, minimumTeeTcbSvn?.[index] ?? 0, found),
  )
  return [
    ...components,
    ...below("qe_svn", minimumQeSvn, quote.header.qeSvn),
    ...below("pce_svn", minimumPceSvn, quote.header.pceSvn),
  ]
}

/** Advisories in brackets, or nothing. */
export function advisoriesText({ advisories }: TcbEvaluation): string {
  return advisories.length === 0 ? "" : ` (${advisories.join(", ")})`
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`
}
