import { bytesEqual, toHex } from "../formats/hex.ts"
import type { TpmAttestation } from "../verify/tpm.ts"
import type { Verified } from "../verify/verified.ts"
import type { AttestationPolicy, PcrBank, TpmExpectations } from "./attestation-policy.ts"
import { CHANGE_POLICY, mismatch, notOneOf, policyClaim, valuesText } from "./policy-findings.ts"
import { PCR_MEANING } from "./tpm.ts"
import type { Claim, Finding } from "./verdict.ts"

/** PCR values that a TPM signed, by bank and number. */
export type QuotedPcrs = { readonly [B in PcrBank]?: ReadonlyMap<number, Uint8Array> }

/** Banks in order of strength. SHA-1 values are compared, but prove nothing alone. */
const BANKS: readonly PcrBank[] = ["sha512", "sha384", "sha256", "sha1"]

/** The key that signed is none of those that the policy names; nothing where it names none. */
export function akNameFindings(tpm: Verified<TpmAttestation>, expected: TpmExpectations | null): Finding[] {
  const meaning = "another TPM, or another key of it, signed the quote"
  return notOneOf("ERR_TPM_AK_CHANGED", "AK Name", tpm.akName, expected?.akNames ?? null, meaning)
}

/**
 * Appraises PCR values. Each PCR that the policy names has to be among the quoted ones in a bank of SHA-256 or better for which
 * the policy has a value, and every value that can be compared has to fit.
 * @param quoted values that a verified quote covers; the caller has established that.
 */
export function appraisePcrs(quoted: QuotedPcrs, policy: AttestationPolicy): Claim {
  const facts = factsOf(quoted)
  const pcrs = policy.tpm === null ? [] : namedPcrs(policy.tpm)
  return policyClaim({
    check: "boot",
    failureClass: "boot",
    findings: policyPcrFindings(quoted, policy.tpm),
    warnings: pcrs.length > 0 ? [] : [nothingExpected(policy, quoted)],
    summary:
      pcrs.length > 0
        ? `what booted is what ${policy.source} expects (PCR ${pcrs.join(", ")})`
        : "what booted was not compared with anything",
    facts,
  })
}

/**
 * What is wrong with PCR values by a policy; nothing where it names none.
 * @param quoted values that a verified quote covers; the caller has established that.
 */
export function policyPcrFindings(quoted: QuotedPcrs, tpm: TpmExpectations | null): Finding[] {
  return tpm === null ? [] : namedPcrs(tpm).flatMap((pcr) => pcrFindings(pcr, quoted, tpm))
}

/** The PCRs of a verified quote. */
export function quotedPcrs({ pcrSelection, pcrs }: Verified<TpmAttestation>): QuotedPcrs {
  return { sha256: new Map(pcrSelection.map((pcr, index) => [pcr, pcrs[index] ?? new Uint8Array(0)])) }
}

function namedPcrs({ pcrs }: TpmExpectations): number[] {
  const named = BANKS.flatMap((bank) => [...(pcrs[bank]?.keys() ?? [])])
  return [...new Set(named)].sort((a, b) => a - b)
}

function pcrFindings(pcr: number, quoted: QuotedPcrs, { pcrs }: TpmExpectations): Finding[] {
  const findings: Finding[] = []
  let proven = false
  for (const bank of BANKS) {
    const expected = pcrs[bank]?.get(pcr)
    const found = quoted[bank]?.get(pcr)
    if (expected === undefined || found === undefined) continue
    if (bank !== "sha1") proven = true
    if (expected.some((value) => bytesEqual(value, found))) continue
    findings.push(
      mismatch("ERR_BOOT_PCR", `PCR ${pcr} (${bank})`, valuesText(expected), toHex(found), {
        meaning: `changed: ${PCR_MEANING[pcr] ?? "what software of the VM measured"}`,
        remedy: CHANGE_POLICY,
      }),
    )
  }
  if (!proven) findings.push(notCovered(pcr, quoted))
  return findings
}

function notCovered(pcr: number, quoted: QuotedPcrs): Finding {
  const banks = BANKS.filter((bank) => quoted[bank]?.has(pcr))
  return mismatch(
    "ERR_POLICY_PCRS",
    `PCR ${pcr}`,
    "a value in a bank of SHA-256 or better that both policy and quote have",
    banks.length === 0 ? "not quoted" : `quoted in ${banks.join(", ")}`,
    {
      meaning: "the policy fixes this PCR, and the quote does not prove its value",
      remedy: "have the PCR quoted in a bank that the policy names, or write the quoted bank into the policy",
    },
  )
}

function nothingExpected({ source }: AttestationPolicy, { sha256, sha384 }: QuotedPcrs): Finding {
  const bank = sha256 === undefined && sha384 !== undefined ? "sha384" : "sha256"
  return mismatch("ERR_POLICY_PCRS", "PCRs", "values in the policy", "none", {
    meaning: `${source} does not say what has to boot`,
    remedy: `write the expected PCR values under [tpm.pcrs.${bank}], or pcr_values, into the policy`,
  })
}

function factsOf(quoted: QuotedPcrs): Claim["facts"] {
  const entries = BANKS.flatMap((bank) =>
    [...(quoted[bank] ?? [])].map(([pcr, value]) => [`${bank}:${pcr}`, toHex(value)] as const),
  )
  return Object.fromEntries(entries)
}
