import { describe, expect, test } from "bun:test"
import { parseJsonRecord } from "../formats/strict-json.ts"
import {
  type BootReference,
  encodeBootReference,
  firstDifference,
  parseBootReference,
  type ReferenceEvent,
} from "./boot-reference.ts"

const event = (digit: string, description: string): ReferenceEvent => [
  "EV_IPL",
  digit.repeat(64),
  description,
]
const [A, B, C] = [event("a", "one"), event("b", "two"), event("c", "three")]
const read = (text: string) =>
  parseBootReference(parseJsonRecord("t", new TextEncoder().encode(text), 1 << 24))

describe("what a snapshot keeps of a boot", () => {
  test("reads back as it was", () => {
    const reference: BootReference = {
      pcrs: { "0": [["EV_NO_ACTION", "", "locality 3"], A], "9": [B, event("d", '"\\\u001b\n é')], "12": [] },
      rtmrs: { "2": [["EV_IPL", "ab".repeat(48), ""]] },
    }
    expect(read(encodeBootReference(reference))).toEqual(reference)
    expect(read(encodeBootReference({ pcrs: {}, rtmrs: {} }))).toEqual({ pcrs: {}, rtmrs: {} })
  })

  test.each([
    ["no rtmrs", `{"pcrs":{}}`],
    ["another member", `{"pcrs":{},"rtmrs":{},"more":1}`],
    ["a register that does not exist", `{"pcrs":{"24":[]},"rtmrs":{}}`],
    ["an RTMR that does not exist", `{"pcrs":{},"rtmrs":{"4":[]}}`],
    ["an event of two parts", `{"pcrs":{"1":[["a","${"00".repeat(32)}"]]},"rtmrs":{}}`],
    ["a digest that is none", `{"pcrs":{"1":[["a","xyz","b"]]},"rtmrs":{}}`],
    ["a description without end", `{"pcrs":{"1":[["a","","${"b".repeat(3000)}"]]},"rtmrs":{}}`],
  ])("%s is refused", (_, text) => {
    expect(() => read(text)).toThrowCode("ERR_MALFORMED")
  })

  test("too many events are refused", () => {
    const text = `{"pcrs":{"1":[${'["a","","b"],'.repeat(20_000)}["a","","b"]]},"rtmrs":{}}`
    expect(() => read(text)).toThrowCode("ERR_TOO_LARGE")
  })
})

describe("the first difference", () => {
  test.each([
    ["another event", [A, B], [A, C], 1, "two → three"],
    ["other content", [A], [event("e", "one")], 0, "one: other content"],
    ["one more at the end", [A], [A, B], 1, "measured in addition: two"],
    ["one less at the end", [A, B], [A], 1, "no longer measured: two"],
    ["one more in between", [A, C], [A, B, C], 1, "measured in addition: two"],
    ["one less in between", [A, B, C], [A, C], 1, "no longer measured: two"],
  ])("%s", (_, before, after, index, meaning) =>
    expect(firstDifference(before, after)).toMatchObject({ index, meaning }),
  )

  test("is none where only what is said differs, which was not measured", () => {
    expect(firstDifference([A, B], [A, event("b", "relabelled")])).toBeNull()
  })
})
