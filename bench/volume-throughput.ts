/** Reads what volume-throughput.sh prints. */
import type { BenchResult } from "./result.ts"

const MEGABYTES = (4 * 2 ** 20) / 1e6

/** The fastest of all rounds: what disturbs a round only makes it slower. MB/s. */
export interface Throughput {
  readonly sameTable: boolean
  readonly write: { readonly ours: number; readonly plain: number }
  readonly read: { readonly ours: number; readonly plain: number }
}

export function throughputOf(output: string): Throughput {
  const fastest = (volume: string, direction: string) => {
    const times = [...output.matchAll(new RegExp(`^${volume} ${direction} ([0-9]+)$`, "gm"))].map((match) =>
      Number(match[1]),
    )
    if (times.length === 0) throw new Error(`nothing was measured:\n${output}`)
    return MEGABYTES / (Math.min(...times) / 1e9)
  }
  const both = (direction: string) => ({
    ours: fastest("ours", direction),
    plain: fastest("plain", direction),
  })
  return { sameTable: /^table same$/m.test(output), write: both("write"), read: both("read") }
}

export function volumeResults({ write, read }: Throughput): BenchResult[] {
  return Object.entries({ write, read }).map(([direction, { ours, plain }]) => ({
    name: `volume, ${direction}`,
    value: ours,
    unit: "MB/s",
    peer: { name: "cryptsetup", value: plain },
    ratio: ours / plain,
    target: "ratio at least 0.98",
    met: ours / plain >= 0.98,
  }))
}
