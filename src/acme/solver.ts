import type { ChallengeType } from "./kinds.ts"

/** What has to be shown for one name. */
export interface ChallengeAnswer {
  /** DNS name without `*.`. */
  readonly name: string
  readonly token: string
  /** The key authorization; for `dns-01` its digest, which is the record's value. */
  readonly content: string
}

/** Shows answers where the authority looks for them. */
export interface Solver {
  readonly type: ChallengeType
  /** Shows all of them, or throws. What was begun is taken back by `remove`, also after an error. */
  present(answers: readonly ChallengeAnswer[]): Promise<void>
  /** Takes everything back that `present` showed. */
  remove(): Promise<void>
}
