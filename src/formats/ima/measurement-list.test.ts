import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import fc from "fast-check"
import { file, listOf, violation } from "../../../test/fakes/measurement-list.ts"
import { HAVE_VECTORS, VECTORS } from "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { parseAsciiMeasurementList } from "./ascii.ts"
import { encodeMeasurementEntry, encodeMeasurementList, type NewEntry } from "./encode.ts"
import { isViolation, measurementEntry, parseMeasurementList } from "./measurement-list.ts"
import { parseFileSignature } from "./signature.ts"

const vector = (name: string) => new Uint8Array(readFileSync(join(VECTORS, name)))

function entriesOf(bytes: Uint8Array) {
  const list = parseMeasurementList(bytes)
  return Array.from({ length: list.count }, (_, index) => measurementEntry(list, index))
}

const old: NewEntry = {
  template: "ima",
  algorithm: "sha1",
  digest: new Uint8Array(20).fill(7),
  path: "/sbin/init",
}
const signed = file("/usr/bin/zmore", "z", { template: "ima-sig", signature: Uint8Array.of(3, 2, 4) })
const unsigned = file("/usr/bin/dd", "d", { template: "ima-sig" })
const SAMPLE = [file("boot_aggregate"), old, signed, unsigned, violation("/var/log/messages")]

/** An entry of which one u32 is replaced. */
function withU32(bytes: Uint8Array, at: number, value: number): Uint8Array {
  const out = Uint8Array.from(bytes)
  new DataView(out.buffer).setUint32(at, value, true)
  return out
}

describe("binary measurement list", () => {
  test("templates ima, ima-ng and ima-sig are read, mixed in one list", () => {
    const entries = entriesOf(listOf(...SAMPLE))
    expect(entries.map(({ template, path }) => [template, path])).toEqual([
      ["ima-ng", "boot_aggregate"],
      ["ima", "/sbin/init"],
      ["ima-sig", "/usr/bin/zmore"],
      ["ima-sig", "/usr/bin/dd"],
      ["ima-ng", "/var/log/messages"],
    ])
    expect(entries.map(({ algorithm }) => algorithm)).toEqual([
      "sha256",
      "sha1",
      "sha256",
      "sha256",
      "sha256",
    ])
    expect(entries.map(({ signature }) => signature)).toEqual([
      null,
      null,
      Uint8Array.of(3, 2, 4),
      new Uint8Array(0),
      null,
    ])
    expect(entries[1]?.digest).toEqual(old.digest)
    expect(entries.every(({ pcr }) => pcr === 10)).toBe(true)
  })

  test("an encoded list of parsed entries is the same list", () => {
    const bytes = listOf(...SAMPLE)
    expect(encodeMeasurementList(entriesOf(bytes))).toEqual(bytes)
  })

  test("an empty list has no entries", () => {
    expect(parseMeasurementList(new Uint8Array(0)).count).toBe(0)
    expect(() => measurementEntry(parseMeasurementList(new Uint8Array(0)), 0)).toThrow(RangeError)
  })

  test("names are bytes: spaces, newlines, escape sequences, invalid UTF-8, 4096 bytes", () => {
    const names = ["/a b", "/a\nb", "/\u001b[31m", "/\udcff\udc80", `/${"x".repeat(4095)}`]
    expect(entriesOf(listOf(...names.map((name) => file(name)))).map(({ path }) => path)).toEqual(names)
  })

  test("every truncation of an entry is refused", () => {
    for (const entry of SAMPLE) {
      const bytes = encodeMeasurementEntry(entry)
      for (let length = 1; length < bytes.length; length++)
        expect(() => parseMeasurementList(bytes.subarray(0, length))).toThrowCode("ERR_TRUNCATED")
    }
  })

  test.each([0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff])("a length of %d is refused", (size) => {
    const modern = encodeMeasurementEntry(signed)
    for (const at of [24, 35]) // template name, template data
      expect(() => parseMeasurementList(withU32(modern, at, size))).toThrowCode("ERR_TOO_LARGE")
    // d-ng, n-ng, sig
    for (const at of [39, 39 + 4 + 40, 39 + 4 + 40 + 4 + 15])
      expect(() => parseMeasurementList(withU32(modern, at, size))).toThrowCode("ERR_MALFORMED")
    expect(() => parseMeasurementList(withU32(encodeMeasurementEntry(old), 51, size))).toThrowCode(
      "ERR_TOO_LARGE",
    )
  })

  test("lengths of zero are refused where something has to be", () => {
    const modern = encodeMeasurementEntry(file("/x"))
    expect(() => parseMeasurementList(withU32(modern, 24, 0))).toThrowCode("ERR_IMA_TEMPLATE")
    expect(() => parseMeasurementList(withU32(modern, 34, 0).subarray(0, 38))).toThrowCode("ERR_MALFORMED")
    expect(() => parseMeasurementList(withU32(modern, 38, 0))).toThrowCode("ERR_MALFORMED")
    expect(() => parseMeasurementList(withU32(modern, 82, 0))).toThrowCode("ERR_MALFORMED")
  })

  test("a path without its NUL, or with another NUL inside, is refused", () => {
    const bytes = encodeMeasurementEntry(file("/abc"))
    const open = Uint8Array.from(bytes)
    open[open.length - 1] = 0x64
    expect(() => parseMeasurementList(open)).toThrowCode("ERR_MALFORMED")
    const inside = Uint8Array.from(bytes)
    inside[inside.length - 3] = 0
    expect(() => parseMeasurementList(inside)).toThrowCode("ERR_MALFORMED")
    const oldBytes = encodeMeasurementEntry(old)
    oldBytes[oldBytes.length - 3] = 0
    expect(() => parseMeasurementList(oldBytes)).toThrowCode("ERR_MALFORMED")
  })

  test("bytes after the last field are refused", () => {
    const bytes = encodeMeasurementEntry(unsigned)
    // The same data under the name of a template with a field less.
    const renamed = Buffer.from(bytes)
    const shorter = Buffer.concat([
      renamed.subarray(0, 24),
      Buffer.from("\x06\0\0\0ima-ng", "latin1"),
      renamed.subarray(35),
    ])
    expect(() => parseMeasurementList(new Uint8Array(shorter))).toThrowCode("ERR_MALFORMED")
  })

  test("a digest of another size than its algorithm's is refused", () => {
    const bytes = encodeMeasurementEntry(file("/x"))
    bytes.set(new TextEncoder().encode("sha384:\0"), 42)
    expect(() => parseMeasurementList(bytes)).toThrowCode("ERR_MALFORMED")
  })

  test("an unknown algorithm is named, with entry and offset", () => {
    const bytes = listOf(file("boot_aggregate"), file("/x"))
    bytes.set(new TextEncoder().encode("shaXXX:"), bytes.length - 3 - 4 - 40)
    expect(() => parseMeasurementList(bytes)).toThrowCode("ERR_IMA_ALGORITHM")
    expect(() => parseMeasurementList(bytes)).toThrow("entry 1, offset 143: a file digest is of an algorithm")
    expect(() => parseMeasurementList(bytes)).toThrow('"shaXXX"')
  })

  test("an unknown template is named, made harmless for a terminal", () => {
    const bytes = encodeMeasurementEntry(file("/x"))
    bytes.set(new TextEncoder().encode("\u001b[2Jx"), 28)
    expect(() => parseMeasurementList(bytes)).toThrowCode("ERR_IMA_TEMPLATE")
    expect(() => parseMeasurementList(bytes)).toThrow("entry 0, offset 28")
    expect(() => parseMeasurementList(bytes)).toThrow('"\\x1b[2Jx')
  })

  test("caps on size and number of entries are checked before memory is taken", () => {
    const bytes = listOf(...SAMPLE)
    expect(() => parseMeasurementList(bytes, { maxBytes: bytes.length - 1 })).toThrowCode("ERR_TOO_LARGE")
    expect(() => parseMeasurementList(bytes, { maxEntries: SAMPLE.length - 1 })).toThrowCode("ERR_TOO_LARGE")
    expect(parseMeasurementList(bytes, { maxEntries: SAMPLE.length }).count).toBe(SAMPLE.length)
    // The smallest entry there is, three million times.
    const tiny = encodeMeasurementEntry({ ...old, path: "" })
    const huge = new Uint8Array(3_000_000 * tiny.length)
    for (let at = 0; at < huge.length; at += tiny.length) huge.set(tiny, at)
    expect(() => parseMeasurementList(huge)).toThrowCode("ERR_TOO_LARGE")
  })

  test("whatever is changed, only coded errors escape and every entry can be shown", () => {
    const bytes = listOf(...SAMPLE)
    const patch = fc.record({
      at: fc.nat(bytes.length - 1),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 5 }),
      cut: fc.option(fc.nat(bytes.length)),
    })
    fc.assert(
      fc.property(fc.array(patch, { minLength: 1, maxLength: 3 }), (patches) => {
        let mutated = Uint8Array.from(bytes)
        for (const { at, bytes: replacement, cut } of patches) {
          mutated.set(replacement.subarray(0, Math.max(0, mutated.length - at)), Math.min(at, mutated.length))
          if (cut !== null) mutated = mutated.subarray(0, cut)
        }
        try {
          expect(entriesOf(mutated).length).toBeLessThanOrEqual(bytes.length)
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
      { numRuns: 3000 },
    )
  })

  test("any entries survive the way to bytes and back", () => {
    const path = fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) => {
      const text = [...bytes].map((byte) => String.fromCharCode((byte % 127) + 1))
      return text.join("")
    })
    const entry: fc.Arbitrary<NewEntry> = fc.record({
      pcr: fc.nat(23),
      template: fc.constantFrom("ima-ng" as const, "ima-sig" as const),
      algorithm: fc.constant("sha1"),
      digest: fc.uint8Array({ minLength: 20, maxLength: 20 }),
      path,
    })
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 8 }), (entries) => {
        const bytes = encodeMeasurementList(entries)
        expect(encodeMeasurementList(entriesOf(bytes))).toEqual(bytes)
        expect(entriesOf(bytes).map((read) => read.path)).toEqual(entries.map((made) => made.path))
      }),
    )
  })

  test("what a template cannot hold is not encoded", () => {
    expect(() => encodeMeasurementEntry({ ...old, path: "x".repeat(256) })).toThrowCode("ERR_MALFORMED")
    expect(() => encodeMeasurementEntry({ ...old, digest: new Uint8Array(32) })).toThrowCode("ERR_MALFORMED")
    expect(() => encodeMeasurementEntry(file("/a\0b"))).toThrowCode("ERR_MALFORMED")
    expect(() => encodeMeasurementEntry(file("/a", "a", { algorithm: "none" }))).toThrowCode("ERR_MALFORMED")
  })
})

describe("ascii measurement list", () => {
  const SIGNED = `10 ${"0a".repeat(20)} ima-sig sha1:${"0b".repeat(20)} /usr/bin/x 0302`
  const UNSIGNED = `10 ${"0a".repeat(20)} ima-sig sha1:${"0b".repeat(20)} /usr/bin/x `
  const OLD = `10 ${"0a".repeat(20)} ima ${"0b".repeat(20)} /sbin/init`

  test("the three templates are read", () => {
    const entries = parseAsciiMeasurementList([SIGNED, UNSIGNED, OLD, ""].join("\n"))
    expect(entries.map(({ signature }) => signature)).toEqual([Uint8Array.of(3, 2), new Uint8Array(0), null])
    expect(entries.map(({ path }) => path)).toEqual(["/usr/bin/x", "/usr/bin/x", "/sbin/init"])
    expect(entries.map(({ algorithm }) => algorithm)).toEqual(["sha1", "sha1", "sha1"])
  })

  test.each([
    ["x", "ERR_MALFORMED"],
    ["", "ERR_MALFORMED"],
    [OLD.replace("0a0a", "0a"), "ERR_MALFORMED"],
    [OLD.replace(" /sbin/init", ""), "ERR_MALFORMED"],
    [SIGNED.replace("0302", "030"), "ERR_MALFORMED"],
    [SIGNED.replace("0b0b", "0b"), "ERR_MALFORMED"],
    [SIGNED.replace(" /usr/bin/x", ""), "ERR_MALFORMED"],
    [SIGNED.replace("ima-sig", "ima-sig9"), "ERR_IMA_TEMPLATE"],
    [SIGNED.replace("sha1:", "sha9:"), "ERR_IMA_ALGORITHM"],
  ])("line %p gives %s", (line, code) => {
    expect(() => parseAsciiMeasurementList(`${line}\n`)).toThrowCode(code)
  })
})

describe("file signature", () => {
  const bytes = Uint8Array.of(3, 2, 4, 0xde, 0xad, 0xbe, 0xef, 0, 2, 1, 1)

  test("header and length are read", () => {
    expect(parseFileSignature(bytes)).toMatchObject({ kind: "ima", version: 2, keyId: "deadbeef" })
    expect(parseFileSignature(bytes).signature).toEqual(Uint8Array.of(1, 1))
  })

  test("another length, kind or version is refused", () => {
    expect(() => parseFileSignature(bytes.subarray(0, 10))).toThrowCode("ERR_MALFORMED")
    expect(() => parseFileSignature(bytes.subarray(0, 8))).toThrowCode("ERR_TRUNCATED")
    expect(() => parseFileSignature(bytes.with(0, 1))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseFileSignature(bytes.with(1, 1))).toThrowCode("ERR_UNSUPPORTED")
  })
})

describe.skipIf(!HAVE_VECTORS)("lists of real machines", () => {
  test.each([
    ["ima/tee-imang-sha1.bin", 446, 0],
    ["ima/tee-imang-violations.bin", 2127, 256],
    ["ima/constructed-ima-template.bin", 2, 0],
    ["ima/constructed-violations.bin", 4, 2],
    ["ima/constructed-buf.bin", 2, 0],
    ["ima/constructed-modsig.bin", 3, 0],
    ["ima/constructed-ngv2.bin", 9, 0],
    ["ima/constructed-sigv2.bin", 3, 0],
  ])("%s: %d entries, %d violations, the same when encoded again", (name, count, violations) => {
    const bytes = vector(name)
    const list = parseMeasurementList(bytes)
    expect(list.count).toBe(count)
    const indexes = Array.from({ length: count }, (_, index) => index)
    expect(indexes.filter((index) => isViolation(list, index)).length).toBe(violations)
    expect(encodeMeasurementList(entriesOf(bytes))).toEqual(bytes)
  })

  test("binary and ascii list of one machine hold the same entries", () => {
    const ascii = parseAsciiMeasurementList(vector("ima/tee-imang-sha1.ascii"))
    expect(encodeMeasurementList(ascii)).toEqual(vector("ima/tee-imang-sha1.bin"))
  })

  test.each([
    ["ima-negative/derived-tee-imang-sha1-template-name-length-huge.bin", "ERR_TOO_LARGE"],
    ["ima-negative/derived-tee-imang-sha1-truncated.bin", "ERR_TRUNCATED"],
  ])("%s gives %s", (name, code) => {
    expect(() => parseMeasurementList(vector(name))).toThrowCode(code)
  })

  test.each([
    ["ima-negative/keylime-invalid.ascii", "ERR_MALFORMED"],
    ["ima/keylime-unknown.ascii", "ERR_IMA_ALGORITHM"],
  ])("%s gives %s", (name, code) => {
    expect(() => parseAsciiMeasurementList(vector(name))).toThrowCode(code)
  })

  test("a file signature is read, and one with a wrong length is refused", () => {
    const good = parseAsciiMeasurementList(vector("ima/keylime-imasig-signatures.ascii"))
    for (const { signature } of good)
      expect(parseFileSignature(signature ?? new Uint8Array(0)).kind).toBe("ima")
    const bad = parseAsciiMeasurementList(vector("ima-negative/keylime-bad-signature-size.ascii"))
    expect(() => parseFileSignature(bad[0]?.signature ?? new Uint8Array(0))).toThrowCode("ERR_MALFORMED")
  })

  test("every truncation of a real list is refused or ends between two entries", () => {
    const bytes = vector("ima/tee-imang-sha1.bin").subarray(0, 4000)
    let whole = 0
    for (let length = 1; length < bytes.length; length++)
      try {
        parseMeasurementList(bytes.subarray(0, length))
        whole += 1
      } catch (error) {
        expect(error).toBeInstanceOf(CodedError)
        expect(error).toHaveProperty("code", "ERR_TRUNCATED")
      }
    expect(whole).toBeGreaterThan(20)
    expect(whole).toBeLessThan(60)
  })
})
