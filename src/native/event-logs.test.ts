import { afterAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { MAX_EVENT_LOG_BYTES } from "../formats/event-log/event-log.ts"
import { MAX_COMMAND_LINE_BYTES } from "../formats/evidence.ts"
import { openEventLogs } from "./event-logs.ts"

const DIR = mkdtempSync(join(tmpdir(), "cosmian-vm-event-logs-"))
afterAll(() => rmSync(DIR, { recursive: true, force: true }))

function file(name: string, size: number): string {
  const path = join(DIR, name)
  writeFileSync(path, new Uint8Array(size).fill(7))
  return path
}

test("logs are read whole, and what is no log is none", async () => {
  const firmware = async (path: string) =>
    (await openEventLogs({ firmware: path }).readFirmware())?.length ?? null
  expect(await firmware(file("small", 10))).toBe(10)
  expect(await firmware(file("large", MAX_EVENT_LOG_BYTES))).toBe(MAX_EVENT_LOG_BYTES)
  expect(await firmware(file("too-large", MAX_EVENT_LOG_BYTES + 1))).toBeNull()
  expect(await firmware(file("empty", 0))).toBeNull()
  expect(await firmware(join(DIR, "absent"))).toBeNull()
  expect(await firmware(DIR)).toBeNull()
  const commandLine = async (path: string) =>
    (await openEventLogs({ commandLine: path }).readCommandLine())?.length ?? null
  expect(await commandLine(file("cmdline", MAX_COMMAND_LINE_BYTES))).toBe(MAX_COMMAND_LINE_BYTES)
  expect(await commandLine(file("long", MAX_COMMAND_LINE_BYTES + 1))).toBeNull()
  const confidential = file("ccel", 12)
  expect((await openEventLogs({ confidential }).readConfidential())?.length).toBe(12)
})
