/** Real programs that tests start and end again: servers on loopback, and the client end of `cosmian_vm connect`. */
import { existsSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { EXECUTABLE } from "./executable.ts"

const UNPACKED = join(import.meta.dir, "..", ".cache", "programs")
/** nginx of Debian's package, unpacked by the set-up or installed; null where there is none. */
export const NGINX = unpacked("usr/sbin/nginx") ?? Bun.which("nginx")
/** Its module for TLS in front of any protocol. */
export const NGINX_STREAM =
  unpacked("usr/lib/nginx/modules/ngx_stream_module.so") ??
  existing("/usr/lib/nginx/modules/ngx_stream_module.so")

function unpacked(path: string): string | null {
  return existing(join(UNPACKED, path))
}

function existing(path: string): string | null {
  return existsSync(path) ? path : null
}

export interface RunningServer {
  stop(): Promise<void>
}

/**
 * Starts a server and waits until it answers on a port of loopback.
 * @param name what it takes itself for, where that is not its path.
 */
export async function startServer(
  argv: readonly string[],
  port: number,
  { name = argv[0] ?? "", cwd = "/" }: { readonly name?: string; readonly cwd?: string } = {},
): Promise<RunningServer> {
  const child = Bun.spawn([...argv], { argv0: name, cwd, stdin: "ignore", stdout: "ignore", stderr: "pipe" })
  const stderr = new Response(child.stderr).text()
  const stop = async () => {
    child.kill("SIGTERM")
    await child.exited
  }
  for (let waited = 0; waited < 30_000; waited += 50) {
    if (child.exitCode !== null)
      throw new Error(`${argv.join(" ")} ended with ${child.exitCode}: ${await stderr}`)
    if (await answers(port)) return { stop }
    await Bun.sleep(50)
  }
  await stop()
  throw new Error(`${argv.join(" ")} does not answer on port ${port}: ${await stderr}`)
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
    const end = (found: boolean) => () => {
      socket.destroy()
      resolve(found)
    }
    socket.once("connect", end(true)).once("error", end(false))
  })
}

export interface ConnectProxy {
  readonly port: number
  readonly child: Bun.Subprocess
  talk(): string
}

/** Starts `cosmian_vm connect` on a free port and waits until it listens. */
export async function startConnect(args: readonly string[]): Promise<ConnectProxy> {
  const child = Bun.spawn([EXECUTABLE, "connect", "--listen", "127.0.0.1:0", ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
  let talk = ""
  const collect = async () => {
    for await (const chunk of child.stderr) talk += new TextDecoder().decode(chunk)
  }
  void collect()
  for (let waited = 0; waited < 120_000; waited += 50) {
    const port = /listening on 127\.0\.0\.1:(\d+)/.exec(talk)?.[1]
    if (port !== undefined) return { port: Number(port), child, talk: () => talk }
    if (child.exitCode !== null) break
    await Bun.sleep(50)
  }
  child.kill("SIGTERM")
  throw new Error(`connect does not listen (${child.exitCode}):\n${talk}`)
}
