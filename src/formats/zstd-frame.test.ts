import { describe, expect, test } from "bun:test"
import { constants, zstdCompressSync } from "node:zlib"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { isZstd, zstdContentSize } from "./zstd-frame.ts"

const TEXT = Buffer.from("a line of a snapshot\n".repeat(20_000))
const CHECKED = compressed(1)
const UNCHECKED = compressed(0)
const size = (bytes: Uint8Array) => zstdContentSize("data", bytes)

function compressed(checksum: number, text = TEXT): Uint8Array {
  return zstdCompressSync(text, { params: { [constants.ZSTD_c_checksumFlag]: checksum } })
}

/** A frame without content size: magic, descriptor, window, one raw block, the last one. */
const STREAMED = Buffer.concat([Buffer.from("28b52ffd0058190000", "hex"), Buffer.from("abc")])

describe("zstd frames", () => {
  test("content sizes of all widths are read", () => {
    for (const length of [0, 1, 255, 256, 65_791, 65_792, 420_000])
      expect(size(compressed(1, Buffer.alloc(length, "x")))).toBe(length)
    expect(size(STREAMED)).toBeNull()
  })

  test("several frames make one content", () => {
    expect(size(Buffer.concat([CHECKED, UNCHECKED]))).toBe(TEXT.length * 2)
    expect(size(Buffer.concat([CHECKED, STREAMED]))).toBeNull()
  })

  test("every truncation is refused", () => {
    for (const frame of [CHECKED, UNCHECKED, STREAMED])
      for (let length = 0; length < frame.length; length++)
        expect(() => size(frame.subarray(0, length))).toThrowCode("ERR_COMPRESSION")
  })

  test("bytes after the last frame are refused", () => {
    expect(() => size(Buffer.concat([CHECKED, Buffer.from([0])]))).toThrowCode("ERR_COMPRESSION")
    expect(() => size(Buffer.concat([CHECKED, Buffer.from("184d2a5000000000", "hex")]))).toThrowCode(
      "ERR_COMPRESSION",
    )
  })

  test("a frame that needs a dictionary is not supported", () => {
    const frame = Uint8Array.from(CHECKED)
    frame[4] = (frame[4] ?? 0) | 1
    expect(() => size(frame)).toThrowCode("ERR_UNSUPPORTED")
  })

  test("a window that would fill the memory is not supported", () => {
    for (const [descriptor, code] of [
      [0x88, null],
      [0x89, "ERR_UNSUPPORTED"],
      [0xff, "ERR_UNSUPPORTED"],
    ] as const) {
      const frame = Uint8Array.from(STREAMED)
      frame[5] = descriptor
      if (code === null) expect(size(frame)).toBeNull()
      else expect(() => size(frame)).toThrowCode(code)
    }
  })

  test("whatever bit is flipped, only coded errors escape", () => {
    for (let bit = 0; bit < CHECKED.length * 8; bit++) {
      const frame = Uint8Array.from(CHECKED)
      frame[bit >> 3] = (frame[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      try {
        size(frame)
      } catch (error) {
        expect(error).toBeInstanceOf(CodedError)
      }
    }
  })

  test("no JSON text is taken for zstd", () => {
    expect([isZstd(CHECKED), isZstd(Buffer.from("{}")), isZstd(new Uint8Array(0))]).toEqual([
      true,
      false,
      false,
    ])
  })
})
