import type { CoveragePoint } from "./ima-points.ts"

/**
 * What becomes of violations: entries by which the kernel says that it cannot vouch for what a file held while it was in use.
 * The TPM vouches for the number and place of violations and for nothing else of them: name and digest beside one are whatever
 * the VM shows. So names can be no more than a hint at which violations are expected, and the number is what binds.
 */
export type ViolationPolicy =
  | { readonly mode: "fail" | "report" }
  | {
      readonly mode: "ignore-paths"
      /** Patterns as in path-pattern.ts; a name that fits none fails. */
      readonly paths: readonly string[]
      /** Violations that may be left out in all; one more fails. */
      readonly max: number
    }

/** How violations are judged unless a policy says otherwise. */
export const FAIL_VIOLATIONS: ViolationPolicy = { mode: "fail" }

/** What an administrator expects of IMA: `[ima]` of a policy. */
export interface ImaExpectations {
  /** Null: as without a policy. */
  readonly violations: ViolationPolicy | null
  /** What the kernel has to be known to measure. */
  readonly required: readonly CoveragePoint[]
}
