import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import packageJson from "../../package.json"
import { EXECUTABLE, run } from "../executable.ts"

let dir = ""
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "command-line-"))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

function called(name: string, ...args: string[]) {
  const path = join(dir, name)
  symlinkSync(EXECUTABLE, path)
  const { stdout, stderr, exitCode } = Bun.spawnSync([path, ...args])
  rmSync(path)
  return { stdout: stdout.toString(), stderr: stderr.toString(), exitCode }
}

test("--version tells version and commit", async () => {
  for (const option of ["--version", "-V"]) {
    const { code, stdout } = await run([option])
    expect(code).toBe(0)
    expect(stdout).toMatch(new RegExp(`^cosmian_vm ${packageJson.version} \\([0-9a-z-]+\\)\n$`))
  }
})

test("under the name cosmian_vm_agent it is the agent", () => {
  expect(called("cosmian_vm_agent", "--version").stdout).toStartWith("cosmian_vm_agent ")
  expect(called("cosmian_vm_agent", "--help").stdout).toContain("--simulate")
  const wrong = called("cosmian_vm_agent", "verify")
  expect(wrong.exitCode).toBe(2)
  expect(wrong.stderr).toContain("ERR_UNEXPECTED_ARGUMENT")
})

test("under the name cosmian_certtool it is the tool for certificates", () => {
  expect(called("cosmian_certtool", "--version").stdout).toStartWith("cosmian_certtool ")
  expect(called("cosmian_certtool", "verify").exitCode).toBe(2)
})

test("help is on standard output, with examples, and ends with 0", async () => {
  for (const args of [["--help"], ["help", "verify"], ["cli", "verify", "-h"], ["app", "init", "--help"]]) {
    const { code, stdout, stderr } = await run(args)
    expect([code, stderr]).toEqual([0, ""])
    expect(stdout).toContain("Examples:")
  }
})

test("what is not understood ends with 2, on standard error, with a suggestion", async () => {
  for (const [args, hint] of [
    [["verfy"], "verify"],
    [["verify", "--snapsot", "x"], "--snapshot"],
    [["verify", "-s", "x", "--skip", "tme"], "tee"],
    [["app", "restrt"], "restart"],
  ] as const) {
    const { code, stdout, stderr } = await run(args)
    expect([code, stdout]).toEqual([2, ""])
    expect(stderr).toContain(`did you mean`)
    expect(stderr).toContain(hint)
  }
})

test("with --json an error is an object on standard output, wherever --json stands", async () => {
  for (const args of [
    ["--json", "verify", "-s", "/nowhere"],
    ["verify", "-s", "/nowhere", "--json"],
    ["verify", "--json", "--bogus"],
  ]) {
    const { code, stdout, stderr } = await run(args)
    expect(stderr).toBe("")
    const { error } = JSON.parse(stdout)
    expect(error.code).toBe(args.includes("--bogus") ? "ERR_UNKNOWN_OPTION" : "ERR_IO")
    expect(code).toBe(args.includes("--bogus") ? 2 : 1)
  }
})

test("escapes in an argument do not reach the terminal", async () => {
  const { stderr } = await run(["verify", "-s", "/nowhere/\u001b[31mred\u202e"])
  expect(stderr).not.toMatch(/[\u001b\u202e]/)
})

test("colour: on a terminal, unless NO_COLOR is set; never in a pipe", async () => {
  const onTerminal = (env: Record<string, string>) =>
    Bun.spawnSync(["script", "-qec", `'${EXECUTABLE}' --help`, "/dev/null"], {
      env: { ...process.env, TERM: "xterm", NO_COLOR: "", ...env },
    }).stdout.toString()
  expect(onTerminal({})).toContain("\u001b[1m")
  expect(onTerminal({ NO_COLOR: "1" })).not.toContain("\u001b[1m")
  expect((await run(["--help"], { env: { NO_COLOR: "" } })).stdout).not.toContain("\u001b")
})

test("a reader that goes away does not make it fail", () => {
  const { exitCode } = Bun.spawnSync([
    "bash",
    "-o",
    "pipefail",
    "-c",
    `'${EXECUTABLE}' completion bash | head -c 1`,
  ])
  expect(exitCode).toBe(0)
})
