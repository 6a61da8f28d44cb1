/** The snapshot's walk and hashes against the usual tools, on a warm cache, in the same run. */
import { Counters } from "../src/agent/hash-protocol.ts"
import { SnapshotSpool } from "../src/agent/snapshot-spool.ts"
import { hashTree } from "../src/agent/tree-hasher.ts"
import type { BenchResult } from "./result.ts"

const TREE = "/usr"
/** Runs of each; the fastest one counts, because other work on the machine only ever adds time. */
const RUNS = 3
const MIB = 1024 * 1024

interface Measured {
  readonly seconds: number
  readonly files: number
  readonly bytes: number
  /** Peak resident memory of the process, all threads. */
  readonly peakBytes: number
}

/** Takes a snapshot of the tree in this process, and prints what it took. Run as a child, so that its memory is its own. */
async function snapshotHere(): Promise<Measured> {
  const counters = new Counters()
  const spool = new SnapshotSpool("/tmp")
  const start = performance.now()
  await hashTree({
    root: TREE,
    exclude: [],
    algorithm: "sha256",
    known: [],
    counters,
    onBlock: (block) => spool.addBlock(block),
  })
  const seconds = (performance.now() - start) / 1000
  const { files, bytes } = counters
  spool.close()
  // Bun gives maxRSS in KiB, as the kernel does.
  return { seconds, files, bytes, peakBytes: process.resourceUsage().maxRSS * 1024 }
}

function snapshotInChild(): Measured {
  const child = Bun.spawnSync([process.execPath, import.meta.path], { stdout: "pipe", stderr: "inherit" })
  if (child.exitCode !== 0) throw new Error(`the snapshot ended with ${child.exitCode}`)
  return JSON.parse(child.stdout.toString())
}

function secondsOf(hasher: string): number {
  const start = performance.now()
  const command = `find ${TREE} -type f -print0 | xargs -0 -P2 ${hasher} > /dev/null`
  const child = Bun.spawnSync(["bash", "-o", "pipefail", "-c", command], {
    stdout: "ignore",
    stderr: "inherit",
  })
  if (child.exitCode !== 0) throw new Error(`${hasher} ended with ${child.exitCode}`)
  return (performance.now() - start) / 1000
}

export async function run(): Promise<BenchResult[]> {
  // The first round fills the cache and counts for nothing.
  secondsOf("openssl dgst -sha256")
  const ours: Measured[] = []
  const sha256sum: number[] = []
  const openssl: number[] = []
  for (let round = 0; round < RUNS; round++) {
    ours.push(snapshotInChild())
    openssl.push(secondsOf("openssl dgst -sha256"))
    if (round < RUNS - 1) sha256sum.push(secondsOf("sha256sum"))
  }
  const value = Math.min(...ours.map(({ seconds }) => seconds))
  const { files, bytes } = ours[0] ?? { files: 0, bytes: 0 }
  const name = `snapshot of ${TREE} (${files} files, ${(bytes / 1e9).toFixed(2)} GB)`
  const peak = Math.max(...ours.map(({ peakBytes }) => peakBytes)) / MIB
  return [
    against(`${name} vs sha256sum`, value, "find | xargs -P2 sha256sum", Math.min(...sha256sum), 0.5),
    against(`${name} vs openssl`, value, "find | xargs -P2 openssl dgst -sha256", Math.min(...openssl), 1),
    { name: "snapshot, peak memory", value: peak, unit: "MiB", target: "< 200 MiB", met: peak < 200 },
  ]
}

function against(name: string, value: number, peer: string, peerValue: number, target: number): BenchResult {
  const ratio = value / peerValue
  return {
    name,
    value,
    unit: "s",
    peer: { name: peer, value: peerValue },
    ratio,
    target: `ratio <= ${target}`,
    met: ratio <= target,
  }
}

if (import.meta.main) console.log(JSON.stringify(await snapshotHere()))
