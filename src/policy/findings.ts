import type { Finding } from "./verdict.ts"

/** Findings kept: beyond these only their number is reported, so that a hostile VM cannot fill the verifier's memory. */
const MAX_FINDINGS = 1000

/** Keeps the first findings, each thing once, and counts all. */
export class Findings {
  readonly kept: Finding[] = []
  total = 0
  readonly #seen = new Set<string>()

  /** `make` is not called once enough are kept. */
  add(make: () => Finding): void {
    if (this.kept.length >= MAX_FINDINGS) {
      this.total += 1
      return
    }
    const finding = make()
    const key = [finding.code, finding.subject, finding.found ?? ""].join("\0")
    if (this.#seen.has(key)) return
    this.#seen.add(key)
    this.total += 1
    this.kept.push(finding)
  }
}
