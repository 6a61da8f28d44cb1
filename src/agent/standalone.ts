import { spawn } from "node:child_process"
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
} from "node:fs"
import { dirname } from "node:path"
import { AgentError } from "../errors.ts"
import { CHILD_ENVIRONMENT, PROGRAM_PATH } from "../programs.ts"
import { makePrivateDirectory, writeFileAtomically } from "./atomic-file.ts"
import { errorFields, type Log } from "./log.ts"
import { lastLines } from "./log-lines.ts"
import { findProgram } from "./run-command.ts"

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants

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
/** How often it is looked whether the application still runs. */
const WATCH_MS = 1000
/** Shortest and longest pause before an application that has ended is started again. */
const PAUSE_MS = [1000, 60_000] as const
/** A log that is longer is put aside, and the one put aside before is dropped. */
const MAX_LOG_BYTES = 4 * 1024 * 1024
/** How much of the log's end is read for its last lines. */
const TAIL_BYTES = 256 * 1024

export interface StandaloneOptions {
  /** Where the process is remembered. */
  readonly markFile: string
  /** What it writes to standard output and error. */
  readonly logFile: string
  readonly log: Log
  /** More environment variables, asked for at each start; absent: none. */
  readonly environment?: () => Readonly<Record<string, string>>
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
  #busy = false

  constructor(options: StandaloneOptions) {
    this.#options = options
  }

  /** Stops the application where it runs, and starts it. @throws AgentError ERR_SERVICE. */
  async restart(program: string): Promise<void> {
    this.#busy = true
    try {
      await this.#stop()
      await this.#start(program)
    } finally {
      this.#busy = false
    }
  }

  /**
   * From now on keeps the log short and, where `again` says so, starts the program again when it ends by itself: after a second
   * at first, then after twice as long each time, a minute at most. One that was stopped stays so, and one that was not started
   * since the machine booted is not started. Does not keep the process alive.
   * @returns ends it.
   */
  watch(program: string, again: boolean): () => void {
    let pause: number = PAUSE_MS[0]
    let dueAt = 0
    const watch = setInterval(() => {
      this.#shortenLog()
      if (!again || this.#busy || readMark(this.#options.markFile)?.bootId !== bootId()) return
      const now = performance.now()
      if (this.isRunning()) {
        if (now - dueAt > PAUSE_MS[1]) pause = PAUSE_MS[0]
        return
      }
      if (now < dueAt) return
      dueAt = now + pause
      pause = Math.min(pause * 2, PAUSE_MS[1])
      this.#options.log.warn("the application ended by itself and is started again", { program })
      this.restart(program).catch((error: unknown) =>
        this.#options.log.error("the application does not start", errorFields(error)),
      )
    }, WATCH_MS)
    watch.unref()
    return () => clearInterval(watch)
  }

  /** The last lines that the application wrote, oldest first. */
  logs(lines: number): readonly string[] {
    if (!existsSync(this.#options.logFile)) return []
    const fd = openSync(this.#options.logFile, "r")
    try {
      const { size } = fstatSync(fd)
      const bytes = Buffer.alloc(Math.min(size, TAIL_BYTES))
      const read = readSync(fd, bytes, 0, bytes.length, size - bytes.length)
      return lastLines(bytes.toString("utf8", 0, read), lines)
    } finally {
      closeSync(fd)
    }
  }

  isRunning(): boolean {
    return this.#ownProcess() !== null
  }

  /** Ends the process group: politely, then not. Does nothing where the remembered process is gone. */
  async stop(): Promise<void> {
    this.#busy = true
    try {
      await this.#stop()
    } finally {
      this.#busy = false
    }
  }

  async #stop(): Promise<void> {
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

  /** Others than the program still write to the file, so it is emptied and not replaced. */
  #shortenLog(): void {
    const { logFile } = this.#options
    if ((statSync(logFile, { throwIfNoEntry: false })?.size ?? 0) <= MAX_LOG_BYTES) return
    copyFileSync(logFile, `${logFile}.1`)
    truncateSync(logFile)
  }

  async #start(program: string): Promise<void> {
    makePrivateDirectory(dirname(this.#options.logFile))
    const output = openSync(this.#options.logFile, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0o600)
    try {
      await this.#spawn(program, output)
    } finally {
      closeSync(output)
    }
  }

  async #spawn(program: string, output: number): Promise<void> {
    const child = spawn(findProgram(program, this.#options.path ?? PROGRAM_PATH), [], {
      cwd: "/",
      // What programs are found by is not for the values of an application to say.
      env: { ...this.#options.environment?.(), ...CHILD_ENVIRONMENT },
      // Its own session and group; it outlives a restart of the agent.
      detached: true,
      stdio: ["ignore", output, output],
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
    try {
      makePrivateDirectory(dirname(this.#options.markFile))
      writeFileAtomically(this.#options.markFile, JSON.stringify(mark), 0o600)
    } catch (error) {
      // One that nobody could know again, or stop, must not run on.
      signalGroup(child.pid, "SIGKILL")
      throw error
    }
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
