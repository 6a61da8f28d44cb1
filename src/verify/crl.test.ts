import { describe, expect, test } from "bun:test"
import { generateKeyPairSync, sign } from "node:crypto"
import { fakeAuthorities, fakeCrl, JUDGED, MADE } from "../../test/fakes/snp.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { CRL_OID, parseCrl } from "../formats/x509/crl.ts"
import { encodeDer, encodeInteger, TAG } from "../formats/x509/der.ts"
import { encodeExtension } from "../native/simulated-certificates.ts"
import { isRevoked, verifyCrl } from "./crl.ts"

const { ark, ask } = await fakeAuthorities("Milan")
const turin = await fakeCrl("Turin")
const empty = await fakeCrl("Milan")
const ARK = issuerOf(ark.der)
const verify = (der: Uint8Array, at = JUDGED, issuer = ARK) => verifyCrl(parseCrl(der), issuer, at)

describe.skipIf(!HAVE_VECTORS)("Intel's lists", () => {
  const root = () => issuerOf(vector("trust/intel/sgx-root-ca.der"))
  const platform = () => issuerOf(vector("trust/intel/sgx-pck-platform-ca.der"))

  test("of 129 PCK certificates: signed by the platform authority, and all are found", () => {
    const der = vector("tdx-crl/pck-platform-crl-129-entries.der")
    const list = verify(der, new Date("2026-07-20T00:00:00Z"), platform())
    expect(isRevoked(list, Buffer.from("00b9c9de141f1546e882eb643327b71b22ca4e38b2", "hex"))).toBe(true)
    expect(isRevoked(list, Buffer.from("00b9c9de141f1546e882eb643327b71b22ca4e38b3", "hex"))).toBe(false)
    expect(() => verify(der, new Date("2026-07-16T08:17:08Z"), platform())).toThrowCode(
      "ERR_CRL_NOT_YET_VALID",
    )
    expect(() => verify(der, new Date("2026-08-15T08:17:10Z"), platform())).toThrowCode("ERR_CRL_EXPIRED")
    expect(() => verify(der, new Date("2026-07-20T00:00:00Z"), root())).toThrowCode("ERR_CRL_ISSUER")
    const impostor = { spki: root().spki, name: platform().name }
    expect(() => verify(der, new Date("2026-07-20T00:00:00Z"), impostor)).toThrowCode("ERR_CRL_SIGNATURE")
  })

  test("each changed byte of the signed part is refused", () => {
    const der = vector("trust/intel/root-ca-crl-2026-02-26.der")
    const { tbs } = parseCrl(der)
    const start = tbs.byteOffset - der.byteOffset
    for (let at = 0; at < start + tbs.length; at++) {
      const changed = der.slice()
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      expect(codeOf(() => verify(changed, new Date("2026-03-01T00:00:00Z"), root()))).toStartWith("ERR_")
    }
  })

  for (const [date, at] of [
    ["2023-04-03", "2023-05-01"],
    ["2024-03-20", "2024-05-01"],
    ["2025-03-20", "2025-05-01"],
    ["2026-02-26", "2026-05-01"],
  ] as const)
    test(`the root's of ${date}`, () => {
      verify(vector(`trust/intel/root-ca-crl-${date}.der`), new Date(at), root())
    })
})

describe("lists signed as AMD does", () => {
  test("an honest list says who is revoked", async () => {
    const serial = parseCertificate(ask.der).serial
    const list = verify(await fakeCrl("Milan", { revoked: [serial] }))
    expect(isRevoked(list, serial)).toBe(true)
    expect(isRevoked(verify(await fakeCrl("Milan")), serial)).toBe(false)
  })

  test("each changed byte of the signed part is refused", async () => {
    const der = await fakeCrl("Milan", { revoked: [Uint8Array.of(1)] })
    const { tbs } = parseCrl(der)
    const start = tbs.byteOffset - der.byteOffset
    for (let at = 0; at < start + tbs.length; at++) {
      const changed = der.slice()
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      expect(codeOf(() => verify(changed))).toStartWith("ERR_")
    }
  })

  test("before and after its time it is refused, and where it has no end", async () => {
    const der = await fakeCrl("Milan", { nextUpdate: JUDGED })
    verify(der, JUDGED)
    verify(der, MADE)
    expect(() => verify(der, new Date(JUDGED.getTime() + 1000))).toThrowCode("ERR_CRL_EXPIRED")
    expect(() => verify(der, new Date(MADE.getTime() - 1000))).toThrowCode("ERR_CRL_NOT_YET_VALID")
    expect(() => verifyCrl({ ...parseCrl(der), nextUpdate: null }, ARK, JUDGED)).toThrowCode(
      "ERR_CRL_EXPIRED",
    )
    expect(() => verify(der, new Date(Number.NaN))).toThrowCode("ERR_INTERNAL")
  })

  test("the list of another product, or of the intermediate, is refused", async () => {
    expect(() => verify(turin)).toThrowCode("ERR_CRL_ISSUER")
    const named = await fakeCrl("Milan", { issuerKey: ask.key })
    expect(() => verify(named)).toThrowCode("ERR_CRL_SIGNATURE")
  })

  test("lists that are partial, or not understood, are refused, critical or not", async () => {
    for (const critical of [true, false]) {
      const delta = encodeExtension(CRL_OID.deltaIndicator, critical, encodeInteger(1))
      const scope = encodeExtension(CRL_OID.issuingDistributionPoint, critical, encodeDer(TAG.sequence))
      for (const extension of [delta, scope])
        expect(await codeOfAsync(fakeCrl("Milan", { extensions: [extension] }))).toBe("ERR_CRL_EXTENSION")
    }
    const unknown = encodeExtension("1.2.3.4", true, encodeDer(TAG.null))
    expect(await codeOfAsync(fakeCrl("Milan", { extensions: [unknown] }))).toBe("ERR_CRL_EXTENSION")
    const harmless = encodeExtension("1.2.3.4", false, encodeDer(TAG.null))
    verify(await fakeCrl("Milan", { extensions: [harmless] }))
    const critical = { ...parseCrl(empty), criticalEntryExtensions: new Set(["2.5.29.29"]) }
    expect(() => verifyCrl(critical, ARK, JUDGED)).toThrowCode("ERR_CRL_EXTENSION")
  })

  test("other schemes are refused, however well they verify", () => {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-384" })
    const list = parseCrl(empty)
    const spki = publicKey.export({ type: "spki", format: "der" })
    const signed = (hash: "sha256" | "sha384") => ({
      ...list,
      signatureAlgorithm: { scheme: "ecdsa", hash } as const,
      signature: sign(hash, list.tbs, privateKey),
    })
    for (const hash of ["sha256", "sha384"] as const)
      expect(() => verifyCrl(signed(hash), { ...ARK, spki }, JUDGED)).toThrowCode("ERR_CRL_ALGORITHM")
    const pkcs1 = { ...list, signatureAlgorithm: { scheme: "rsassa-pkcs1", hash: "sha384" } as const }
    expect(() => verifyCrl(pkcs1, ARK, JUDGED)).toThrowCode("ERR_CRL_ALGORITHM")
  })
})

async function codeOfAsync(der: Promise<Uint8Array>): Promise<string> {
  const list = await der
  return codeOf(() => verify(list))
}

function codeOf(run: () => unknown): string {
  try {
    run()
    return "no error"
  } catch (error) {
    return error instanceof CodedError ? error.code : `${error}`
  }
}

function issuerOf(der: Uint8Array) {
  const { spki, subject } = parseCertificate(der)
  return { spki, name: subject.der }
}
