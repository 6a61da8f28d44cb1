/** One measured figure. */
export interface BenchResult {
  readonly name: string
  readonly value: number
  /** Unit of `value` and of the peer's: `s`, `ms`, `MB`, `MiB`, `MB/s` … */
  readonly unit: string
  /** Another program doing the same work, measured in the same run. */
  readonly peer?: { readonly name: string; readonly value: number }
  /** value / peer.value. */
  readonly ratio?: number
  /** How far single measurements of the ratio lie apart, in words. */
  readonly spread?: string
  /** What it should be, in words: `ratio at most 0.5`. */
  readonly target?: string
  /** Whether the target was met; absent where there is none. */
  readonly met?: boolean
}

/** The middle of an odd number of measurements, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const high = sorted[middle]
  if (high === undefined) throw new Error("no measurements")
  return sorted.length % 2 === 1 ? high : (high + (sorted[middle - 1] ?? high)) / 2
}
