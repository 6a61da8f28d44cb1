/**
 * Attack A5: nothing in the environment or the working directory steers the executable.
 *
 * Each attack is first made on a program compiled without protection, where it must succeed: a test that
 * could not notice the attack would prove nothing. The same program, compiled and hardened as the product is,
 * must then behave as if the attack were not there, and so must the product.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { COMPILE_OPTIONS } from "../../build.ts"
import { harden } from "../../scripts/harden.ts"
import { EXECUTABLE } from "../executable.ts"

/** Prints what an attack would change. `wait` keeps it alive for a while, for a debugger to appear. */
const PROBE = `
  export function answer(n: number): string {
    return n > 3 ? "honest" : "never"
  }
  console.log("probe", answer(process.argv.length + 5), process.env["FROM_DOTENV"] ?? "")
  if (process.argv.includes("wait")) await Bun.sleep(1500)
`
const HONEST = { code: 0, text: "probe honest \n" }

const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-environment-"))
/** As `bun build --compile` makes it. */
const unprotected = join(dir, "unprotected")
/** With our build options, not hardened. */
const optionsOnly = join(dir, "options-only")
/** As the product is made. */
const hardened = join(dir, "hardened")
const evil = join(dir, "evil.ts")

interface Surroundings {
  readonly env?: Record<string, string>
  readonly cwd?: string
  readonly args?: readonly string[]
}

/** Standard output and error together, and the exit code. */
function run(
  program: string,
  { env = {}, cwd = "/", args = [] }: Surroundings,
): { code: number; text: string } {
  const child = Bun.spawnSync([program, ...args], {
    cwd,
    env,
    stdout: "pipe",
    stderr: "pipe",
    timeout: 10_000,
  })
  return { code: child.exitCode, text: `${child.stdout}${child.stderr}` }
}

const version = (surroundings: Surroundings = {}) => run(EXECUTABLE, { ...surroundings, args: ["--version"] })

/** The hardened probe and the product take no notice. */
function expectIgnored(surroundings: Surroundings): void {
  expect(run(hardened, surroundings)).toEqual(HONEST)
  expect(version(surroundings)).toEqual(version())
}

function compile(output: string, options: readonly string[]): void {
  const command = [process.execPath, "build", ...options, join(dir, "probe.ts"), `--outfile=${output}`]
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd: dir, stdout: "pipe", stderr: "pipe" })
  if (exitCode !== 0) throw new Error(`probe: ${stderr}`)
}

beforeAll(() => {
  writeFileSync(join(dir, "probe.ts"), PROBE)
  writeFileSync(evil, 'console.log("EVIL")\n')
  compile(unprotected, ["--compile", "--minify"])
  compile(optionsOnly, COMPILE_OPTIONS)
  const image = readFileSync(optionsOnly)
  harden(image)
  writeFileSync(hardened, image)
  chmodSync(hardened, 0o755)
})

afterAll(() => rmSync(dir, { recursive: true, force: true }))

test("in plain surroundings every program is honest", () => {
  for (const program of [unprotected, optionsOnly, hardened]) expect(run(program, {})).toEqual(HONEST)
  expect(version().code).toBe(0)
  expect(version().text).toStartWith("cosmian_vm ")
})

describe("working directory and home", () => {
  const attacks: ReadonlyArray<readonly [string, string, (path: string) => Surroundings]> = [
    [".env", "FROM_DOTENV=EVIL\n", (cwd) => ({ cwd })],
    ["bunfig.toml", `preload = ["${evil}"]\n`, (cwd) => ({ cwd })],
  ]
  for (const [file, text, surroundings] of attacks)
    test(`${file} in the working directory is not read`, () => {
      const cwd = mkdtempSync(join(dir, "cwd-"))
      writeFileSync(join(cwd, file), text)
      expect(run(unprotected, surroundings(cwd)).text).toContain("EVIL")
      expectIgnored(surroundings(cwd))
    })

  test(".bunfig.toml of the user is not read", () => {
    const home = mkdtempSync(join(dir, "home-"))
    writeFileSync(join(home, ".bunfig.toml"), `preload = ["${evil}"]\n`)
    const env = { HOME: home, XDG_CONFIG_HOME: home }
    // The one case without a counterpart: no program is seen to read it, but a later runtime might.
    expectIgnored({ env })
  })

  test("the name it is started under does not make it a general-purpose runtime", () => {
    for (const name of ["bun", "bunx", "node"]) {
      const link = join(dir, name)
      symlinkSync(EXECUTABLE, link)
      const { code, text } = run(link, { args: ["-e", 'console.log("EV" + "IL")'] })
      expect(code).toBe(2)
      expect(text).not.toContain("EVIL")
    }
  })
})

describe("A5: environment", () => {
  test("BUN_OPTIONS loads no module", () => {
    const env = { BUN_OPTIONS: `--preload ${evil}` }
    for (const program of [unprotected, optionsOnly]) expect(run(program, { env }).text).toContain("EVIL")
    expectIgnored({ env })
  })

  test("BUN_BE_BUN makes no general-purpose runtime of it", () => {
    const env = { BUN_BE_BUN: "1" }
    const args = ["-e", 'console.log("EV" + "IL")']
    for (const program of [unprotected, optionsOnly]) expect(run(program, { env, args }).text).toBe("EVIL\n")
    expect(run(hardened, { env, args })).toEqual(HONEST)
    expect(run(EXECUTABLE, { env, args }).code).toBe(2)
    expect(run(EXECUTABLE, { env, args }).text).not.toContain("EVIL")
    expect(version({ env })).toEqual(version())
  })

  test("BUN_JSC_functionOverrides replaces no function", () => {
    const image = readFileSync(unprotected)
    const at = image.indexOf('?"honest":"never"')
    const body = image.toString("latin1", image.lastIndexOf("{", at), image.indexOf("}", at) + 1)
    const overrides = join(dir, "overrides")
    writeFileSync(overrides, `override %%%${body}%%%\nwith %%%{return "EVIL"}%%%\n`)
    const env = { BUN_JSC_functionOverrides: overrides, BUN_JSC_useCodeCache: "0" }
    for (const program of [unprotected, optionsOnly]) expect(run(program, { env }).text).toContain("EVIL")
    expectIgnored({ env })
  })

  test("no other BUN_JSC_ option arrives", () => {
    const env = { BUN_JSC_dumpOptions: "1" }
    expect(run(optionsOnly, { env }).text).toContain("JSC options")
    expectIgnored({ env })
    expectIgnored({ env: { BUN_JSC_thisOptionDoesNotExist: "1" } })
  })

  test("BUN_BYTECODE_ORDER_OUT and BUN_BYTECODE_DIGEST_OUT write no file", () => {
    for (const name of ["BUN_BYTECODE_ORDER_OUT", "BUN_BYTECODE_DIGEST_OUT"]) {
      const path = join(dir, name)
      const env = { [name]: path }
      run(optionsOnly, { env })
      expect(existsSync(path)).toBe(true)
      rmSync(path)
      expectIgnored({ env })
      expect(existsSync(path)).toBe(false)
    }
  })

  test("NODE_OPTIONS loads no module", () => {
    writeFileSync(join(dir, "evil.cjs"), 'console.log("EVIL")\n')
    const env = { NODE_OPTIONS: `--require ${join(dir, "evil.cjs")}`, PATH: process.env["PATH"] ?? "" }
    // Node.js itself is the program that listens to it.
    expect(run("node", { env, args: ["-e", "0"] }).text).toContain("EVIL")
    expectIgnored({ env })
  })

  for (const name of ["BUN_INSPECT", "BUN_INSPECT_CONNECT_TO"])
    test(`${name} brings up no debugger`, async () => {
      for (const [program, expected] of [
        [unprotected, true],
        [optionsOnly, true],
        [hardened, false],
      ] as const)
        expect(await debuggerAppears(program, name)).toBe(expected)
    })
})

/** Whether a running program listens where BUN_INSPECT says, or calls where BUN_INSPECT_CONNECT_TO says. */
async function debuggerAppears(program: string, name: string): Promise<boolean> {
  let called = false
  const server = createServer((socket) => {
    called = true
    socket.destroy()
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("no port")
  const listens = name === "BUN_INSPECT"
  if (listens) await new Promise((resolve) => server.close(resolve))
  const scheme = listens ? "ws" : "tcp"
  const child = Bun.spawn([program, "wait"], {
    env: { [name]: `${scheme}://127.0.0.1:${address.port}/attack` },
    stdout: "ignore",
    stderr: "ignore",
    timeout: 10_000,
  })
  while (child.exitCode === null && !called) {
    if (listens) called = await answers(address.port)
    await Bun.sleep(20)
  }
  child.kill()
  await child.exited
  if (!listens) await new Promise((resolve) => server.close(resolve))
  return called
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
    socket.once("connect", () => {
      socket.destroy()
      resolve(true)
    })
    socket.once("error", () => resolve(false))
  })
}
