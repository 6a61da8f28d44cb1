import { expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import { pathToText, printable, textToPath } from "./path-text.ts"

test("a path of any bytes survives the way to text and back", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      expect(textToPath(pathToText(bytes))).toEqual(bytes)
    }),
  )
})

test("text survives the way to bytes and back", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (text) => {
      expect(pathToText(textToPath(text))).toBe(text)
    }),
  )
})

test("valid UTF-8 stays as it is and other bytes become lone surrogates", () => {
  expect(pathToText(new TextEncoder().encode("/opt/é/文"))).toBe("/opt/é/文")
  expect(pathToText(Uint8Array.of(0x2f, 0xff, 0x61))).toBe("/\udcffa")
  expect(pathToText(Uint8Array.of(0xed, 0xb2, 0x80))).toBe("\udced\udcb2\udc80")
  expect(pathToText(Uint8Array.of(0xc3, 0xa9, 0xc3))).toBe("é\udcc3")
  expect(pathToText(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61))).toBe("\ufeffa")
})

test("a lone surrogate that stands for no byte is refused", () => {
  expect(() => textToPath("/a\ud800b")).toThrowCode("ERR_MALFORMED")
  expect(() => textToPath("/a\udc00b")).toThrowCode("ERR_MALFORMED")
})

test("what moves the cursor, colours, hides or reverses text is shown instead of obeyed", () => {
  expect(printable("/usr/bin/ls")).toBe("/usr/bin/ls")
  expect(printable("/opt/é 文")).toBe("/opt/é 文")
  expect(printable("a\u001b[31mb\n\r\t\u0007")).toBe("a\\x1b[31mb\\x0a\\x0d\\x09\\x07")
  expect(printable("\u009b2J")).toBe("\\u{9b}2J")
  expect(printable("\u202etxt.exe\u200b")).toBe("\\u{202e}txt.exe\\u{200b}")
  expect(printable("\u{e0041}")).toBe("\\u{e0041}")
  expect(printable("\u2028")).toBe("\\u{2028}")
  expect(printable("\udcff")).toBe("\\xff")
  expect(printable("a\\x1b")).toBe("a\\\\x1b")
})

test("whatever the text, what is printed holds no control character", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      expect(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(printable(text))).toBe(false)
    }),
  )
})
