import { expect, test } from "bun:test"
import { generateKeyPairSync, type KeyObject } from "node:crypto"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import { encodeDer, TAG } from "../formats/x509/der.ts"
import { authorityExtensions, encodeCertificate, encodeExtension } from "../native/simulated-certificates.ts"
import { verifyAuthorityItself, verifyChain } from "./certificate-chain.ts"

const rsa = (modulusLength = 2048, publicExponent = 65537) =>
  generateKeyPairSync("rsa", { modulusLength, publicExponent })
const root = rsa()
const middle = rsa()
const device = generateKeyPairSync("ec", { namedCurve: "P-384" })
const AT = new Date("2026-06-01T00:00:00Z")
const ANCHOR = { name: "root", spki: spkiOf(root.publicKey) }

function spkiOf(key: KeyObject): Uint8Array {
  return key.export({ type: "spki", format: "der" })
}

function certificate(change: Partial<Parameters<typeof encodeCertificate>[0]> = {}): Certificate {
  const request = {
    subject: "device",
    issuer: "authority",
    publicKey: device.publicKey,
    issuerKey: middle.privateKey,
    notBefore: new Date("2026-01-01T00:00:00Z"),
    notAfter: new Date("2027-01-01T00:00:00Z"),
    extensions: [],
    ...change,
  }
  return parseCertificate(encodeCertificate(request))
}

function authority(change: Partial<Parameters<typeof encodeCertificate>[0]> = {}): Certificate {
  return certificate({
    subject: "authority",
    issuer: "root",
    publicKey: middle.publicKey,
    issuerKey: root.privateKey,
    extensions: authorityExtensions(0),
    ...change,
  })
}

const keyUsage = (bits: number) =>
  encodeExtension("2.5.29.15", true, encodeDer(TAG.bitString, Uint8Array.of(0, bits)))
const chain =
  (...path: Certificate[]) =>
  () =>
    verifyChain(path, ANCHOR, AT)

test("a sound chain passes, with the authority's limits just met", () => {
  expect(chain(certificate(), authority())).not.toThrow()
})

test("a certificate outside its validity is refused, wherever it stands", () => {
  const old = { notAfter: new Date("2026-05-31T23:59:59Z") }
  const early = { notBefore: new Date("2026-06-01T00:00:01Z") }
  expect(chain(certificate(old), authority())).toThrowCode("ERR_CERT_EXPIRED")
  expect(chain(certificate(), authority(old))).toThrowCode("ERR_CERT_EXPIRED")
  expect(chain(certificate(early), authority())).toThrowCode("ERR_CERT_NOT_YET_VALID")
  expect(chain(certificate(), authority(early))).toThrowCode("ERR_CERT_NOT_YET_VALID")
})

test("both ends of the validity count as valid", () => {
  const path = [certificate({ notBefore: AT, notAfter: AT }), authority({ notBefore: AT, notAfter: AT })]
  expect(chain(...path)).not.toThrow()
})

test("names have to chain", () => {
  expect(chain(certificate({ issuer: "another" }), authority())).toThrowCode("ERR_CERT_NAME")
  expect(chain(certificate(), authority({ issuer: "another" }))).toThrowCode("ERR_CERT_NAME")
})

test("signatures have to be those of the next key", () => {
  expect(chain(certificate({ issuerKey: root.privateKey }), authority())).toThrowCode("ERR_CERT_SIGNATURE")
  expect(chain(certificate(), authority({ issuerKey: middle.privateKey }))).toThrowCode("ERR_CERT_SIGNATURE")
})

test("an issuer that is no authority is refused", () => {
  expect(chain(certificate(), authority({ extensions: [] }))).toThrowCode("ERR_CERT_NOT_CA")
})

test("an authority in the place of a device is refused", () => {
  const path = [certificate({ extensions: authorityExtensions(null) }), authority()]
  expect(chain(...path)).toThrowCode("ERR_CERT_IS_CA")
})

test("more authorities than the path length allows are refused", () => {
  const lower = authority({ subject: "lower", issuer: "authority", issuerKey: middle.privateKey })
  const leaf = certificate({ issuer: "lower" })
  expect(chain(leaf, lower, authority())).toThrowCode("ERR_CERT_PATH_LENGTH")
  expect(chain(leaf, lower, authority({ extensions: authorityExtensions(1) }))).not.toThrow()
  expect(chain(leaf, lower, authority({ extensions: authorityExtensions(null) }))).not.toThrow()
})

test("keys have to be for their use", () => {
  const [constraints = new Uint8Array()] = authorityExtensions(0)
  const crlOnly = authority({ extensions: [constraints, keyUsage(0x02)] })
  expect(chain(certificate(), crlOnly)).toThrowCode("ERR_CERT_KEY_USAGE")
  expect(chain(certificate({ extensions: [keyUsage(0x20)] }), authority())).toThrowCode("ERR_CERT_KEY_USAGE")
  expect(chain(certificate({ extensions: [keyUsage(0x80)] }), authority())).not.toThrow()
})

test("critical extensions that are not understood are refused, others are not", () => {
  const extension = (critical: boolean) => [encodeExtension("1.2.3.4", critical, Uint8Array.of(5, 0))]
  expect(chain(certificate({ extensions: extension(true) }), authority())).toThrowCode("ERR_CERT_EXTENSION")
  expect(chain(certificate({ extensions: extension(false) }), authority())).not.toThrow()
})

test("issuer keys of another kind, too small, or with a small exponent are refused", () => {
  const { privateKey: issuerKey } = rsa()
  for (const { publicKey } of [device, rsa(1024), rsa(2048, 3)])
    expect(chain(certificate({ issuerKey }), authority({ publicKey }))).toThrowCode("ERR_CERT_ALGORITHM")
})

test("a root that signed itself is one, and another's certificate is not", () => {
  const self = { subject: "root", publicKey: root.publicKey }
  expect(() => verifyAuthorityItself(authority(self))).not.toThrow()
  expect(() => verifyAuthorityItself(authority())).toThrowCode("ERR_CERT_NAME")
  expect(() => verifyAuthorityItself(authority({ ...self, extensions: [] }))).toThrowCode("ERR_CERT_NOT_CA")
})
