import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseMeasurementList } from "../src/formats/ima/measurement-list.ts"
import { appraiseIma } from "../src/policy/ima.ts"
import { encodeSnapshot, parseSnapshot, type Snapshot } from "../src/policy/snapshot.ts"
import type { Claim } from "../src/policy/verdict.ts"
import { EMPTY_WHITELIST } from "../src/policy/whitelist.ts"
import { verifyMeasurementList } from "../src/verify/ima.ts"
import type { BenchResult } from "./result.ts"
import { FILES, PCRS, type Sample, sampleList, sampleSnapshot } from "./sample.ts"

const ENTRIES = 100_000
const LARGEST = 1_000_000
const SMALLEST = 1_000
const ROUNDS = 7

/** Cost of the IMA check: replay beside a C program, everything for a large VM, growth with the number of entries. */
export async function run(): Promise<BenchResult[]> {
  const snapshot = new TextEncoder().encode(encodeSnapshot(sampleSnapshot()))
  const sample = sampleList(ENTRIES)
  // First, while nothing is compiled yet: so it is in a process that verifies once.
  const whole = cpuSeconds(() => judge(sample, snapshot))
  return [
    {
      name: `IMA: ${ENTRIES} entries against a snapshot of ${FILES} files, both parsed`,
      value: round(whole, 3),
      unit: "s CPU",
      target: "< 1 s CPU",
      met: whole < 1,
    },
    replayBesideC(sample),
    growth(snapshot),
  ]
}

function replayBesideC(sample: Sample): BenchResult {
  const ours = best(ROUNDS, () => verifyMeasurementList(parseMeasurementList(sample.list), sample.pcr10))
  const peer = runPeer(sample)
  const ratio = ours / peer
  return {
    name: `IMA: parse and replay ${ENTRIES} entries`,
    value: round(ours * 1000, 1),
    unit: "ms CPU",
    peer: { name: "C on libcrypto", value: round(peer * 1000, 1) },
    ratio: round(ratio, 2),
    target: "≤ 3 × C",
    met: ratio <= 3,
  }
}

/** Time per entry of the largest list, in terms of that of the smallest: 1 is a straight line. */
function growth(snapshotBytes: Uint8Array): BenchResult {
  const reference = parseSnapshot(snapshotBytes)
  const perEntry = (entries: number, rounds: number, repeat: number) => {
    const sample = sampleList(entries)
    const seconds = best(rounds, () => {
      for (let times = 0; times < repeat; times++) appraised(sample, reference)
    })
    return seconds / (entries * repeat)
  }
  const small = perEntry(SMALLEST, ROUNDS, 100)
  const large = perEntry(LARGEST, 3, 1)
  const ratio = large / small
  return {
    name: `IMA: microseconds per entry, ${LARGEST} entries (peer: ${SMALLEST} entries)`,
    value: round(large * 1e6, 2),
    unit: "µs CPU",
    peer: { name: `${SMALLEST} entries`, value: round(small * 1e6, 2) },
    ratio: round(ratio, 2),
    // Straight but for caches: a thousand entries stay in them, a million do not.
    target: "≤ 3 × (linear)",
    met: ratio <= 3,
  }
}

function judge(sample: Sample, snapshotBytes: Uint8Array): void {
  appraised(sample, parseSnapshot(snapshotBytes))
}

function appraised(sample: Sample, reference: Snapshot): Claim {
  const quoted = verifyMeasurementList(parseMeasurementList(sample.list), sample.pcr10)
  const claim = appraiseIma(quoted, reference, { whitelist: EMPTY_WHITELIST, pcrs: PCRS, at: new Date(0) })
  if (claim.status !== "passed") throw new Error(`the sample does not verify: ${claim.findings[0]?.code}`)
  return claim
}

/** Seconds of CPU of one replay by the C program, which has to come to the same PCR 10. */
function runPeer(sample: Sample): number {
  const directory = mkdtempSync(join(tmpdir(), "ima-bench-"))
  try {
    const program = join(directory, "ima-replay")
    const source = join(import.meta.dir, "ima-replay.c")
    command(["gcc", "-O2", "-Wall", "-o", program, source, "-lcrypto"])
    const list = join(directory, "list")
    writeFileSync(list, sample.list)
    const [nanoseconds = "", pcr10 = ""] = command([program, list, String(ROUNDS)])
      .trim()
      .split(" ")
    if (pcr10 !== Buffer.from(sample.pcr10).toString("hex")) throw new Error("the C program disagrees")
    return Number(nanoseconds) / 1e9
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function command(argv: string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(argv, { timeout: 120_000 })
  if (exitCode !== 0) throw new Error(`${argv[0]} failed (needs gcc and libssl-dev): ${stderr.toString()}`)
  return stdout.toString()
}

/** Seconds of CPU of the fastest of some rounds: what the work takes where nothing else disturbs it. */
function best(rounds: number, work: () => void): number {
  let least = Number.POSITIVE_INFINITY
  for (let done = 0; done < rounds; done++) least = Math.min(least, cpuSeconds(work))
  return least
}

function cpuSeconds(work: () => void): number {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
