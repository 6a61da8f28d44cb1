/** The units that the packages install. */
import { describe, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const UNITS = join(import.meta.dir, "..", "deb/root/usr/lib/systemd/system")
const units = readdirSync(UNITS).map((name) => ({ name, text: readFileSync(join(UNITS, name), "utf8") }))

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
        writeFileSync(join(directory, name), text.replace(/\/usr\/sbin\/cosmian_vm\w*/, "/bin/true"))
      const paths = units.map(({ name }) => join(directory, name))
      const verified = Bun.spawnSync(["systemd-analyze", "verify", "--man=no", ...paths])
      expect(`${verified.stdout}${verified.stderr}`).toBe("")
      expect(verified.exitCode).toBe(0)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})
