import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { EMPTY_WHITELIST, parseWhitelist } from "./whitelist.ts"

const DIGEST = "0f".repeat(32)
const read = (text: string) => parseWhitelist(new TextEncoder().encode(text))
const parse = (text: string) => [...read(text).files].map((pair) => [...pair])

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
    expect([...parseWhitelist(line).files][0]?.[0]).toBe("/\udcff")
  })

  test("an empty file is an empty whitelist", () => {
    expect(parse("")).toEqual([])
    expect(EMPTY_WHITELIST.files.length + EMPTY_WHITELIST.rules.length).toBe(0)
  })

  test.each([
    ["a path alone", "/usr/bin/a"],
    ["a digest alone", DIGEST],
    ["the digest first, as sha256sum prints it", `${DIGEST}  /usr/bin/a`],
    ["a digest with an odd digit", `/usr/bin/a ${DIGEST.slice(1)}`],
    ["a digest of no known size", `/usr/bin/a ${DIGEST.slice(2)}`],
    ["a digest that is not hex", `/usr/bin/a ${DIGEST.replace("f", "g")}`],
    ["an algorithm that its digest is not of", `/usr/bin/a sha1:${DIGEST}`],
    ["an algorithm that is broken", `/usr/bin/a md5:${DIGEST.slice(32)}`],
    ["a pattern without a slash", `bin/* sha256:${DIGEST}`],
    ["any content without a reason", "/opt/** any until=2027-01-31"],
    ["any content for an empty reason", '/opt/** any reason=" "'],
    ["a word that is not known", `/opt/* sha256:${DIGEST} for=ever`],
    ["a word twice", `/opt/* sha256:${DIGEST} until=2027-01-31 until=2028-01-31`],
    ["a day that is none", `/opt/* sha256:${DIGEST} until=2027-02-31`],
    ["a date of another form", `/opt/* sha256:${DIGEST} until=31.1.2027`],
    ["something behind the reason", `/opt/* sha256:${DIGEST} reason="a" b`],
    ["a pattern that is not closed", `"/opt/* sha256:${DIGEST}`],
    ["a comment behind the digest", `/usr/bin/a ${DIGEST} # mine`],
    ["spaces for a path", `   ${DIGEST}`],
    ["a NUL in the path", `/a\0b ${DIGEST}`],
  ])("%s is an error that names the line", (_, line) => {
    const text = `/usr/bin/good ${DIGEST}\n${line}\n/usr/bin/also-good ${DIGEST}\n`
    expect(() => parse(text)).toThrowCode("ERR_WHITELIST_LINE")
    expect(() => parse(text)).toThrow("whitelist, line 2")
  })

  test("a line that ends in a bare digest is plain, whatever it looks like", () => {
    const text = `/opt/* ${DIGEST}\n"/a b" any until=2027-01-31 ${DIGEST}\n/c sha256:${DIGEST} ${DIGEST}\n`
    expect(read(text).rules).toEqual([])
    expect(parse(text).map(([path]) => path)).toEqual(
      ['"/a b" any until=2027-01-31', "/c sha256:".concat(DIGEST), "/opt/*"].toSorted(),
    )
  })

  test("more rules than that are refused", () => {
    const rules = `/opt/* sha256:${DIGEST}\n`
    expect(read(rules.repeat(1000)).rules.length).toBe(1000)
    expect(() => read(rules.repeat(1001))).toThrowCode("ERR_TOO_LARGE")
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

describe("rules of a whitelist", () => {
  const AT = new Date("2027-01-31T23:59:59Z")
  const NEXT_DAY = new Date("2027-02-01T00:00:00Z")
  const asked = (
    text: string,
    path: string,
    { at = AT, algorithm = "sha256", digest = DIGEST, isContent = true } = {},
  ) => {
    const { accepted, expired, otherDigest } = read(text).ask(
      new TextEncoder().encode(path),
      { algorithm, digest: new Uint8Array(Buffer.from(digest, "hex")), isContent },
      at,
    )
    return { accepted: accepted?.line ?? null, expired: expired?.line ?? null, otherDigest }
  }
  const NOTHING = { accepted: null, expired: null, otherDigest: false }

  test("accept a digest under all paths of a pattern", () => {
    const text = `\n/opt/app/** sha256:${DIGEST} until=2027-01-31 reason="release 7"`
    expect(asked(text, "/opt/app/bin/x")).toEqual({ ...NOTHING, accepted: 2 })
    expect(asked(text, "/opt/other")).toEqual(NOTHING)
    expect(asked(text, "/opt/app/x", { digest: "00".repeat(32) })).toEqual({ ...NOTHING, otherDigest: true })
    expect(asked(text, "/opt/app/x", { algorithm: "sm3" })).toEqual({ ...NOTHING, otherDigest: true })
    expect(asked(text, "/opt/app/x", { isContent: false })).toEqual({ ...NOTHING, otherDigest: true })
    expect(read(text).rules[0]).toMatchObject({
      reason: "release 7",
      until: "2027-01-31",
      text: "/opt/app/**",
    })
  })

  test("count until the end of their last day, and are named from then on", () => {
    const text = `/opt/* sha256:${DIGEST} until=2027-01-31`
    expect(asked(text, "/opt/a", { at: AT })).toEqual({ ...NOTHING, accepted: 1 })
    expect(asked(text, "/opt/a", { at: NEXT_DAY })).toEqual({ ...NOTHING, expired: 1 })
    expect(asked(`${text}\n${text.replace("2027", "2028")}`, "/opt/a", { at: NEXT_DAY }).accepted).toBe(2)
  })

  test("may accept any content, with a reason", () => {
    const text = '"/opt/my app/*" any reason="a build machine"'
    expect(asked(text, "/opt/my_app/x", { digest: "00".repeat(20), algorithm: "sha1" }).accepted).toBe(1)
    expect(read(text).openRules(AT).length).toBe(1)
    expect(read(`${text} until=2027-01-31`).openRules(NEXT_DAY)).toEqual([])
    expect(read(`/opt/* sha256:${DIGEST}`).openRules(AT)).toEqual([])
  })
})
