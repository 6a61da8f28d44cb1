import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { JsonCursor, JsonRecord, parseJsonRecord } from "./strict-json.ts"

const bytes = (text: string) => new TextEncoder().encode(text)
const parse = (text: string) => parseJsonRecord("test", bytes(text), 10_000)

describe("strict JSON", () => {
  test("reads what JSON.stringify writes", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue()), (value) => {
        // -0 and integers beyond 2^53 are not written in a form that gives them back.
        const text = JSON.stringify(value, (_, member) =>
          typeof member === "number" && !(Math.abs(member) < 2 ** 53) ? 1 : member,
        )
        const read = parseJsonRecord("test", bytes(text), 1_000_000).toPlain()
        expect(JSON.parse(JSON.stringify(read))).toEqual(JSON.parse(text))
      }),
    )
  })

  test.each([
    ['{"a":1,"a":2}', "ERR_DUPLICATE_KEY"],
    ['{"a":1,"\\u0061":2}', "ERR_DUPLICATE_KEY"],
    ['{"x":[{"b":1,"b":1}]}', "ERR_DUPLICATE_KEY"],
    ['{"__proto__":1,"__proto__":2}', "ERR_DUPLICATE_KEY"],
    ['{"a":1}x', "ERR_TRAILING_BYTES"],
    ['{"a":1}{}', "ERR_TRAILING_BYTES"],
    ["", "ERR_TRUNCATED"],
    ["{", "ERR_TRUNCATED"],
    ['{"a', "ERR_TRUNCATED"],
    ['{"a\\', "ERR_TRUNCATED"],
    ['{"a":', "ERR_TRUNCATED"],
    ['{"a":1,', "ERR_TRUNCATED"],
    ["[]", "ERR_MALFORMED"],
    ['{"a":1,}', "ERR_MALFORMED"],
    ['{"a":[1,]}', "ERR_MALFORMED"],
    ['{"a":01}', "ERR_MALFORMED"],
    ['{"a":+1}', "ERR_MALFORMED"],
    ['{"a":.5}', "ERR_MALFORMED"],
    ['{"a":NaN}', "ERR_MALFORMED"],
    ['{"a":1e999}', "ERR_MALFORMED"],
    ['{"a":9007199254740993}', "ERR_MALFORMED"],
    ['{"a":"\\x41"}', "ERR_MALFORMED"],
    ['{"a":"\\u12"}', "ERR_MALFORMED"],
    ['{"a":"line\nbreak"}', "ERR_MALFORMED"],
    ["{'a':1}", "ERR_MALFORMED"],
    ['{"a":nul}', "ERR_MALFORMED"],
    ['{"a" 1}', "ERR_MALFORMED"],
    ['\ufeff{"a":1}', "ERR_MALFORMED"],
  ])("%p gives %s", (text, code) => {
    expect(() => parse(text)).toThrowCode(code)
  })

  test("deep nesting is refused", () => {
    expect(() => parse(`{"a":${"[".repeat(40)}${"]".repeat(40)}}`)).toThrowCode("ERR_TOO_LARGE")
  })

  test("a text over the cap is refused", () => {
    expect(() => parse(`{"a":"${"x".repeat(10_000)}"}`)).toThrowCode("ERR_TOO_LARGE")
  })

  test("invalid UTF-8 is refused", () => {
    expect(() => parseJsonRecord("test", Uint8Array.of(0x7b, 0x22, 0xff, 0x22), 100)).toThrowCode(
      "ERR_MALFORMED",
    )
  })

  test("an error names line and column", () => {
    expect(() => parse('{\n  "a": 1,\n  "a": 2\n}')).toThrow("test, line 3, column 3")
  })

  test("members are taken by kind, and those that nobody takes are refused", () => {
    const record = parse('{"s":"x","n":7,"o":{"p":null},"l":[1],"more":0}')
    expect(record.string("s")).toBe("x")
    expect(record.count("n", 7)).toBe(7)
    expect(record.record("o")).toBeInstanceOf(JsonRecord)
    expect(record.array("l")).toEqual([1])
    expect(record.stringOrNull("absent")).toBeNull()
    expect(() => record.finish()).toThrowCode("ERR_MALFORMED")
    expect(() => record.string("n")).toThrowCode("ERR_MALFORMED")
    expect(() => record.string("absent")).toThrowCode("ERR_MALFORMED")
    expect(() => record.count("n", 6)).toThrowCode("ERR_MALFORMED")
    expect(() => record.record("l")).toThrowCode("ERR_MALFORMED")
    expect(() => record.array("s")).toThrowCode("ERR_MALFORMED")
    expect(() => record.record("o").finish()).toThrow("test: o.p")
    record.take("more")
    record.finish()
  })

  test("a member named __proto__ is a member and nothing else", () => {
    const plain = parse('{"__proto__":{"polluted":true}}').toPlain()
    expect(Object.keys(plain)).toEqual(["__proto__"])
    expect(Object.getPrototypeOf({})["polluted"]).toBeUndefined()
  })

  test("whatever the bytes, only coded errors escape", () => {
    const valid = '{"a":[1,2.5e3,"\\u00e9\\n",null,true,{"b":{}}],"c":"é"}'
    fc.assert(
      fc.property(fc.nat(valid.length), fc.uint8Array({ maxLength: 4 }), (at, patch) => {
        const mutated = bytes(valid)
        mutated.set(patch.subarray(0, Math.max(0, mutated.length - at)), Math.min(at, mutated.length))
        try {
          const cursor = new JsonCursor("test", mutated, 1000)
          cursor.record("")
          cursor.end()
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
      { numRuns: 2000 },
    )
  })
})

test("integers beyond 2^53 are refused, or kept whole where the reader asks for that", () => {
  const text = bytes('{"a":15352208179752599555,"b":7}')
  expect(() => parseJsonRecord("test", text, 100)).toThrowCode("ERR_MALFORMED")
  const record = parseJsonRecord("test", text, 100, { bigIntegers: true })
  expect(record.take("a")).toBe(15352208179752599555n)
  expect(record.take("b")).toBe(7)
})

describe("base64 decoded where it stands", () => {
  const decoded = (text: string) => {
    const cursor = new JsonCursor("text", new TextEncoder().encode(`["${text}","next"]`), 10_000)
    cursor.expect("[")
    const found = cursor.base64InPlace(1000)
    cursor.expect(",")
    expect(cursor.string()).toBe("next")
    return Buffer.from(found).toString("hex")
  }

  test("gives the bytes, and what follows is read as ever", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const text = Buffer.from(bytes).toString("base64").replace(/=+$/, "")
        expect(decoded(text)).toBe(Buffer.from(bytes).toString("hex"))
      }),
    )
  })

  test.each(["A", "AB==", "AB", "AAB", "A-B_", "AA A", "AA\\nA", "é", "AAA AAAA", "AA==AAAA", "AAAA\n   "])(
    "%p is refused",
    (text) => {
      expect(() => decoded(text)).toThrowCode("ERR_MALFORMED")
    },
  )

  test("of many parts is the same as of one, and refused where one of them is none", () => {
    const bytes = Uint8Array.from({ length: 1_000_000 }, (_, at) => (at * 7919) >> 3)
    const text = Buffer.from(bytes).toString("base64").replace(/=+$/, "")
    const cursor = (changed: string) => new JsonCursor("text", Buffer.from(`"${changed}"`), 2_000_000)
    expect(Buffer.compare(cursor(text).base64InPlace(1_000_000), bytes)).toBe(0)
    for (const at of [0, 1_048_575, 1_048_576, text.length - 3]) {
      const broken = `${text.slice(0, at)} ${text.slice(at + 1)}`
      expect(() => cursor(broken).base64InPlace(1_000_000)).toThrowCode("ERR_MALFORMED")
    }
  })

  test("of a hundred megabytes leaves no such heap of texts behind", () => {
    let collected = 0
    const bytes = Buffer.alloc(100 * 2 ** 20, "A")
    bytes[0] = bytes[bytes.length - 1] = 0x22
    const collect = () => {
      collected += 1
    }
    const cursor = new JsonCursor("text", bytes, bytes.length, { collect })
    expect(() => cursor.base64InPlace(bytes.length)).not.toThrow()
    expect(collected).toBe(6)
  })

  test("what has no end, or is too long, is refused", () => {
    const cursor = (text: string) => new JsonCursor("text", new TextEncoder().encode(text), 10_000)
    expect(() => cursor('"AAAA').base64InPlace(10)).toThrowCode("ERR_TRUNCATED")
    expect(() => cursor(`"${"A".repeat(16)}"`).base64InPlace(10)).toThrowCode("ERR_TOO_LARGE")
    expect(() => cursor("7").base64InPlace(10)).toThrowCode("ERR_MALFORMED")
  })
})
