import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { NativeError } from "../errors.ts"
import { DeviceWorker } from "./device-worker.ts"
import { withTpm } from "./tpm.ts"
import type { TpmOperations } from "./tpm-operations.ts"

/** A running software TPM. Each start is a TPM reset, as if the machine was powered on. */
export interface SoftwareTpm {
  /** Address for `openTpm`. */
  readonly tcti: string
  readonly pid: number
  /** Shuts the TPM down in order and ends its process. */
  stop(): Promise<void>
}

/** Programs are looked for here and nowhere else, whatever PATH says. */
const PROGRAM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
/** Pairs of ports tried: another process may take one between the look and the start. */
const PORT_ATTEMPTS = 8
const START_DEADLINE_MS = 10_000
const STOP_DEADLINE_MS = 3_000
/** Below the range from which Linux takes ports for outgoing connections. */
const PORT_FIRST = 20_000
const PORT_PAIRS = 6_000

/**
 * Starts swtpm on loopback, its state in `directory`.
 *
 * It ends with this process, however that ends: setpriv asks the kernel to signal it when its parent dies. (swtpm's own
 * `--terminate` would end it with each connection.)
 * @throws NativeError ERR_SIMULATOR_START
 */
export async function startSoftwareTpm(directory: string): Promise<SoftwareTpm> {
  const swtpm = findProgram("swtpm", "swtpm")
  const setpriv = findProgram("setpriv", "util-linux")
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  for (let attempt = 1; ; attempt++) {
    const port = await freePortPair()
    const log = join(directory, "swtpm.log")
    rmSync(log, { force: true })
    const child = Bun.spawn(
      [setpriv, "--pdeathsig", "TERM", swtpm, ...swtpmArguments(directory, port, log)],
      { stdin: "ignore", stdout: "ignore", stderr: "ignore", env: { PATH: PROGRAM_PATH, LC_ALL: "C" } },
    )
    child.unref()
    const tcti = `swtpm:host=127.0.0.1,port=${port}`
    if (await answers(tcti, child)) return { tcti, pid: child.pid, stop: () => stop(tcti, child) }
    child.kill("SIGKILL")
    if (attempt === PORT_ATTEMPTS || !lostPort(log)) throw notStarted(directory, log)
  }
}

/** swtpm's TCTI talks to the control channel at the port after the command channel's. */
function swtpmArguments(directory: string, port: number, log: string): string[] {
  return [
    "socket",
    "--tpm2",
    "--tpmstate",
    `dir=${directory},mode=0600`,
    "--server",
    `type=tcp,bindaddr=127.0.0.1,port=${port}`,
    "--ctrl",
    `type=tcp,bindaddr=127.0.0.1,port=${port + 1}`,
    "--flags",
    "not-need-init,startup-clear",
    "--log",
    `file=${log}`,
  ]
}

function findProgram(name: string, debianPackage: string): string {
  const found = Bun.which(name, { PATH: PROGRAM_PATH })
  if (found !== null) return found
  throw new NativeError("ERR_SIMULATOR_START", {
    at: name,
    expected: "the program",
    found: "none",
    hint: `install the package ${debianPackage}`,
  })
}

type Child = ReturnType<typeof Bun.spawn>

/** Waits until the TPM answers. False where its process ended first or time is up. */
async function answers(tcti: string, child: Child): Promise<boolean> {
  const worker = new DeviceWorker<TpmOperations>("tpm", tcti)
  const end = Date.now() + START_DEADLINE_MS
  try {
    while (child.exitCode === null && child.signalCode === null && Date.now() < end) {
      const answered = await worker.call("probe", null).then(
        () => true,
        (error: unknown) => {
          // Until it listens, that is what to expect; a missing library will not come.
          if (error instanceof NativeError && error.code === "ERR_TPM_DEVICE") return false
          throw error
        },
      )
      // A stranger may have taken the port: then our child has ended, or is about to.
      if (answered && (await stillRuns(child))) return true
      await Bun.sleep(20)
    }
    return false
  } finally {
    await worker.close()
  }
}

async function stillRuns(child: Child): Promise<boolean> {
  await Bun.sleep(5)
  return child.exitCode === null && child.signalCode === null
}

async function stop(tcti: string, child: Child): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  try {
    await withTpm(tcti, (worker) => worker.call("shutdown", null))
  } finally {
    child.kill("SIGTERM")
    const insist = setTimeout(() => child.kill("SIGKILL"), STOP_DEADLINE_MS)
    await child.exited
    clearTimeout(insist)
  }
}

function lostPort(log: string): boolean {
  return existsSync(log) && /bind|listen/i.test(readFileSync(log, "utf8"))
}

function notStarted(directory: string, log: string): NativeError {
  const said = existsSync(log) ? readFileSync(log, "utf8").trim().slice(-400) : ""
  return new NativeError("ERR_SIMULATOR_START", {
    at: `swtpm in ${directory}`,
    found: said === "" ? "no answer and no log" : said,
    hint: "is another process using this directory? Is the disk full?",
  })
}

async function freePortPair(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = PORT_FIRST + 2 * Math.floor(Math.random() * PORT_PAIRS)
    if ((await isFree(port)) && (await isFree(port + 1))) return port
  }
  throw new NativeError("ERR_SIMULATOR_START", {
    at: `ports ${PORT_FIRST} to ${PORT_FIRST + 2 * PORT_PAIRS}`,
    found: "no free pair",
  })
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(false))
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)))
  })
}

/** What is known of a process that may be an swtpm on this directory. */
export interface RunningTpm {
  readonly parent: number
}

/** Whether process `pid` is an swtpm on this directory: pids are used again, so its command line is looked at. */
export function findSoftwareTpm(pid: number, directory: string): RunningTpm | null {
  const read = (name: string): string => {
    try {
      return readFileSync(`/proc/${pid}/${name}`, "utf8")
    } catch (error) {
      // Gone, or going: then it is not running.
      if (error instanceof Error && "code" in error) return ""
      throw error
    }
  }
  const words = read("cmdline").split("\0")
  const state = `dir=${directory},mode=0600`
  if (!words.some((word) => word.endsWith("swtpm")) || !words.includes(state)) return null
  const parent = /^PPid:\s*(\d+)$/m.exec(read("status"))?.[1]
  return { parent: Number(parent ?? 0) }
}

/** Ends an swtpm that its owner left behind. */
export async function endSoftwareTpm(pid: number, directory: string): Promise<void> {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    if (findSoftwareTpm(pid, directory) === null) return
    process.kill(pid, signal)
    const end = Date.now() + STOP_DEADLINE_MS
    while (findSoftwareTpm(pid, directory) !== null && Date.now() < end) await Bun.sleep(20)
  }
}
