/** Throughput of an encrypted volume beside plain cryptsetup with the same options. */
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EXECUTABLE } from "../test/executable.ts"
import type { BenchResult } from "./result.ts"
import { throughputOf, volumeResults } from "./volume-throughput.ts"

const ROUNDS = 40

export async function run(): Promise<BenchResult[]> {
  if (process.getuid?.() !== 0 || !existsSync("/dev/mapper/control")) {
    console.error(
      "volume: skipped, it needs root and the kernel's device mapper; npm run e2e measures it in its guest",
    )
    return []
  }
  const directory = mkdtempSync(join(tmpdir(), "cosmian-vm-bench-"))
  try {
    const script = join(import.meta.dir, "volume-throughput.sh")
    const child = Bun.spawnSync(["sh", script, EXECUTABLE, directory, `${ROUNDS}`], {
      stdout: "pipe",
      stderr: "inherit",
    })
    if (child.exitCode !== 0) throw new Error(`exit code ${child.exitCode}`)
    return volumeResults(throughputOf(child.stdout.toString()))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
