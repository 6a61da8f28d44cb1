import { AgentError } from "../errors.ts"

export interface MemoryLimits {
  /** Bytes of all that is held, beyond which a client for whom something is held already gets no more. */
  readonly bytes: number
  /** How much is held for one client, in pieces. */
  readonly perClient: number
}

/**
 * Memory that is held for clients: bodies that they send slowly, answers that they do not read. What is held for one of them is
 * bounded, and everybody always gets at least one piece.
 */
export class MemoryShare {
  readonly #limits: MemoryLimits
  readonly #pieces = new Map<string, number>()
  #bytes = 0

  constructor(limits: MemoryLimits) {
    this.#limits = limits
  }

  /** @returns gives it back; more than once does nothing. @throws AgentError ERR_BUSY */
  take(client: string, size: number): () => void {
    const mine = this.#pieces.get(client) ?? 0
    const { bytes, perClient } = this.#limits
    if (mine >= perClient || (mine > 0 && this.#bytes + size > bytes))
      throw new AgentError("ERR_BUSY", {
        found: `${mine} large requests of this client that have not ended`,
        hint: "send their bodies, read their answers, or ask again later",
      })
    this.#pieces.set(client, mine + 1)
    this.#bytes += size
    let given = false
    return () => {
      if (given) return
      given = true
      this.#bytes -= size
      const left = (this.#pieces.get(client) ?? 1) - 1
      if (left === 0) this.#pieces.delete(client)
      else this.#pieces.set(client, left)
    }
  }
}
