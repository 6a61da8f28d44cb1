/** Pebble, the ACME server of Debian's package of that name, on loopback, with its DNS server, for tests. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { freePort } from "../executable.ts"
import { serverKey } from "./tls-server.ts"

/** Tests that need it are skipped by name where it is absent. */
export const HAVE_PEBBLE = Bun.which("pebble") !== null && Bun.which("pebble-challtestsrv") !== null

export interface PebbleOptions {
  /** Of a hundred good nonces, so many are refused. */
  readonly nonceReject?: number
  /** Of a hundred authorizations, so many are valid already when the name was verified before. */
  readonly authorizationReuse?: number
  /** Where it comes to for http-01; absent: a free port. */
  readonly httpPort?: number
  /** Key identifier and MAC key (base64url) that an account has to be bound by; absent: none. */
  readonly binding?: { readonly kid: string; readonly hmacKey: string }
}

export interface Pebble {
  readonly directory: string
  readonly port: number
  /** PEM file of the server's own certificate. */
  readonly caFile: string
  /** Where it comes to for http-01 and tls-alpn-01: every name has the address 127.0.0.1. */
  readonly httpPort: number
  readonly tlsPort: number
  /** Address of the DNS server's management: POST /set-txt, /clear-txt. */
  readonly dns: string
  /** Its own management, as JSON. */
  status(serial: string): Promise<unknown>
  /** What it printed. */
  log(): string
  stop(): Promise<void>
}

export async function startPebble(options: PebbleOptions = {}): Promise<Pebble> {
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-pebble-"))
  const [port, management, freeHttpPort, tlsPort, dnsPort, dnsManagement] = await freePorts(6)
  const httpPort = options.httpPort ?? freeHttpPort
  const file = (name: string, content: string) => {
    writeFileSync(join(dir, name), content)
    return join(dir, name)
  }
  const { key, cert } = await serverKey()
  const caFile = file("cert.pem", cert)
  const config = {
    listenAddress: `127.0.0.1:${port}`,
    managementListenAddress: `127.0.0.1:${management}`,
    certificate: caFile,
    privateKey: file("key.pem", key),
    httpPort,
    tlsPort,
    ocspResponderURL: "",
    externalAccountBindingRequired: options.binding !== undefined,
    ...(options.binding === undefined
      ? {}
      : { externalAccountMACKeys: { [options.binding.kid]: options.binding.hmacKey } }),
  }
  let log = ""
  const children = [
    spawn([
      "pebble-challtestsrv",
      ...["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""],
      ...["-dns01", `127.0.0.1:${dnsPort}`, "-management", `127.0.0.1:${dnsManagement}`],
    ]),
    spawn(
      [
        "pebble",
        "-strict",
        "-config",
        file("config.json", JSON.stringify({ pebble: config })),
        "-dnsserver",
        `127.0.0.1:${dnsPort}`,
      ],
      {
        PEBBLE_VA_NOSLEEP: "1",
        PEBBLE_WFE_NONCEREJECT: `${options.nonceReject ?? 0}`,
        PEBBLE_AUTHZREUSE: `${options.authorizationReuse ?? 0}`,
      },
    ),
  ]
  for (const { stdout } of children) void collect(stdout, (text) => (log += text))
  await Promise.all([port, dnsManagement].map(answering))
  return {
    directory: `https://127.0.0.1:${port}/dir`,
    port,
    caFile,
    httpPort,
    tlsPort,
    dns: `http://127.0.0.1:${dnsManagement}`,
    status: async (serial) =>
      (
        await fetch(`https://127.0.0.1:${management}/cert-status-by-serial/${serial}`, {
          tls: { ca: cert, rejectUnauthorized: true },
        })
      ).json(),
    log: () => log,
    stop: async () => {
      for (const child of children) child.kill("SIGTERM")
      await Promise.all(children.map((child) => child.exited))
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

function spawn(command: string[], env: Record<string, string> = {}) {
  return Bun.spawn(["sh", "-c", 'exec "$0" "$@" 2>&1', ...command], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin", ...env },
  })
}

async function collect(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder()
  for await (const chunk of stream) add(decoder.decode(chunk, { stream: true }))
}

/** All different, as they are taken at the same time. */
async function freePorts(count: number): Promise<[number, number, number, number, number, number]> {
  const ports = new Set<number>()
  while (ports.size < count) ports.add(await freePort())
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = ports
  return [a, b, c, d, e, f]
}

async function answering(port: number): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const socket = connect(port, "127.0.0.1")
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false))
    const answers = await promise
    socket.destroy()
    if (answers) return
    await Bun.sleep(25)
  }
  throw new Error(`nothing answers at port ${port}`)
}
