import { describe, expect, test } from "bun:test"
import { sign } from "node:crypto"
import {
  ES384,
  NITRO_AT,
  NITRO_NONCE,
  type NitroMembers,
  nitroDocument,
  nitroKey,
  nitroLeaf,
  nitroMembers,
  nitroOpenPayload,
  nitroPayload,
  nitroPcr,
  nitroPki,
  nitroSign,
  withMember,
} from "../../test/fakes/nitro-tpm.ts"
import { AWS_NITRO_ROOTS } from "../endorsements/aws-roots.ts"
import { CodedError } from "../errors.ts"
import { cbor } from "../formats/cbor.ts"
import { authorityExtensions } from "../native/simulated-certificates.ts"
import { type NitroTpmInput, verifyNitroTpm } from "./nitro-tpm.ts"

const pki = nitroPki()
const good = nitroDocument(pki)
const members = nitroMembers(pki)

const verified = (document: Uint8Array, change: Partial<NitroTpmInput> = {}) =>
  verifyNitroTpm({ document, roots: pki.roots, nonce: NITRO_NONCE, at: NITRO_AT, ...change })

const signed = (changed: NitroMembers) => nitroSign(nitroPayload(changed), pki.key)

describe("a document under a trusted root", () => {
  test("proves PCRs, and repeats the nonce", () => {
    const { document, freshness, root } = verified(good)
    expect(document.pcrs.get(4)).toEqual(nitroPcr(4))
    expect(document.pcrs.size).toBe(24)
    expect(document.publicKey).toBeNull()
    expect(document.userData).toEqual(Uint8Array.of(1, 2, 3))
    expect(root.subject.commonName).toBe("test aws.nitro-enclaves")
    expect(freshness).toBe("nonce")
    expect(verified(good, { nonce: null }).freshness).toBe("not-checked")
  })

  test("may be tagged, and its map of indefinite length", () => {
    expect(verified(nitroSign(nitroPayload(members), pki.key, { tag: 18 })).freshness).toBe("nonce")
    expect(verified(nitroSign(nitroOpenPayload(members), pki.key)).document.pcrs.size).toBe(24)
  })

  test("is refused after every truncation, and after a change of a bit anywhere", () => {
    for (let length = 0; length < good.length; length += 1)
      expect(refusedBy(good.subarray(0, length))).not.toBeNull()
    // A step that meets head, payload, certificates and signature: each costs three signatures.
    for (let at = 0; at < good.length; at += at < 40 ? 1 : 29) {
      const changed = good.slice()
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      expect(`${at} ${refusedBy(changed) !== null}`).toBe(`${at} true`)
    }
    expect(refusedBy(good)).toBeNull()
  })
})

/** Null where it passes. Only coded errors come out. */
function refusedBy(document: Uint8Array): string | null {
  try {
    verified(document)
    return null
  } catch (error) {
    if (error instanceof CodedError && error.code !== "ERR_INTERNAL") return error.code
    throw error
  }
}

describe("is refused:", () => {
  test("another nonce, a part of it, or none", () => {
    expect(() => verified(good, { nonce: new Uint8Array(32) })).toThrowCode("ERR_NITRO_NONCE")
    expect(() => verified(good, { nonce: NITRO_NONCE.subarray(1) })).toThrowCode("ERR_NITRO_NONCE")
    expect(() => verified(signed(withMember(members, "nonce", null)))).toThrowCode("ERR_NITRO_NONCE")
    const absent = signed(withMember(members, "nonce", Uint8Array.of(0xf6)))
    expect(() => verified(absent, { nonce: new Uint8Array(0) })).toThrowCode("ERR_NITRO_NONCE")
  })

  test("another root, AWS's own included", () => {
    expect(() => verified(nitroDocument(nitroPki()))).toThrowCode("ERR_CERT_UNTRUSTED")
    expect(() => verified(good, { roots: AWS_NITRO_ROOTS })).toThrowCode("ERR_CERT_UNTRUSTED")
  })

  test("the trusted root before a chain of somebody else", () => {
    const other = nitroPki()
    const [, zone = new Uint8Array()] = other.bundle
    const mixed = { bundle: [pki.rootDer, zone], certificate: other.certificate }
    const document = nitroSign(nitroPayload(nitroMembers(mixed)), other.key)
    expect(() => verified(document)).toThrowCode("ERR_CERT_SIGNATURE")
  })

  test("a chain out of order, or without its middle", () => {
    const bundles = [[...pki.bundle].reverse(), [pki.rootDer]]
    const codes = bundles.map((bundle) => refusedBy(signed(nitroMembers({ ...pki, bundle }))))
    expect(codes).toEqual(["ERR_CERT_UNTRUSTED", "ERR_CERT_NAME"])
  })

  test("a certificate that is over, and one that is an authority's", () => {
    const leaf = (certificate: Uint8Array) => signed(nitroMembers({ ...pki, certificate }))
    const twin = leaf(nitroLeaf(pki.middle, pki.key))
    expect(verified(twin).freshness).toBe("nonce")
    const over = leaf(nitroLeaf(pki.middle, pki.key, { notAfter: "260201000000Z" }))
    expect(() => verified(over)).toThrowCode("ERR_CERT_EXPIRED")
    const authority = leaf(nitroLeaf(pki.middle, pki.key, { extensions: authorityExtensions(null) }))
    expect(() => verified(authority)).toThrowCode("ERR_CERT_IS_CA")
    expect(() => verified(good, { at: new Date("2025-01-01") })).toThrowCode("ERR_CERT_NOT_YET_VALID")
  })

  test("an instance's certificate that signs another's", () => {
    const key = nitroKey()
    const certificate = nitroLeaf(pki.key, key, { issuer: "i-1" })
    const bundle = [...pki.bundle, pki.certificate]
    const document = nitroSign(nitroPayload(nitroMembers({ bundle, certificate })), key)
    expect(() => verified(document)).toThrowCode("ERR_CERT_NOT_CA")
  })

  test("a signature by another key, on another curve, or with another hash", () => {
    const payload = nitroPayload(members)
    expect(() => verified(nitroSign(payload, nitroKey()))).toThrowCode("ERR_NITRO_SIGNATURE")
    expect(() => verified(nitroSign(payload, pki.key, { hash: "sha256" }))).toThrowCode("ERR_NITRO_SIGNATURE")
    const small = nitroKey("P-256")
    const certificate = nitroLeaf(pki.middle, small)
    const document = nitroSign(nitroPayload(nitroMembers({ ...pki, certificate })), small)
    // Its signature has 64 bytes.
    expect(() => verified(document)).toThrowCode("ERR_MALFORMED")
    const padded = new Uint8Array(Buffer.concat([document.subarray(0, -66), cbor.bytes(new Uint8Array(96))]))
    expect(() => verified(padded)).toThrowCode("ERR_CERT_ALGORITHM")
  })

  test("a signature over the payload alone", () => {
    const payload = nitroPayload(members)
    const bare = sign("sha384", payload, { key: pki.key.privateKey, dsaEncoding: "ieee-p1363" })
    const items = [cbor.bytes(ES384), cbor.map(), cbor.bytes(payload), cbor.bytes(bare)]
    expect(() => verified(cbor.array(...items))).toThrowCode("ERR_NITRO_SIGNATURE")
  })

  for (const [what, header] of [
    ["ES256", "a10126"],
    ["ES512", "a1013823"],
    ["HS384", "a10106"],
    ["nothing", ""],
    ["an empty map", "a0"],
    ["the algorithm twice", "a20138220126"],
    ["a critical parameter more", "a201382202810a"],
    ["a longer form", "a101390022"],
  ] as const)
    test(`a protected header with ${what}`, () => {
      const document = nitroSign(nitroPayload(members), pki.key, {
        header: Uint8Array.from(Buffer.from(header, "hex")),
      })
      expect(() => verified(document)).toThrowCode("ERR_MALFORMED")
    })

  test("anything in the unprotected header, another tag, and bytes behind the end", () => {
    const payload = nitroPayload(members)
    const unprotected = cbor.map(cbor.unsigned(1), Uint8Array.of(0x26))
    expect(() => verified(nitroSign(payload, pki.key, { unprotected }))).toThrowCode("ERR_MALFORMED")
    expect(() => verified(nitroSign(payload, pki.key, { tag: 98 }))).toThrowCode("ERR_MALFORMED")
    expect(() => verified(new Uint8Array([...good, 0]))).toThrowCode("ERR_TRAILING_BYTES")
    expect(() => verified(nitroSign(new Uint8Array([...payload, 0]), pki.key))).toThrowCode(
      "ERR_TRAILING_BYTES",
    )
    expect(() => verified(new Uint8Array(70_000))).toThrowCode("ERR_TOO_LARGE")
  })
})

describe("a signed payload is refused with", () => {
  const pcr = (index: number, size = 48) => [cbor.unsigned(index), cbor.bytes(new Uint8Array(size))]
  const cases: Readonly<Record<string, NitroMembers>> = {
    "a member twice": [...members.slice(0, -1), ["module_id", cbor.text("other")]],
    "a member that is not documented": [...members.slice(0, -1), ["pcrs", cbor.map(...pcr(0))]],
    "another digest": withMember(members, "digest", cbor.text("SHA256")),
    "no digest": withMember(members, "digest", null),
    "no PCRs": withMember(members, "nitrotpm_pcrs", null),
    "an empty map of PCRs": withMember(members, "nitrotpm_pcrs", cbor.map()),
    "a PCR twice": withMember(members, "nitrotpm_pcrs", cbor.map(...pcr(1), ...pcr(1))),
    "a PCR of another bank": withMember(members, "nitrotpm_pcrs", cbor.map(...pcr(1, 32))),
    "a PCR that no TPM has": withMember(members, "nitrotpm_pcrs", cbor.map(...pcr(32))),
    "no bundle": withMember(members, "cabundle", cbor.array()),
    "a bundle without end": withMember(members, "cabundle", Uint8Array.of(0x9f, 0xff)),
    "nine authorities": withMember(
      members,
      "cabundle",
      cbor.array(...Array(9).fill(cbor.bytes(pki.rootDer))),
    ),
    "a certificate over 1024 bytes": withMember(members, "certificate", cbor.bytes(new Uint8Array(1025))),
    "user data over 1024 bytes": withMember(members, "user_data", cbor.bytes(new Uint8Array(1025))),
    "a time as text": withMember(members, "timestamp", cbor.text("now")),
    "a time of a longer form": withMember(members, "timestamp", Uint8Array.of(0x1b, 0, 0, 0, 0, 0, 0, 0, 1)),
    "a time beyond all": withMember(members, "timestamp", new Uint8Array([0x1b, ...Array(8).fill(0xff)])),
  }
  for (const [what, changed] of Object.entries(cases))
    test(what, () => {
      expect(() => verified(signed(changed))).toThrowCode("ERR_MALFORMED")
    })

  test("ten members, or a map that does not end", () => {
    const ten: NitroMembers = [...members, ["x", cbor.unsigned(1)]]
    expect(refusedBy(signed(ten))).toBe("ERR_TOO_LARGE")
    expect(refusedBy(nitroSign(nitroOpenPayload(ten), pki.key))).toBe("ERR_TOO_LARGE")
    const open = nitroOpenPayload(members)
    expect(refusedBy(nitroSign(open.subarray(0, -1), pki.key))).toBe("ERR_TOO_LARGE")
    expect(refusedBy(nitroSign(open, pki.key))).toBeNull()
  })
})
