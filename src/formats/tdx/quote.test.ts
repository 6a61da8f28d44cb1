import { describe, expect, test } from "bun:test"
import { fakeSgxQuote, fakeTdxQuote } from "../../../test/fakes/intel.ts"
import { entriesOf } from "../../../test/fakes/intel-vectors.ts"
import { vector } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { encodeSgxQuote, parseSgxQuote } from "../sgx/quote.ts"
import { encodeTdxQuote, parseTdxQuote } from "./quote.ts"

const quotes = [
  ...entriesOf("tdx", "tdx"),
  ...entriesOf("sgx", "sgx"),
  ...entriesOf("tdx-testpki", "tdx-testpki"),
]

describe.skipIf(!HAVE_VECTORS)("real quotes", () => {
  for (const { file } of quotes.filter(({ file }) => file.endsWith("quote.bin")))
    test(`${file}: encoding what was parsed gives the same bytes`, () => {
      const bytes = vector(file)
      if (file.startsWith("sgx/")) {
        const quote = parseSgxQuote(bytes)
        expect(encodeSgxQuote(quote)).toEqual(bytes.slice(0, quote.raw.length))
      } else {
        const quote = parseTdxQuote(bytes)
        expect(encodeTdxQuote(quote)).toEqual(bytes.slice(0, quote.raw.length))
        expect(quote.raw.length + quote.padding).toBe(bytes.length)
      }
    })
})

/** Offsets in a version 4 quote. */
const OFFSET = {
  version: 0,
  keyType: 2,
  teeType: 4,
  size: 632,
  outerType: 632 + 4 + 128,
  outerSize: 632 + 4 + 128 + 2,
  authSize: 632 + 4 + 128 + 6 + 384 + 64,
} as const

function changed(place: keyof typeof OFFSET, value: number): Uint8Array {
  const quote = fakeTdxQuote()
  new DataView(quote.buffer).setUint16(OFFSET[place], value, true)
  return quote
}

describe("structure", () => {
  test("versions, types and sizes that do not fit are refused", () => {
    for (const version of [0, 1, 2, 3, 6, 0xffff])
      expect(() => parseTdxQuote(changed("version", version))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseTdxQuote(changed("keyType", 3))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseTdxQuote(changed("teeType", 0))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseTdxQuote(changed("outerType", 5))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseTdxQuote(changed("size", 0xffff))).toThrowCode("ERR_TRUNCATED")
    expect(() => parseTdxQuote(changed("outerSize", 100))).toThrowCode("ERR_TRAILING_BYTES")
    expect(() => parseTdxQuote(changed("outerSize", 0xffff))).toThrowCode("ERR_TRUNCATED")
    expect(() => parseTdxQuote(changed("authSize", 0xffff))).toThrowCode("ERR_TRUNCATED")
  })

  test("a version 5 quote says which body it has", () => {
    const old = fakeTdxQuote()
    const descriptor = (type: number, size: number) => {
      const quote = Buffer.concat([old.subarray(0, 48), new Uint8Array(6), old.subarray(48)])
      quote.writeUInt16LE(5, 0)
      quote.writeUInt16LE(type, 48)
      quote.writeUInt32LE(size, 50)
      return quote
    }
    expect(parseTdxQuote(descriptor(2, 584)).body.version).toBe("1.0")
    expect(parseTdxQuote(descriptor(2, 584)).signedBytes.length).toBe(48 + 6 + 584)
    expect(encodeTdxQuote(parseTdxQuote(descriptor(2, 584)))).toEqual(new Uint8Array(descriptor(2, 584)))
    for (const type of [0, 1, 4])
      expect(() => parseTdxQuote(descriptor(type, 584))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseTdxQuote(descriptor(2, 648))).toThrowCode("ERR_MALFORMED")
    expect(() => parseTdxQuote(descriptor(3, 584))).toThrowCode("ERR_MALFORMED")
    expect(() => parseTdxQuote(descriptor(3, 648).subarray(0, 52))).toThrowCode("ERR_TRUNCATED")
  })

  test("reserved bytes of an enclave's report have to be zero", () => {
    const quote = fakeSgxQuote({})
    quote[48 + 20] = 1
    expect(() => parseSgxQuote(quote)).toThrowCode("ERR_RESERVED_NOT_ZERO")
  })

  test("a chain of many certificates is refused", () => {
    const many = Array.from({ length: 9 }, () => Uint8Array.of(0x30, 0))
    expect(() => parseTdxQuote(fakeTdxQuote({ certificates: many }))).toThrowCode("ERR_TOO_LARGE")
  })
})
