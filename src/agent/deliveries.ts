import { AgentError } from "../errors.ts"

/** Bytes that one chunk is made from. What fits into one is given at once, and not counted: a connection costs as much. */
const CHUNK = 64 * 1024

type Encode = (
  chunk: Uint8Array,
  place: { readonly first: boolean; readonly last: boolean },
) => Uint8Array<ArrayBuffer>

export interface DeliveryLimits {
  /** Bytes of all answers on their way, beyond which a client that has one already gets no other. */
  readonly bytes: number
  /** Answers on their way to one client. */
  readonly perClient: number
}

/**
 * Large answers on their way. A client that asks and does not read has us keep each answer: so what is kept is bounded, and
 * everybody always gets at least one.
 */
export class Deliveries {
  readonly #limits: DeliveryLimits
  readonly #clients = new Map<string, number>()
  #bytes = 0

  constructor(limits: DeliveryLimits) {
    this.#limits = limits
  }

  /**
   * The body of an answer, made chunk by chunk as the client takes it.
   * @param signal the client went away. @param encode makes the text of a chunk; absent: the bytes themselves.
   * @throws AgentError ERR_BUSY where too much is on its way already.
   */
  start(
    client: string,
    bytes: Uint8Array,
    signal: AbortSignal,
    encode: Encode = same,
  ): ReadableStream<Uint8Array> | Uint8Array<ArrayBuffer> {
    if (bytes.length <= CHUNK) return encode(bytes, { first: true, last: true })
    const end = this.#begin(client, bytes.length)
    signal.addEventListener("abort", end, { once: true })
    if (signal.aborted) end()
    let offset = 0
    return new ReadableStream<Uint8Array>({
      pull(controller) {
        const first = offset === 0
        const chunk = bytes.subarray(offset, offset + CHUNK)
        offset += chunk.length
        const last = offset >= bytes.length
        controller.enqueue(encode(chunk, { first, last }))
        if (!last) return
        end()
        controller.close()
      },
      cancel: end,
    })
  }

  /** Returns what ends it, once. */
  #begin(client: string, size: number): () => void {
    const mine = this.#clients.get(client) ?? 0
    const { bytes, perClient } = this.#limits
    if (mine >= perClient || (mine > 0 && this.#bytes + size > bytes))
      throw new AgentError("ERR_BUSY", {
        found: `${mine} answers to this client that it has not read`,
        hint: "read them, or ask again later",
      })
    this.#clients.set(client, mine + 1)
    this.#bytes += size
    let ended = false
    return () => {
      if (ended) return
      ended = true
      this.#bytes -= size
      const left = (this.#clients.get(client) ?? 1) - 1
      if (left === 0) this.#clients.delete(client)
      else this.#clients.set(client, left)
    }
  }
}

function same(chunk: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(chunk)
}
