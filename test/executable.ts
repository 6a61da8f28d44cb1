/** Runs the built executable as a user would, for scenarios, the demo and benchmarks. */
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** The executable under test. */
export const EXECUTABLE = join(import.meta.dir, "..", "dist", "cosmian_vm")

export interface Finished {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs the executable to its end (at most two minutes). */
export async function run(
  args: readonly string[],
  options: { stdin?: string; env?: Record<string, string> } = {},
): Promise<Finished> {
  const child = Bun.spawn([EXECUTABLE, ...args], {
    stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, ...options.env },
    timeout: 120_000,
  })
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  return { code, stdout, stderr }
}

export interface SimulatedVm {
  readonly url: string
  readonly port: number
  readonly dir: string
  readonly trustRoot: string
  /** Standard error so far: the agent's log. */
  log(): string
  pid(): number
  /** What the kernel would do when a program at this path is run. */
  exec(path: string): Promise<void>
  /** Switches the machine off. */
  stop(): Promise<void>
  /** Switches it on again, on the same port: TPM reset, new list. */
  start(): Promise<void>
  remove(): Promise<void>
}

/**
 * A simulated VM in a temporary directory: `agent --simulate DIR`. `config` is its agent.toml.
 * @param programs directory whose programs the agent finds in /usr/local/sbin, by a mount that nobody else sees.
 */
export async function simulatedVm(config: string, programs: string | null = null): Promise<SimulatedVm> {
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-"))
  const conf = join(dir, "agent.toml")
  await Bun.write(conf, config)
  const port = await freePort()
  let child: Bun.Subprocess<"ignore", "ignore", "pipe"> | null = null
  let stderr = ""

  const start = async () => {
    const started = Bun.spawn(
      [
        ...(programs === null ? [] : withPrograms(programs)),
        EXECUTABLE,
        "agent",
        "--simulate",
        join(dir, "vm"),
        "--conf",
        conf,
        "--host",
        "127.0.0.1",
        "--port",
        String(port),
      ],
      { stdin: "ignore", stdout: "ignore", stderr: "pipe" },
    )
    child = started
    const collect = async () => {
      const decoder = new TextDecoder()
      for await (const chunk of started.stderr) stderr += decoder.decode(chunk, { stream: true })
    }
    void collect()
    await listening(port, started, () => stderr)
  }
  const stop = async () => {
    if (child === null) return
    child.kill("SIGTERM")
    await child.exited
    child = null
  }
  await start()
  return {
    url: `https://127.0.0.1:${port}`,
    port,
    dir,
    trustRoot: join(dir, "vm", "trust-root.pem"),
    log: () => stderr,
    pid: () => child?.pid ?? 0,
    exec: async (path) => {
      const { code, stderr: text } = await run(["simulate", "exec", join(dir, "vm"), path])
      if (code !== 0) throw new Error(`simulate exec ${path}: exit ${code}: ${text}`)
    },
    stop,
    start,
    remove: async () => {
      await stop()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** Runs what follows where `directory` stands in the place of /usr/local/sbin. */
function withPrograms(directory: string): string[] {
  const own = process.getuid?.() === 0 ? [] : ["--map-root-user"]
  return [
    ...[
      "unshare",
      "--mount",
      ...own,
      "sh",
      "-c",
      'mount --bind "$0" /usr/local/sbin && exec "$@"',
      directory,
    ],
  ]
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === "string") throw new Error("no free port")
  return address.port
}

async function listening(port: number, child: Bun.Subprocess, log: () => string): Promise<void> {
  for (let waited = 0; waited < 60_000; waited += 100) {
    if (child.exitCode !== null) throw new Error(`the agent ended with ${child.exitCode}:\n${log()}`)
    const answered = await fetch(`https://127.0.0.1:${port}/v1/info`, {
      tls: { rejectUnauthorized: false },
    }).then(
      (response) => response.ok,
      () => false,
    )
    if (answered) return
    await Bun.sleep(100)
  }
  throw new Error(`the agent does not answer on port ${port}:\n${log()}`)
}
