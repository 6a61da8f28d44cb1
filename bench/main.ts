/**
 * `npm run bench [-- NAME…]`: runs every bench/NAME.ts that exports `run(): Promise<BenchResult[]>` and prints one table.
 * Ends with exit code 1 when a target was missed or a benchmark could not run.
 */
import { readdirSync } from "node:fs"
import { cpus, totalmem } from "node:os"
import { join } from "node:path"
import { build } from "../build.ts"
import type { BenchResult } from "./result.ts"

const NO_BENCHMARKS = ["main.ts", "result.ts", "sample.ts", "volume-throughput.ts"]

function isModule(module: unknown): module is { run: () => Promise<BenchResult[]> } {
  return typeof module === "object" && module !== null && "run" in module && typeof module.run === "function"
}

function row(result: BenchResult): string[] {
  const peer =
    result.peer === undefined ? "" : `${result.peer.name}: ${figure(result.peer.value, result.unit)}`
  const spread = result.spread === undefined ? "" : ` (${result.spread})`
  const ratio =
    result.ratio === undefined ? "" : `${result.ratio.toFixed(result.spread === undefined ? 2 : 3)}${spread}`
  const verdict = result.met === undefined ? "" : result.met ? "met" : "MISSED"
  return [result.name, figure(result.value, result.unit), peer, ratio, result.target ?? "", verdict]
}

function figure(value: number, unit: string): string {
  return `${value >= 100 ? Math.round(value) : Number(value.toPrecision(3))} ${unit}`
}

/** Columns as wide as their widest cell. */
function table(rows: readonly string[][]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((cells) => (cells[column] ?? "").length)),
  )
  return rows
    .map((cells) =>
      cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n")
}

/**
 * Runs one module in a process of its own: what an earlier one compiled or allocated must not be measured (a child's
 * peak memory begins with that of the process that started it).
 */
function runModule(name: string): BenchResult[] {
  const command = [process.execPath, import.meta.path, "--module", name]
  const child = Bun.spawnSync(command, { stdin: "ignore", stdout: "pipe", stderr: "inherit" })
  if (child.exitCode !== 0) throw new Error(`exit code ${child.exitCode}`)
  const results: unknown = JSON.parse(child.stdout.toString().trim().split("\n").at(-1) ?? "")
  if (!Array.isArray(results)) throw new Error("no results")
  return results
}

if (process.argv[2] === "--module") {
  const module: unknown = await import(join(import.meta.dir, `${process.argv[3]}.ts`))
  if (!isModule(module)) throw new Error("exports no run()")
  console.log(JSON.stringify(await module.run()))
  process.exit(0)
}

const wanted = process.argv.slice(2)
const names = readdirSync(import.meta.dir)
  .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts") && !NO_BENCHMARKS.includes(file))
  .map((file) => file.slice(0, -3))
  .filter((name) => wanted.length === 0 || wanted.includes(name))
  .sort()

const { version } = await build()
const rows: string[][] = [["benchmark", "measured", "peer", "ratio", "target", ""]]
let failed = 0
for (const name of names) {
  console.error(`running ${name} …`)
  try {
    const results = runModule(name)
    failed += results.filter((result) => result.met === false).length
    rows.push(...results.map(row))
  } catch (error) {
    failed++
    rows.push([name, "did not run", error instanceof Error ? error.message : `${error}`, "", "", "MISSED"])
  }
}
const [cpu] = cpus()
console.log(`${version}, Bun ${Bun.version}, ${new Date().toISOString().slice(0, 10)}`)
console.log(
  `${cpus().length} × ${cpu?.model ?? "CPU"}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Linux ${await kernel()}\n`,
)
console.log(table(rows))
process.exit(failed === 0 ? 0 : 1)

async function kernel(): Promise<string> {
  return (await Bun.file("/proc/sys/kernel/osrelease").text()).trim()
}
