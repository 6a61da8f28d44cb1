import { describe, expect, test } from "bun:test"
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import fc from "fast-check"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { CodedError } from "../errors.ts"
import { cacheDirectory, openCache } from "./cache.ts"
import { type CacheEntry, encodeEntry, encodeExport, parseEntry, parseExport } from "./cache-entry.ts"

const ENTRY: CacheEntry = {
  key: "amd:/vcek/v1/Milan/crl",
  url: "https://kdsintf.amd.com/vcek/v1/Milan/crl",
  fetchedAt: new Date("2026-06-01T00:00:00Z"),
  etag: '"1"',
  lastModified: null,
  issuerChain: null,
  body: Uint8Array.of(0x30, 0),
}

test("the directory follows the XDG specification", () => {
  expect(cacheDirectory({ XDG_CACHE_HOME: "/c" }, "/home/u")).toBe("/c/cosmian_vm/collateral")
  for (const value of ["", "relative", undefined])
    expect(cacheDirectory({ XDG_CACHE_HOME: value }, "/home/u")).toBe("/home/u/.cache/cosmian_vm/collateral")
})

describe("entries", () => {
  test("come back as they were written, alone and together", () => {
    const other = { ...ENTRY, key: "intel:/x", etag: null, lastModified: "yesterday", issuerChain: "PEM" }
    expect(parseEntry(Buffer.from(encodeEntry(ENTRY)))).toEqual(ENTRY)
    expect(parseExport(Buffer.from(encodeExport([other, ENTRY])))).toEqual([ENTRY, other])
    expect(encodeExport([other, ENTRY])).toBe(encodeExport([ENTRY, other]))
  })

  test("of a newer format, with unknown members, without content or time are refused", () => {
    const text = encodeEntry(ENTRY)
    const parse = (from: string, to: string) => () => parseEntry(Buffer.from(text.replace(from, to)))
    expect(parse('"format": 1', '"format": 2')).toThrowCode("ERR_UNSUPPORTED")
    expect(parse('"etag"', '"tag"')).toThrowCode("ERR_MALFORMED")
    expect(parse('"MAA="', '""')).toThrowCode("ERR_MALFORMED")
    expect(parse('"MAA="', '"?"')).toThrowCode("ERR_MALFORMED")
    expect(parse("2026-06-01T", "2026-16-01T")).toThrowCode("ERR_MALFORMED")
    expect(parse('"key"', '"etag": null, "key"')).toThrowCode("ERR_DUPLICATE_KEY")
    expect(() => parseExport(Buffer.from(text))).toThrowCode("ERR_MALFORMED")
    for (const entries of ["1", "[1]", "null"])
      expect(() =>
        parseExport(Buffer.from(`{"format":1,"kind":"cosmian_vm collateral","entries":${entries}}`)),
      ).toThrowCode("ERR_MALFORMED")
  })

  test("whatever the bytes, only coded errors escape", () => {
    const text = encodeExport([ENTRY])
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.nat(255), (at, byte) => {
        const bytes = Buffer.from(text)
        bytes[at] = byte
        try {
          return parseExport(bytes).length >= 0
        } catch (error) {
          return error instanceof CodedError
        }
      }),
    )
  })
})

describe("a cache directory", () => {
  test("is made when something is written, for its user alone", () =>
    withDirectory(async (dir) => {
      const at = join(dir, "a", "b")
      const cache = openCache(at)
      expect([await cache.read(ENTRY.key), await cache.list()]).toEqual([null, []])
      await cache.write(ENTRY)
      expect(await cache.read(ENTRY.key)).toEqual(ENTRY)
      expect(await cache.list()).toEqual([ENTRY])
      const [name = ""] = readdirSync(at)
      expect(name).toStartWith("amd-vcek-v1-Milan-crl.")
      expect(statSync(join(at, name)).mode & 0o777).toBe(0o600)
      expect(statSync(at).mode & 0o777).toBe(0o700)
    }))

  test("keys of any length and kind have files of their own", () =>
    withDirectory(async (dir) => {
      const keys = ["a", "a/", "../../etc/passwd", `amd:/${"f".repeat(500)}`, `amd:/${"f".repeat(501)}`, ""]
      const cache = openCache(join(dir, "cache"))
      for (const key of keys) await cache.write({ ...ENTRY, key })
      for (const key of keys) expect((await cache.read(key))?.key).toBe(key)
      expect(readdirSync(dir)).toEqual(["cache"])
    }))

  test("damaged, foreign and huge entries are as good as none", () =>
    withDirectory(async (dir) => {
      const cache = openCache(dir)
      await cache.write(ENTRY)
      const [name = ""] = readdirSync(dir)
      const whole = readFileSync(join(dir, name))
      for (const content of [
        whole.subarray(0, -5),
        Buffer.alloc(0),
        encodeEntry({ ...ENTRY, key: "other" }),
        Buffer.alloc(5 * 1024 * 1024, 0x20),
      ]) {
        writeFileSync(join(dir, name), content)
        expect([await cache.read(ENTRY.key), await cache.list()]).toEqual([null, []])
      }
      await cache.write(ENTRY)
      expect(await cache.read(ENTRY.key)).toEqual(ENTRY)
    }))

  test("what a killed process left is removed, what another is writing is not", () =>
    withDirectory(async (dir) => {
      for (const name of [".old.tmp", ".new.tmp"]) writeFileSync(join(dir, name), "half")
      const past = Date.now() / 1000 - 7200
      utimesSync(join(dir, ".old.tmp"), past, past)
      await openCache(dir).write(ENTRY)
      expect(readdirSync(dir).filter((name) => name.endsWith(".tmp"))).toEqual([".new.tmp"])
    }))

  test("a place that cannot be written to is said so, and nothing is left there", () =>
    withDirectory(async (dir) => {
      writeFileSync(join(dir, "file"), "")
      const inFile = openCache(join(dir, "file"))
      expect(await codeOf(inFile.write(ENTRY))).toBe("ERR_IO")
      expect(await inFile.read(ENTRY.key)).toBe(null)
      mkdirSync(join(dir, "entry"))
      chmodSync(join(dir, "entry"), 0o700)
      const cache = openCache(join(dir, "entry"))
      await cache.write(ENTRY)
      const [name = ""] = readdirSync(join(dir, "entry"))
      mkdirSync(join(dir, "taken", name), { recursive: true })
      expect(await codeOf(openCache(join(dir, "taken")).write(ENTRY))).toBe("ERR_IO")
      expect(readdirSync(join(dir, "taken"))).toEqual([name])
      expect(await codeOf(openCache(join(dir, "taken")).read(ENTRY.key))).toBe("ERR_IO")
    }))

  test("any number of processes write and read one entry at once: each read is whole", () =>
    withDirectory(async (dir) => {
      const script = join(dir, "writer.ts")
      const at = join(dir, "cache")
      writeFileSync(
        script,
        `import { openCache } from ${JSON.stringify(join(import.meta.dir, "cache.ts"))}
const cache = openCache(${JSON.stringify(at)})
const who = Number(process.argv[2])
for (let round = 0; round < 100; round++) {
  const body = new Uint8Array(20_000 + who).fill(who)
  await cache.write({ key: "k", url: "", fetchedAt: new Date(), etag: null, lastModified: null, issuerChain: null, body })
  const read = await cache.read("k")
  const [first] = read?.body ?? []
  if (read === null || read.body.length !== 20_000 + first || read.body.some((byte) => byte !== first)) process.exit(1)
}
`,
      )
      const writers = [1, 2, 3, 4].map((who) =>
        Bun.spawn([process.execPath, script, `${who}`], { stdout: "inherit", stderr: "inherit" }),
      )
      expect(await Promise.all(writers.map(({ exited }) => exited))).toEqual([0, 0, 0, 0])
      expect(readdirSync(at)).toHaveLength(1)
    }))
})
