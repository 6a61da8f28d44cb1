import type { ErrorCode } from "../errors.ts"
import { bytesEqual, shortHex, toHex } from "../formats/hex.ts"
import { type AttestationPolicy, isPlaceholder, type OneOf } from "./attestation-policy.ts"
import type { Check, Claim, Finding } from "./verdict.ts"

/** What to do about a value that differs from the policy's. */
export const CHANGE_POLICY =
  "if the change was meant, write the value found into the policy; otherwise do not trust this VM"

interface Text {
  readonly meaning: string
  readonly remedy?: string
}

/** A finding with the usual remedy. */
export function mismatch(
  code: ErrorCode,
  subject: string,
  expected: string,
  found: string,
  { meaning, remedy = CHANGE_POLICY }: Text,
): Finding {
  return { code, subject, expected, found, meaning, remedy }
}

/** A finding where the value is none of those that the policy names; nothing where it names none. */
export function notOneOf(
  code: ErrorCode,
  subject: string,
  found: Uint8Array,
  expected: OneOf,
  meaning: string,
): Finding[] {
  if (expected === null || expected.some((value) => bytesEqual(value, found))) return []
  return [mismatch(code, subject, valuesText(expected), toHex(found), { meaning })]
}

/** One value in full, several shortened. */
export function valuesText(values: readonly Uint8Array[]): string {
  const [only, ...more] = values
  if (only !== undefined && more.length === 0)
    return isPlaceholder(only) ? "a value that was never filled in" : toHex(only)
  return `one of ${values.map((value) => shortHex(value)).join(", ")}`
}

/** The claim of a check that the findings decide. Warnings do not fail it, and show where nothing else does. */
export function policyClaim(input: {
  readonly check: Check
  readonly failureClass: NonNullable<Claim["failureClass"]>
  readonly findings: readonly Finding[]
  readonly warnings: readonly Finding[]
  readonly summary: string
  readonly facts: Claim["facts"]
}): Claim {
  const { check, failureClass, findings, warnings, summary, facts } = input
  if (findings.length > 0) {
    const subjects = [...new Set(findings.map(({ subject }) => subject))].join(", ")
    return {
      check,
      status: "failed",
      failureClass,
      summary: `the policy does not accept: ${subjects}`,
      findings,
      facts,
    }
  }
  return { check, status: warnings.length > 0 ? "warning" : "passed", summary, findings: warnings, facts }
}

/** The policy has no part for evidence of this kind. */
export function silentPolicy(policy: AttestationPolicy, kind: string, table: string): Finding {
  return mismatch("ERR_POLICY_PLATFORM", kind, `expectations under ${table}`, "none", {
    meaning: `${policy.source} says nothing about ${kind}, so nothing about this VM is known to be acceptable`,
    remedy: "use the policy that was made for this VM, or add what is expected of this kind of evidence",
  })
}
