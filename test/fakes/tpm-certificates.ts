/** A maker of TPMs that does not exist: a root, an authority below it, and certificates about keys. */
import { createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto"
import { KEY_USAGE, OID_EXTENDED_KEY_USAGE, parseCertificate } from "../../src/formats/x509/certificate.ts"
import { encodeDer, encodeOid, TAG } from "../../src/formats/x509/der.ts"
import {
  authorityExtensions,
  type CertificateRequest,
  encodeCertificate,
  encodeExtension,
} from "../../src/native/simulated-certificates.ts"
import { ekExtensions } from "../../src/native/simulated-tpm-certificate.ts"
import type { TpmAuthorities } from "../../src/verify/tpm-certificate.ts"

export const EK_PURPOSE = "2.23.133.8.1"
export const AK_PURPOSE = "2.23.133.8.3"
const VALID = { notBefore: new Date("2020-01-01T00:00:00Z"), notAfter: new Date("2049-01-01T00:00:00Z") }

export interface TpmMaker {
  readonly rootDer: Uint8Array
  readonly authorityDer: Uint8Array
  readonly authorities: TpmAuthorities
  /** A certificate about a key, by the authority. */
  issue(key: Uint8Array | KeyObject, change?: Partial<CertificateRequest>): Uint8Array
}

export function makeTpmMaker(name = "TPM maker"): TpmMaker {
  const root = generateKeyPairSync("rsa", { modulusLength: 2048 })
  const authority = generateKeyPairSync("rsa", { modulusLength: 2048 })
  const rootDer = encodeCertificate({
    subject: `${name} root`,
    issuer: `${name} root`,
    publicKey: root.publicKey,
    issuerKey: root.privateKey,
    extensions: authorityExtensions(null),
    ...VALID,
  })
  const authorityDer = encodeCertificate({
    subject: `${name} authority`,
    issuer: `${name} root`,
    publicKey: authority.publicKey,
    issuerKey: root.privateKey,
    extensions: authorityExtensions(0),
    ...VALID,
  })
  return {
    rootDer,
    authorityDer,
    authorities: {
      roots: [parseCertificate(rootDer)],
      intermediates: [parseCertificate(authorityDer)],
    },
    issue: (key, change = {}) =>
      encodeCertificate({
        subject: "TPM",
        issuer: `${name} authority`,
        publicKey: key instanceof Uint8Array ? keyOf(key) : key,
        issuerKey: authority.privateKey,
        extensions: ekExtensions(KEY_USAGE.keyAgreement),
        ...VALID,
        ...change,
      }),
  }
}

/** Of a certificate for an attestation key. */
export function akExtensions(): Uint8Array[] {
  return [keyUsage(KEY_USAGE.digitalSignature), purpose(AK_PURPOSE)]
}

export function purpose(...oids: string[]): Uint8Array {
  return encodeExtension(OID_EXTENDED_KEY_USAGE, false, encodeDer(TAG.sequence, ...oids.map(encodeOid)))
}

/** Key usage with this bit alone. */
export function keyUsage(bit: number): Uint8Array {
  return encodeExtension(
    "2.5.29.15",
    true,
    encodeDer(TAG.bitString, Uint8Array.of(7 - (bit % 8), 0x80 >> bit)),
  )
}

function keyOf(spki: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" })
}
