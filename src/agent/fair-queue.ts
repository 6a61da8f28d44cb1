import { AgentError } from "../errors.ts"

export interface QueueLimits {
  /** Tasks running at the same time. */
  readonly concurrent: number
  /** Tasks waiting, in all. */
  readonly waiting: number
  /** Tasks waiting for one client. */
  readonly waitingPerClient: number
}

interface Waiting {
  readonly start: () => void
  readonly refuse: (error: AgentError) => void
}

/**
 * Runs tasks a few at a time and takes the waiting ones in turn, client by client: whoever asks a thousand times waits
 * behind himself, and everybody else is served after at most one task of his.
 */
export class FairQueue {
  readonly #limits: QueueLimits
  readonly #waiting = new Map<string, Waiting[]>()
  #running = 0
  #length = 0

  constructor(limits: QueueLimits) {
    this.#limits = limits
  }

  /**
   * Runs a task when its turn comes.
   * @param client whose task it is. @param signal the client went away: a task still waiting is dropped.
   * @throws AgentError ERR_BUSY at once, where too many are waiting; ERR_CLIENT_GONE.
   */
  async run<T>(client: string, task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.#turn(client, signal)
    try {
      return await task()
    } finally {
      this.#running--
      this.#next()
    }
  }

  #turn(client: string, signal: AbortSignal | undefined): Promise<void> {
    if (this.#running < this.#limits.concurrent && this.#length === 0) {
      this.#running++
      return Promise.resolve()
    }
    const mine = this.#waiting.get(client) ?? []
    if (mine.length >= this.#limits.waitingPerClient || this.#length >= this.#limits.waiting)
      throw new AgentError("ERR_BUSY", { found: `${this.#length} waiting`, hint: "ask again later" })
    return new Promise((resolve, refuse) => {
      const entry: Waiting = { start: resolve, refuse }
      mine.push(entry)
      this.#waiting.set(client, mine)
      this.#length++
      signal?.addEventListener("abort", () => this.#drop(client, entry), { once: true })
    })
  }

  #next(): void {
    if (this.#running >= this.#limits.concurrent) return
    for (const [client, queue] of this.#waiting) {
      const entry = queue.shift()
      // To the end of the map: the next one is another client's.
      this.#waiting.delete(client)
      if (queue.length > 0) this.#waiting.set(client, queue)
      if (entry === undefined) continue
      this.#length--
      this.#running++
      entry.start()
      return
    }
  }

  #drop(client: string, entry: Waiting): void {
    const queue = this.#waiting.get(client)
    const index = queue?.indexOf(entry) ?? -1
    if (queue === undefined || index < 0) return
    queue.splice(index, 1)
    if (queue.length === 0) this.#waiting.delete(client)
    this.#length--
    entry.refuse(new AgentError("ERR_CLIENT_GONE"))
  }
}

/**
 * The part of an address that stands for one client: an IPv4 address, or the first 64 bits of an IPv6 address, because
 * one host usually has all addresses below that.
 */
export function clientOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  if (mapped?.[1] !== undefined) return mapped[1]
  if (!address.includes(":")) return address
  const [head = "", tail] = address.replace(/%.*$/, "").split("::")
  const left = head === "" ? [] : head.split(":")
  const right = tail === undefined || tail === "" ? [] : tail.split(":")
  const gap = tail === undefined ? 0 : 8 - left.length - right.length
  const groups = [...left, ...Array.from({ length: Math.max(gap, 0) }, () => "0"), ...right]
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")}::/64`
}
