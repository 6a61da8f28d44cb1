import type { ChallengeAnswer, Solver } from "./solver.ts"

/** Runs a hook to its end. @throws AcmeError ERR_ACME_HOOK where it fails. */
export type RunHook = (words: readonly string[], variables: Readonly<Record<string, string>>) => Promise<void>

/** Answers `dns-01` by a program that adds and removes TXT records: `HOOK present RECORD VALUE`, `HOOK remove RECORD VALUE`. */
export class DnsHook implements Solver {
  readonly type = "dns-01"
  readonly #words: readonly string[]
  readonly #run: RunHook
  readonly #wait: () => Promise<void>
  #shown: ChallengeAnswer[] = []

  /** @param words program and first arguments. @param wait for the records to reach every name server. */
  constructor(words: readonly string[], run: RunHook, wait: () => Promise<void>) {
    this.#words = words
    this.#run = run
    this.#wait = wait
  }

  async present(answers: readonly ChallengeAnswer[]): Promise<void> {
    for (const answer of answers) {
      // Noted first: a hook that failed halfway may have left a record.
      this.#shown.push(answer)
      await this.#call("present", answer)
    }
    await this.#wait()
  }

  /** Every record is tried, and the first failure told. */
  async remove(): Promise<void> {
    const shown = this.#shown
    this.#shown = []
    const results = []
    for (const answer of shown) results.push(...(await Promise.allSettled([this.#call("remove", answer)])))
    const failed = results.find((result) => result.status === "rejected")
    if (failed !== undefined) throw failed.reason
  }

  async #call(action: "present" | "remove", { name, content }: ChallengeAnswer): Promise<void> {
    // Source: RFC 8555, section 8.4.
    const record = `_acme-challenge.${name}`
    await this.#run([...this.#words, action, record, content], {
      ACME_ACTION: action,
      ACME_DOMAIN: name,
      ACME_RECORD: record,
      ACME_VALUE: content,
    })
  }
}
