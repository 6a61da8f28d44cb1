import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { EMPTY_WHITELIST, parseWhitelist } from "./whitelist.ts"

const DIGEST = "0f".repeat(32)
const parse = (text: string) => [...parseWhitelist(new TextEncoder().encode(text))].map((pair) => [...pair])

describe("whitelist", () => {
  test("lines of path and digest, comments and empty lines", () => {
    const text = `# made by hand\n\n/usr/bin/a ${DIGEST}\n/opt/my app/b  ${DIGEST.toUpperCase()}\r\n/c\t${"ab".repeat(20)}`
    expect(parse(text)).toEqual([
      ["/c", "ab".repeat(20)],
      ["/opt/my app/b", DIGEST],
      ["/usr/bin/a", DIGEST],
    ])
  })

  test("a path need not be UTF-8", () => {
    const line = Buffer.concat([Buffer.from([0x2f, 0xff]), Buffer.from(` ${DIGEST}\n`)])
    expect([...parseWhitelist(line)][0]?.[0]).toBe("/\udcff")
  })

  test("an empty file is an empty whitelist", () => {
    expect(parse("")).toEqual([])
    expect(EMPTY_WHITELIST.length).toBe(0)
  })

  test.each([
    ["a path alone", "/usr/bin/a"],
    ["a digest alone", DIGEST],
    ["the digest first, as sha256sum prints it", `${DIGEST}  /usr/bin/a`],
    ["a digest with an odd digit", `/usr/bin/a ${DIGEST.slice(1)}`],
    ["a digest of no known size", `/usr/bin/a ${DIGEST.slice(2)}`],
    ["a digest that is not hex", `/usr/bin/a ${DIGEST.replace("f", "g")}`],
    ["a digest with its algorithm", `/usr/bin/a sha256:${DIGEST}`],
    ["a comment behind the digest", `/usr/bin/a ${DIGEST} # mine`],
    ["spaces for a path", `   ${DIGEST}`],
    ["a NUL in the path", `/a\0b ${DIGEST}`],
  ])("%s is an error that names the line", (_, line) => {
    const text = `/usr/bin/good ${DIGEST}\n${line}\n/usr/bin/also-good ${DIGEST}\n`
    expect(() => parse(text)).toThrowCode("ERR_WHITELIST_LINE")
    expect(() => parse(text)).toThrow("whitelist, line 2")
  })

  test("a file over the cap is refused", () => {
    expect(() => parseWhitelist(new Uint8Array(64 * 1024 * 1024 + 1))).toThrowCode("ERR_TOO_LARGE")
  })

  test("whatever the bytes, only coded errors escape", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          parseWhitelist(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
    )
  })
})
