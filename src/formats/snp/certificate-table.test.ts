import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { vector } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import {
  certificateNameOf,
  encodeCertificateTable,
  parseCertificateTable,
  SNP_CERTIFICATE_GUIDS,
} from "./certificate-table.ts"
import { encodeLegacySnpBlob, parseLegacySnpBlob } from "./legacy-blob.ts"

const ENTRIES = [
  { guid: SNP_CERTIFICATE_GUIDS.ARK, der: Uint8Array.of(1, 2, 3) },
  { guid: SNP_CERTIFICATE_GUIDS.VCEK, der: Uint8Array.of(4) },
]
const REPORT = new Uint8Array(1184).fill(7)

/** A table with these offsets and lengths, and bytes behind it up to `size`. */
function table(size: number, ...entries: (readonly [offset: number, length: number])[]): Uint8Array {
  const raw = new Uint8Array(size)
  const view = new DataView(raw.buffer)
  entries.forEach(([offset, length], index) => {
    raw.fill(index + 1, index * 24, index * 24 + 16)
    view.setUint32(index * 24 + 16, offset, true)
    view.setUint32(index * 24 + 20, length, true)
  })
  return raw
}

describe("T8: certificate table", () => {
  test("entries survive encoding and parsing", () => {
    expect(parseCertificateTable(encodeCertificateTable(ENTRIES))).toEqual(ENTRIES)
    expect(ENTRIES.map(({ guid }) => certificateNameOf(guid))).toEqual(["ARK", "VCEK"])
  })

  test("padding behind the certificates is no part of them", () => {
    const padded = new Uint8Array(16384)
    padded.set(encodeCertificateTable(ENTRIES))
    expect(parseCertificateTable(padded)).toEqual(ENTRIES)
  })

  test("nothing, or zeros alone, are no certificates", () => {
    expect(parseCertificateTable(new Uint8Array(0))).toEqual([])
    expect(parseCertificateTable(new Uint8Array(16384))).toEqual([])
  })

  test("certificates may lie in any order", () => {
    expect(parseCertificateTable(table(100, [80, 10], [72, 8])).map(({ der }) => der.length)).toEqual([10, 8])
  })

  for (const [what, raw, code] of [
    ["overlapping certificates", table(200, [72, 20], [91, 20]), "ERR_MALFORMED"],
    ["two entries for the same bytes", table(200, [72, 20], [72, 20]), "ERR_MALFORMED"],
    ["a certificate inside the table", table(200, [0, 20]), "ERR_MALFORMED"],
    ["a certificate over the table's end", table(200, [47, 20]), "ERR_MALFORMED"],
    ["an empty certificate", table(200, [48, 0]), "ERR_MALFORMED"],
    ["a certificate past the end", table(200, [181, 20]), "ERR_TRUNCATED"],
    ["an offset past the end", table(200, [0x7fffffff, 1]), "ERR_TRUNCATED"],
    ["offset and length whose sum wraps", table(200, [0xfffffff0, 0x60]), "ERR_TRUNCATED"],
    ["a length of 2^32-1", table(200, [48, 0xffffffff]), "ERR_TRUNCATED"],
    ["no end of the table", table(48, [48, 1], [49, 1]), "ERR_TRUNCATED"],
    ["a part of an entry", new Uint8Array(23), "ERR_TRUNCATED"],
    [
      "more entries than a host could need",
      table(2000, ...Array.from({ length: 17 }, (_, index) => [1000 + index, 1] as const)),
      "ERR_TOO_LARGE",
    ],
    ["a huge table", new Uint8Array(65537), "ERR_TOO_LARGE"],
  ] as const)
    test(`${what}: ${code}`, () => {
      expect(() => parseCertificateTable(raw)).toThrowCode(code)
    })

  test("whatever the bytes, it answers or throws a coded error", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (raw) => {
        try {
          for (const { der } of parseCertificateTable(raw)) expect(der.length).toBeLessThanOrEqual(raw.length)
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
    )
  })

  test("what cannot be encoded is refused", () => {
    expect(() => encodeCertificateTable([{ guid: "no guid", der: REPORT }])).toThrowCode("ERR_MALFORMED")
    const [first] = ENTRIES
    const many = Array.from({ length: 17 }, () => first ?? { guid: "", der: REPORT })
    expect(() => encodeCertificateTable(many)).toThrowCode("ERR_TOO_LARGE")
  })
})

describe("the predecessor's blob", () => {
  test("report and certificates survive encoding and parsing", () => {
    const parsed = parseLegacySnpBlob(encodeLegacySnpBlob(REPORT, ENTRIES))
    expect(parsed).toEqual({ report: REPORT, certificates: ENTRIES })
  })

  test.skipIf(!HAVE_VECTORS)("a real one is encoded to the same bytes", () => {
    const blob = vector("snp-ext/tee-tools-ark-ask-vcek.bin")
    const { report, certificates } = parseLegacySnpBlob(blob)
    expect(certificates.map(({ guid }) => certificateNameOf(guid))).toEqual(["ARK", "VCEK", "ASK"])
    expect(encodeLegacySnpBlob(report, certificates)).toEqual(blob)
  })

  test.skipIf(!HAVE_VECTORS)("a real certificate table holds the same certificates", () => {
    const { certificates } = parseLegacySnpBlob(vector("snp-ext/tee-tools-ark-ask-vcek.bin"))
    const found = parseCertificateTable(vector("snp-ext/constructed-guid-table-vcek.bin").subarray(1184))
    const byGuid = (a: { guid: string }, b: { guid: string }) => (a.guid < b.guid ? -1 : 1)
    expect(found.toSorted(byGuid)).toEqual(certificates.toSorted(byGuid))
  })

  test("every truncation and a trailing byte are refused", () => {
    const blob = encodeLegacySnpBlob(REPORT, ENTRIES)
    for (let size = 0; size < blob.length; size++)
      expect(() => parseLegacySnpBlob(blob.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
    expect(() => parseLegacySnpBlob(Uint8Array.of(...blob, 0))).toThrowCode("ERR_TRAILING_BYTES")
  })

  test("huge counts and lengths are refused before anything is read", () => {
    const blob = encodeLegacySnpBlob(REPORT, ENTRIES)
    const change = (at: number, value: number) => {
      const raw = blob.slice()
      new DataView(raw.buffer).setUint32(at, value, true)
      return () => parseLegacySnpBlob(raw)
    }
    expect(change(1184, 0xffffffff)).toThrowCode("ERR_TOO_LARGE")
    expect(change(1188, 0xffffffff)).toThrowCode("ERR_TOO_LARGE")
    expect(change(1188, 16)).toThrowCode("ERR_MALFORMED")
  })

  test("what cannot be encoded is refused", () => {
    expect(() => encodeLegacySnpBlob(REPORT.subarray(1), [])).toThrowCode("ERR_MALFORMED")
    const [first] = ENTRIES
    const many = Array.from({ length: 17 }, () => first ?? { guid: "", der: REPORT })
    expect(() => encodeLegacySnpBlob(REPORT, many)).toThrowCode("ERR_TOO_LARGE")
  })
})
