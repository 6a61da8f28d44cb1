/**
 * `npm test` and `npm run check`: types, lint, dead code, unit tests, build, scenarios.
 *
 * Everything runs whatever failed before, save that scenarios need a built executable. The last line adds up
 * what really ran: `N passed, N failed, N skipped`. Each step that is no test counts as one.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"

interface Count {
  passed: number
  failed: number
  skipped: number
}

const ROOT = join(import.meta.dir, "..")
const BUN = process.execPath
const withScenarios = !process.argv.includes("--no-scenarios")
const total: Count = { passed: 0, failed: 0, skipped: 0 }

const tool = (name: string) => [BUN, "--bun", join(ROOT, "node_modules", ".bin", name)]
const filesOf = (pattern: string) => [...new Bun.Glob(pattern).scanSync(ROOT)].sort()
const unitTests = filesOf("{src,scripts,bench,test}/**/*.test.ts").filter(
  (path) => !path.startsWith("test/scenarios/") && !path.startsWith("test/guest/"),
)

add(await step("types", [...tool("tsc"), "-p", "."]))
add(await step("lint and format", [...tool("biome"), "ci", "--colors=off", "."]))
add(await step("dead code and dependencies", tool("knip")))
add(await tests("unit tests", unitTests, 20_000))
if (withScenarios) {
  const built = await step("build", [BUN, "build.ts"])
  add(built)
  if (built.failed === 0) add(await tests("scenarios", filesOf("test/scenarios/**/*.test.ts"), 120_000))
}
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exit(total.failed === 0 ? 0 : 1)

function add(count: Count): void {
  total.passed += count.passed
  total.failed += count.failed
  total.skipped += count.skipped
}

/** Runs one command, shows what it prints, and counts it as one. */
async function step(name: string, command: string[]): Promise<Count> {
  heading(name)
  const started = performance.now()
  const { code } = await shown(command)
  console.log(`${code === 0 ? "ok" : `FAILED with exit code ${code}`} (${seconds(started)})`)
  return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 }
}

/** Runs test files and reads from the runner's own summary what ran. */
async function tests(name: string, files: string[], timeout: number): Promise<Count> {
  heading(`${name} (${files.length} files)`)
  if (files.length === 0) return { passed: 0, failed: 0, skipped: 0 }
  const cache = join(ROOT, ".cache")
  mkdirSync(cache, { recursive: true })
  const dir = mkdtempSync(join(cache, "tests-"))
  try {
    const report = join(dir, "report.xml")
    const { code, text } = await shown([
      BUN,
      "test",
      "--only-failures",
      `--timeout=${timeout}`,
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      ...files.map((file) => `./${file}`),
    ])
    const count = readSummary(text)
    for (const skipped of skippedIn(report)) console.log(`skipped: ${skipped}`)
    // A runner that dies without its summary, or blames a file rather than a test, has failed all the same.
    if (code !== 0 && count.failed === 0) count.failed = 1
    return count
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function readSummary(text: string): Count {
  const number = (word: string) => Number(new RegExp(`^ *(\\d+) ${word}$`, "m").exec(text)?.[1] ?? 0)
  return { passed: number("pass"), failed: number("fail"), skipped: number("skip") + number("todo") }
}

/** Names of the tests that were skipped: a test that does not run is said to. */
function skippedIn(report: string): string[] {
  if (!existsSync(report)) return []
  const cases = readFileSync(report, "utf8").matchAll(
    /<testcase name="([^"]*)"[^>]*file="([^"]*)"[^>]*>\s*<skipped/g,
  )
  return [...cases].map(([, name = "", file = ""]) => `${file}: ${unescapeXml(name)}`)
}

function unescapeXml(text: string): string {
  const named: Record<string, string> = { amp: "&", quot: '"', lt: "<", gt: ">", apos: "'" }
  return text.replaceAll(/&(\w+);/g, (whole, name: string) => named[name] ?? whole)
}

/** Runs a command in the project's folder, passing on and keeping what it prints. */
async function shown(command: string[]): Promise<{ code: number; text: string }> {
  // No colour in a pipe, whatever the caller's terminal likes: the output is read back, and tests see plain surroundings.
  const { NO_COLOR: _no, FORCE_COLOR: _force, ...env } = process.env
  const child = Bun.spawn(command, { cwd: ROOT, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" })
  let text = ""
  const pass = async (stream: ReadableStream<Uint8Array>, to: NodeJS.WriteStream) => {
    const decoder = new TextDecoder()
    for await (const chunk of stream) {
      text += decoder.decode(chunk, { stream: true })
      to.write(chunk)
    }
  }
  const printed = Promise.all([pass(child.stdout, process.stdout), pass(child.stderr, process.stderr)])
  const code = await child.exited
  // A process that a failed test left behind keeps the pipes open: what it prints is nobody's business.
  await Promise.race([printed, Bun.sleep(2000)])
  return { code, text }
}

function heading(name: string): void {
  console.log(`\n── ${name}`)
}

function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`
}
