/** The executable itself: size, start-up, and the memory of an agent that has nothing to do. */
import { readFileSync, statSync } from "node:fs"
import { EXECUTABLE, simulatedVm } from "../test/executable.ts"
import { type BenchResult, median } from "./result.ts"

const STARTS = 41

export async function run(): Promise<BenchResult[]> {
  const start = startUp([EXECUTABLE, "--version"])
  const node = Bun.which("node")
  const peer = node === null ? null : { name: "node --version", value: startUp([node, "--version"]) }
  return [
    { name: "size of the executable", value: statSync(EXECUTABLE).size / 1e6, unit: "MB" },
    {
      name: "start-up (--version), median",
      value: start,
      unit: "ms",
      ...(peer === null ? {} : { peer, ratio: start / peer.value }),
    },
    ...(await idleAgent()),
  ]
}

/** Milliseconds from spawn to exit; the first start, which fills caches, does not count. */
function startUp(command: string[]): number {
  const times: number[] = []
  for (let n = 0; n <= STARTS; n++) {
    const from = performance.now()
    const { exitCode } = Bun.spawnSync(command, { stdout: "ignore", stderr: "ignore" })
    if (exitCode !== 0) throw new Error(`${command.join(" ")}: exit code ${exitCode}`)
    if (n > 0) times.push(performance.now() - from)
  }
  return median(times)
}

/** Resident memory of a simulated VM's agent: after its start, and after it gave evidence a hundred times. */
async function idleAgent(): Promise<BenchResult[]> {
  const vm = await simulatedVm("")
  try {
    await Bun.sleep(2000)
    const fresh = residentMiB(vm.pid())
    const nonce = Buffer.alloc(32).toString("base64").replaceAll("=", "")
    for (let n = 0; n < 100; n++) {
      const response = await fetch(`${vm.url}/v1/evidence?nonce=${encodeURIComponent(nonce)}`, {
        tls: { rejectUnauthorized: false },
      })
      if (!response.ok) throw new Error(`evidence: HTTP ${response.status} ${await response.text()}`)
      await response.arrayBuffer()
    }
    await Bun.sleep(2000)
    return [
      { name: "idle agent, resident memory", value: fresh, unit: "MiB" },
      { name: "agent after 100 evidences, resident memory", value: residentMiB(vm.pid()), unit: "MiB" },
    ]
  } finally {
    await vm.remove()
  }
}

function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8")
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]
  if (kib === undefined) throw new Error(`no resident size of process ${pid}`)
  return Number(kib) / 1024
}
