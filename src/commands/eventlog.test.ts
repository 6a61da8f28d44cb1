import { afterAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { EXIT } from "../errors.ts"
import { type EncodedEvent, encodeEventLog } from "../formats/event-log/encode.ts"
import { EVENT_TYPE } from "../formats/event-log/event-log.ts"
import { replayEventLogFile } from "./eventlog-replay.ts"
import { showEventLog } from "./eventlog-show.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

const DIR = mkdtempSync(join(tmpdir(), "cosmian-vm-eventlog-"))
afterAll(() => rmSync(DIR, { recursive: true, force: true }))

function file(name: string, content: Uint8Array | string): string {
  const path = join(DIR, name)
  writeFileSync(path, content)
  return path
}

function recorder(): Terminal & { readonly said: string[] } {
  const said: string[] = []
  const out = (text: string) => void said.push(text)
  return {
    said,
    out,
    talk: out,
    outStyle: PLAIN,
    talkStyle: PLAIN,
    live: false,
    columns: 80,
    outColumns: null,
  }
}

function replay(path: string, more: { bank?: "sha1" | "sha256" | "sha384"; pcrs?: string } = {}) {
  const terminal = recorder()
  const { bank = null, pcrs = null } = more
  const code = replayEventLogFile({ file: path, bank, pcrs, json: true }, terminal)
  return { code, json: JSON.parse(terminal.said.join("")) }
}

function show(path: string, json: boolean) {
  const terminal = recorder()
  return { code: showEventLog(path, json, terminal), text: terminal.said.join("") }
}

const sha256 = (...parts: readonly Uint8Array[]) =>
  new Uint8Array(createHash("sha256").update(Buffer.concat(parts)).digest())
const text = (words: string) => new TextEncoder().encode(words)
const event = (register: number, type: number, data: Uint8Array, measured = data): EncodedEvent => ({
  register,
  type,
  data,
  digests: new Map([["sha256", sha256(measured)]]),
})
const EVENTS = [
  event(0, EVENT_TYPE.EV_SEPARATOR, new Uint8Array(4)),
  event(8, EVENT_TYPE.EV_IPL, text("kernel_cmdline: ro \u001b[31mquiet\0"), text("ro \u001b[31mquiet")),
  event(9, EVENT_TYPE.EV_IPL, text("/boot/initrd.img\0"), text("content")),
]
const LOG = encodeEventLog(["sha256"], EVENTS)
const PCR9 = Buffer.from(sha256(new Uint8Array(32), sha256(text("content")))).toString("hex")

describe("eventlog replay", () => {
  test("plain, of gzip and of zstd, in one bank or all", () => {
    for (const content of [LOG, gzipSync(LOG), zstdCompressSync(LOG)]) {
      const { code, json } = replay(file("log", content))
      expect([code, json.kind, json.events, json.pcrs.sha256["9"]]).toEqual([EXIT.ok, "tcg", 3, PCR9])
    }
    expect(() => replay(file("log", LOG), { bank: "sha1" })).toThrowCode("ERR_BAD_VALUE")
    expect(() => replay(file("cut", LOG.subarray(0, -1)))).toThrowCode("ERR_TRUNCATED")
  })

  test("values to compare with: the same, another, none that can be compared", () => {
    const compared = (pcrs: object) => {
      const { code, json } = replay(file("log", LOG), { pcrs: file("pcrs.json", JSON.stringify(pcrs)) })
      return [code, json.matches]
    }
    expect(compared({ sha256: { 9: PCR9 } })).toEqual([EXIT.ok, true])
    expect(compared({ 9: PCR9, 10: "ab".repeat(32) })).toEqual([EXIT.ok, true])
    expect(compared({ sha256: { 9: "00".repeat(32) } })).toEqual([EXIT.boot, false])
    expect(compared({ sha256: { 10: PCR9 } })).toEqual([EXIT.boot, false])
    expect(compared({ sha1: { 9: "00".repeat(20) } })).toEqual([EXIT.boot, false])
  })

  test("an event whose data were altered is told, though the registers are the same", () => {
    const [first, ...others] = EVENTS
    if (first === undefined) throw new Error("no event")
    const altered = encodeEventLog(["sha256"], [{ ...first, data: new Uint8Array(4).fill(0xff) }, ...others])
    const result = replay(file("altered", altered))
    expect([result.code, result.json.altered]).toEqual([EXIT.boot, [1]])
    expect(replay(file("log", LOG)).json.altered).toEqual([])
    expect(show(file("altered", altered), false).code).toBe(EXIT.boot)
  })

  test.skipIf(!HAVE_VECTORS)("a trust domain's gives RTMRs", () => {
    const entry = vectorsUnder("ccel").find(({ file }) => file.endsWith("live2.bin"))
    const path = file("ccel", vector("ccel/attestation-rs-live2.bin"))
    const { code, json } = replay(path)
    expect(code).toBe(EXIT.ok)
    expect(json.rtmrs).toMatchObject(Object(entry?.facts["rtmr"]))
    expect(Object.keys(json.rtmrs)).toEqual(["0", "1", "2", "3"])
    const pcrs = file("rtmrs.json", JSON.stringify(json.rtmrs))
    expect(replay(path, { pcrs }).json.matches).toBe(true)
  })
})

describe("eventlog show", () => {
  test("events by name, and nothing that a terminal would obey", () => {
    const { code, text } = show(file("log", LOG), false)
    expect(code).toBe(EXIT.ok)
    expect(text).toContain("kernel command line: ro \\x1b[31mquiet")
    expect(text).toContain("initial RAM disk: /boot/initrd.img")
    expect(text).not.toContain("\u001b")
  })

  test("for a program", () => {
    const { events, ...rest } = JSON.parse(show(file("log", LOG), true).text)
    expect(rest).toMatchObject({ kind: "tcg", form: "crypto-agile", banks: ["sha256"], padding: 0 })
    expect(events.map(({ digest_of }: { digest_of: string }) => digest_of)).toEqual([
      "none",
      "data",
      "text",
      "other",
    ])
  })

  const folders = ["eventlog", "ccel", "gcp", "cocos"]
  const logs = folders
    .flatMap(vectorsUnder)
    .filter(({ file }) => /(?:eventlog\/|ccel\/|eventlog\.)[^/]*bin$/.test(file))
  for (const { file: name } of logs)
    test(`${name}: shown, and no event is of a form that its type does not have`, () => {
      const { code, text } = show(file("vector", vector(name)), true)
      const descriptions: string[] = JSON.parse(text).events.map(
        ({ description }: { description: string }) => description,
      )
      expect(code).toBe(EXIT.ok)
      expect(descriptions.filter((line) => line.startsWith("data of another form"))).toEqual([])
      expect(show(file("vector", vector(name)), false).text.split("\n").length).toBeGreaterThan(
        descriptions.length,
      )
    })
})
