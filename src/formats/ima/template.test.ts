import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import fc from "fast-check"
import { file, listOf } from "../../../test/fakes/measurement-list.ts"
import { HAVE_VECTORS, VECTORS } from "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { toHex } from "../hex.ts"
import { parseAsciiMeasurementList } from "./ascii.ts"
import { encodeMeasurementEntry, encodeMeasurementList, type NewEntry } from "./encode.ts"
import { digestText, measurementEntry, parseMeasurementList } from "./measurement-list.ts"
import { BUILT_IN_TEMPLATES, IMA_FIELDS, imaTemplate } from "./template.ts"

const text = (value: string) => new TextEncoder().encode(value)
const digestField = (algorithm: string, size: number) =>
  new Uint8Array([...text(`${algorithm}:\0`), ...new Uint8Array(size).fill(6)])

const sha1 = { algorithm: "sha1", digest: new Uint8Array(20).fill(7) }
/** One entry of each template, and of three custom ones. */
const MIXED: NewEntry[] = [
  file("boot_aggregate"),
  file("/usr/bin/v2", "v2", { template: "ima-ngv2" }),
  file("/usr/bin/tree", "tree", { template: "ima-ngv2", content: "verity" }),
  file("/usr/bin/signed", "s", { template: "ima-sigv2", signature: Uint8Array.of(3, 2, 4) }),
  file(".ima", "key", { template: "ima-buf", fields: { buf: text("key") } }),
  file("/usr/bin/by-rule", "r", { template: "ima-buf" }),
  file("/lib/x.ko", "x", {
    template: "ima-modsig",
    fields: { "d-modsig": digestField("sha256", 32), modsig: Uint8Array.of(0x30, 0) },
  }),
  file("/lib/y.ko", "y", { template: "ima-modsig" }),
  file("/bin/evm signed", "e", {
    template: "evm-sig",
    fields: {
      evmsig: Uint8Array.of(5, 2),
      xattrnames: text("security.ima|security.selinux\0"),
      xattrlengths: Uint8Array.of(1, 0, 0, 0),
      xattrvalues: Uint8Array.of(4),
      iuid: Uint8Array.of(1, 2, 3, 4),
      igid: Uint8Array.of(0, 0, 0, 0xff),
      imode: Uint8Array.of(0xed, 0x81),
    },
  }),
  file("/custom", "c", {
    template: "d-ng|n-ng|iuid|sig",
    signature: Uint8Array.of(1),
    fields: { iuid: Uint8Array.of(1, 2, 3, 4) },
  }),
  { ...sha1, template: "d|n", path: "/old fields" },
  file("/both", "b", { template: "d-ngv2|n-ng|d|n", fields: { d: sha1.digest, n: text("both\0") } }),
  { ...sha1, template: "ima", path: "/sbin/init" },
]

function entriesOf(bytes: Uint8Array) {
  const list = parseMeasurementList(bytes)
  return Array.from({ length: list.count }, (_, index) => measurementEntry(list, index))
}

/** A line of the text list, made as the kernel prints an entry. */
function asciiLine(entry: ReturnType<typeof measurementEntry>): string {
  const template = imaTemplate(entry.template, "test")
  const fields = template.fields.map((field, place) => {
    const form = IMA_FIELDS[field]
    if (place === template.nameField) return entry.path
    if (place === template.digestField) {
      const type = form === "typed-digest" ? `${entry.content === "verity" ? "verity" : "ima"}:` : ""
      return `${form === "sha1" ? "" : `${type}${entry.algorithm}:`}${toHex(entry.digest)}`
    }
    const bytes = (field === "sig" ? entry.signature : entry.fields[field]) ?? new Uint8Array(0)
    if (bytes.length === 0) return ""
    if (form === "name" || form === "text") return new TextDecoder().decode(bytes.subarray(0, -1))
    if (form === "u16" || form === "u32")
      return String(bytes.reduceRight((value, byte) => value * 256 + byte, 0))
    if (form === "optional-digest") return `sha256:${toHex(bytes.subarray(8))}`
    return toHex(bytes)
  })
  return [`${entry.pcr} ${toHex(entry.templateDigest)} ${entry.template}`, ...fields].join(" ")
}

describe("templates", () => {
  test("all of them mixed in one list are read, and the same when encoded again", () => {
    const bytes = listOf(...MIXED)
    const entries = entriesOf(bytes)
    expect(entries.map(({ template, path }) => [template, path])).toEqual(
      MIXED.map(({ template, path }) => [template, path]),
    )
    expect(entries.map(({ digest }) => toHex(digest))).toEqual(MIXED.map(({ digest }) => toHex(digest)))
    expect(encodeMeasurementList(entries)).toEqual(bytes)
  })

  test("each built-in template is in that list", () => {
    const used = new Set(MIXED.map(({ template }) => template))
    for (const name of Object.keys(BUILT_IN_TEMPLATES))
      expect([name, used.has(name) || name === "ima-sig"]).toEqual([name, true])
  })

  test("the text list of the same kernel holds the same entries", () => {
    const bytes = listOf(...MIXED)
    const lines = entriesOf(bytes).map(asciiLine)
    expect(encodeMeasurementList(parseAsciiMeasurementList(`${lines.join("\n")}\n`))).toEqual(bytes)
  })

  test("a digest of fs-verity is told from one of content", () => {
    const list = parseMeasurementList(listOf(...MIXED))
    const entries = entriesOf(listOf(...MIXED))
    expect(entries[1]?.content).toBe("file")
    expect(entries[2]?.content).toBe("verity")
    expect(digestText(list, 1)).toBe(`sha256:${toHex(MIXED[1]?.digest ?? new Uint8Array(0))}`)
    expect(digestText(list, 2)).toBe(`verity:sha256:${toHex(MIXED[2]?.digest ?? new Uint8Array(0))}`)
  })

  test("an entry is data by what its buffer holds, not by the template's name", () => {
    const entries = entriesOf(listOf(...MIXED))
    expect(entries.filter(({ content }) => content === "data").map(({ path }) => path)).toEqual([".ima"])
    const custom = file("x", "y", {
      template: "d-ngv2|n-ng|buf",
      content: "verity",
      fields: { buf: text("y") },
    })
    expect(entriesOf(listOf(custom))[0]?.content).toBe("data")
  })

  test.each([
    ["ima-new", "ima-sigv2"],
    ["", '""'],
    ["d-ng|n-ng|size", '"size" in "d-ng|n-ng|size"'],
    ["d-ng|sig", "a digest, then a name"],
    ["n-ng", "a digest, then a name"],
    ["n-ng|d-ng", "a digest, then a name"],
    ["d-modsig|n-ng|d-ng", "a digest, then a name"],
    ["d-ng|n-ng|", '"" in "d-ng|n-ng|"'],
    ["toString|n-ng", '"toString"'],
    [`d-ng|n-ng${"|sig".repeat(14)}`, "at most 15 fields"],
  ])("%p is refused with entry, offset and %p", (name, shown) => {
    const bytes = encodeMeasurementEntry(file("/x"))
    const first = encodeMeasurementEntry(file("boot_aggregate"))
    const length = new Uint8Array(4)
    new DataView(length.buffer).setUint32(0, text(name).length, true)
    const renamed = Buffer.concat([first, bytes.subarray(0, 24), length, text(name), bytes.subarray(34)])
    const parse = () => parseMeasurementList(new Uint8Array(renamed))
    expect(parse).toThrowCode("ERR_IMA_TEMPLATE")
    expect(parse).toThrow(shown)
    expect(parse).toThrow(`entry 1, offset ${first.length + 28}`)
  })

  test("a list of too many templates is refused", () => {
    const names = Array.from({ length: 40 }, (_, index) => {
      const bits = [...index.toString(2).padStart(6, "0")]
      return ["d-ng", "n-ng", ...bits.map((bit) => (bit === "0" ? "sig" : "buf"))].join("|")
    })
    const entries = names.map((template) => file("/x", "x", { template }))
    expect(parseMeasurementList(listOf(...entries.slice(0, 32))).count).toBe(32)
    expect(() => parseMeasurementList(listOf(...entries))).toThrowCode("ERR_TOO_LARGE")
  })

  test.each([
    [{ template: "evm-sig", fields: { iuid: Uint8Array.of(1) } }],
    [{ template: "evm-sig", fields: { imode: Uint8Array.of(1, 2, 3) } }],
    [{ template: "ima-modsig", fields: { "d-modsig": text("sha256") } }],
    [{ template: "ima-modsig", fields: { "d-modsig": digestField("sha256", 31) } }],
    [{ template: "d-ng|n-ng|d", fields: { d: new Uint8Array(21) } }],
    [{ template: "d-ng|n-ng|n", fields: { n: text("a\0b\0") } }],
  ] satisfies [Partial<NewEntry>][])("a damaged field is refused: %#", (more) => {
    expect(() => parseMeasurementList(listOf(file("/x", "x", more)))).toThrowCode("ERR_MALFORMED")
  })

  test("a digest of another type than ima and verity is refused", () => {
    const bytes = encodeMeasurementEntry(file("/x", "x", { template: "ima-ngv2" }))
    bytes.set(text("imb:"), Buffer.from(bytes).indexOf("ima:"))
    expect(() => parseMeasurementList(bytes)).toThrowCode("ERR_MALFORMED")
    const line = `10 ${"0a".repeat(20)} ima-ngv2 imb:sha1:${"0b".repeat(20)} /x`
    expect(() => parseAsciiMeasurementList(line)).toThrowCode("ERR_MALFORMED")
  })

  test("every truncation of an entry is refused", () => {
    for (const entry of MIXED) {
      const bytes = encodeMeasurementEntry(entry)
      for (let length = 1; length < bytes.length; length++)
        expect(() => parseMeasurementList(bytes.subarray(0, length))).toThrowCode("ERR_TRUNCATED")
    }
  })

  test("what a template cannot hold is not encoded", () => {
    expect(() => encodeMeasurementEntry(file("/x", "x", { content: "verity" }))).toThrowCode("ERR_MALFORMED")
    expect(() => encodeMeasurementEntry(file("/x", "x", { template: "d|n" }))).toThrowCode("ERR_MALFORMED")
    expect(() => encodeMeasurementEntry(file("/x", "x", { template: "none" }))).toThrowCode(
      "ERR_IMA_TEMPLATE",
    )
  })

  test("whatever is changed, only coded errors escape and every entry can be shown", () => {
    const bytes = listOf(...MIXED)
    const patch = fc.record({
      at: fc.nat(bytes.length - 6),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 5 }),
    })
    fc.assert(
      fc.property(fc.array(patch, { minLength: 1, maxLength: 3 }), (patches) => {
        const mutated = Uint8Array.from(bytes)
        for (const { at, bytes: replacement } of patches) mutated.set(replacement, at)
        try {
          const entries = entriesOf(mutated)
          expect(encodeMeasurementList(entries)).toEqual(mutated)
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
      { numRuns: 3000 },
    )
  })
})

describe.skipIf(!HAVE_VECTORS)("lists with measured data", () => {
  const vector = (name: string) => new Uint8Array(readFileSync(join(VECTORS, name)))

  test("a key of a keyring is data, in the text list and in the binary one", () => {
    const [entry] = parseAsciiMeasurementList(vector("ima/keylime-imabuf-keyring.ascii"))
    expect(entry).toMatchObject({ path: ".ima", content: "data", template: "ima-buf" })
    expect(entriesOf(encodeMeasurementList(entry === undefined ? [] : [entry]))[0]).toEqual(entry)
    expect(entriesOf(vector("ima/constructed-buf.bin")).map(({ content }) => content)).toEqual([
      "file",
      "data",
    ])
  })
})
