import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AcmeError, AgentError } from "../errors.ts"
import type { CertificateOrder } from "../formats/provision.ts"
import type { Applications } from "./applications.ts"
import { Bootstrap, type ObtainCertificate, provisionedEnvironment } from "./bootstrap.ts"
import type { BootstrapConfig } from "./config.ts"
import { createLog } from "./log.ts"

let directory: string
let log: string[]
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "bootstrap-"))
  log = []
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const configOf = (values: readonly string[] = ["password", "tls.key"]): BootstrapConfig => ({
  port: 0,
  values,
  directory: join(directory, "values"),
  environment: true,
  certificateDirectory: join(directory, "certificate"),
  acmeWorkspace: join(directory, "acme"),
})

/** An application that comes up where it likes what it finds, and what it found at each start. */
function make(config = configOf(), likes = true, guard: ((path: string) => void) | null = null) {
  const found: string[][] = []
  let up = false
  const apps: Applications = {
    init: async () => undefined,
    restart: async () => {
      found.push(readdirSync(config.directory).sort())
      if (!likes) throw new AgentError("ERR_SERVICE")
      up = true
    },
    stop: async () => undefined,
    status: async () => ({ service: "app", state: up ? "up" : "down", configured: false, busy: false }),
    logs: async () => [],
    recover: async () => undefined,
  }
  const logged = createLog(
    "json",
    (line) => log.push(line),
    () => new Date(0),
  )
  const obtainCertificate: ObtainCertificate = async ({ names }) => {
    if (names[0] === "unreachable.example") throw new AcmeError("ERR_ACME_CHALLENGE")
    return issued
  }
  const options = { config, apps, log: logged, guard, maxBytes: 100, obtainCertificate }
  return { bootstrap: new Bootstrap(options), found, config }
}

const values = (members: Record<string, string>, name: string | null = null) => ({
  values: new Map(Object.entries(members).map(([key, text]) => [key, Buffer.from(text)])),
  certificate: name === null ? null : orderFor(name),
})

const orderFor = (name: string): CertificateOrder => ({
  names: [name],
  directory: "https://ca.test/dir",
  authorities: null,
  email: null,
  challenge: "http-01",
  port: 80,
})
const issued = { certificate: "/c/cert.pem", key: "/c/key.pem", not_after: "2030-01-01T00:00:00.000Z" }

test("values stay in memory until the start, and are files of their owner after it", async () => {
  const { bootstrap, found, config } = make()
  bootstrap.receive(values({ password: "secret" }))
  bootstrap.receive(values({ "tls.key": "key" }))
  expect(bootstrap.status()).toEqual({
    state: "waiting",
    wanted: ["password", "tls.key"],
    received: ["password", "tls.key"],
    certificate: null,
  })
  expect(readdirSync(directory)).toEqual([])
  await bootstrap.start()
  expect(found).toEqual([["password", "tls.key"]])
  expect(readFileSync(join(config.directory, "password"), "utf8")).toBe("secret")
  expect(statSync(config.directory).mode & 0o777).toBe(0o700)
  expect(statSync(join(config.directory, "password")).mode & 0o777).toBe(0o600)
  expect(bootstrap.status()).toMatchObject({ state: "done", received: [] })
  await bootstrap.done
  expect(log.join("")).not.toMatch(/secret/)
})

test("the application is not started while a value is missing", async () => {
  const { bootstrap, found, config } = make()
  bootstrap.receive(values({ password: "secret" }))
  await expect(bootstrap.start()).rejects.toMatchObject({ code: "ERR_BOOTSTRAP", at: "tls.key" })
  expect(found).toEqual([])
  expect(existsSync(config.directory)).toBe(false)
})

test("a name that the application does not know is refused, with all that came with it", () => {
  const { bootstrap } = make()
  expect(() => bootstrap.receive(values({ password: "x", other: "y" }))).toThrowCode("ERR_BOOTSTRAP")
  expect(bootstrap.status().received).toEqual([])
  make(configOf([])).bootstrap.receive(values({ other: "y" }))
})

test("an application that does not come up leaves nothing on the disk, and can be tried again", async () => {
  const { bootstrap, config } = make(configOf(), false)
  bootstrap.receive(values({ password: "secret", "tls.key": "key" }))
  await expect(bootstrap.start()).rejects.toMatchObject({ code: "ERR_SERVICE" })
  expect(readdirSync(directory)).toEqual([])
  expect(bootstrap.status()).toMatchObject({ state: "waiting", received: ["password", "tls.key"] })
  expect(existsSync(config.directory)).toBe(false)
})

test("where the place is not encrypted any more nothing is written, and the values stay in memory", async () => {
  const { bootstrap, found, config } = make(configOf(), true, () => {
    throw new AgentError("ERR_STORAGE_PLAIN")
  })
  bootstrap.receive(values({ password: "secret", "tls.key": "key" }))
  await expect(bootstrap.start()).rejects.toMatchObject({ code: "ERR_STORAGE_PLAIN" })
  expect([readdirSync(directory), found]).toEqual([[], []])
  expect(existsSync(config.directory)).toBe(false)
  expect(bootstrap.status()).toMatchObject({ state: "waiting", received: ["password", "tls.key"] })
})

test("without a list of names, all that is held has a bound together", () => {
  const { bootstrap } = make(configOf([]))
  bootstrap.receive(values({ a: "x".repeat(60) }))
  bootstrap.receive(values({ a: "x".repeat(70) }))
  expect(() => bootstrap.receive(values({ b: "x".repeat(40) }))).toThrowCode("ERR_TOO_LARGE")
  expect(bootstrap.status().received).toEqual(["a"])
})

test("what stands in the directory's place and is not ours is not removed", async () => {
  const config = configOf([])
  writeFileSync(config.directory, "somebody's")
  const { bootstrap } = make(config)
  await expect(bootstrap.start()).rejects.toThrow()
  expect(readFileSync(config.directory, "utf8")).toBe("somebody's")
})

describe("a certificate", () => {
  test("is there before the application is started", async () => {
    const { bootstrap } = make(configOf([]))
    bootstrap.receive(values({}, "vm.example"))
    expect(bootstrap.status().certificate).toEqual({ names: ["vm.example"], issued: null })
    await bootstrap.start()
    expect(bootstrap.status()).toMatchObject({ state: "done", certificate: { issued } })
  })

  test("that cannot be had: nothing is written or started, and another name can be sent", async () => {
    const { bootstrap, found } = make()
    bootstrap.receive(values({ password: "secret", "tls.key": "key" }, "unreachable.example"))
    await expect(bootstrap.start()).rejects.toMatchObject({ code: "ERR_ACME_CHALLENGE" })
    expect([readdirSync(directory), found]).toEqual([[], []])
    expect(bootstrap.status()).toMatchObject({ state: "waiting", received: ["password", "tls.key"] })
    bootstrap.receive(values({}, "vm.example"))
    await bootstrap.start()
    expect(found).toEqual([["password", "tls.key"]])
  })
})

test("once started it takes nothing more", async () => {
  const { bootstrap } = make(configOf([]))
  await bootstrap.start()
  expect(() => bootstrap.receive(values({ password: "other" }))).toThrowCode("ERR_BOOTSTRAP")
  await expect(bootstrap.start()).rejects.toMatchObject({ code: "ERR_BOOTSTRAP" })
})

describe("after a restart of the agent", () => {
  test("values that are still there: the application is started, nothing is waited for", async () => {
    const first = make(configOf([]))
    first.bootstrap.receive(values({ password: "secret" }))
    await first.bootstrap.start()
    const second = make(configOf([]))
    expect(second.bootstrap.status().state).toBe("done")
    await second.bootstrap.resume()
    expect(second.found).toEqual([["password"]])
  })

  test("A4: a directory that was not finished does not count, and is replaced", async () => {
    const config = configOf([])
    mkdirSync(`${config.directory}.new`)
    writeFileSync(join(`${config.directory}.new`, "half"), "x")
    const { bootstrap, found } = make(config)
    expect(bootstrap.status().state).toBe("waiting")
    bootstrap.receive(values({ password: "secret" }))
    await bootstrap.start()
    expect(found).toEqual([["password"]])
  })
})

test("environment variables are the values that can be such, and none before the start", async () => {
  const { bootstrap, config } = make(configOf([]))
  expect(provisionedEnvironment(config)).toEqual({})
  bootstrap.receive(values({ password: "secret", "tls.key": "key", binary: "a\0b" }))
  await bootstrap.start()
  expect(provisionedEnvironment(config)).toEqual({
    COSMIAN_VM_VALUES: config.directory,
    password: "secret",
  })
  expect(provisionedEnvironment({ ...config, environment: false })).toEqual({})
})

for (const name of ["LD_PRELOAD", "GLIBC_TUNABLES", "PATH", "PYTHONPATH", "COSMIAN_VM_VALUES"])
  test(`${name} is refused where values become environment variables, and not given to a program`, () => {
    const { bootstrap, config } = make(configOf([]))
    expect(() => bootstrap.receive(values({ [name]: "x" }))).toThrowCode("ERR_BOOTSTRAP")
    mkdirSync(config.directory, { recursive: true })
    writeFileSync(join(config.directory, name), "x")
    expect(provisionedEnvironment(config)).toEqual({ COSMIAN_VM_VALUES: config.directory })
  })
