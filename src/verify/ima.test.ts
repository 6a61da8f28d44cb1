import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import fc from "fast-check"
import {
  bootAggregate,
  extendedPcr,
  file,
  listOf,
  quoted,
  violation,
} from "../../test/fakes/measurement-list.ts"
import { HAVE_VECTORS, VECTORS } from "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { parseAsciiMeasurementList } from "../formats/ima/ascii.ts"
import { encodeMeasurementList, type NewEntry } from "../formats/ima/encode.ts"
import { parseMeasurementList } from "../formats/ima/measurement-list.ts"
import { verifyMeasurementList } from "./ima.ts"
import { PcrReplay } from "./ima-replay.ts"

const HONEST: NewEntry[] = [
  bootAggregate(),
  file("/usr/bin/a"),
  violation("/usr/bin/b"),
  file("/usr/bin/c", "c", { template: "ima-sig", signature: Uint8Array.of(3, 2) }),
  { template: "ima", algorithm: "sha1", digest: new Uint8Array(20).fill(1), path: "/usr/bin/d" },
  file("/usr/bin/e", "e", { algorithm: "sha1", digest: new Uint8Array(20).fill(2) }),
]
const PCR10 = extendedPcr(...HONEST)
const verify = (entries: NewEntry[], pcr = PCR10) =>
  verifyMeasurementList(parseMeasurementList(listOf(...entries)), pcr)

describe("measurement list against the quoted PCR 10", () => {
  test("the honest list of mixed templates replays", () => {
    expect(verify(HONEST).list.count).toBe(HONEST.length)
    expect(verify(HONEST).notYetQuoted).toBe(0)
  })

  test("entries measured after the quote are left out and counted", () => {
    const later = verify([...HONEST, file("/usr/bin/late"), file("/usr/bin/later")])
    expect(later.list.count).toBe(HONEST.length)
    expect(later.notYetQuoted).toBe(2)
  })

  test("an untouched PCR quotes nothing of the list", () => {
    expect(verify(HONEST, new Uint8Array(32))).toMatchObject({ notYetQuoted: HONEST.length })
    expect(quoted().list.count).toBe(0)
  })

  test("an entry removed, wherever it was, is noticed", () => {
    for (let index = 0; index < HONEST.length; index++)
      expect(() => verify(HONEST.toSpliced(index, 1))).toThrowCode("ERR_IMA_REPLAY")
  })

  test("an entry added before the end is noticed", () => {
    for (let index = 0; index < HONEST.length; index++)
      expect(() => verify(HONEST.toSpliced(index, 0, file("/tmp/evil")))).toThrowCode("ERR_IMA_REPLAY")
  })

  test("two entries swapped are noticed", () => {
    for (let index = 1; index < HONEST.length; index++) {
      const swapped = HONEST.toSpliced(index - 1, 2, ...HONEST.slice(index - 1, index + 1).reverse())
      expect(() => verify(swapped)).toThrowCode("ERR_IMA_REPLAY")
    }
  })

  test("an entry doubled is noticed", () => {
    for (let index = 0; index < HONEST.length - 1; index++)
      expect(() =>
        verify(HONEST.flatMap((entry, at) => (at === index ? [entry, entry] : [entry]))),
      ).toThrowCode("ERR_IMA_REPLAY")
  })

  test("template data changed under an honest template digest is noticed, and the reverse", () => {
    const changed = listOf(...HONEST)
    const path = Buffer.from(changed).indexOf("/usr/bin/a")
    changed[path + 9] = 0x7a
    expect(() => verifyMeasurementList(parseMeasurementList(changed), PCR10)).toThrowCode(
      "ERR_IMA_TEMPLATE_DIGEST",
    )
    const other = HONEST.with(1, file("/usr/bin/a", "a", { templateDigest: new Uint8Array(20).fill(9) }))
    expect(() => verify(other)).toThrowCode("ERR_IMA_TEMPLATE_DIGEST")
  })

  test("a measured file passed off as a violation is noticed", () => {
    expect(() => verify(HONEST.with(1, violation("/usr/bin/a")))).toThrowCode("ERR_IMA_REPLAY")
  })

  test("a violation passed off as a measured file is noticed", () => {
    expect(() => verify(HONEST.with(2, file("/usr/bin/b")))).toThrowCode("ERR_IMA_REPLAY")
  })

  test("an entry of another PCR is refused", () => {
    const other = HONEST.with(1, file("/usr/bin/a", "/usr/bin/a", { pcr: 11 }))
    expect(() => verify(other)).toThrowCode("ERR_IMA_PCR")
  })

  test("a quoted value of another length is no match", () => {
    expect(() => verify(HONEST, PCR10.subarray(0, 31))).toThrowCode("ERR_IMA_REPLAY")
    expect(() => verify(HONEST, new Uint8Array(0))).toThrowCode("ERR_IMA_REPLAY")
  })

  test("no single bit of the quoted entries can change unnoticed, but for the name in a violation", () => {
    const bytes = listOf(...HONEST)
    const named = Buffer.from(bytes).indexOf("/usr/bin/b")
    const digestOfViolation = named - 4 - 32
    fc.assert(
      fc.property(fc.nat(bytes.length * 8 - 1), (bit) => {
        const at = bit >> 3
        fc.pre(at < digestOfViolation || at >= named + "/usr/bin/b".length)
        const mutated = bytes.with(at, (bytes[at] ?? 0) ^ (1 << (bit & 7)))
        try {
          verifyMeasurementList(parseMeasurementList(mutated), PCR10)
          expect(`bit ${bit} changed`).toBe("noticed")
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
      { numRuns: 2000 },
    )
  })
})

describe("with a later statement about PCR 10 in another bank", () => {
  const entries = ["a", "b", "c", "d"].map((path) => file(path))
  const list = parseMeasurementList(listOf(...entries))
  const after = (count: number) => {
    const replay = new PcrReplay("sha384")
    for (let index = 0; index < count; index++) replay.extend(list, index)
    return { bank: "sha384", value: replay.value.slice(), by: "document" } as const
  }
  const quotedAfter = (count: number) => extendedPcr(...entries.slice(0, count))

  test("the entries up to that statement are verified", () => {
    for (const [quoted, later] of [
      [2, 2],
      [2, 3],
      [0, 4],
    ] as const) {
      const verified = verifyMeasurementList(list, quotedAfter(quoted), after(later))
      expect([verified.list.count, verified.notYetQuoted]).toEqual([later, 4 - later])
    }
  })

  test("one that holds less than the quote before it is refused, and so is one of another list", () => {
    expect(() => verifyMeasurementList(list, quotedAfter(3), after(2))).toThrowCode("ERR_IMA_REPLAY")
    const other = { ...after(3), value: new Uint8Array(48).fill(1) }
    expect(() => verifyMeasurementList(list, quotedAfter(3), other)).toThrowCode("ERR_IMA_REPLAY")
    const short = { ...after(3), value: after(3).value.subarray(0, 32) }
    expect(() => verifyMeasurementList(list, quotedAfter(3), short)).toThrowCode("ERR_IMA_REPLAY")
  })
})

interface Indexed {
  file: string
  kind: string
  facts?: { entries: number; pcr10?: Record<string, string> }
}

describe.skipIf(!HAVE_VECTORS)("recorded PCR values of real machines", () => {
  const index: Indexed[] = HAVE_VECTORS ? JSON.parse(readFileSync(join(VECTORS, "INDEX.json"), "utf8")) : []
  const read = (name: string) => new Uint8Array(readFileSync(join(VECTORS, name)))
  const pcr10 = (entry: Indexed) => Buffer.from(entry.facts?.pcr10?.["sha256"] ?? "", "hex")
  // The list of that name is of an algorithm that does not exist.
  const lists = index.filter(({ file: name, kind }) => kind === "ima" && !name.includes("keylime-unknown"))

  test.each(lists.map((entry) => [entry.file, entry] as const))("%s replays to it", (name, entry) => {
    const bytes = read(name)
    const binary = name.endsWith(".ascii") ? encodeMeasurementList(parseAsciiMeasurementList(bytes)) : bytes
    const list = parseMeasurementList(binary)
    expect(verifyMeasurementList(list, pcr10(entry)).list.count).toBe(list.count)
  })

  test("the list is long enough for this to mean something", () => {
    expect(lists.length).toBeGreaterThanOrEqual(16)
  })

  test.each(["tee-imang-sha1", "tee-imang-violations"])("%s replays to what a TPM quoted", (name) => {
    const pcrs = JSON.parse(readFileSync(join(VECTORS, "ima-quote", name, "pcrs.json"), "utf8"))
    const list = parseMeasurementList(read(`ima/${name}.bin`))
    expect(verifyMeasurementList(list, Buffer.from(pcrs.sha256["10"], "hex")).notYetQuoted).toBe(0)
  })

  const quotedPcr = () => {
    const honest = index.find(({ file: name }) => name === "ima/tee-imang-sha1.bin")
    return honest === undefined ? new Uint8Array(0) : pcr10(honest)
  }

  test.each([
    ["entries-swapped", "ERR_IMA_REPLAY"],
    ["entry-removed", "ERR_IMA_REPLAY"],
    ["entry-hash-mismatch", "ERR_IMA_TEMPLATE_DIGEST"],
  ])("%s gives %s", (name, code) => {
    const list = parseMeasurementList(read(`ima-negative/derived-tee-imang-sha1-${name}.bin`))
    expect(() => verifyMeasurementList(list, quotedPcr())).toThrowCode(code)
  })

  test("an extra entry after the quote is not among the verified ones", () => {
    const list = parseMeasurementList(read("ima-negative/derived-tee-imang-sha1-extra-entry-after-quote.bin"))
    const verified = verifyMeasurementList(list, quotedPcr())
    expect(verified.list.count).toBe(446)
    expect(verified.notYetQuoted).toBe(1)
  })
})
