import { expect, test } from "bun:test"
import { bytes, layout, u8, u16, u32, u64, zero } from "./layout.ts"

const SAMPLE = layout("sample", 20, {
  small: u8(0),
  medium: u16(1),
  _reserved: zero(3, 1),
  large: u32(4),
  huge: u64(8),
  name: bytes(16, 4),
})
const VALUE = {
  small: 1,
  medium: 0x0203,
  large: 0xfffffffe,
  huge: 2n ** 64n - 1n,
  name: Uint8Array.of(1, 2, 3, 4),
}

test("a value survives encoding and parsing", () => {
  expect(SAMPLE.parse(SAMPLE.encode(VALUE))).toEqual(VALUE)
})

test("integers are little-endian", () => {
  expect([...SAMPLE.encode(VALUE).subarray(0, 8)]).toEqual([1, 3, 2, 0, 0xfe, 0xff, 0xff, 0xff])
})

test("a structure inside a larger buffer is read at its own place", () => {
  const buffer = new Uint8Array(40)
  buffer.set(SAMPLE.encode(VALUE), 13)
  expect(SAMPLE.parse(buffer.subarray(13, 33))).toEqual(VALUE)
})

test("every other length is refused", () => {
  for (let size = 0; size < 20; size++)
    expect(() => SAMPLE.parse(new Uint8Array(size))).toThrowCode("ERR_TRUNCATED")
  expect(() => SAMPLE.parse(new Uint8Array(21))).toThrowCode("ERR_TRAILING_BYTES")
})

test("reserved bytes have to be zero", () => {
  const raw = SAMPLE.encode(VALUE)
  raw[3] = 1
  expect(() => SAMPLE.parse(raw)).toThrowCode("ERR_RESERVED_NOT_ZERO")
})

test("values that do not fit are not cut", () => {
  for (const wrong of [
    { small: 256 },
    { small: -1 },
    { medium: 1.5 },
    { large: 2 ** 32 },
    { huge: -1n },
    { huge: 2n ** 64n },
  ])
    expect(() => SAMPLE.encode({ ...VALUE, ...wrong })).toThrowCode("ERR_MALFORMED")
  expect(() => SAMPLE.encode({ ...VALUE, name: new Uint8Array(3) })).toThrowCode("ERR_MALFORMED")
})

test("a declaration with a gap, an overlap or another size is refused", () => {
  expect(() => layout("gap", 3, { a: u8(0), b: u8(2) })).toThrowCode("ERR_INTERNAL")
  expect(() => layout("overlap", 3, { a: u16(0), b: u16(1) })).toThrowCode("ERR_INTERNAL")
  expect(() => layout("size", 3, { a: u16(0) })).toThrowCode("ERR_INTERNAL")
})
