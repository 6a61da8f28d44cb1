import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { ServiceType } from "./config.ts"
import { createLog } from "./log.ts"
import { type CommandResult, findProgram, runCommand } from "./run-command.ts"
import { type Service, serviceOf, settle } from "./services.ts"
import { StandaloneProcess } from "./standalone.ts"

const LOG = createLog(
  "json",
  () => undefined,
  () => new Date(0),
)

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "services-"))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

function processIn(place: string): StandaloneProcess {
  return new StandaloneProcess({
    markFile: join(place, "mark"),
    logFile: join(place, "log"),
    log: LOG,
    path: [place],
    stopMs: 300,
  })
}

/** A service whose manager answers as told; the orders it got. */
function managed(
  serviceType: ServiceType,
  answers: Record<string, CommandResult>,
): { service: Service; orders: string[] } {
  const orders: string[] = []
  const service = serviceOf(
    { serviceType, serviceName: "app", storage: "/nonexistent", restart: "never" },
    async (program, args) => {
      const order = [program, ...args].join(" ")
      orders.push(order)
      return answers[order] ?? { exitCode: 0, output: "" }
    },
    processIn(directory),
  )
  return { service, orders }
}

describe("systemd", () => {
  for (const [output, state] of [
    ["active", "up"],
    ["activating", "starting"],
    ["failed", "down"],
    ["inactive", "down"],
  ] as const)
    test(`${output} is ${state}`, async () => {
      const { service } = managed("systemd", { "systemctl is-active app": { exitCode: 3, output } })
      expect(await service.state()).toBe(state)
    })

  test("is told to restart; its refusal is an error with its words", async () => {
    const { service, orders } = managed("systemd", {
      "systemctl restart app": { exitCode: 5, output: "Unit app.service not found." },
    })
    await expect(service.restart()).rejects.toMatchObject({
      code: "ERR_SERVICE",
      found: "5 (Unit app.service not found.)",
    })
    expect(orders).toEqual(["systemctl restart app"])
  })
})

describe("supervisor", () => {
  for (const [output, state] of [
    ["app                              RUNNING   pid 5, uptime 0:00:01", "up"],
    ["app                              STARTING", "starting"],
    ["app                              FATAL     Exited too quickly", "down"],
    ["app: ERROR (no such process)", "down"],
  ] as const)
    test(`${output.slice(33)} is ${state}`, async () => {
      const { service } = managed("supervisor", { "supervisorctl status app": { exitCode: 0, output } })
      expect(await service.state()).toBe(state)
    })

  test("stops and starts; only the start has to succeed", async () => {
    const { service, orders } = managed("supervisor", {
      "supervisorctl stop app": { exitCode: 1, output: "app: ERROR (not running)" },
    })
    await service.restart()
    expect(orders).toEqual(["supervisorctl stop app", "supervisorctl start app"])
  })
})

describe("settling", () => {
  const QUICK = { steadyMs: 3, deadlineMs: 50, pollMs: 1 }
  const service = (states: Iterator<"up" | "starting" | "down">): Service => ({
    name: "app",
    restart: async () => undefined,
    stop: async () => undefined,
    logs: async () => [],
    state: async () => {
      const { value } = states.next()
      return value ?? "up"
    },
  })

  test("a service that is up for a moment and then down has not come up", async () => {
    const states = ["starting", "up", "up", "down"] as const
    await expect(settle(service(states.values()), QUICK)).rejects.toMatchObject({ code: "ERR_SERVICE" })
  })

  test("a service that starts for ever has not come up", async () => {
    const forever = { next: () => ({ value: "starting" as const, done: false }) }
    await expect(settle(service(forever), QUICK)).rejects.toMatchObject({ code: "ERR_SERVICE" })
  })
})

describe("standalone", () => {
  const mark = () => JSON.parse(readFileSync(join(directory, "mark"), "utf8"))
  /** What is left of an ended process until somebody asks for it does not count. */
  const isAlive = (pid: number) => {
    try {
      return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ")
    } catch {
      // No such process any more.
      return false
    }
  }

  /** The process number that a program writes into a file, once it is there. */
  async function childOf(file: string): Promise<number> {
    for (;;) {
      const text = existsSync(file) ? readFileSync(file, "utf8") : ""
      if (text.endsWith("\n")) return Number(text)
      await Bun.sleep(5)
    }
  }

  /** A program of that name in the directory; the process that manages it. */
  function program(name: string, script: string): StandaloneProcess {
    writeFileSync(join(directory, name), `#!/bin/sh\n${script}\n`)
    chmodSync(join(directory, name), 0o755)
    return processIn(directory)
  }

  test("runs in a group of its own and is stopped with all it started", async () => {
    const app = program("app", `sleep 300 & echo $! > ${directory}/child; wait`)
    await app.restart("app")
    expect(app.isRunning()).toBe(true)
    const child = await childOf(join(directory, "child"))
    expect(isAlive(child)).toBe(true)
    await app.stop()
    expect(app.isRunning()).toBe(false)
    // Whoever takes in orphans has to see its end as well.
    for (const end = Date.now() + 5000; isAlive(child) && Date.now() < end; ) await Bun.sleep(20)
    expect(isAlive(child)).toBe(false)
  })

  test("does not run on where it cannot be remembered", async () => {
    program("app", `sleep 1; echo late > ${directory}/late`)
    const app = new StandaloneProcess({
      markFile: join(directory, "taken", "mark"),
      logFile: join(directory, "log"),
      log: LOG,
      path: [directory],
      // Right before the start: a file in the place of the mark's directory.
      environment: () => {
        writeFileSync(join(directory, "taken"), "")
        return {}
      },
    })
    await expect(app.restart("app")).rejects.toThrow()
    await Bun.sleep(1500)
    expect(existsSync(join(directory, "late"))).toBe(false)
  })

  test("is known again by another agent, and replaced by its restart", async () => {
    const app = program("app", "exec sleep 300")
    await app.restart("app")
    const { pid } = mark()
    const later = processIn(directory)
    expect(later.isRunning()).toBe(true)
    await later.restart("app")
    expect(mark().pid).not.toBe(pid)
    expect(isAlive(pid)).toBe(false)
    await later.stop()
  })

  test("a process that only has the number is not touched", async () => {
    const stranger = Bun.spawn(["setsid", "sleep", "300"])
    // Start times are counted in hundredths of a second.
    await Bun.sleep(30)
    const app = program("app", "exec sleep 300")
    await app.restart("app")
    const own = mark()
    writeFileSync(join(directory, "mark"), JSON.stringify({ ...own, pid: stranger.pid }))
    await app.stop()
    expect(stranger.exitCode).toBeNull()
    stranger.kill()
    writeFileSync(join(directory, "mark"), JSON.stringify(own))
    await app.stop()
  })

  for (const damaged of ["", "{", '{"pid":1,"startTime":"1","bootId":"x"}', '{"pid":-1}', "[]"])
    test(`a damaged mark means that nothing is known to run: ${damaged}`, async () => {
      writeFileSync(join(directory, "mark"), damaged)
      const app = processIn(directory)
      expect(app.isRunning()).toBe(false)
      await app.stop()
    })

  test("what it writes is kept, and its last lines are told", async () => {
    const app = program("app", "seq 1 100; echo trouble >&2; exec sleep 300")
    await app.restart("app")
    while (!app.logs(1).includes("trouble")) await Bun.sleep(5)
    expect(app.logs(3)).toEqual(["99", "100", "trouble"])
    await app.stop()
    expect(app.logs(1)).toEqual(["trouble"])
  })

  test("one that ends by itself is started again; one that was stopped is not", async () => {
    const app = program("app", `echo x >> ${directory}/starts; exec sleep 300`)
    const starts = () =>
      existsSync(join(directory, "starts")) ? readFileSync(join(directory, "starts"), "utf8").length / 2 : 0
    const end = app.watch("app", true)
    try {
      await app.restart("app")
      while (starts() < 1) await Bun.sleep(5)
      process.kill(-mark().pid, "SIGKILL")
      while (starts() < 2) await Bun.sleep(20)
      expect(app.isRunning()).toBe(true)
      await app.stop()
      await Bun.sleep(2500)
      expect(starts()).toBe(2)
    } finally {
      end()
      await app.stop()
    }
  })

  test("a program that is not there is an error", async () => {
    const app = processIn(directory)
    await expect(app.restart("missing")).rejects.toMatchObject({ code: "ERR_SERVICE" })
  })

  test("a program that ignores the request to end is ended all the same", async () => {
    const app = program("app", "trap '' TERM\nwhile :; do sleep 1; done")
    await app.restart("app")
    await Bun.sleep(50)
    await app.stop()
    expect(app.isRunning()).toBe(false)
  })
})

describe("programs", () => {
  test("are found in fixed directories only", () => {
    expect(findProgram("sh")).toMatch(/^\/(usr\/)?bin\/sh$/)
    expect(() => findProgram("no-such-program")).toThrowCode("ERR_SERVICE")
    expect(() => findProgram("passwd", ["/etc"])).toThrowCode("ERR_SERVICE")
  })

  test("get a fixed environment and are ended when their time is over", async () => {
    const { output } = await runCommand("env", [], 5)
    expect(
      output
        .split("\n")
        .map((line) => line.split("=")[0])
        .sort(),
    ).toEqual(["LC_ALL", "PATH"])
    expect(await runCommand("sleep", ["30"], 0.1)).toMatchObject({ exitCode: null })
  })

  test("may say much: the end is kept", async () => {
    const { exitCode, output } = await runCommand("seq", ["1", "500000"], 10)
    expect(exitCode).toBe(0)
    expect(output.length).toBeLessThanOrEqual(256 * 1024)
    expect(output).toEndWith("499999\n500000")
  })
})
