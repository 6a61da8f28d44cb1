/** The units that the packages install. */
import { describe, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseAgentConfig } from "../src/agent/config.ts"
import { redisUnit } from "./guest/redis-unit.ts"

const UNITS = join(import.meta.dir, "..", "deb/root/usr/lib/systemd/system")
const EXAMPLE = join(import.meta.dir, "../deb/root/usr/share/doc/cosmian-vm/examples/key-management-server")
const exampleUnit = readFileSync(join(EXAMPLE, "example-kms.service"), "utf8")
const units = [
  ...readdirSync(UNITS).map((name) => ({ name, text: readFileSync(join(UNITS, name), "utf8") })),
  { name: "example-kms.service", text: exampleUnit },
  { name: "e2e-redis.service", text: redisUnit() },
]

/** Not installed where the tests run. */
const PROGRAMS = /\/usr\/sbin\/cosmian_vm\w*|\/usr\/local\/bin\/kms|\/usr\/bin\/redis-server/

test("the example's unit gets the values that its configuration names, from where the agent leaves them", () => {
  const text = readFileSync(join(EXAMPLE, "agent.toml"), "utf8")
  const { application, bootstrap } = parseAgentConfig(text, "agent.toml")
  expect(application?.serviceName).toBe("example-kms")
  const loaded = [...exampleUnit.matchAll(/^LoadCredential=(.+):(.+)$/gm)].map(([, name, path]) => [
    name,
    path,
  ])
  expect(loaded).toEqual([
    ...(bootstrap?.values ?? []).map((name) => [name, join(bootstrap?.directory ?? "", name)]),
    ...["cert.pem", "key.pem"].map((name) => [name, join(bootstrap?.certificateDirectory ?? "", name)]),
  ])
})

describe("systemd units", () => {
  for (const { name, text } of units.filter((unit) => unit.name.endsWith(".service")))
    test(`${name} does not wait for ever, neither to start nor to stop`, () => {
      for (const setting of ["TimeoutStartSec", "TimeoutStopSec"])
        expect(text).toMatch(new RegExp(`^${setting}=[1-9][0-9]*(min|h)?$`, "m"))
    })

  test.skipIf(Bun.which("systemd-analyze") === null)("are ones that systemd understands", () => {
    const directory = mkdtempSync(join(tmpdir(), "units-"))
    try {
      // The programs are not installed here.
      for (const { name, text } of units)
        writeFileSync(join(directory, name), text.replace(PROGRAMS, "/bin/true"))
      const paths = units.map(({ name }) => join(directory, name))
      const verified = Bun.spawnSync(["systemd-analyze", "verify", "--man=no", ...paths])
      expect(`${verified.stdout}${verified.stderr}`).toBe("")
      expect(verified.exitCode).toBe(0)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})
