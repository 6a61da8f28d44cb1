import { spawn } from "node:child_process"
import { readFileSync, rmSync } from "node:fs"
import { dirname } from "node:path"
import { AgentError } from "../errors.ts"
import { makePrivateDirectory, writeFileAtomically } from "./atomic-file.ts"
import type { Log } from "./log.ts"
import { CHILD_ENVIRONMENT, findProgram, PROGRAM_PATH } from "./run-command.ts"

/** How a process is known again: a process number alone may belong to another one by now. */
interface ProcessMark {
  readonly pid: number
  /** Clock ticks since boot at which it started: field 22 of /proc/PID/stat. */
  readonly startTime: string
  readonly bootId: string
}

/** Milliseconds an application has to end by itself. */
const STOP_MS = 10_000
const POLL_MS = 50

export interface StandaloneOptions {
  /** Where the process is remembered. */
  readonly markFile: string
  readonly log: Log
  /** Directories of the program; absent: the usual ones. */
  readonly path?: readonly string[]
  /** Milliseconds the application has to end by itself, and again after it was made to; absent: 10 000. */
  readonly stopMs?: number
}

/**
 * An application that no service manager looks after: the agent starts it as the leader of a process group of its own and
 * stops that group, and never any other process. The agent may itself be restarted in between: a file says which process
 * it is.
 */
export class StandaloneProcess {
  readonly #options: StandaloneOptions

  constructor(options: StandaloneOptions) {
    this.#options = options
  }

  /** Stops the application where it runs, and starts it. @throws AgentError ERR_SERVICE. */
  async restart(program: string): Promise<void> {
    await this.stop()
    await this.#start(program)
  }

  isRunning(): boolean {
    return this.#ownProcess() !== null
  }

  /** Ends the process group: politely, then not. Does nothing where the remembered process is gone. */
  async stop(): Promise<void> {
    const mark = this.#ownProcess()
    if (mark !== null) {
      const { stopMs = STOP_MS } = this.#options
      signalGroup(mark.pid, "SIGTERM")
      if (!(await this.#waitForEnd(stopMs))) {
        signalGroup(mark.pid, "SIGKILL")
        if (!(await this.#waitForEnd(stopMs)))
          throw new AgentError("ERR_SERVICE", {
            at: `process ${mark.pid}`,
            expected: "its end",
            found: "it runs on",
          })
      }
      // The leader is gone; what it started goes with it.
      signalGroup(mark.pid, "SIGKILL")
    }
    rmSync(this.#options.markFile, { force: true })
  }

  async #start(program: string): Promise<void> {
    const child = spawn(findProgram(program, this.#options.path ?? PROGRAM_PATH), [], {
      cwd: "/",
      env: { ...CHILD_ENVIRONMENT },
      // Its own session and group; it outlives a restart of the agent.
      detached: true,
      stdio: ["ignore", "inherit", "inherit"],
    })
    const started = Promise.withResolvers<void>()
    child.once("spawn", () => started.resolve())
    child.once("error", (cause) =>
      started.reject(
        new AgentError("ERR_SERVICE", { at: program, expected: "a program that starts", cause }),
      ),
    )
    await started.promise
    child.unref()
    const startTime = child.pid === undefined ? null : startTimeOf(child.pid)
    if (child.pid === undefined || startTime === null)
      throw new AgentError("ERR_SERVICE", {
        at: program,
        expected: "a running program",
        found: "it ended at once",
      })
    const mark: ProcessMark = { pid: child.pid, startTime, bootId: bootId() }
    makePrivateDirectory(dirname(this.#options.markFile))
    writeFileAtomically(this.#options.markFile, JSON.stringify(mark), 0o600)
    this.#options.log.info("application started", { program, pid: child.pid })
  }

  async #waitForEnd(milliseconds: number): Promise<boolean> {
    for (let waited = 0; waited < milliseconds; waited += POLL_MS) {
      if (!this.isRunning()) return true
      await Bun.sleep(POLL_MS)
    }
    return !this.isRunning()
  }

  #ownProcess(): ProcessMark | null {
    const mark = readMark(this.#options.markFile)
    if (mark === null || mark.bootId !== bootId()) return null
    return startTimeOf(mark.pid) === mark.startTime ? mark : null
  }
}

function readMark(file: string): ProcessMark | null {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(file, "utf8"))
  } catch {
    // No file: nothing was started. A damaged one: no process is known to be ours, so none is touched.
    return null
  }
  if (typeof value !== "object" || value === null) return null
  if (!("pid" in value) || !("startTime" in value) || !("bootId" in value)) return null
  const { pid, startTime, bootId } = value
  if (typeof pid !== "number" || !Number.isInteger(pid) || pid < 2) return null
  return typeof startTime === "string" && typeof bootId === "string" ? { pid, startTime, bootId } : null
}

/** Start time of a living process that leads its group; null where there is none, or only what is left of one that ended. */
function startTimeOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    // The name in parentheses may hold anything, so the fields are counted from its end.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    const [state, , group] = fields
    if (state === "Z" || state === "X" || group !== String(pid)) return null
    return fields[19] ?? null
  } catch {
    // It ended.
    return null
  }
}

function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim()
}

function signalGroup(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(-pid, signal)
  } catch (error) {
    // No member of the group is left.
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error
  }
}
