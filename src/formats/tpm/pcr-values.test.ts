import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { CodedError } from "../../errors.ts"
import { parsePcrValues } from "./pcr-values.ts"

const read = (text: string) => parsePcrValues(new TextEncoder().encode(text))
const [SHA1, SHA256] = ["aa".repeat(20), "bb".repeat(32)]
const plain = (text: string) =>
  Object.entries(read(text)).map(([bank, values]) => [bank, [...(values ?? [])].map(([pcr]) => pcr)])

describe("PCR values", () => {
  test("in JSON, by bank and number", () => {
    const text = JSON.stringify({
      sha1: { 0: SHA1, 23: SHA1 },
      sha256: { 10: SHA256 },
      sm3_256: { 0: SHA256 },
    })
    expect(plain(text)).toEqual([
      ["sha1", [0, 23]],
      ["sha256", [10]],
    ])
  })

  test("in JSON, by number alone, where the length tells the bank", () => {
    expect(plain(JSON.stringify({ 0: SHA1, 7: SHA256, 3: SHA256 }))).toEqual([
      ["sha1", [0]],
      ["sha256", [3, 7]],
    ])
    expect(() => read(`{"0": "aabb"}`)).toThrowCode("ERR_MALFORMED")
  })

  test("as tpm2_pcrread prints them", () => {
    const text = `  sha1:\n    0 : 0x${SHA1.toUpperCase()}\r\n    10: 0x${SHA1}\n  sha256:\n    7 : 0x${SHA256}\n\n`
    expect(plain(text)).toEqual([
      ["sha1", [0, 10]],
      ["sha256", [7]],
    ])
    expect(read(text).sha256?.get(7)).toEqual(new Uint8Array(32).fill(0xbb))
  })

  test.each([
    ["nothing", "", "ERR_MALFORMED"],
    ["no bank", "{}", "ERR_MALFORMED"],
    ["an unknown bank only", `{"md5": {"0": "00"}}`, "ERR_MALFORMED"],
    ["a value of another length", `{"sha256": {"0": "${SHA1}"}}`, "ERR_MALFORMED"],
    ["a value that is no text", `{"sha256": {"0": 1}}`, "ERR_MALFORMED"],
    ["a bank that is no object", `{"sha256": []}`, "ERR_MALFORMED"],
    ["PCR 32", `{"sha256": {"32": "${SHA256}"}}`, "ERR_MALFORMED"],
    ["PCR 01", `{"sha256": {"01": "${SHA256}"}}`, "ERR_MALFORMED"],
    ["a PCR twice", `{"sha256": {"1": "${SHA256}", "1": "${SHA256}"}}`, "ERR_DUPLICATE_KEY"],
    ["a PCR twice, as text", `sha256:\n1 : 0x${SHA256}\n1 : 0x${SHA256}`, "ERR_DUPLICATE_KEY"],
    ["text that is something else", "PCR 0 is fine", "ERR_MALFORMED"],
    ["a value before any bank", `0 : 0x${SHA256}`, "ERR_MALFORMED"],
    ["half an object", `{"sha256": {"0": "${SHA256}"`, "ERR_TRUNCATED"],
    ["too much", `sha256:\n${" ".repeat(300_000)}`, "ERR_TOO_LARGE"],
  ])("%s is refused", (_, text, code) => {
    expect(() => read(text)).toThrowCode(code)
  })

  test("random bytes are refused with a code", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
        try {
          parsePcrValues(bytes)
        } catch (error) {
          if (!(error instanceof CodedError)) throw error
        }
      }),
    )
  })
})
