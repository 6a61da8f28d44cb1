import { type ErrorCode, EXIT, type FailureClass } from "../errors.ts"

/** Steps of a verification, in the order in which they are made and shown. */
export const CHECKS = [
  "channel",
  "tee",
  "revocation",
  "tcb",
  "binding",
  "tpm",
  "ak",
  "reboot",
  "boot",
  "ima",
  "application",
] as const
export type Check = (typeof CHECKS)[number]

/** One thing wrong. */
export interface Finding {
  readonly code: ErrorCode
  /** What is affected: a path, a field, a host. May hold hostile text: neutralise before showing. */
  readonly subject: string
  readonly expected?: string
  readonly found?: string
  /** What it means, in a sentence. */
  readonly meaning: string
  /** What to do. */
  readonly remedy: string
}

/** The result of one check. */
export interface Claim {
  readonly check: Check
  readonly status: "passed" | "failed" | "skipped" | "warning"
  /** What was proven, or why not, in a sentence. */
  readonly summary: string
  /** Failure class, where `status` is `failed`. */
  readonly failureClass?: FailureClass
  readonly findings: readonly Finding[]
  /** Facts worth showing or keeping, by their spec names. */
  readonly facts: Readonly<Record<string, string | number | boolean>>
}

/** Who runs the TPM that the IMA result rests on. */
export type Assurance = "simulated" | "tpm-inside-tee" | "tpm-by-host" | "no-tee" | "no-tpm" | "unproven"

/**
 * What says that the attestation key is held by a TPM. `snapshot`: only that it is the key which the VM showed when the snapshot
 * was taken; `tee-report`: only that software in the VM chose it; `none`: nothing at all.
 */
export type AkProof =
  | "azure-claims"
  | "ak-certificate"
  | "ek-certificate"
  | "enrolled"
  | "snapshot"
  | "tee-report"
  | "none"

/** The answer. Terminal text, `--json` and exit code are made from this object and nothing else. */
export interface Verdict {
  readonly passed: boolean
  readonly target: string
  readonly at: string
  readonly simulated: boolean
  readonly assurance: {
    readonly label: Assurance
    readonly meaning: string
    /** Absent where no quote was proven. */
    readonly akProvenBy?: AkProof
  }
  /** Checks left out by name. */
  readonly skipped: readonly Check[]
  readonly claims: readonly Claim[]
  readonly exitCode: number
}

/** Failure classes by precedence: the first one present decides the exit code. */
const PRECEDENCE: readonly FailureClass[] = [
  "operational",
  "usage",
  "channel",
  "tee",
  "tcb",
  "binding",
  "tpm",
  "boot",
  "ima",
  "reboot",
  "application",
  "volume",
]

/** The failed claim that decides the exit code; null where none failed. */
export function decidingClaim(claims: readonly Claim[]): Claim | null {
  const failed = claims.filter((claim) => claim.status === "failed")
  const classOf = (claim: Claim) => claim.failureClass ?? "operational"
  const first = PRECEDENCE.find((candidate) => failed.some((claim) => classOf(claim) === candidate))
  return failed.find((claim) => classOf(claim) === first) ?? null
}

/** The exit code of a set of claims: 0 only where each passed, warned, or was skipped by name. */
export function exitCodeOf(claims: readonly Claim[]): number {
  const deciding = decidingClaim(claims)
  return deciding === null ? EXIT.ok : EXIT[deciding.failureClass ?? "operational"]
}
