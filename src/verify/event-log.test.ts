import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { entriesOf } from "../../test/fakes/intel-vectors.ts"
import { vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import {
  EVENT_TYPE,
  type EventLog,
  LOG_ALGORITHM,
  type LogEvent,
  parseEventLog,
} from "../formats/event-log/event-log.ts"
import { toHex } from "../formats/hex.ts"
import { parseTdxQuote } from "../formats/tdx/quote.ts"
import { parsePcrValues } from "../formats/tpm/pcr-values.ts"
import { BANKS, banksOf, isAltered, logKindOf, replayEventLog, verifyBootEvents } from "./event-log.ts"

const CC = { kind: "cc", bank: "sha384" } as const
const TPM = { kind: "tcg", bank: "sha384" } as const
const sha384 = (...parts: readonly Uint8Array[]) =>
  new Uint8Array(createHash("sha384").update(Buffer.concat(parts)).digest())

function measured(register: number, type: number, data: Uint8Array, digest = sha384(data)): LogEvent {
  return { position: 0, register, type, digests: new Map([[LOG_ALGORITHM.sha384, digest]]), data }
}

function logOf(...events: readonly LogEvent[]): EventLog {
  return {
    form: "crypto-agile",
    algorithms: [{ id: LOG_ALGORITHM.sha384, size: 48 }],
    events: events.map((event, position) => ({ ...event, position })),
    size: 0,
    padding: 0,
  }
}

const A = measured(1, EVENT_TYPE.EV_SEPARATOR, new Uint8Array(4))
const B = measured(2, EVENT_TYPE.EV_EFI_ACTION, Buffer.from("Calling EFI Application from Boot Option"))
const C = measured(2, EVENT_TYPE.EV_IPL, Buffer.from("a path"), sha384(Buffer.from("a file")))
const LOG = logOf(A, B, C)
const ZEROS = new Uint8Array(48)
/** All four registers that a log gives. */
const rtmrsOf = (log: EventLog) => {
  const replayed = replayEventLog(log, "cc", "sha384")
  return new Map([0, 1, 2, 3].map((rtmr) => [rtmr, replayed.get(rtmr) ?? ZEROS]))
}
const unexplained = (log: EventLog, quoted: ReadonlyMap<number, Uint8Array>) => [
  ...verifyBootEvents(log, quoted, CC).unexplained.keys(),
]

describe.skipIf(!HAVE_VECTORS)("real logs and their quotes", () => {
  for (const { file, facts, related } of entriesOf("ccel", "ccel").filter(
    ({ related }) => related?.["quote"],
  ))
    test(`${file}: ${JSON.stringify(facts["quote_rtmr_match"])}`, () => {
      const { rtmrs } = parseTdxQuote(vector(`${related?.["quote"]}`)).body
      const wrong = unexplained(parseEventLog(vector(file)), new Map(rtmrs.entries()))
      const fits = Object.entries<unknown>(Object(facts["quote_rtmr_match"]))
      expect(wrong).toEqual(fits.filter(([, fit]) => fit !== true).map(([rtmr]) => Number(rtmr)))
    })

  for (const { file, facts } of entriesOf("ccel", "ccel"))
    test(`${file}: replayed`, () => {
      const log = parseEventLog(vector(file))
      expect(logKindOf(log)).toBe("cc")
      const replayed = replayEventLog(log, "cc", "sha384")
      for (const [index, value] of Object.entries<unknown>(Object(facts["rtmr"])))
        expect(toHex(replayed.get(Number(index)) ?? ZEROS)).toBe(`${value}`)
    })

  const logs = vectorsUnder("eventlog").filter(({ file }) => file.endsWith(".bin"))
  for (const { file, facts, related } of logs)
    test(`${file}: replayed in each bank, and no event is altered`, () => {
      const log = parseEventLog(vector(file))
      expect(logKindOf(log)).toBe("tcg")
      const given = related?.["pcrs"]
      const expected =
        typeof given === "string" ? parsePcrValues(vector(given)) : pcrsIn(JSON.stringify(facts["pcrs"]))
      const banks = banksOf(log).filter((bank) => expected[bank] !== undefined)
      expect(banks).not.toEqual([])
      for (const bank of banks) {
        const replayed = replayEventLog(log, "tcg", bank)
        for (const [pcr, value] of expected[bank] ?? [])
          expect([bank, pcr, toHex(replayed.get(pcr) ?? new Uint8Array())]).toEqual([bank, pcr, toHex(value)])
        const { registers } = verifyBootEvents(log, expected[bank] ?? new Map(), { kind: "tcg", bank })
        expect([...registers.keys()]).toEqual([...(expected[bank]?.keys() ?? [])])
      }
      expect(log.events.filter(isAltered)).toEqual([])
    })

  const evidence = [
    ["cocos/cocos-quote", [5, 8, 9]],
    ["gcp/gce-cos85-no-nonce", []],
    ["gcp/gce-cos85-nonce9009", []],
  ] as const
  for (const [folder, after] of evidence)
    test(`${folder}: measured after the log had ended: ${after.join(", ") || "nothing"}`, () => {
      const log = parseEventLog(vector(`${folder}/eventlog.bin`))
      const quoted = parsePcrValues(vector(`${folder}/pcrs.json`))
      for (const bank of BANKS) {
        const boot = new Map([...(quoted[bank] ?? [])].filter(([pcr]) => pcr < 10))
        if (boot.size === 0 || !banksOf(log).includes(bank)) continue
        const proven = verifyBootEvents(log, boot, { kind: "tcg", bank })
        expect([...proven.unexplained.keys()].sort()).toEqual([...after])
        expect(proven.registers.size).toBe(boot.size - after.length)
      }
    })
})

/** PCR values as the index has them. */
function pcrsIn(json: string) {
  return parsePcrValues(new TextEncoder().encode(json))
}

describe("event log", () => {
  test("events come out in order, and only some are more than a claim", () => {
    const { registers } = verifyBootEvents(LOG, rtmrsOf(LOG), CC)
    const shown = [...registers].map(([rtmr, events]) => [rtmr, events.map(({ measured }) => measured?.part)])
    expect(shown).toEqual([
      [0, ["data"]],
      [1, ["data", undefined]],
      [2, []],
      [3, []],
    ])
  })

  test("events of registers that differ are not given out", () => {
    const rtmrs = rtmrsOf(LOG).set(1, new Uint8Array(48))
    const { registers, unexplained } = verifyBootEvents(LOG, rtmrs, CC)
    expect([[...registers.keys()], [...unexplained.keys()]]).toEqual([[0, 2, 3], [1]])
  })

  test("removed, added, reordered, doubled or moved events are found", () => {
    const rtmrs = rtmrsOf(LOG)
    const moved = { ...C, register: 3 }
    for (const other of [[A, B], [A, C, B], [A, B, C, C], [A, B, C, A], [A, B, moved], []])
      expect(unexplained(logOf(...other), rtmrs)).not.toEqual([])
    expect(unexplained(LOG, rtmrs)).toEqual([])
  })

  test("data that its digest does not belong to is found", () => {
    const rtmrs = rtmrsOf(LOG)
    const edited = { ...B, data: Buffer.from("Calling another application") }
    expect(() => verifyBootEvents(logOf(A, edited, C), rtmrs, CC)).toThrowCode("ERR_EVENT_DIGEST")
  })

  test("events that only inform are not replayed", () => {
    const note = measured(9, EVENT_TYPE.EV_NO_ACTION, new Uint8Array(1))
    expect(rtmrsOf(logOf(note, A, B, C))).toEqual(rtmrsOf(LOG))
  })

  test("registers that do not exist, and events without a digest of the bank, are refused", () => {
    for (const register of [0, 5, 0xffffffff])
      expect(() => replayEventLog(logOf({ ...A, register }), "cc", "sha384")).toThrowCode(
        "ERR_EVENT_REGISTER",
      )
    expect(() => replayEventLog(logOf({ ...A, register: 24 }), "tcg", "sha384")).toThrowCode(
      "ERR_EVENT_REGISTER",
    )
    expect(() => replayEventLog(logOf({ ...A, digests: new Map() }), "cc", "sha384")).toThrowCode(
      "ERR_EVENT_DIGEST",
    )
  })

  test("PCR 0 begins with the locality that the TPM was started from, and PCR 17 with ones", () => {
    const started = measured(
      0,
      EVENT_TYPE.EV_NO_ACTION,
      Uint8Array.from([...Buffer.from("StartupLocality\0"), 3]),
    )
    const code = { ...A, register: 0 }
    const begin = Uint8Array.from([...new Uint8Array(47), 3])
    expect(replayEventLog(logOf(started, code), "tcg", "sha384").get(0)).toEqual(
      sha384(begin, sha384(A.data)),
    )
    const untouched = new Map([
      [0, begin],
      [17, new Uint8Array(48).fill(0xff)],
      [16, ZEROS],
    ])
    expect([...verifyBootEvents(logOf(started), untouched, TPM).registers.keys()]).toEqual([0, 17, 16])
    expect([...verifyBootEvents(logOf(), untouched, TPM).unexplained.keys()]).toEqual([0])
  })

  test("whose registers it is about", () => {
    expect(logKindOf(LOG)).toBe("cc")
    expect(logKindOf(logOf({ ...A, register: 0 }, B))).toBe("tcg")
    const two = [...LOG.algorithms, { id: LOG_ALGORITHM.sha256, size: 32 }]
    expect(logKindOf({ ...LOG, algorithms: two })).toBe("tcg")
  })
})

describe("what of an event was measured", () => {
  const event = (data: string, hashed: string, type: number = EVENT_TYPE.EV_IPL): string | null =>
    verifyBootEvents(
      logOf(measured(1, type, Buffer.from(data), sha384(Buffer.from(hashed)))),
      rtmrsOf(logOf(measured(1, type, Buffer.from(data), sha384(Buffer.from(hashed))))),
      CC,
    ).registers.get(0)?.[0]?.measured?.part ?? null

  test.each([
    ["kernel_cmdline: root=/dev/vda1 ro\0", "root=/dev/vda1 ro", "text"],
    ["grub_cmd: set a=b\0", "set a=b", "text"],
    ["grub_cmd set a=b\0", "set a=b\0", "text"],
    ["grub_kernel_cmdline ro\0", "ro", "text"],
    ["/boot/vmlinuz\0", "its content", null],
    ["text\0", "text", "data"],
    ["kernel_cmdline: root=/dev/vda1 ro\0", "root=/dev/vda1 rw", null],
  ])("%j, where %j was hashed: %p", (data, hashed, part) => expect(event(data, hashed)).toBe(part))

  test("a separator after an error stands for the number 1", () => {
    expect(event("what happened", "\x01\0\0\0", EVENT_TYPE.EV_SEPARATOR)).toBe("value")
    expect(() => event("what happened", "\x02\0\0\0", EVENT_TYPE.EV_SEPARATOR)).toThrowCode(
      "ERR_EVENT_DIGEST",
    )
  })
})
