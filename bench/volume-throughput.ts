/** Reads what volume-throughput.sh prints. */
import { type BenchResult, median } from "./result.ts"

const MEGABYTES = (4 * 2 ** 20) / 1e6
const TARGET = 0.98

/** One transfer with each of the volumes, right after each other, in seconds. */
interface Pair {
  readonly ours: number
  readonly plain: number
}

export interface Throughput {
  /** What differs in the kernel's settings for the two volumes; null: nothing. */
  readonly difference: string | null
  readonly write: readonly Pair[]
  readonly read: readonly Pair[]
}

export function throughputOf(output: string): Throughput {
  const pairs = (direction: string): Pair[] => {
    const lines = [...output.matchAll(new RegExp(`^${direction} (\\S+) (\\S+)$`, "gm"))]
    const found = lines.map((match) => ({ ours: Number(match[1]), plain: Number(match[2]) }))
    if (found.length === 0 || !found.every(({ ours, plain }) => ours > 0 && plain > 0))
      throw new Error(`nothing was measured:\n${output}`)
    return found
  }
  const [verdict, ...difference] =
    output
      .split(/^(?:write|read) /m)[0]
      ?.trim()
      .split("\n") ?? []
  return {
    difference: verdict === "same" ? null : difference.join("\n"),
    write: pairs("write"),
    read: pairs("read"),
  }
}

/** Each pair's ratio of throughputs: ours to that of plain cryptsetup. */
export function ratiosOf(pairs: readonly Pair[]): number[] {
  return pairs.map(({ ours, plain }) => plain / ours)
}

/** @param clock what the seconds are. @throws Error where the kernel was told other things of the two volumes */
export function volumeResults({ difference, ...directions }: Throughput, clock: string): BenchResult[] {
  if (difference !== null) throw new Error(`the volumes differ in more than their keys:\n${difference}`)
  return Object.entries(directions).map(([direction, pairs]) => {
    const ratios = ratiosOf(pairs)
    const ratio = median(ratios)
    return {
      name: `volume, ${direction}${clock}`,
      value: MEGABYTES / median(pairs.map(({ ours }) => ours)),
      unit: "MB/s",
      peer: { name: "cryptsetup", value: MEGABYTES / median(pairs.map(({ plain }) => plain)) },
      ratio,
      spread: `${Math.min(...ratios).toFixed(3)} to ${Math.max(...ratios).toFixed(3)}, ${pairs.length} pairs`,
      target: `ratio at least ${TARGET}`,
      met: ratio >= TARGET,
    }
  })
}
