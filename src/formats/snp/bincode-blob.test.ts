import { describe, expect, test } from "bun:test"
import { vector } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { looksBincode, parseBincodeCertificates } from "./bincode-blob.ts"

describe.skipIf(!HAVE_VECTORS)("certificates serialised by bincode", () => {
  const rest = HAVE_VECTORS ? vector("snp-ext/tee-tools-vlek.bin").subarray(1184) : new Uint8Array()

  test("hold the VLEK", () => {
    expect(looksBincode(rest)).toBe(true)
    expect(parseBincodeCertificates(rest)).toEqual([
      { guid: "a8074bc2-a25a-483e-aae6-39c045a0b8a1", der: rest.subarray(44) },
    ])
  })

  test("are told apart from the other forms", () => {
    for (const file of ["constructed-guid-table-vcek.bin", "tee-tools-ark-ask-vcek.bin"])
      expect(looksBincode(vector(`snp-ext/${file}`).subarray(1184))).toBe(false)
    expect(looksBincode(new Uint8Array(64))).toBe(false)
  })

  test("are refused when they are cut, continued or of impossible size", () => {
    for (let size = 0; size < rest.length; size++)
      expect(() => parseBincodeCertificates(rest.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
    expect(() => parseBincodeCertificates(Uint8Array.of(...rest, 0))).toThrowCode("ERR_TRAILING_BYTES")
    const changed = (at: number, value: number) => {
      const copy = rest.slice()
      copy[at] = value
      return () => parseBincodeCertificates(copy)
    }
    expect(changed(0, 17)).toThrowCode("ERR_TOO_LARGE")
    expect(changed(7, 0x80)).toThrowCode("ERR_TOO_LARGE")
    expect(changed(12, 15)).toThrowCode("ERR_MALFORMED")
    expect(changed(43, 0x80)).toThrowCode("ERR_TOO_LARGE")
    expect(changed(0, 2)).toThrowCode("ERR_TRUNCATED")
  })
})
