import { type ErrorCode, EXIT, type FailureClass } from "../errors.ts"
import type { Package } from "./snapshot-packages.ts"

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

/** The file that a finding is about, as the measurement list and the snapshot have it. */
export interface FileFinding {
  /** May hold hostile text. */
  readonly path: string
  /** What the snapshot says that the file belongs to; null where it is not known. */
  readonly package: FilePackage | null
  /** Number of the entry in the measurement list, from 0: when it was measured for the first time. */
  readonly position: number
  readonly state: FileState
  /** Of a file that an update replaced: the package that it is of, where that is known. */
  readonly older?: FilePackage
}

export type FilePackage = Pick<Package, "manager" | "name" | "version" | "architecture">

/**
 * What a file is that ran and is not accepted. Three of them are of a file that an update replaced, by the list's order: `rolled-back`
 * ran after the newer one, `before-update` ran before it and not again, `old-version` ran and the newer one did not.
 */
export type FileState =
  | "unknown"
  | "changed"
  | "rolled-back"
  | "old-version"
  | "before-update"
  | "not-comparable"
  | "written-in-use"
  | "unreadable"

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
  /** Where it is about one file. */
  readonly file?: FileFinding
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
  | "ek-key"
  | "enrolled"
  | "snapshot"
  | "tee-report"
  | "none"

/** Why a verification failed, for somebody with ten seconds. Made from the claims alone. */
export interface Explanation {
  /** The one thing that matters. May hold hostile text, like what follows. */
  readonly headline: string
  /** What differs, most alarming first, a line for each package. */
  readonly points: readonly ExplanationPoint[]
}

export interface ExplanationPoint {
  /** `alarm`: no update explains it; `change`: an update would. */
  readonly kind: "alarm" | "change"
  /** Package with its version; "no package" for files of none. */
  readonly subject: string
  readonly text: string
}

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
    /** The instance whose PCRs AWS signed for this verification, and no check on them failed; absent: none. */
    readonly nitroInstance?: string
  }
  /** Checks left out by name. */
  readonly skipped: readonly Check[]
  readonly claims: readonly Claim[]
  readonly exitCode: number
  /** Absent where every check passed, and where no findings are about files. */
  readonly explanation?: Explanation
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
