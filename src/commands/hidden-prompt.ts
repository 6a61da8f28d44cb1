import { CodedError, UsageError } from "../errors.ts"

/** Most bytes that are taken from the terminal for one answer. */
const LIMIT = 1024
const CTRL_C = 0x03
const CTRL_D = 0x04
const CTRL_U = 0x15
const ENTER = [0x0a, 0x0d]
const ERASE = [0x08, 0x7f]

/** The part of a terminal that a hidden prompt needs: `process.stdin`, or a test's. */
export interface KeySource {
  readonly isTTY?: boolean
  setRawMode(raw: boolean): unknown
  on(event: "data", listener: (keys: Uint8Array) => void): unknown
  on(event: "end", listener: () => void): unknown
  off(event: "data", listener: (keys: Uint8Array) => void): unknown
  off(event: "end", listener: () => void): unknown
  resume(): unknown
  pause(): unknown
}

/**
 * Asks on the terminal, without echo. Backspace takes back a character, Ctrl-U all. No string is made of the answer. The
 * caller wipes it.
 * @throws UsageError ERR_PASSPHRASE where standard input is no terminal. @throws CodedError ERR_INTERRUPTED on Ctrl-C
 */
export async function askHidden(
  prompt: string,
  keys: KeySource = process.stdin,
  talk: (text: string) => void = (text) => void process.stderr.write(text),
): Promise<Uint8Array> {
  if (keys.isTTY !== true)
    throw new UsageError("ERR_PASSPHRASE", {
      at: "terminal",
      expected: "a terminal to ask on",
      found: "none",
      hint: "give the passphrase on standard input, by a descriptor, or in a file",
    })
  const answer = new HiddenAnswer()
  talk(prompt)
  keys.setRawMode(true)
  try {
    await pressed(keys, answer)
    return answer.finish()
  } catch (error) {
    answer.wipe()
    throw error
  } finally {
    keys.pause()
    keys.setRawMode(false)
    talk("\n")
  }
}

/** Resolves when the answer is complete. A terminal that goes away interrupts it. */
function pressed(keys: KeySource, answer: HiddenAnswer): Promise<void> {
  return new Promise((resolve, reject) => {
    const take = (typed: Uint8Array): void => {
      const state = answer.take(typed)
      typed.fill(0)
      if (state !== "more") settle(state)
    }
    const gone = (): void => settle("interrupted")
    const settle = (state: "done" | "interrupted"): void => {
      keys.off("data", take)
      keys.off("end", gone)
      if (state === "done") resolve()
      else reject(new CodedError("ERR_INTERRUPTED", { at: "terminal" }))
    }
    keys.on("data", take)
    keys.on("end", gone)
    keys.resume()
  })
}

/** Bytes typed so far, in one buffer that is wiped. */
class HiddenAnswer {
  readonly #bytes = new Uint8Array(LIMIT)
  #size = 0

  take(typed: Uint8Array): "more" | "done" | "interrupted" {
    for (const key of typed) {
      if (ENTER.includes(key) || (key === CTRL_D && this.#size > 0)) return "done"
      if (key === CTRL_C || key === CTRL_D) return "interrupted"
      this.#edit(key)
    }
    return "more"
  }

  finish(): Uint8Array {
    const answer = this.#bytes.slice(0, this.#size)
    this.wipe()
    return answer
  }

  wipe(): void {
    this.#bytes.fill(0)
    this.#size = 0
  }

  #edit(key: number): void {
    if (key === CTRL_U) this.wipe()
    else if (ERASE.includes(key)) this.#erase()
    else if (this.#size < LIMIT) this.#bytes[this.#size++] = key
  }

  /** One character of UTF-8: its continuation bytes, then its first. */
  #erase(): void {
    while (this.#size > 0) {
      const byte = this.#bytes[--this.#size] ?? 0
      this.#bytes[this.#size] = 0
      if ((byte & 0xc0) !== 0x80) return
    }
  }
}
