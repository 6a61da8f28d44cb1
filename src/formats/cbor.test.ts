import { expect, test } from "bun:test"
import { CborReader, cbor } from "./cbor.ts"
import { fromHex } from "./hex.ts"

const reader = (hex: string) => new CborReader(fromHex(hex) ?? new Uint8Array(), "test")

/** Source: RFC 8949, appendix A. */
for (const [hex, value] of [
  ["00", 0],
  ["17", 23],
  ["1818", 24],
  ["18ff", 255],
  ["190100", 256],
  ["1903e8", 1000],
  ["1a000f4240", 1_000_000],
  ["1affffffff", 4_294_967_295],
] as const)
  test(`${value} is ${hex}, both ways`, () => {
    expect(reader(hex).unsigned("value")).toBe(value)
    expect(Buffer.from(cbor.unsigned(value)).toString("hex")).toBe(hex)
  })

for (const [hex, why] of [
  ["1817", "a longer form of 23"],
  ["1900ff", "a longer form of 255"],
  ["1a0000ffff", "a longer form of 65535"],
  ["1b0000000100000000", "an integer of 64 bits"],
  ["1f", "an indefinite length"],
  ["20", "a negative integer"],
  ["41aa", "a byte string"],
])
  test(`${why} is no integer here`, () => {
    expect(() => reader(hex ?? "").unsigned("value")).toThrowCode("ERR_MALFORMED")
  })

test("integers of 64 bits are read where they are asked for, in any buffer", () => {
  expect(reader("1b0000019ca976b800").unsigned64("value")).toBe(0x19ca976b800n)
  const pooled = Buffer.from("ffff1b0000000100000000", "hex").subarray(2)
  expect(new CborReader(pooled, "test").unsigned64("value")).toBe(0x1_0000_0000n)
  expect(reader("17").unsigned64("value")).toBe(23n)
  expect(() => reader("1b00000000ffffffff").unsigned64("value")).toThrowCode("ERR_MALFORMED")
  expect(() => reader("1b00000001").unsigned64("value")).toThrowCode("ERR_TRUNCATED")
})

test("what is written is read", () => {
  const bytes = cbor.tag(
    60000,
    cbor.array(cbor.bytes(new Uint8Array(300)), cbor.map(cbor.text("ä"), cbor.unsigned(7))),
  )
  const read = new CborReader(bytes, "test")
  expect(read.isNext("tag")).toBe(true)
  expect(read.tag("tag")).toBe(60000)
  expect(read.array("array")).toBe(2)
  expect(read.bytes("bytes")).toEqual(new Uint8Array(300))
  expect(read.map("map")).toBe(1)
  expect(read.text("key")).toBe("ä")
  expect(read.unsigned("value")).toBe(7)
  expect(() => read.end()).not.toThrow()
})

test("every truncation is refused, and so are bytes behind the end", () => {
  const bytes = cbor.array(cbor.bytes(new Uint8Array(30)), cbor.text("name"))
  const walk = (part: Uint8Array) => {
    const read = new CborReader(part, "test")
    read.array("array")
    read.bytes("bytes")
    read.text("text")
    read.end()
  }
  for (let length = 0; length < bytes.length; length++)
    expect(() => walk(bytes.subarray(0, length))).toThrowCode("ERR_TRUNCATED")
  expect(() => walk(Uint8Array.of(...bytes, 0))).toThrowCode("ERR_TRAILING_BYTES")
})

test("a length of gigabytes is refused before anything is made of it", () => {
  expect(() => reader("5affffffff").bytes("bytes")).toThrowCode("ERR_TOO_LARGE")
  expect(() => reader("9affffffff").array("array")).toThrowCode("ERR_TOO_LARGE")
})

test("text that is no UTF-8 is refused", () => {
  expect(() => reader("62c328").text("text")).toThrowCode("ERR_MALFORMED")
})
