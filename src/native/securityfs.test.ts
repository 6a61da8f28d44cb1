import { expect, test } from "bun:test"
import { statSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { openMeasurementList } from "./securityfs.ts"

test("reads both lists", () =>
  withDirectory(async (dir) => {
    writeFileSync(join(dir, "binary_runtime_measurements"), Uint8Array.of(10, 0, 0, 0))
    writeFileSync(join(dir, "ascii_runtime_measurements"), "10 …\n")
    const list = openMeasurementList(dir)
    expect(await list.readBinary()).toEqual(Uint8Array.of(10, 0, 0, 0))
    expect(await list.readAscii()).toBe("10 …\n")
  }))

test("reads on where the size is said to be 0, as the kernel says of its lists", () =>
  withDirectory(async (dir) => {
    symlinkSync("/proc/self/smaps", join(dir, "binary_runtime_measurements"))
    expect(statSync("/proc/self/smaps").size).toBe(0)
    expect((await openMeasurementList(dir).readBinary()).length).toBeGreaterThan(4096)
  }))

test("a kernel without IMA is named as such", async () => {
  expect(await codeOf(openMeasurementList("/nonexistent").readBinary())).toBe("ERR_IO")
  expect(await codeOf(openMeasurementList("/nonexistent").readAscii())).toBe("ERR_IO")
})
