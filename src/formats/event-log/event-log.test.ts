import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { entriesOf } from "../../../test/fakes/intel-vectors.ts"
import { vector, vectorsUnder } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { EVENT_TYPE, eventTypeName, LOG_ALGORITHM, MAX_EVENT_LOG_BYTES, parseEventLog } from "./event-log.ts"

const u16 = (value: number) => [value & 0xff, value >> 8]
const u32 = (value: number) => [...u16(value & 0xffff), ...u16(value >>> 16)]

const SPEC_ID = [
  ...Buffer.from("Spec ID Event03\0"),
  ...[0, 0, 0, 0, 0, 2, 0, 2],
  ...u32(1),
  ...u16(LOG_ALGORITHM.sha384),
  ...u16(48),
  0,
]
const first = (data: readonly number[]) => [
  ...u32(1),
  ...u32(EVENT_TYPE.EV_NO_ACTION),
  ...new Uint8Array(20),
  ...u32(data.length),
  ...data,
]
const event = (algorithm: number = LOG_ALGORITHM.sha384, size = 48) => [
  ...u32(1),
  ...u32(EVENT_TYPE.EV_IPL),
  ...u32(1),
  ...u16(algorithm),
  ...new Uint8Array(size),
  ...u32(2),
  7,
  0,
]
const parsed = (...bytes: readonly number[]) => parseEventLog(Uint8Array.from(bytes))

describe.skipIf(!HAVE_VECTORS)("real logs", () => {
  for (const { file, facts } of entriesOf("ccel", "ccel")) {
    test(`${file}: read to the end`, () => {
      const log = parseEventLog(vector(file))
      expect(log.events.length).toBe(Number(facts["events"]))
      expect(log.padding).toBe(0)
      const registers = new Set(log.events.slice(1).map(({ register }) => `${register}`))
      const seen: unknown = [...registers].sort()
      expect(seen).toEqual(facts["mr_index_seen"])
    })

    test(`${file}: filling behind it is left out`, () => {
      const bytes = vector(file)
      const events = parseEventLog(bytes).events.length
      for (const filling of [0, 0xff]) {
        const area = new Uint8Array(bytes.length + 5000).fill(filling)
        area.set(bytes)
        const log = parseEventLog(area)
        expect([log.events.length, log.padding, log.size]).toEqual([events, 5000, bytes.length])
      }
    })

    test(`${file}: every truncation is refused or a shorter log`, () => {
      const bytes = vector(file)
      const events = parseEventLog(bytes).events.length
      for (let size = 0; size < bytes.length; size += bytes.length > 5000 ? 7 : 1) {
        const cut = bytes.subarray(0, size)
        expect(outcome(() => expect(parseEventLog(cut).events.length).toBeLessThan(events))).toBe("fine")
      }
    })
  }

  test("crypto-agile logs of TPMs are read as well", () => {
    const logs = vectorsUnder("eventlog").filter(({ file }) => file.endsWith(".bin"))
    const outcomes = logs.map(({ file }) => outcome(() => parseEventLog(vector(file))))
    expect(new Set(outcomes)).toEqual(new Set(["fine"]))
  })
})

describe("structure", () => {
  test("the smallest log", () => {
    expect(parsed(...first(SPEC_ID)).events.length).toBe(1)
    expect(parsed(...first(SPEC_ID), ...event()).events.at(-1)).toMatchObject({ register: 1, position: 1 })
  })

  test("data that ends in zeros is not taken for filling", () => {
    const log = parsed(...first(SPEC_ID), ...event(), 0, 0, 0)
    expect([log.events.length, log.padding]).toEqual([2, 3])
  })

  test("the older form is read to its end, whatever its first event says", () => {
    const sha1Event = (data: readonly number[]) => [
      ...u32(4),
      ...u32(EVENT_TYPE.EV_IPL),
      ...new Uint8Array(20).fill(5),
      ...u32(data.length),
      ...data,
    ]
    const old = first([...Buffer.from("Spec ID Event02\0"), 0])
    const log = parsed(...old, ...sha1Event([1, 0]), ...sha1Event([]), 0, 0, 0)
    expect([log.form, log.events.length, log.padding]).toEqual(["sha1", 3, 3])
    expect(log.events[1]?.digests.get(LOG_ALGORITHM.sha1)?.length).toBe(20)
    expect(() => parsed(...sha1Event([1, 2]).slice(0, -1))).toThrowCode("ERR_TRUNCATED")
    expect(() => parsed()).toThrowCode("ERR_TRUNCATED")
    expect(() => parseEventLog(new TextEncoder().encode("# Not a log\n".repeat(20)))).toThrowCode(
      "ERR_TRUNCATED",
    )
  })

  test("an unknown algorithm or no algorithm is refused", () => {
    const changed = (at: number, value: number) => SPEC_ID.map((byte, index) => (index === at ? value : byte))
    expect(() => parsed(...first(changed(28, 0x99)))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parsed(...first(changed(30, 47)))).toThrowCode("ERR_MALFORMED")
    expect(() => parsed(...first(changed(24, 0)))).toThrowCode("ERR_MALFORMED")
    expect(() => parsed(...first(changed(27, 0xff)))).toThrowCode("ERR_MALFORMED")
    expect(() => parsed(...first([...SPEC_ID, 1]))).toThrowCode("ERR_TRAILING_BYTES")
  })

  test("events with other digests than declared are refused", () => {
    expect(() => parsed(...first(SPEC_ID), ...event(LOG_ALGORITHM.sha256, 32))).toThrowCode("ERR_MALFORMED")
    const none = [...u32(1), ...u32(4), ...u32(0), ...u32(0)]
    expect(() => parsed(...first(SPEC_ID), ...none)).toThrowCode("ERR_MALFORMED")
  })

  test("filling that is not filling is refused", () => {
    expect(() => parsed(...first(SPEC_ID), 0, 0, 1)).toThrowCode("ERR_TRUNCATED")
    expect(() => parsed(...first(SPEC_ID), ...new Uint8Array(40), 1)).toThrowCode("ERR_MALFORMED")
  })

  test("a huge one is refused before it is read", () => {
    expect(() => parseEventLog(new Uint8Array(MAX_EVENT_LOG_BYTES + 1))).toThrowCode("ERR_TOO_LARGE")
  })

  test("types have names", () => {
    expect(eventTypeName(0x80000001)).toBe("EV_EFI_VARIABLE_DRIVER_CONFIG")
    expect(eventTypeName(0x77)).toBe("0x00000077")
  })

  test("whatever the bytes, only coded errors escape", () => {
    const start = Uint8Array.from([...first(SPEC_ID), ...event()])
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(start.length - 1), fc.nat(255)), { maxLength: 8 }), (changes) => {
        const bytes = start.slice()
        for (const [at, value] of changes) bytes[at] = value
        return outcome(() => parseEventLog(bytes)) === "fine"
      }),
    )
  })
})

function outcome(act: () => unknown): string {
  try {
    act()
    return "fine"
  } catch (error) {
    return error instanceof CodedError ? "fine" : `${error}`
  }
}
