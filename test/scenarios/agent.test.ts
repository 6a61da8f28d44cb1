/** What hostile configurations, files and clients do to a running agent. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { connect as connectTcp, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect as connectTls } from "node:tls"
import { EXIT } from "../../src/errors.ts"
import { EXECUTABLE, run, type SimulatedVm, simulatedVm } from "../executable.ts"

let files: string
beforeAll(() => {
  files = mkdtempSync(join(tmpdir(), "cosmian-vm-agent-"))
})
afterAll(() => rmSync(files, { recursive: true, force: true }))

const reached = (vm: SimulatedVm) => [
  ...["--url", vm.url, "--allow-insecure-tls", "--trust-root", vm.trustRoot],
]

describe("A2: paths and names", () => {
  for (const [name, table] of [
    ["a storage that climbs", 'service_type = "systemd"\nservice_name = "x"\napp_storage = "data/../../etc"'],
    [
      "a service that looks like an option",
      'service_type = "systemd"\nservice_name = "--no-block"\napp_storage = "a"',
    ],
    [
      "a service that is a path",
      'service_type = "standalone"\nservice_name = "../bin/sh"\napp_storage = "a"',
    ],
    ["a service with a line break", 'service_type = "systemd"\nservice_name = "a\\nb"\napp_storage = "a"'],
  ] as const)
    test(`${name} stops the start`, async () => {
      const conf = join(files, "agent.toml")
      writeFileSync(conf, `[app]\n${table}\n`)
      const { code, stderr } = await run(["agent", "--simulate", join(files, "vm"), "--conf", conf])
      expect(code).toBe(EXIT.usage)
      expect(stderr).toContain("ERR_CONFIG")
    })

  test("app.conf that is a symbolic link is not written through; a regular file in its place is", async () => {
    const vm = await simulatedVm(
      `[auth]\nopen_writes = true\n[app]\nservice_type = "standalone"\nservice_name = "date"\napp_storage = "data/app"\n`,
    )
    try {
      await vm.exec("/usr/bin/ls")
      const storage = join(vm.dir, "vm/data/app")
      const target = join(files, "target")
      mkdirSync(storage, { mode: 0o700 })
      writeFileSync(target, "mine")
      symlinkSync(target, join(storage, "app.conf"))
      writeFileSync(join(files, "app.conf"), "theirs")
      const init = () => run(["app", "init", ...reached(vm), "--any-vm", "-c", join(files, "app.conf")])
      expect((await init()).stderr).toContain("ERR_APPLICATION_STORAGE")
      expect(readFileSync(target, "utf8")).toBe("mine")
      rmSync(join(storage, "app.conf"))
      // The twin gets as far as the service, which does not stay up.
      expect((await init()).stderr).toContain("ERR_SERVICE")
      expect(existsSync(join(storage, "app.conf"))).toBe(false)
    } finally {
      await vm.remove()
    }
  }, 60_000)
})

describe("A3: clients that want to be the only ones", () => {
  let vm: SimulatedVm
  let snapshot: string
  const open: Socket[] = []
  beforeAll(async () => {
    vm = await simulatedVm('[snapshot]\nroot = "/etc/ssl"\n[limits]\nidle_seconds = 5\n')
    await vm.exec("/usr/bin/ls")
    snapshot = join(files, "a3.snapshot")
    const { code, stderr } = await run(["snapshot", ...reached(vm), "-o", snapshot])
    if (code !== EXIT.ok) throw new Error(stderr)
  }, 60_000)
  afterAll(async () => {
    for (const socket of open) socket.destroy()
    await vm.remove()
  })

  const honest = async () => (await run(["verify", ...reached(vm), "-s", snapshot])).code

  /** A connection from another address than the honest client's, which a fair queue tells apart. */
  function tcp(): Promise<Socket> {
    const { promise, resolve, reject } = Promise.withResolvers<Socket>()
    const socket = connectTcp({ host: "127.0.0.1", port: vm.port, localAddress: "127.0.0.9" }, () =>
      resolve(socket),
    )
    socket.on("error", reject)
    open.push(socket)
    return promise
  }

  /** A TLS connection over which `text` has been sent. */
  async function tls(text: string): Promise<Socket> {
    const { promise, resolve, reject } = Promise.withResolvers<Socket>()
    const socket = connectTls({ socket: await tcp(), rejectUnauthorized: false }, () => {
      socket.write(text)
      resolve(socket)
    })
    socket.on("error", reject)
    return promise
  }

  const closed = (socket: Socket) =>
    new Promise<void>((resolve) => {
      // On a busy machine it may have been closed before anybody looks.
      if (socket.destroyed) resolve()
      socket.on("error", () => resolve())
      socket.once("close", () => resolve())
      socket.resume()
    })

  test("thousands of silent connections do not keep the others out, and are closed", async () => {
    for (let batch = 0; batch < 30; batch++) await Promise.all(Array.from({ length: 100 }, tcp))
    expect(await honest()).toBe(EXIT.ok)
    await Promise.all(open.splice(0).map(closed))
  }, 60_000)

  test("a flood of requests for quotes does not keep the others out", async () => {
    const nonce = encodeURIComponent(Buffer.alloc(32).toString("base64").replace(/=+$/, ""))
    const get = `GET /quote/tpm?nonce=${nonce} HTTP/1.1\r\nHost: x\r\n\r\n`
    await Promise.all(Array.from({ length: 40 }, () => tls(get.repeat(50))))
    expect(await honest()).toBe(EXIT.ok)
    for (const socket of open.splice(0)) socket.destroy()
  }, 60_000)

  test("endless headers, and headers that come a byte at a time, end the connection", async () => {
    const endless = await tls(`GET / HTTP/1.1\r\n${"X-Y: z\r\n".repeat(100_000)}`)
    const slow = await tls("GET / HTTP/1.1\r\n")
    const drip = setInterval(() => slow.write("X"), 500)
    await Promise.all([closed(endless), closed(slow)])
    clearInterval(drip)
    expect(await honest()).toBe(EXIT.ok)
  }, 60_000)

  test("a huge body is refused before it is read", async () => {
    const body = Buffer.alloc(2 * 1024 * 1024)
    const refused = await fetch(`${vm.url}/v1/owner`, {
      method: "POST",
      body,
      tls: { rejectUnauthorized: false },
    })
    expect(refused.status).toBe(413)
    expect(await honest()).toBe(EXIT.ok)
  }, 60_000)
})

describe("A4: the power goes", () => {
  test("during the first start, at any moment: the next start completes it, and the VM attests", async () => {
    const directory = join(files, "cut")
    const agent = ["agent", "--simulate", directory, "--port", "0"]
    for (const milliseconds of [30, 60, 90, 130, 180, 240, 320, 420]) {
      const child = Bun.spawn([EXECUTABLE, ...agent], { stdin: "ignore", stdout: "ignore", stderr: "ignore" })
      await Bun.sleep(milliseconds)
      child.kill("SIGKILL")
      await child.exited
    }
    const child = Bun.spawn([EXECUTABLE, ...agent], { stdin: "ignore", stdout: "ignore", stderr: "pipe" })
    try {
      const port = await portIn(child.stderr)
      expect((await run(["simulate", "exec", directory, "/usr/bin/ls"])).code).toBe(EXIT.ok)
      const url = ["--url", `https://127.0.0.1:${port}`, "--allow-insecure-tls"]
      const trust = ["--trust-root", join(directory, "trust-root.pem")]
      expect((await run(["app", "status", ...url, ...trust, "--any-vm"])).stderr).toContain(
        "ERR_NO_APPLICATION",
      )
      expect(readdirSync(join(directory, "data")).sort()).toEqual(["cert.pem", "key.pem"])
    } finally {
      child.kill("SIGTERM")
      await child.exited
    }
  }, 60_000)

  test("while the application is given a configuration: after the restart it has the former one", async () => {
    const programs = join(files, "programs")
    mkdirSync(programs)
    writeFileSync(join(programs, "keyserver"), "#!/bin/sh\nexec sleep 300\n", { mode: 0o755 })
    const vm = await simulatedVm(
      `[auth]\nopen_writes = true\n[app]\nservice_type = "standalone"\nservice_name = "keyserver"\napp_storage = "data/app"\n`,
      programs,
    )
    try {
      await vm.exec("/usr/bin/ls")
      const conf = join(vm.dir, "vm/data/app/app.conf")
      const given = async (text: string) => {
        writeFileSync(join(files, "given.conf"), text)
        return run(["app", "init", ...reached(vm), "--any-vm", "-c", join(files, "given.conf")])
      }
      expect((await given("first")).code).toBe(EXIT.ok)
      const second = given("second")
      while (readFileSync(conf, "utf8") !== "second") await Bun.sleep(5)
      process.kill(vm.pid(), "SIGKILL")
      expect((await second).code).toBe(EXIT.operational)
      await vm.stop()
      await vm.start()
      expect(readFileSync(conf, "utf8")).toBe("first")
      expect(readdirSync(join(vm.dir, "vm/data/app"))).toEqual(["app.conf"])
    } finally {
      await run(["app", "stop", ...reached(vm), "--any-vm"])
      await vm.remove()
    }
  }, 60_000)
})

/** The port that an agent says it listens on. */
async function portIn(stderr: ReadableStream<Uint8Array>): Promise<number> {
  let text = ""
  for await (const chunk of stderr) {
    text += new TextDecoder().decode(chunk)
    const port = /"message":"listening"[^\n]*"port":(\d+)/.exec(text)?.[1]
    if (port !== undefined) return Number(port)
  }
  throw new Error(`the agent ended:\n${text}`)
}
