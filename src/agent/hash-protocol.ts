/** Messages between the agent and its hash workers. Paths travel joined by NUL, which no path holds. */

/** A path that could not be read, and the system's reason. */
export type UnreadablePath = readonly [path: string, reason: string]

/** `workerData` of a hash worker. */
export interface HashWorkerData {
  readonly role: "hash"
  /** Name of the hash for node:crypto. */
  readonly algorithm: string
  /** Path prefixes that are left out, each ending in `/`. */
  readonly exclude: readonly string[]
  /** `path NUL hex` pairs that are in the result already and are left out. */
  readonly known: readonly string[]
  readonly counters: SharedArrayBuffer
}

export type HashTask =
  /** Count all regular files below a directory into the counter `total`. */
  | { readonly kind: "count"; readonly root: string }
  /** List directories. */
  | { readonly kind: "list"; readonly directories: string }
  /** Hash files. */
  | { readonly kind: "hash"; readonly files: string }

export interface HashAnswer {
  readonly kind: HashTask["kind"]
  /** Sub-directories and files found by `list`. */
  readonly directories: string
  readonly files: string
  /** JSON pairs made by `hash`, compressed; null where there are none. */
  readonly block: Uint8Array | null
  /** What could not be read, and the system's reason. */
  readonly unreadable: readonly UnreadablePath[]
  /** A fault of the worker itself: the snapshot fails. */
  readonly fault: string | null
}

/** Counters that all threads see while a task runs. */
export class Counters {
  readonly buffer: SharedArrayBuffer
  readonly #cancel: Int32Array
  readonly #values: BigInt64Array

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(8 + 3 * 8)) {
    this.buffer = buffer
    this.#cancel = new Int32Array(buffer, 0, 1)
    this.#values = new BigInt64Array(buffer, 8, 3)
  }

  get cancelled(): boolean {
    return Atomics.load(this.#cancel, 0) !== 0
  }

  cancel(): void {
    Atomics.store(this.#cancel, 0, 1)
  }

  addFiles(count: number): void {
    Atomics.add(this.#values, 0, BigInt(count))
  }

  addBytes(count: number): void {
    Atomics.add(this.#values, 1, BigInt(count))
  }

  /** Files that there are in all, or -1 while they are being counted. */
  setTotal(count: number): void {
    Atomics.store(this.#values, 2, BigInt(count))
  }

  get files(): number {
    return Number(Atomics.load(this.#values, 0))
  }

  get bytes(): number {
    return Number(Atomics.load(this.#values, 1))
  }

  get total(): number {
    return Number(Atomics.load(this.#values, 2))
  }
}

/** The paths of a message. */
export function splitPaths(joined: string): string[] {
  return joined === "" ? [] : joined.split("\0")
}
