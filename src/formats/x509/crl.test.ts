import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { fakeCrl } from "../../../test/fakes/snp.ts"
import { vector } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { toHex } from "../hex.ts"
import { parseCrl } from "./crl.ts"
import { DerReader, encodeDer, encodeInteger, encodeOid, single, TAG } from "./der.ts"
import { sameName } from "./name.ts"

const SERIAL = Uint8Array.of(0x5e, 0xed)
const made = await fakeCrl("Milan", { revoked: [SERIAL] })

describe.skipIf(!HAVE_VECTORS)("real lists", () => {
  test("Intel's list of 129 PCK certificates", () => {
    const crl = parseCrl(vector("tdx-crl/pck-platform-crl-129-entries.der"))
    expect(crl.revoked.size).toBe(129)
    expect(crl.revoked.has("00b9c9de141f1546e882eb643327b71b22ca4e38b2")).toBe(true)
    expect(crl.issuer.commonName).toBe("Intel SGX PCK Platform CA")
    expect(crl.thisUpdate).toEqual(new Date("2026-07-16T08:17:09Z"))
    expect(crl.nextUpdate).toEqual(new Date("2026-08-15T08:17:09Z"))
    expect(crl.signatureAlgorithm).toEqual({ scheme: "ecdsa", hash: "sha256" })
    expect([...crl.criticalEntryExtensions]).toEqual([])
  })

  for (const [date, from, to] of [
    ["2023-04-03", "2023-04-03T10:22:51Z", "2024-04-02T10:22:51Z"],
    ["2024-03-20", "2024-03-20T19:19:30Z", "2025-04-03T19:19:30Z"],
    ["2025-03-20", "2025-03-20T11:21:57Z", "2026-04-03T11:21:57Z"],
    ["2026-02-26", "2026-02-26T13:04:00Z", "2027-02-26T13:04:00Z"],
  ] as const)
    test(`Intel's empty root list of ${date}`, () => {
      const crl = parseCrl(vector(`trust/intel/root-ca-crl-${date}.der`))
      expect(crl).toMatchObject({ thisUpdate: new Date(from), nextUpdate: new Date(to) })
      expect(crl.revoked.size).toBe(0)
    })
})

describe("revocation lists", () => {
  test("what was encoded is read", () => {
    const crl = parseCrl(made)
    expect([...crl.revoked]).toEqual([toHex(SERIAL)])
    expect(toHex(crl.number ?? new Uint8Array())).toBe("01")
    expect(crl.signatureAlgorithm.scheme).toBe("rsassa-pss")
  })

  test("every truncation is refused", () => {
    for (let size = 0; size < made.length; size++)
      expect(() => parseCrl(made.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
  })

  test("trailing bytes and huge lists are refused", () => {
    expect(() => parseCrl(Uint8Array.of(...made, 0))).toThrowCode("ERR_TRAILING_BYTES")
    expect(() => parseCrl(new Uint8Array(1024 * 1024 + 1))).toThrowCode("ERR_TOO_LARGE")
  })

  test("whatever byte is changed, and whatever the bytes, only coded errors escape", () => {
    const outcome = (bytes: Uint8Array) => {
      try {
        parseCrl(bytes)
        return true
      } catch (error) {
        return error instanceof CodedError
      }
    }
    for (let at = 0; at < made.length; at++)
      for (const bit of [1, 0x80]) {
        const changed = made.slice()
        changed[at] = (changed[at] ?? 0) ^ bit
        expect(outcome(changed)).toBe(true)
      }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), outcome))
  })

  test("a list of the largest size is read in bounded time", () => {
    const entry = encodeDer(
      TAG.sequence,
      encodeInteger(1),
      encodeDer(TAG.utcTime, Buffer.from("260101000000Z")),
    )
    const count = 50_000
    const entries = new Uint8Array(entry.length * count)
    for (let index = 0; index < count; index++) entries.set(entry, index * entry.length)
    const parts = partsOf(made)
    const started = performance.now()
    const crl = parseCrl(wrap(parts.slice(0, 5), long(TAG.sequence, entries)))
    expect(crl.revoked.size).toBe(1)
    expect(performance.now() - started).toBeLessThan(2000)
  })

  test("versions other than 1 and 2 are refused, and extensions in version 1", () => {
    const [version, ...rest] = partsOf(made)
    expect(version).toEqual(encodeInteger(1))
    expect(() => parseCrl(wrap([encodeInteger(2), ...rest]))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseCrl(wrap(rest))).toThrowCode("ERR_MALFORMED")
    expect(parseCrl(wrap(rest.slice(0, -1))).number).toBe(null)
  })

  test("a list that does not say until when it holds is read as such", () => {
    const parts = partsOf(made)
    expect(parseCrl(wrap([...parts.slice(0, 4), ...parts.slice(5)])).nextUpdate).toBe(null)
  })

  test("a signature algorithm that differs outside the signed part is refused", () => {
    const changed = made.slice()
    const salt = Buffer.from(made).lastIndexOf(Buffer.from([0xa2, 0x03, 0x02, 0x01, 0x30]))
    changed[salt + 4] = 0x20
    expect(() => parseCrl(changed)).toThrowCode("ERR_MALFORMED")
  })
})

describe("names", () => {
  const name = (...attributes: (readonly [string, number, string])[]) =>
    encodeDer(
      TAG.sequence,
      ...attributes.map(([oid, tag, text]) =>
        encodeDer(TAG.set, encodeDer(TAG.sequence, encodeOid(oid), encodeDer(tag, Buffer.from(text)))),
      ),
    )
  const [CN, O] = ["2.5.4.3", "2.5.4.10"]
  const plain = name([CN, TAG.utf8String, "ARK"], [O, TAG.utf8String, "AMD"])

  test("the same text in another string type is the same name", () => {
    expect(sameName(plain, plain.slice())).toBe(true)
    expect(sameName(plain, name([CN, TAG.printableString, "ARK"], [O, TAG.utf8String, "AMD"]))).toBe(true)
  })

  test("another text, order, number or type is another name", () => {
    expect(sameName(plain, name([CN, TAG.utf8String, "ark"], [O, TAG.utf8String, "AMD"]))).toBe(false)
    expect(sameName(plain, name([O, TAG.utf8String, "AMD"], [CN, TAG.utf8String, "ARK"]))).toBe(false)
    expect(sameName(plain, name([CN, TAG.utf8String, "ARK"]))).toBe(false)
    expect(sameName(plain, name([CN, 0x1e, "ARK"], [O, TAG.utf8String, "AMD"]))).toBe(false)
  })
})

/** Elements of the signed part. */
function partsOf(crl: Uint8Array): Uint8Array[] {
  const outer = new DerReader(single(crl, TAG.sequence, "test").content, "test")
  const reader = new DerReader(outer.next(TAG.sequence, "tbs").content, "test")
  const parts: Uint8Array[] = []
  for (let tag = reader.peek(); tag !== null; tag = reader.peek()) parts.push(reader.next(tag, "part").raw)
  return parts
}

/** A list of these elements, with a signature that fits nothing. */
function wrap(...parts: readonly (Uint8Array | readonly Uint8Array[])[]): Uint8Array {
  const outer = new DerReader(single(made, TAG.sequence, "test").content, "test")
  outer.next(TAG.sequence, "tbs")
  const rest = [outer.next(TAG.sequence, "algorithm").raw, outer.next(TAG.bitString, "signature").raw]
  const tbs = long(
    TAG.sequence,
    Buffer.concat(parts.flatMap((part) => (part instanceof Uint8Array ? [part] : [...part]))),
  )
  return long(TAG.sequence, Buffer.concat([tbs, ...rest]))
}

/** Like encodeDer, but also for what is longer than any certificate. */
function long(tag: number, content: Uint8Array): Uint8Array {
  if (content.length < 0x10000) return encodeDer(tag, content)
  const { length } = content
  return Uint8Array.from(
    Buffer.concat([Uint8Array.of(tag, 0x83, length >> 16, (length >> 8) & 0xff, length & 0xff), content]),
  )
}
