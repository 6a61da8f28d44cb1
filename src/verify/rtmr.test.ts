import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { entriesOf } from "../../test/fakes/intel-vectors.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import {
  EVENT_TYPE,
  type EventLog,
  LOG_ALGORITHM,
  type LogEvent,
  parseEventLog,
} from "../formats/ccel/event-log.ts"
import { toHex } from "../formats/hex.ts"
import { parseTdxQuote } from "../formats/tdx/quote.ts"
import { replayEventLog, verifyEventLog } from "./rtmr.ts"

const sha384 = (data: Uint8Array) => new Uint8Array(createHash("sha384").update(data).digest())

function measured(register: number, type: number, data: Uint8Array, digest = sha384(data)): LogEvent {
  return { position: 0, register, type, digests: new Map([[LOG_ALGORITHM.sha384, digest]]), data }
}

function logOf(...events: readonly LogEvent[]): EventLog {
  const numbered = events.map((event, position) => ({ ...event, position }))
  return { algorithms: [{ id: LOG_ALGORITHM.sha384, size: 48 }], events: numbered, size: 0, padding: 0 }
}

const A = measured(1, EVENT_TYPE.EV_SEPARATOR, new Uint8Array(4))
const B = measured(2, EVENT_TYPE.EV_EFI_ACTION, Buffer.from("Calling EFI Application from Boot Option"))
const C = measured(2, EVENT_TYPE.EV_IPL, Buffer.from("a path"), sha384(Buffer.from("a file")))
const LOG = logOf(A, B, C)

describe.skipIf(!HAVE_VECTORS)("real logs and their quotes", () => {
  for (const { file, facts, related } of entriesOf("ccel", "ccel").filter(
    ({ related }) => related?.["quote"],
  ))
    test(`${file}: ${JSON.stringify(facts["quote_rtmr_match"])}`, () => {
      const log = parseEventLog(vector(file))
      const { rtmrs } = parseTdxQuote(vector(`${related?.["quote"]}`)).body
      const fits = Object.entries<unknown>(Object(facts["quote_rtmr_match"]))
      for (const [register, fit] of fits) {
        const judged = () => verifyEventLog(log, rtmrs, [Number(register)])
        if (fit === true) expect(judged().registers).toEqual([Number(register)])
        else expect(judged).toThrowCode("ERR_RTMR_REPLAY")
      }
      if (fits.every(([, fit]) => fit === true))
        expect(verifyEventLog(log, rtmrs).events.length).toBe(log.events.length - 1)
      else expect(() => verifyEventLog(log, rtmrs)).toThrowCode("ERR_RTMR_REPLAY")
    })
})

describe.skipIf(!HAVE_VECTORS)("real logs", () => {
  for (const { file, facts } of entriesOf("ccel", "ccel"))
    test(`${file}: replayed`, () => {
      const replayed = replayEventLog(parseEventLog(vector(file))).map(toHex)
      for (const [index, value] of Object.entries<unknown>(Object(facts["rtmr"])))
        expect(replayed[Number(index)]).toBe(`${value}`)
    })
})

describe("event log", () => {
  test("events come out in order, and only some are more than a claim", () => {
    const { events } = verifyEventLog(LOG, replayEventLog(LOG))
    expect(events.map(({ rtmr, dataMeasured }) => [rtmr, dataMeasured])).toEqual([
      [0, true],
      [1, true],
      [1, false],
    ])
  })

  test("events of registers that were not compared are not given out", () => {
    const rtmrs = replayEventLog(LOG).map((rtmr, index) => (index === 1 ? new Uint8Array(48) : rtmr))
    expect(verifyEventLog(LOG, rtmrs, [0]).events.map(({ rtmr }) => rtmr)).toEqual([0])
  })

  test("removed, added, reordered, doubled or moved events are found", () => {
    const rtmrs = replayEventLog(LOG)
    const moved = { ...C, register: 3 }
    for (const other of [[A, B], [A, C, B], [A, B, C, C], [A, B, C, A], [A, B, moved], []])
      expect(() => verifyEventLog(logOf(...other), rtmrs)).toThrowCode("ERR_RTMR_REPLAY")
  })

  test("data that its digest does not belong to is found", () => {
    const rtmrs = replayEventLog(LOG)
    const edited = { ...B, data: Buffer.from("Calling another application") }
    expect(() => verifyEventLog(logOf(A, edited, C), rtmrs)).toThrowCode("ERR_EVENT_DIGEST")
  })

  test("events that only inform are not replayed", () => {
    const note = measured(9, EVENT_TYPE.EV_NO_ACTION, new Uint8Array(1))
    expect(replayEventLog(logOf(note, A, B, C))).toEqual(replayEventLog(LOG))
  })

  test("registers that do not exist, and events without a SHA-384 digest, are refused", () => {
    for (const register of [0, 5, 0xffffffff])
      expect(() => replayEventLog(logOf({ ...A, register }))).toThrowCode("ERR_EVENT_REGISTER")
    expect(() => replayEventLog(logOf({ ...A, digests: new Map() }))).toThrowCode("ERR_EVENT_DIGEST")
  })
})
