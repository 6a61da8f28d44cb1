import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { parseAr } from "./ar.ts"
import { parseDeb } from "./deb/deb-file.ts"
import { type TarEntry, TarReader } from "./tar.ts"

/** A header as GNU tar writes it. `fields` overwrite bytes before the sum is made. */
function header(name: string, size: number, type = "0", link = "", fields: Record<number, string> = {}) {
  const block = Buffer.alloc(512)
  const put = (at: number, text: string) => block.write(text, at, "latin1")
  put(0, name)
  put(100, "0000644\0")
  put(124, `${size.toString(8).padStart(11, "0")}\0`)
  put(136, "00000000000\0")
  put(156, type)
  put(157, link)
  put(257, "ustar\0" + "00")
  for (const [at, text] of Object.entries(fields)) put(Number(at), text)
  put(148, "        ")
  put(
    148,
    `${block
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, "0")}\0 `,
  )
  return block
}

function body(content: string): Buffer {
  const bytes = Buffer.from(content, "latin1")
  return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)])
}

const END = Buffer.alloc(1024)
const member = (name: string, content: string, type = "0") =>
  Buffer.concat([header(name, Buffer.byteLength(content, "latin1"), type), body(content)])

function read(bytes: Uint8Array, piece = bytes.length): (TarEntry & { content: string })[] {
  const out: (TarEntry & { content: string })[] = []
  const reader = new TarReader({
    entry: (entry) => void out.push({ ...entry, content: "" }),
    content: (part) => {
      const last = out.at(-1)
      if (last !== undefined) last.content += Buffer.from(part).toString("latin1")
    },
    end: () => undefined,
  })
  for (let at = 0; at < bytes.length; at += piece) reader.push(bytes.subarray(at, at + piece))
  reader.finish()
  return out
}

const record = (text: string) => {
  let length = text.length + 3
  while (`${length} ${text}\n`.length !== length) length += 1
  return `${length} ${text}\n`
}

describe("a tar archive", () => {
  const long = `./${"d/".repeat(80)}file`
  const good = Buffer.concat([
    header("./", 0, "5"),
    member("./bin/a", "content of a"),
    header("./bin/b", 0, "1", "./bin/a"),
    header("./bin/c", 0, "2", "../../anywhere"),
    member("././@LongLink", `${long}\0`, "L"),
    member("./d/d", "long"),
    member("./pax", record("path=./usr/x") + record("mtime=1.5"), "x"),
    member("./short", "pax"),
    header("./dev/null", 0, "3"),
    member("./empty", ""),
    END,
  ])

  test("gives entries with absolute paths, whatever the pieces that it comes in", () => {
    for (const piece of [1, 7, 511, 512, 513, good.length]) {
      const entries = read(good, piece)
      expect(entries.map(({ kind, path, content }) => [kind, path, content])).toEqual([
        ["directory", "/", ""],
        ["file", "/bin/a", "content of a"],
        ["hard-link", "/bin/b", ""],
        ["symbolic-link", "/bin/c", ""],
        ["file", `/${long.slice(2)}`, "long"],
        ["file", "/usr/x", "pax"],
        ["device", "/dev/null", ""],
        ["file", "/empty", ""],
      ])
      expect(entries[2]?.target).toBe("/bin/a")
    }
  })

  const hostile: readonly (readonly [string, Buffer, string])[] = [
    ["a path that leads out", member("./a/../../etc/passwd", ""), "ERR_MALFORMED"],
    ["a hard link that leads out", header("./a", 0, "1", "../x"), "ERR_MALFORMED"],
    [
      "a long name that leads out",
      Buffer.concat([member("x", "../x\0", "L"), member("./a", "")]),
      "ERR_MALFORMED",
    ],
    [
      "an extended path that leads out",
      Buffer.concat([member("x", record("path=a/../.."), "x"), member("./a", "")]),
      "ERR_MALFORMED",
    ],
    ["an unknown type", header("./a", 0, "S"), "ERR_UNSUPPORTED"],
    [
      "a sparse file",
      Buffer.concat([member("x", record("GNU.sparse.major=1"), "x"), member("./a", "")]),
      "ERR_UNSUPPORTED",
    ],
    ["a global path", member("x", record("path=a"), "g"), "ERR_UNSUPPORTED"],
    ["a wrong sum", Buffer.concat([header("./a", 0).fill("b", 3, 4)]), "ERR_MALFORMED"],
    ["a size that is no number", header("./a", 0, "0", "", { 124: "9999999999\0" }), "ERR_MALFORMED"],
    [
      "a size beyond all bounds",
      header("./a", 0, "0", "", { 124: "\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" }),
      "ERR_MALFORMED",
    ],
    ["a name of gigabytes", header("./a", 0, "L", "", { 124: "17777777777\0" }), "ERR_TOO_LARGE"],
    ["a symbolic link with content", header("./a", 5, "2", "x"), "ERR_MALFORMED"],
    ["a record without end", member("x", "99 path=a\n", "x"), "ERR_MALFORMED"],
    ["something behind the end", Buffer.concat([END, member("./a", "")]), "ERR_MALFORMED"],
  ]
  for (const [name, bytes, code] of hostile)
    test(`with ${name} is refused`, () => {
      expect(() => read(Buffer.concat([bytes, END]))).toThrowCode(code as never)
    })

  test("that was cut off anywhere is refused", () => {
    for (let length = 0; length < good.length - 1024; length += 97)
      expect(() => read(good.subarray(0, length))).toThrow(CodedError)
  })

  test("whatever is changed, only coded errors come out", () => {
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
        const changed = Buffer.from(good)
        changed[at] = byte
        try {
          for (const { path } of read(changed)) expect(path.split("/")).not.toContain("..")
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
      { numRuns: 500 },
    )
  })
})

function ar(...members: readonly (readonly [string, string])[]): Buffer {
  const parts = members.map(
    ([name, content]) =>
      `${name.padEnd(16)}${"0".padEnd(12)}${"0".padEnd(6)}${"0".padEnd(6)}${"100644".padEnd(8)}${`${content.length}`.padEnd(10)}\`\n${content}${content.length % 2 === 1 ? "\n" : ""}`,
  )
  return Buffer.from(`!<arch>\n${parts.join("")}`, "latin1")
}

describe("an ar archive", () => {
  test("gives its members", () => {
    const members = parseAr(ar(["one", "1"], ["two/", "22"]))
    expect(members.map(({ name, content }) => [name, Buffer.from(content).toString()])).toEqual([
      ["one", "1"],
      ["two", "22"],
    ])
  })

  test("with sizes that lie, bad headers or too many members is refused", () => {
    const text = ar(["one", "1234"]).toString("latin1")
    const changed = (from: string, to: string) => Buffer.from(text.replace(from, to), "latin1")
    expect(() => parseAr(changed("4         `", "5         `"))).toThrowCode("ERR_TRUNCATED")
    expect(() => parseAr(changed("4         `", "9999999999`"))).toThrowCode("ERR_TRUNCATED")
    expect(() => parseAr(changed("4         `", "-4        `"))).toThrowCode("ERR_MALFORMED")
    expect(() => parseAr(changed("4         `", "04        `"))).toThrowCode("ERR_MALFORMED")
    expect(() => parseAr(changed("`\n", "``"))).toThrowCode("ERR_MALFORMED")
    expect(() => parseAr(changed("!<arch>", "!<thin>"))).toThrowCode("ERR_MALFORMED")
    const many = Array.from({ length: 65 }, () => ["a", ""] as const)
    expect(() => parseAr(ar(...many))).toThrowCode("ERR_TOO_LARGE")
  })
})

describe("a .deb", () => {
  const parts = [
    ["debian-binary", "2.0\n"],
    ["control.tar.gz", "c"],
    ["data.tar", "d"],
  ] as const

  test("has two archives; members of others are left aside", () => {
    const deb = parseDeb(ar(parts[0], ["_extra", "x"], parts[1], parts[2], ["_gpgorigin", "x"]))
    expect([deb.control.compression, deb.data.compression]).toEqual(["gzip", "none"])
  })

  test("in another order, with more, or of another format is refused", () => {
    expect(() => parseDeb(ar(parts[0], parts[2], parts[1]))).toThrowCode("ERR_MALFORMED")
    expect(() => parseDeb(ar(...parts, ["data.tar", "other"]))).toThrowCode("ERR_MALFORMED")
    expect(() => parseDeb(ar(parts[1], parts[2]))).toThrowCode("ERR_MALFORMED")
    expect(() => parseDeb(ar(["debian-binary", "3.0\n"], parts[1], parts[2]))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseDeb(ar(parts[0], parts[1], ["data.tar.lzma", "d"]))).toThrowCode("ERR_UNSUPPORTED")
  })
})
