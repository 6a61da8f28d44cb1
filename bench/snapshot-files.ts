/** Snapshots of 300 000 files: compared, merged and compressed by the executable, against diff(1) on sorted lists of the same. */
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EXECUTABLE } from "../test/executable.ts"
import type { BenchResult } from "./result.ts"

const FILES = 300_000
/** One file in so many differs. */
const CHANGED = 100
const PACKAGES = 3000
/** Runs of each; the fastest one counts, because other work on the machine only ever adds time. */
const RUNS = 3
const MIB = 1024 * 1024

interface Measured {
  readonly seconds: number
  /** Peak resident memory. */
  readonly peakBytes: number
}

/** How a snapshot tells which package a file belongs to: by place, by path as an agent sends it, or not at all. */
type Owners = "places" | "paths" | "none"

/** Writes a snapshot and, for the peer, the same pairs as a sorted list. */
function writeSample(dir: string, name: string, update: string, owners: Owners): void {
  const pairs = Array.from({ length: FILES }, (_, at) => {
    const path = `/usr/lib/package-${at % PACKAGES}/directory/file-${at}.so.${at % 7}`
    const content = at % CHANGED === 0 ? `${path} ${update}` : path
    return [path, createHash("sha256").update(content).digest("hex")] as const
  }).sort(([a], [b]) => (a < b ? -1 : 1))
  const packages = owners === "none" ? undefined : packagesOf(pairs, owners, update)
  const snapshot = { format: 2, hash_algorithm: "sha256", packages, filehashes: pairs }
  writeFileSync(join(dir, `${name}.snapshot`), JSON.stringify(snapshot))
  writeFileSync(join(dir, `${name}.txt`), pairs.map(([path, digest]) => `${digest}  ${path}\n`).join(""))
}

/** Every tenth file is of none. */
function packagesOf(pairs: readonly (readonly [string, string])[], owners: Owners, version: string): unknown {
  const files = Array.from({ length: PACKAGES }, (): (string | [number, number])[] => [])
  pairs.forEach(([path], at) => {
    const number = Number(/package-(\d+)/.exec(path)?.[1])
    if (at % 10 === 0) return
    const list = files[number]
    const last = list?.at(-1)
    if (owners === "paths") list?.push(path)
    else if (typeof last === "object" && last[0] + last[1] === at) last[1] += 1
    else list?.push([at, 1])
  })
  return files.map((list, number) => ({
    ...{ manager: "dpkg", name: `package-${number}`, version, architecture: "amd64", files: list },
  }))
}

/** In a process of its own, for a child's peak memory begins with that of the process that started it. */
function writeSamples(dir: string): number {
  const { exitCode } = Bun.spawnSync([process.execPath, import.meta.path, dir], { stderr: "inherit" })
  if (exitCode !== 0) throw new Error(`the samples were not written: exit code ${exitCode}`)
  return statSync(join(dir, "a.snapshot")).size + statSync(join(dir, "b.snapshot")).size
}

/** @param exitCodes those that are no failure: diff(1) ends with 1 where there are differences. */
function measure(dir: string, command: readonly string[], exitCodes: readonly number[] = [0]): Measured {
  const runs = Array.from({ length: RUNS }, () => {
    const start = performance.now()
    const child = Bun.spawnSync([...command], { cwd: dir, stdout: "pipe", stderr: "inherit" })
    const seconds = (performance.now() - start) / 1000
    if (!exitCodes.includes(child.exitCode)) throw new Error(`${command[0]} ended with ${child.exitCode}`)
    return { seconds, peakBytes: child.resourceUsage.maxRSS }
  })
  return {
    seconds: Math.min(...runs.map(({ seconds }) => seconds)),
    peakBytes: Math.max(...runs.map(({ peakBytes }) => peakBytes)),
  }
}

export async function run(): Promise<BenchResult[]> {
  const dir = mkdtempSync(join(tmpdir(), "bench-snapshot-files-"))
  try {
    const bytes = writeSamples(dir)
    const ours = (...args: string[]) => measure(dir, [EXECUTABLE, "snapshot", ...args])
    const diff = ours("diff", "a.snapshot", "b.snapshot", "--json")
    const peer = measure(dir, ["diff", "a.txt", "b.txt"], [1])
    const merge = ours("merge", "a.snapshot", "b.snapshot", "-o", "m.snapshot")
    const packed = ours("merge", "a.snapshot", "b.snapshot", "-o", "m.snapshot.zst")
    const show = ours("show", "m.snapshot.zst")
    const bare = ours("show", "none.snapshot")
    const places = ours("show", "a.snapshot")
    const paths = ours("show", "paths.snapshot")
    return [
      {
        ...within(`snapshot diff, 2 x ${FILES} files`, diff.seconds, 3),
        peer: { name: "diff of two sorted lists", value: peer.seconds },
        ratio: diff.seconds / peer.seconds,
      },
      within(`snapshot merge, 2 x ${FILES} files`, merge.seconds, 5),
      within("snapshot merge, written with zstd", packed.seconds, 5),
      within("snapshot show, read with zstd", show.seconds, 3),
      {
        name: `snapshot show, ${FILES} files of ${PACKAGES} packages`,
        value: places.seconds,
        unit: "s",
        peer: { name: "the same without packages", value: bare.seconds },
        ratio: places.seconds / bare.seconds,
        target: "ratio <= 1.3",
        met: places.seconds / bare.seconds <= 1.3,
      },
      within("the same with paths, as an agent sends it", paths.seconds, 3),
      memory("snapshot diff, peak memory", diff, bytes),
      memory("snapshot merge, peak memory", merge, bytes),
    ]
  } finally {
    rmSync(dir, { recursive: true })
  }
}

function within(name: string, value: number, seconds: number): BenchResult {
  return { name, value, unit: "s", target: `<= ${seconds} s`, met: value <= seconds }
}

/** In proportion to the two files that are read. */
function memory(name: string, { peakBytes }: Measured, bytes: number): BenchResult {
  const ratio = peakBytes / bytes
  return {
    name,
    value: peakBytes / MIB,
    unit: "MiB",
    peer: { name: "both files", value: bytes / MIB },
    ratio,
    target: "ratio <= 8",
    met: ratio <= 8,
  }
}

const target = process.argv[2]
if (import.meta.main && target !== undefined) {
  writeSample(target, "a", "before", "places")
  writeSample(target, "b", "after", "places")
  writeSample(target, "none", "before", "none")
  writeSample(target, "paths", "before", "paths")
}
