/** `verify` of a VM with 2 000 measured files on loopback: CPU of the client, from process start to exit. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EXECUTABLE, run as runExecutable, simulatedVm } from "../test/executable.ts"
import type { BenchResult } from "./result.ts"

const ENTRIES = 2000
const RUNS = 11
const TARGET_MS = 300
/** Paths per call, well below the limit of a command line. */
const BATCH = 500

interface Cost {
  readonly cpuMs: number
  readonly wallMs: number
  readonly peakMiB: number
}

export async function run(): Promise<BenchResult[]> {
  const dir = mkdtempSync(join(tmpdir(), "bench-verify-"))
  const programs = makePrograms(join(dir, "programs"))
  const vm = await simulatedVm(`[snapshot]\nroot = ${JSON.stringify(join(dir, "programs"))}\nexclude = []\n`)
  try {
    for (let first = 0; first < programs.length; first += BATCH)
      await succeeds(["simulate", "exec", join(vm.dir, "vm"), ...programs.slice(first, first + BATCH)])
    const snapshot = join(dir, "vm.snapshot")
    const connection = ["--url", vm.url, "--allow-insecure-tls", "--trust-root", vm.trustRoot]
    await succeeds(["snapshot", ...connection, "-o", snapshot])
    const verify = ["verify", ...connection, "-s", snapshot, "--json"]
    const { claims } = JSON.parse(await succeeds(verify))
    const entries = claims.find((claim: { check: string }) => claim.check === "ima")?.facts?.entries
    if (!(entries >= ENTRIES)) throw new Error(`the list has ${entries} entries, not ${ENTRIES}`)
    return resultsOf(Array.from({ length: RUNS }, () => costOf(verify)))
  } finally {
    await vm.remove()
    rmSync(dir, { recursive: true, force: true })
  }
}

function makePrograms(dir: string): string[] {
  mkdirSync(dir)
  return Array.from({ length: ENTRIES }, (_, index) => {
    const path = join(dir, `program-${index}`)
    writeFileSync(path, `#!/bin/sh\n# ${index}\n`, { mode: 0o755 })
    return path
  })
}

async function succeeds(args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await runExecutable(args)
  if (code === 0) return stdout
  throw new Error(`cosmian_vm ${args[0]}: exit ${code}: ${stderr}${stdout.slice(0, 2000)}`)
}

function costOf(args: readonly string[]): Cost {
  const start = performance.now()
  const { exitCode, resourceUsage } = Bun.spawnSync([EXECUTABLE, ...args], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  })
  const wallMs = performance.now() - start
  if (exitCode !== 0) throw new Error(`verify ended with ${exitCode}`)
  return {
    cpuMs: Number(resourceUsage.cpuTime.total) / 1000,
    wallMs,
    // Bun gives bytes of resident memory here.
    peakMiB: resourceUsage.maxRSS / 1024 / 1024,
  }
}

function resultsOf(costs: readonly Cost[]): BenchResult[] {
  const cpu = median(costs.map(({ cpuMs }) => cpuMs))
  const name = `verify of a VM with ${ENTRIES} measured files`
  return [
    {
      name: `${name}, client CPU with process start`,
      value: cpu,
      unit: "ms",
      target: `< ${TARGET_MS} ms`,
      met: cpu < TARGET_MS,
    },
    { name: `${name}, wall time on loopback`, value: median(costs.map(({ wallMs }) => wallMs)), unit: "ms" },
    { name: `${name}, peak memory`, value: median(costs.map(({ peakMiB }) => peakMiB)), unit: "MiB" },
  ]
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}
