import { describe, expect, test } from "bun:test"
import { generateKeyPairSync } from "node:crypto"
import {
  AK_PURPOSE,
  akExtensions,
  EK_PURPOSE,
  keyUsage,
  makeTpmMaker,
  purpose,
} from "../../test/fakes/tpm-certificates.ts"
import { vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { parsePublic } from "../formats/tpm/public.ts"
import { KEY_USAGE, parseCertificate } from "../formats/x509/certificate.ts"
import { parseCertificateFile } from "../formats/x509/certificate-file.ts"
import { encodeDer, TAG } from "../formats/x509/der.ts"
import { gceInstance } from "../formats/x509/gce-instance.ts"
import { authorityExtensions, encodeExtension } from "../native/simulated-certificates.ts"
import { ekExtensions } from "../native/simulated-tpm-certificate.ts"
import { type TpmAuthorities, verifyAkCertificate, verifyEkCertificate } from "./tpm-certificate.ts"
import { spkiOf } from "./tpm-signature.ts"

const AT = new Date("2026-06-01T00:00:00Z")
const maker = makeTpmMaker()
const other = makeTpmMaker("another maker")
const ecc = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey
const eccSpki = Uint8Array.from(ecc.export({ type: "spki", format: "der" }))

const ek = (der: Uint8Array, authorities = maker.authorities, hints: Uint8Array[] = [], at = AT) =>
  verifyEkCertificate(der, hints, authorities, at)
const ak = (der: Uint8Array, spki = eccSpki) => verifyAkCertificate(der, [], maker.authorities, spki, AT)

describe("certificates of endorsement keys", () => {
  test("ECC and RSA, with their own key usages", () => {
    expect(ek(maker.issue(ecc)).root.der).toEqual(maker.rootDer)
    expect(ek(maker.issue(rsa, { extensions: ekExtensions(KEY_USAGE.keyEncipherment) })).root.der).toEqual(
      maker.rootDer,
    )
    expect(() => ek(maker.issue(rsa))).toThrowCode("ERR_CERT_KEY_USAGE")
    expect(() => ek(maker.issue(ecc, { extensions: ekExtensions(KEY_USAGE.digitalSignature) }))).toThrowCode(
      "ERR_CERT_KEY_USAGE",
    )
  })

  test("the authority may come with the evidence, the root may not", () => {
    const rootOnly: TpmAuthorities = { roots: maker.authorities.roots, intermediates: [] }
    expect(() => ek(maker.issue(ecc), rootOnly)).toThrowCode("ERR_CERT_UNTRUSTED")
    expect(ek(maker.issue(ecc), rootOnly, [maker.authorityDer]).root.der).toEqual(maker.rootDer)
    const hints = [other.rootDer, other.authorityDer]
    expect(() => ek(other.issue(ecc), maker.authorities, hints)).toThrowCode("ERR_CERT_UNTRUSTED")
  })

  test("a maker with the same names and other keys is another maker", () => {
    const twin = makeTpmMaker()
    expect(() => ek(twin.issue(ecc))).toThrowCode("ERR_CERT_UNTRUSTED")
    expect(ek(twin.issue(ecc), twin.authorities).root.der).toEqual(twin.rootDer)
  })

  test("outside its validity", () => {
    const ended = maker.issue(ecc, { notAfter: new Date("2026-05-31T00:00:00Z") })
    expect(() => ek(ended)).toThrowCode("ERR_CERT_EXPIRED")
    expect(ek(ended, maker.authorities, [], new Date("2026-05-30T00:00:00Z")).certificate.der).toEqual(ended)
    expect(() => ek(maker.issue(ecc, { notBefore: new Date("2026-06-02T00:00:00Z") }))).toThrowCode(
      "ERR_CERT_NOT_YET_VALID",
    )
  })

  test("a critical subjectAltName, as makers mark it; any other critical extension is refused", () => {
    const alternative = encodeExtension("2.5.29.17", true, encodeDer(TAG.sequence))
    expect(() =>
      ek(maker.issue(ecc, { extensions: [...ekExtensions(KEY_USAGE.keyAgreement), alternative] })),
    ).not.toThrow()
    const strange = encodeExtension("1.2.3.4", true, encodeDer(TAG.null))
    expect(() =>
      ek(maker.issue(ecc, { extensions: [...ekExtensions(KEY_USAGE.keyAgreement), strange] })),
    ).toThrowCode("ERR_CERT_EXTENSION")
  })

  test("of another purpose, or of none that can be told", () => {
    const agreement = keyUsage(KEY_USAGE.keyAgreement)
    expect(() => ek(maker.issue(ecc, { extensions: [agreement] }))).not.toThrow()
    expect(() => ek(maker.issue(ecc, { extensions: [purpose(EK_PURPOSE)] }))).not.toThrow()
    for (const extensions of [
      [],
      [agreement, purpose("1.3.6.1.5.5.7.3.1")],
      [agreement, purpose(AK_PURPOSE)],
    ])
      expect(() => ek(maker.issue(ecc, { extensions }))).toThrowCode("ERR_CERT_KEY_USAGE")
  })

  test("an authority is no TPM's key, and a TPM's key no authority", () => {
    const extensions = [...authorityExtensions(0), purpose(EK_PURPOSE)]
    expect(() => ek(maker.issue(ecc, { extensions }))).toThrowCode("ERR_CERT_IS_CA")
    const leaf = generateKeyPairSync("rsa", { modulusLength: 2048 })
    const certified = maker.issue(leaf.publicKey, {
      subject: "leaf",
      extensions: ekExtensions(KEY_USAGE.keyEncipherment),
    })
    const below = maker.issue(ecc, { issuer: "leaf", issuerKey: leaf.privateKey })
    expect(() => ek(below, maker.authorities, [certified])).toThrowCode("ERR_CERT_NOT_CA")
  })

  test("authorities that sign each other lead nowhere, in bounded time", () => {
    const loop = generateKeyPairSync("rsa", { modulusLength: 2048 })
    const round = (subject: string, issuer: string) =>
      maker.issue(loop.publicKey, {
        subject,
        issuer,
        issuerKey: loop.privateKey,
        extensions: authorityExtensions(null),
      })
    const hints = Array.from({ length: 16 }, () => round("a", "a"))
    const leaf = maker.issue(ecc, { issuer: "a", issuerKey: loop.privateKey })
    const started = performance.now()
    expect(() => ek(leaf, maker.authorities, hints)).toThrowCode("ERR_CERT_UNTRUSTED")
    expect(performance.now() - started).toBeLessThan(2000)
  })
})

describe("certificates of attestation keys", () => {
  test("for the very key that signed, and no other", () => {
    expect(ak(maker.issue(ecc, { extensions: akExtensions() })).root.der).toEqual(maker.rootDer)
    const another = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey
    expect(() => ak(maker.issue(another, { extensions: akExtensions() }))).toThrowCode(
      "ERR_TPM_AK_CERTIFICATE",
    )
  })

  test("no certificate of another purpose is taken for one", () => {
    expect(() => ak(maker.issue(ecc))).toThrowCode("ERR_CERT_KEY_USAGE")
    const signs = keyUsage(KEY_USAGE.digitalSignature)
    for (const extensions of [[signs], [purpose(AK_PURPOSE)], [signs, purpose("1.3.6.1.5.5.7.3.2")]])
      expect(() => ak(maker.issue(ecc, { extensions }))).toThrowCode("ERR_CERT_KEY_USAGE")
  })
})

describe.skipIf(!HAVE_VECTORS)("Google's certificates", () => {
  const [first, second] = [
    ["gcp_ek_ak_ca_root.crt", "gcp_ek_ak_ca_intermediate_v3.crt"],
    ["tpm_ek_root_1.cer", "tpm_ek_intermediate_2.crt", "tpm_ek_intermediate_3.crt"],
  ].map(([root = "", ...intermediates]): TpmAuthorities => {
    const read = (name: string) => parseCertificate(vector(`trust/gcp/${name}`))
    return { roots: [read(root)], intermediates: intermediates.map(read) }
  })
  const [newer, older] = [first ?? maker.authorities, second ?? maker.authorities]

  test.each(vectorsUnder("ek-cert").map(({ file }) => file))("%s", (file) => {
    const [der = new Uint8Array()] = parseCertificateFile(vector(file), "certificate", file)
    const spki = parseCertificate(der).spki
    const asEk = () => ek(der, newer)
    const asAk = () => verifyAkCertificate(der, [], newer, spki, AT)
    if (file.includes("_enc_")) {
      expect(asEk().root).toBe(newer.roots[0] as never)
      expect(asAk).toThrowCode("ERR_CERT_KEY_USAGE")
    } else {
      expect(asAk().root).toBe(newer.roots[0] as never)
      expect(asEk).toThrowCode("ERR_CERT_KEY_USAGE")
    }
    expect(() => ek(der, older)).toThrow()
  })

  test.each(
    vectorsUnder("gcp")
      .filter(({ kind }) => kind === "ak-cert")
      .map(({ file }) => file),
  )("%s", (file) => {
    const der = vector(file)
    const akSpki = spkiOf(parsePublic(vector(file.replace("ak-cert.der", "quote-sha256/ak.tpmt"))))
    expect(verifyAkCertificate(der, [], older, akSpki, AT).root).toBe(older.roots[0] as never)
    expect(() => verifyAkCertificate(der, [], newer, akSpki, AT)).toThrowCode("ERR_CERT_UNTRUSTED")
    expect(() => verifyAkCertificate(der, [], older, eccSpki, AT)).toThrowCode("ERR_TPM_AK_CERTIFICATE")
    expect(() => verifyAkCertificate(der, [], older, akSpki, new Date("2052-01-01T00:00:00Z"))).toThrowCode(
      "ERR_CERT_EXPIRED",
    )
    expect(gceInstance(parseCertificate(der))).toEqual({
      zone: "us-central1-a",
      project: "google.com:wuale-gcp-testing",
      instanceId: "6797026933021542085",
      instanceName: "cos-test",
    })
  })
})
