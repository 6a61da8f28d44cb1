import { describe, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import fc from "fast-check"
import { fakeChip } from "../../../test/fakes/snp.ts"
import { vector, vectorsUnder } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { parseCertificate } from "./certificate.ts"
import {
  DerReader,
  encodeDer,
  encodeInteger,
  encodeOid,
  integerBytes,
  namedBits,
  oidText,
  single,
  smallInteger,
  TAG,
  timeValue,
} from "./der.ts"
import { parseSignatureAlgorithm } from "./signature-algorithm.ts"

const { leaf, certificates } = await fakeChip()
const files = ["snp", "snp-testpki", "trust/amd", "trust/intel"].flatMap(vectorsUnder)
const real = files.filter(
  ({ file, expected }) => file.endsWith(".der") && !/crl/i.test(`${file} ${expected}`),
)

describe.skipIf(!HAVE_VECTORS)("real certificates", () => {
  for (const { file } of real)
    test(`${file}: read as OpenSSL reads it`, () => {
      const der = vector(file)
      const mine = parseCertificate(der)
      const theirs = new X509Certificate(der)
      expect(mine.notBefore).toEqual(new Date(theirs.validFrom))
      expect(mine.notAfter).toEqual(new Date(theirs.validTo))
      expect(theirs.subject).toContain(`CN=${mine.subject.commonName}`)
      expect(theirs.issuer).toContain(`CN=${mine.issuer.commonName}`)
      expect(mine.basicConstraints?.ca ?? false).toBe(theirs.ca)
      expect(Buffer.from(mine.spki)).toEqual(theirs.publicKey.export({ type: "spki", format: "der" }))
      expect(BigInt(`0x${Buffer.from(mine.serial).toString("hex")}`)).toBe(BigInt(`0x${theirs.serialNumber}`))
    })

  test("explicit and implicit trailer fields are the same algorithm", () => {
    const old = parseCertificate(vector("snp/milan-v2-trustee/vcek.der")).signatureAlgorithm
    const recent = parseCertificate(vector("snp/turin-v5-azure-cc/vcek.der")).signatureAlgorithm
    expect(old).toEqual({ scheme: "rsassa-pss", hash: "sha384", mgfHash: "sha384", saltLength: 48 })
    expect(recent).toEqual(old)
  })
})

describe("certificates", () => {
  test("every truncation is refused", () => {
    for (let size = 0; size < leaf.length; size++)
      expect(() => parseCertificate(leaf.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
  })

  test("trailing bytes are refused", () => {
    expect(() => parseCertificate(Uint8Array.of(...leaf, 0))).toThrowCode("ERR_TRAILING_BYTES")
  })

  test("a huge one is refused before it is read", () => {
    expect(() => parseCertificate(new Uint8Array(32 * 1024 + 1))).toThrowCode("ERR_TOO_LARGE")
  })

  test("whatever byte is changed, it is read or refused by a coded error", () => {
    for (const der of certificates)
      for (let at = 0; at < der.length; at++) {
        const changed = der.slice()
        changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
        expect(outcomeOf(() => parseCertificate(changed))).toBe("fine")
      }
  })

  test("whatever the bytes, only coded errors escape", () => {
    const any = fc.uint8Array({ maxLength: 300 })
    fc.assert(fc.property(any, (bytes) => outcomeOf(() => parseCertificate(bytes)) === "fine"))
  })

  test("a signature algorithm that differs outside the signed part is refused", () => {
    const changed = leaf.slice()
    // The salt length's last occurrence stands in the outer, unsigned identifier.
    const salt = Buffer.from(leaf).lastIndexOf(Buffer.from([0xa2, 0x03, 0x02, 0x01, 0x30]))
    changed[salt + 4] = 0x20
    expect(() => parseCertificate(changed)).toThrowCode("ERR_MALFORMED")
  })

  test("the same extension twice is refused", () => {
    const extension = encodeDer(TAG.sequence, encodeOid("1.2.3"), encodeDer(TAG.octetString))
    expect(() => parseCertificate(rebuilt(extension, extension))).toThrowCode("ERR_MALFORMED")
    expect(parseCertificate(rebuilt(extension)).extensions.has("1.2.3")).toBe(true)
  })

  test("version 1 is refused", () => {
    const changed = leaf.slice()
    const version = Buffer.from(leaf).indexOf(Buffer.from([0xa0, 0x03, 0x02, 0x01, 0x02]))
    changed[version + 4] = 0
    expect(() => parseCertificate(changed)).toThrowCode("ERR_UNSUPPORTED")
  })
})

describe("DER", () => {
  const read = (...bytes: number[]) => single(Uint8Array.from(bytes), bytes[0] ?? 0, "test")

  test("lengths that are indefinite, longer than needed or past the end are refused", () => {
    expect(() => read(0x04, 0x80, 0, 0)).toThrowCode("ERR_MALFORMED")
    expect(() => read(0x04, 0x81, 0x01, 0)).toThrowCode("ERR_MALFORMED")
    expect(() => read(0x04, 0x82, 0x00, 0x80)).toThrowCode("ERR_MALFORMED")
    expect(() => read(0x04, 0x84, 0, 0, 0, 1, 0)).toThrowCode("ERR_MALFORMED")
    expect(() => read(0x04, 0x83, 0xff, 0xff, 0xff)).toThrowCode("ERR_TRUNCATED")
    expect(() => read(0x04)).toThrowCode("ERR_TRUNCATED")
    expect(() => read(0x04, 0x82, 1)).toThrowCode("ERR_TRUNCATED")
  })

  test("integers have to be in shortest form", () => {
    expect(() => integerBytes(read(0x02, 0x02, 0x00, 0x7f))).toThrowCode("ERR_MALFORMED")
    expect(() => integerBytes(read(0x02, 0x02, 0xff, 0x80))).toThrowCode("ERR_MALFORMED")
    expect(() => integerBytes(read(0x02, 0x00))).toThrowCode("ERR_MALFORMED")
    expect(() => smallInteger(read(0x02, 0x01, 0x80))).toThrowCode("ERR_MALFORMED")
    expect(() => smallInteger(read(0x02, 0x05, 1, 0, 0, 0, 0))).toThrowCode("ERR_MALFORMED")
    for (const value of [0, 1, 127, 128, 255, 256, 65537, 2 ** 31 - 1])
      expect(smallInteger(single(encodeInteger(value), TAG.integer, "test"))).toBe(value)
  })

  test("object identifiers survive encoding and parsing", () => {
    for (const oid of ["1.2.840.113549.1.1.10", "2.5.29.15", "2.999.3", "0.9.2342", "1.3.6.1.4.1.3704.1.3.8"])
      expect(oidText(single(encodeOid(oid), TAG.oid, "test"))).toBe(oid)
    expect(() => oidText(read(0x06, 0x02, 0x80, 0x01))).toThrowCode("ERR_MALFORMED")
    expect(() => oidText(read(0x06, 0x01, 0x80))).toThrowCode("ERR_MALFORMED")
    expect(() => oidText(read(0x06, 0x00))).toThrowCode("ERR_MALFORMED")
    expect(() => oidText(read(0x06, 0x0a, ...Array.from({ length: 9 }, () => 0xff), 0x7f))).toThrowCode(
      "ERR_MALFORMED",
    )
  })

  test("named bits beyond their end have to be zero", () => {
    expect([...namedBits(read(0x03, 0x02, 0x01, 0x06))]).toEqual([5, 6])
    expect(() => namedBits(read(0x03, 0x02, 0x02, 0x06))).toThrowCode("ERR_MALFORMED")
    expect(() => namedBits(read(0x03, 0x02, 0x08, 0x00))).toThrowCode("ERR_MALFORMED")
  })

  test("times are real times in UTC", () => {
    const time = (text: string, tag: number = TAG.utcTime) =>
      timeValue(single(encodeDer(tag, Buffer.from(text)), tag, "test"))
    expect(time("491231235959Z").toISOString()).toBe("2049-12-31T23:59:59.000Z")
    expect(time("500101000000Z").toISOString()).toBe("1950-01-01T00:00:00.000Z")
    expect(time("20500101000000Z", TAG.generalizedTime).toISOString()).toBe("2050-01-01T00:00:00.000Z")
    for (const text of [
      "250231000000Z",
      "2501010000Z",
      "250101000000+0100",
      "250101240000Z",
      "25010100000ZZ",
      "",
    ])
      expect(() => time(text)).toThrowCode("ERR_MALFORMED")
  })

  test("an element of another tag is refused, and an optional one is left", () => {
    const reader = new DerReader(Uint8Array.of(0x05, 0x00), "test")
    expect(reader.optional(TAG.integer, "number")).toBe(null)
    expect(() => reader.next(TAG.integer, "number")).toThrowCode("ERR_MALFORMED")
    expect(reader.next(TAG.null, "nothing").content.length).toBe(0)
  })
})

describe("signature algorithms", () => {
  const identifier = (oid: string, ...parameters: Uint8Array[]) =>
    parseSignatureAlgorithm(
      single(encodeDer(TAG.sequence, encodeOid(oid), ...parameters), TAG.sequence, "test"),
    )

  test("PSS without parameters inside means SHA-1 and 20 bytes of salt", () => {
    const algorithm = identifier("1.2.840.113549.1.1.10", encodeDer(TAG.sequence))
    expect(algorithm).toEqual({ scheme: "rsassa-pss", hash: "sha1", mgfHash: "sha1", saltLength: 20 })
  })

  test("unknown algorithms, trailers and parameters are refused", () => {
    const trailer = encodeDer(TAG.sequence, encodeDer(0xa3, encodeInteger(2)))
    expect(() => identifier("1.2.840.113549.1.1.10", trailer)).toThrowCode("ERR_UNSUPPORTED")
    expect(() => identifier("1.2.840.113549.1.1.5", encodeDer(TAG.null))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => identifier("1.2.840.10045.4.3.3", encodeDer(TAG.null))).toThrowCode("ERR_MALFORMED")
    expect(identifier("1.2.840.10045.4.3.3")).toEqual({ scheme: "ecdsa", hash: "sha384" })
  })
})

function outcomeOf(parse: () => unknown): string {
  try {
    parse()
    return "fine"
  } catch (error) {
    return error instanceof CodedError ? "fine" : `${error}`
  }
}

/** The leaf with these extensions only; its signature does not matter here. */
function rebuilt(...extensions: Uint8Array[]): Uint8Array {
  const outer = new DerReader(single(leaf, TAG.sequence, "test").content, "test")
  const tbs = new DerReader(outer.next(TAG.sequence, "tbs").content, "test")
  const parts = [0xa0, 0x02, 0x30, 0x30, 0x30, 0x30, 0x30].map((tag) => tbs.next(tag, "part").raw)
  const list = encodeDer(0xa3, encodeDer(TAG.sequence, ...extensions))
  const rest = [outer.next(TAG.sequence, "algorithm").raw, outer.next(TAG.bitString, "signature").raw]
  return encodeDer(TAG.sequence, encodeDer(TAG.sequence, ...parts, list), ...rest)
}
