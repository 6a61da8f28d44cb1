/** Programs that know nothing of attestation: through `connect`, and in front of a certificate that is renewed. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import {
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { request } from "node:https"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { freePort, run, type SimulatedVm, simulatedVm } from "../executable.ts"
import { HAVE_PEBBLE, startPebble } from "../fakes/pebble.ts"
import { NGINX, NGINX_STREAM, type RunningServer, startConnect, startServer } from "../programs.ts"

let root: string
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "cosmian-vm-clients-"))
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

/** Directory of nginx's own files, and the lines that keep it there. */
function nginxPlace(name: string): { readonly dir: string; readonly start: string; readonly http: string } {
  const dir = join(root, name)
  mkdirSync(dir)
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${dir}/${kind};`,
  )
  return {
    dir,
    start: `daemon off; pid ${dir}/pid; error_log ${dir}/error.log; events {}`,
    http: `access_log off; ${temporary.join(" ")}`,
  }
}

function startNginx(config: string, text: string, port: number): Promise<RunningServer> {
  writeFileSync(config, text)
  return startServer([NGINX ?? "", "-e", "stderr", "-c", config], port)
}

async function clientRun(...argv: string[]): Promise<{ code: number; output: string }> {
  const child = Bun.spawn(argv, { stdin: "ignore", stdout: "pipe", stderr: "pipe", timeout: 60_000 })
  const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
  return { code: await child.exited, output: `${out}${err}` }
}

describe("through connect", () => {
  let vm: SimulatedVm
  const snapshot = () => join(vm.dir, "vm.snapshot")
  const reached = () => ["--url", vm.url, "--allow-insecure-tls", "--trust-root", vm.trustRoot]
  const pair = () => ["cert.pem", "key.pem"].map((file) => join(vm.dir, "vm", "data", file))
  const connected = (port: number) =>
    startConnect([...reached(), "-s", snapshot(), "--target", `127.0.0.1:${port}`, "--interval", "1"])

  beforeAll(async () => {
    vm = await simulatedVm('[snapshot]\nroot = "/etc/apt"\n')
    await vm.exec("/usr/bin/ls")
    expect((await run(["snapshot", ...reached(), "-o", snapshot(), "-q"])).code).toBe(EXIT.ok)
  }, 120_000)
  afterAll(() => vm?.remove())

  test.if(NGINX !== null && NGINX_STREAM !== null && postgres() !== null)(
    "psql works in a database of PostgreSQL, behind TLS at the attested key",
    async () => {
      const database = await startPostgres()
      const port = await freePort()
      const [certificate, key] = pair()
      const { dir, start } = nginxPlace("stream")
      const server = `listen 127.0.0.1:${port} ssl; ssl_certificate ${certificate}; ssl_certificate_key ${key}; proxy_pass 127.0.0.1:${database.port};`
      const text = `load_module ${NGINX_STREAM}; ${start} stream { server { ${server} } }`
      const front = await startNginx(join(dir, "nginx.conf"), text, port)
      const proxy = await connected(port)
      try {
        const url = `postgresql://admin@127.0.0.1:${proxy.port}/postgres?sslmode=disable`
        const psql = (sql: string) => clientRun("psql", "-X", "-A", "-t", "-c", sql, url)
        expect(await psql("create table t as select generate_series(1, 20000) as n")).toMatchObject({
          code: 0,
        })
        expect(await psql("select sum(n) from t")).toEqual({ code: 0, output: "200010000\n" })
        expect((await psql("select n from t order by n")).output.trim().split("\n").length).toBe(20_000)
      } finally {
        proxy.child.kill("SIGTERM")
        await proxy.child.exited
        await front.stop()
        await database.stop()
      }
    },
    120_000,
  )

  test.if(Bun.which("redis-cli") !== null)(
    "redis-cli works in Redis with TLS at the attested key, and is cut off when an unknown program runs",
    async () => {
      const port = await freePort()
      const [certificate = "", key = ""] = pair()
      // Debian's redis-tools has the server under the name of one of its tools.
      const redis = await startServer(
        [
          ...[
            Bun.which("redis-check-rdb") ?? "",
            "--port",
            "0",
            "--bind",
            "127.0.0.1",
            "--tls-port",
            `${port}`,
          ],
          ...[
            "--tls-cert-file",
            certificate,
            "--tls-key-file",
            key,
            "--tls-auth-clients",
            "no",
            "--save",
            "",
          ],
        ],
        port,
        { name: "redis-server", cwd: root },
      )
      const proxy = await connected(port)
      try {
        const cli = (...args: string[]) => clientRun("redis-cli", "-p", `${proxy.port}`, ...args)
        expect((await cli("set", "name", "value")).output).toBe("OK\n")
        expect((await cli("get", "name")).output).toBe("value\n")
        const waiting = cli("blpop", "nothing", "0")
        await Bun.sleep(500)
        const program = join(root, "implant")
        copyFileSync("/usr/bin/true", program)
        await vm.exec(program)
        expect((await waiting).output).toContain("Server closed the connection")
        expect(await proxy.child.exited).toBe(EXIT.ima)
        expect((await cli("get", "name")).output).toContain("refused")
      } finally {
        proxy.child.kill("SIGTERM")
        await redis.stop()
      }
    },
    120_000,
  )
})

/** Directory of PostgreSQL's server programs; null where there are none. */
function postgres(): string | null {
  const versions =
    Bun.which("psql") === null ? [] : [...new Bun.Glob("*/bin/initdb").scanSync("/usr/lib/postgresql")]
  const [first] = versions.sort()
  return first === undefined ? null : join("/usr/lib/postgresql", first, "..")
}

/** A database of its own; root may not run one, so nobody does. */
async function startPostgres(): Promise<RunningServer & { readonly port: number }> {
  const nobody = 65_534
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-postgres-"))
  const asRoot = process.getuid?.() === 0
  if (asRoot) chownSync(dir, nobody, nobody)
  const as = asRoot ? ["setpriv", `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups"] : []
  const bin = postgres() ?? ""
  const data = join(dir, "data")
  const made = await clientRun(...as, join(bin, "initdb"), "-D", data, "-A", "trust", "-U", "admin", "-N")
  if (made.code !== 0) throw new Error(made.output)
  const port = await freePort()
  const argv = [...as, join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", `${port}`, "-k", dir, "-F"]
  const server = await startServer(argv, port, { cwd: dir })
  return {
    port,
    stop: async () => {
      await server.stop()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

test.if(NGINX !== null && HAVE_PEBBLE)(
  "nginx takes renewed certificates up while it serves: no connection fails",
  async () => {
    const pebble = await startPebble()
    const port = await freePort()
    const { dir, start, http } = nginxPlace("http")
    const config = join(dir, "nginx.conf")
    const output = join(dir, "output")
    const workspace = join(dir, "workspace")
    const acme = await run([
      ...["certtool", "acme", "-d", "web.example.com", "-w", workspace, "-o", output],
      ...[
        "--directory",
        pebble.directory,
        "--ca-file",
        pebble.caFile,
        "--listen",
        `127.0.0.1:${pebble.httpPort}`,
      ],
    ])
    expect([acme.code, acme.stderr]).toEqual([EXIT.ok, ""])
    const server = `listen 127.0.0.1:${port} ssl; ssl_certificate ${output}/cert.pem; ssl_certificate_key ${output}/key.pem; location / { return 200 ok; }`
    const nginx = await startNginx(config, `${start} http { ${http} server { ${server} } }`, port)
    const visitors = Array.from({ length: 4 }, () => visit(port))
    try {
      const hook = `${NGINX} -e stderr -c ${config} -s reload`
      const kept = ["certtool", "acme", "-d", "web.example.com", "-w", workspace, "-o", output]
      const where = ["--directory", pebble.directory, "--ca-file", pebble.caFile]
      const listen = ["--listen", `127.0.0.1:${pebble.httpPort}`, "--deploy-hook", hook]
      expect((await run([...kept, ...where, ...listen])).code).toBe(EXIT.ok)
      for (let renewal = 0; renewal < 3; renewal++) {
        expect((await run(["certtool", "renew", "-w", workspace, "--force"])).code).toBe(EXIT.ok)
        const { serialNumber } = new X509Certificate(readFileSync(join(output, "cert.pem")))
        for (
          let waited = 0;
          waited < 10_000 && !visitors.every(({ last }) => last() === serialNumber);
          waited += 50
        )
          await Bun.sleep(50)
        expect(visitors.map(({ last }) => last())).toEqual(visitors.map(() => serialNumber))
      }
    } finally {
      await Promise.all(visitors.map(({ stop }) => stop()))
      await nginx.stop()
      await pebble.stop()
    }
    expect(visitors.flatMap(({ failures }) => failures)).toEqual([])
    expect(visitors.every(({ serials }) => serials.size === 4)).toBe(true)
    expect(readdirSync(join(workspace, "web.example.com")).sort()).toEqual([
      "certificate.json",
      "current",
      "versions",
    ])
  },
  120_000,
)

/** A visitor who comes again and again, each time on a new connection. */
function visit(port: number) {
  const failures: string[] = []
  const serials = new Set<string>()
  let last = ""
  let going = true
  const once = () =>
    new Promise<void>((resolve) => {
      const options = { host: "127.0.0.1", port, rejectUnauthorized: false, agent: false }
      const asking = request(options, (answer) => {
        const socket = answer.socket
        if ("getPeerX509Certificate" in socket && typeof socket.getPeerX509Certificate === "function")
          last = socket.getPeerX509Certificate().serialNumber
        serials.add(last)
        if (answer.statusCode !== 200) failures.push(`status ${answer.statusCode}`)
        answer.resume().once("end", resolve)
      })
      asking.once("error", (error) => {
        failures.push(error.message)
        resolve()
      })
      asking.end()
    })
  const visiting = (async () => {
    while (going) await once()
  })()
  return {
    failures,
    serials,
    last: () => last,
    stop: () => {
      going = false
      return visiting
    },
  }
}
