import { AgentError } from "../errors.ts"
import type { ApplicationConfig } from "./config.ts"
import { lastLines } from "./log-lines.ts"
import type { RunCommand } from "./run-command.ts"
import type { StandaloneProcess } from "./standalone.ts"

/** What a service does, as far as its manager can tell. */
export type ServiceState = "up" | "starting" | "down"

/** One service, whatever manages it. */
export interface Service {
  readonly name: string
  /** Stops it where it runs, and starts it. @throws AgentError ERR_SERVICE. */
  restart(): Promise<void>
  /** Stops it; one that does not run stays so. @throws AgentError ERR_SERVICE. */
  stop(): Promise<void>
  state(): Promise<ServiceState>
  /** The last lines that it wrote, oldest first. @throws AgentError ERR_SERVICE where they are not kept. */
  logs(lines: number): Promise<readonly string[]>
}

/** Seconds a manager may take for one order. */
const ORDER_SECONDS = 90
const QUERY_SECONDS = 10
/** How much of a log is asked for where it is counted in bytes. */
const TAIL_BYTES = 16_000

/** The service that `[app]` describes. */
export function serviceOf(
  config: ApplicationConfig,
  run: RunCommand,
  standalone: StandaloneProcess,
): Service {
  switch (config.serviceType) {
    case "systemd":
      return systemdService(config.serviceName, run)
    case "supervisor":
      return supervisorService(config.serviceName, run)
    case "standalone":
      return {
        name: config.serviceName,
        restart: () => standalone.restart(config.serviceName),
        stop: () => standalone.stop(),
        state: async () => (standalone.isRunning() ? "up" : "down"),
        logs: async (lines) => standalone.logs(lines),
      }
  }
}

function systemdService(name: string, run: RunCommand): Service {
  return {
    name,
    restart: async () => void (await order(run, "systemctl", ["restart", name])),
    stop: async () => void (await order(run, "systemctl", ["stop", name])),
    logs: async (lines) => {
      // The agent's sandbox lets it read the journal; entries of earlier boots say nothing about this one.
      const journal = ["--no-pager", "--quiet", "--boot", "--output=short-iso", `--lines=${lines}`]
      return lastLines(await order(run, "journalctl", [...journal, `--unit=${name}`]), lines)
    },
    state: async () => {
      const { output } = await run("systemctl", ["is-active", name], QUERY_SECONDS)
      if (output === "active") return "up"
      return output === "activating" || output === "reloading" ? "starting" : "down"
    },
  }
}

function supervisorService(name: string, run: RunCommand): Service {
  return {
    name,
    restart: async () => {
      // Its failure says nothing: a program that does not run cannot be stopped.
      await run("supervisorctl", ["stop", name], ORDER_SECONDS)
      await order(run, "supervisorctl", ["start", name])
    },
    stop: async () => {
      await run("supervisorctl", ["stop", name], ORDER_SECONDS)
    },
    logs: async (lines) =>
      lastLines(await order(run, "supervisorctl", ["tail", `-${TAIL_BYTES}`, name]), lines),
    state: async () => {
      const { output } = await run("supervisorctl", ["status", name], QUERY_SECONDS)
      if (/\sRUNNING\s/.test(`${output} `)) return "up"
      return /\sSTARTING\s/.test(`${output} `) ? "starting" : "down"
    },
  }
}

/** Runs a program that has to succeed, and gives what it wrote. */
async function order(run: RunCommand, program: string, args: readonly string[]): Promise<string> {
  const { exitCode, output } = await run(program, args, ORDER_SECONDS)
  if (exitCode === 0) return output
  throw new AgentError("ERR_SERVICE", {
    at: [program, ...args].join(" "),
    expected: "exit code 0",
    found: exitCode === null ? `none after ${ORDER_SECONDS} s` : `${exitCode} (${output.slice(-500)})`,
  })
}

export interface SettleOptions {
  /** Milliseconds for which the service has to be up without a break. */
  readonly steadyMs: number
  readonly deadlineMs: number
  readonly pollMs: number
}

/**
 * Waits until a service has been up for a while: many programs start, read a wrong configuration, and end.
 * @throws AgentError ERR_SERVICE where it is down, or not up in time.
 */
export async function settle(
  service: Service,
  { steadyMs, deadlineMs, pollMs }: SettleOptions,
): Promise<void> {
  let upMs = 0
  for (let waited = 0; waited <= deadlineMs; waited += pollMs) {
    const state = await service.state()
    if (state === "down") throw notUp(service, "down")
    upMs = state === "up" ? upMs + pollMs : 0
    if (upMs > steadyMs) return
    await Bun.sleep(pollMs)
  }
  throw notUp(service, `not up after ${deadlineMs / 1000} s`)
}

function notUp(service: Service, found: string): AgentError<"ERR_SERVICE"> {
  return new AgentError("ERR_SERVICE", {
    at: service.name,
    expected: "a running service",
    found,
    hint: "look into the service's log",
  })
}
