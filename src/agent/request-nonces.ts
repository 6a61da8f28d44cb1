import { createHmac, randomBytes, timingSafeEqual } from "node:crypto"
import { AgentError } from "../errors.ts"

const RANDOM = 16
const TIME = 6
const MAC = 16
const LENGTH = RANDOM + TIME + MAC
/** How long a nonce may be used after it was given out, in milliseconds. */
const LIFETIME = 60_000

/**
 * Nonces for signed requests, each good once and for a minute. None is kept until it comes back under a valid signature: whoever
 * asks for a million of them costs nothing and pushes nobody's out. They do not outlive the process.
 */
export class RequestNonces {
  readonly #key = randomBytes(32)
  readonly #now: () => Date
  #latest = 0
  /** Spent ones by their text, with the time at which they run out. */
  readonly #spent = new Map<string, number>()

  constructor(now: () => Date) {
    this.#now = now
  }

  /** A fresh nonce: 16 random bytes, when it runs out (6 bytes, milliseconds), 16 bytes of an HMAC over both. */
  issue(): Uint8Array {
    const nonce = Buffer.alloc(LENGTH)
    randomBytes(RANDOM).copy(nonce)
    nonce.writeUIntBE(this.#time() + LIFETIME, RANDOM, TIME)
    this.#mac(nonce).copy(nonce, RANDOM + TIME)
    return new Uint8Array(nonce)
  }

  /**
   * Uses a nonce up. Only for requests whose signature holds, so that what is kept is bounded by what owners do.
   * @throws AgentError ERR_UNAUTHORIZED where it is not one of this process, has run out or was used before.
   */
  spend(nonce: Uint8Array): void {
    const bytes = Buffer.from(nonce)
    if (bytes.length !== LENGTH || !timingSafeEqual(this.#mac(bytes), bytes.subarray(RANDOM + TIME)))
      throw refused("one that this agent did not give")
    const now = this.#time()
    const end = bytes.readUIntBE(RANDOM, TIME)
    if (end <= now) throw refused("one that has run out")
    // Insertion is nearly in order of time, so what has run out stands at the front.
    for (const [text, until] of this.#spent) {
      if (until > now) break
      this.#spent.delete(text)
    }
    const text = bytes.toString("latin1")
    if (this.#spent.has(text)) throw refused("one that was used before")
    this.#spent.set(text, end)
  }

  /** Milliseconds. Never goes back: a host that turns the clock would make spent nonces, forgotten by then, good again. */
  #time(): number {
    this.#latest = Math.max(this.#latest, this.#now().getTime())
    return this.#latest
  }

  #mac(nonce: Buffer): Buffer {
    return createHmac("sha256", this.#key)
      .update(nonce.subarray(0, RANDOM + TIME))
      .digest()
      .subarray(0, MAC)
  }
}

function refused(found: string): AgentError<"ERR_UNAUTHORIZED"> {
  return new AgentError("ERR_UNAUTHORIZED", {
    at: "nonce of the signed request",
    expected: "a fresh one of GET /v1/auth/nonce",
    found,
    hint: "send the command again",
  })
}
