import { type MeasurementList, measurementEntry, pathBytes } from "../formats/ima/measurement-list.ts"
import { textToPath } from "../formats/path-text.ts"
import type { Findings } from "./findings.ts"
import type { ViolationPolicy } from "./ima-expectations.ts"
import { PathPattern } from "./path-pattern.ts"

/** Tells which violations a policy lets pass, and keeps count of them. */
export class JudgedViolations {
  /** All of them. */
  total = 0
  /** Those that a policy lets pass because of their name. */
  ignored = 0
  readonly #policy: ViolationPolicy
  readonly #patterns: readonly PathPattern[]
  readonly #notes: Findings

  constructor(policy: ViolationPolicy, notes: Findings) {
    this.#policy = policy
    this.#patterns =
      policy.mode === "ignore-paths" ? policy.paths.map((path) => new PathPattern(textToPath(path))) : []
    this.#notes = notes
  }

  /** Whether the violation of an entry is no failure. */
  passes(list: MeasurementList, index: number, first: number): boolean {
    this.total += 1
    switch (this.#policy.mode) {
      case "fail":
        return false
      case "report":
        this.#notes.add(() => ({
          code: "ERR_IMA_VIOLATION",
          subject: `${measurementEntry(list, index).path}, entry ${first + index}`,
          meaning: `${WHAT}; ${UNPROVEN_NAME}`,
          remedy:
            "nothing, if you know of it: the violations are reported and not failed, as the policy says",
        }))
        return true
      case "ignore-paths":
        if (this.ignored >= this.#policy.max || !this.#fits(pathBytes(list, index))) return false
        this.ignored += 1
        return true
    }
  }

  /** Says once what was left out. */
  finish(): void {
    if (this.ignored === 0 || this.#policy.mode !== "ignore-paths") return
    const { paths, max } = this.#policy
    this.#notes.add(() => ({
      code: "ERR_IMA_VIOLATION",
      subject: `${this.ignored} violations`,
      expected: `at most ${max}, of ${paths.join(", ")}`,
      found: `${this.ignored}`,
      meaning: `${WHAT}; ${UNPROVEN_NAME}, so that these may as well be of programs`,
      remedy: "nothing, if you know of them: they are left out by the policy",
    }))
  }

  #fits(path: Uint8Array): boolean {
    return this.#patterns.some((pattern) => pattern.matches(path))
  }
}

const WHAT = "files were open for writing while they were measured, or were written while in use"
const UNPROVEN_NAME = "the TPM proves how many, and not the names"
