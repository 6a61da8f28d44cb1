import { constants as cryptoConstants, generateKeyPair, type KeyObject, randomBytes, sign } from "node:crypto"
import { promisify } from "node:util"
import { SNP_OID, SNP_TCB_OID } from "../formats/snp/leaf-certificate.ts"
import type { SnpProduct, Tcb, TcbComponent } from "../formats/snp/tcb.ts"
import { tcbComponents } from "../formats/snp/tcb.ts"
import { KEY_USAGE, OID_BASIC_CONSTRAINTS, OID_KEY_USAGE } from "../formats/x509/certificate.ts"
import { CRL_OID } from "../formats/x509/crl.ts"
import { contextTag, encodeDer, encodeInteger, encodeOid, TAG } from "../formats/x509/der.ts"
import { encodePssSha384 } from "../formats/x509/signature-algorithm.ts"

const generate = promisify(generateKeyPair)

/** First word of each name in a simulated chain, so that nobody takes it for AMD's. */
export const SIMULATED = "SIMULATED"

/** A certificate authority of the simulation, able to sign. */
export interface SimulatedAuthority {
  readonly name: string
  readonly key: KeyObject
  readonly der: Uint8Array
}

export interface SimulatedKey {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

/** The root and the intermediate of a made-up product chain, of the same shape as AMD's. */
export interface SimulatedAuthorities {
  readonly product: SnpProduct
  readonly ark: SimulatedAuthority
  readonly ask: SimulatedAuthority
}

const YEAR_MS = 365 * 24 * 3600 * 1000
const AUTHORITY_YEARS = 20

/** Makes ARK and ASK with new RSA-4096 keys: some seconds of computing, off the main thread. */
export async function createSimulatedAuthorities(
  product: SnpProduct,
  now: Date,
): Promise<SimulatedAuthorities> {
  const [arkKeys, askKeys] = await Promise.all([
    generate("rsa", { modulusLength: 4096 }),
    generate("rsa", { modulusLength: 4096 }),
  ])
  const arkName = `${SIMULATED} ARK-${product}`
  const askName = `${SIMULATED} SEV-${product}`
  const validity = { notBefore: now, notAfter: new Date(now.getTime() + AUTHORITY_YEARS * YEAR_MS) }
  const sign = { issuer: arkName, issuerKey: arkKeys.privateKey, ...validity }
  const ark = encodeCertificate({
    ...sign,
    subject: arkName,
    publicKey: arkKeys.publicKey,
    extensions: authorityExtensions(null),
  })
  const ask = encodeCertificate({
    ...sign,
    subject: askName,
    publicKey: askKeys.publicKey,
    extensions: authorityExtensions(0),
  })
  return {
    product,
    ark: { name: arkName, key: arkKeys.privateKey, der: ark },
    ask: { name: askName, key: askKeys.privateKey, der: ask },
  }
}

/** A new P-384 key, the kind that signs reports. */
export async function createReportKey(): Promise<SimulatedKey> {
  return await generate("ec", { namedCurve: "P-384" })
}

/** A VCEK certificate with AMD's extensions, valid for seven years. */
export function issueSimulatedVcek(request: {
  readonly product: SnpProduct
  readonly ask: SimulatedAuthority
  readonly publicKey: KeyObject
  /** 64 bytes, or 8 for Turin. */
  readonly hwId: Uint8Array
  readonly tcb: Tcb
  readonly now: Date
}): Uint8Array {
  const { product, ask, publicKey, hwId, tcb, now } = request
  const levels = tcbComponents(product).map((component: TcbComponent) =>
    encodeExtension(SNP_TCB_OID[component], false, encodeInteger(tcb[component] ?? 0)),
  )
  return encodeCertificate({
    subject: `${SIMULATED} SEV-VCEK`,
    publicKey,
    issuer: ask.name,
    issuerKey: ask.key,
    notBefore: now,
    notAfter: new Date(now.getTime() + 7 * YEAR_MS),
    extensions: [
      encodeExtension(SNP_OID.structVersion, false, encodeInteger(1)),
      encodeExtension(SNP_OID.productName, false, encodeDer(TAG.ia5String, Buffer.from(product))),
      ...levels,
      encodeExtension(SNP_OID.hwId, false, hwId),
    ],
  })
}

/** What a certificate is made from; signed as AMD does. */
export interface CertificateRequest {
  /** Common names. */
  readonly subject: string
  readonly issuer: string
  readonly publicKey: KeyObject
  readonly issuerKey: KeyObject
  readonly notBefore: Date
  readonly notAfter: Date
  /** DER of each extension. */
  readonly extensions: readonly Uint8Array[]
}

/** A signed X.509 version 3 certificate in DER. */
export function encodeCertificate(request: CertificateRequest): Uint8Array {
  const algorithm = encodePssSha384()
  const tbs = encodeDer(
    TAG.sequence,
    encodeDer(contextTag(0), encodeInteger(2)),
    encodeDer(TAG.integer, randomSerial()),
    algorithm,
    encodeName(request.issuer),
    encodeDer(TAG.sequence, encodeTime(request.notBefore), encodeTime(request.notAfter)),
    encodeName(request.subject),
    request.publicKey.export({ type: "spki", format: "der" }),
    encodeDer(contextTag(3), encodeDer(TAG.sequence, ...request.extensions)),
  )
  return encodeDer(TAG.sequence, tbs, algorithm, signPss(tbs, request.issuerKey))
}

/** BIT STRING with a signature as AMD's. */
function signPss(tbs: Uint8Array, key: KeyObject): Uint8Array {
  const padding = cryptoConstants.RSA_PKCS1_PSS_PADDING
  const signature = sign("sha384", tbs, { key, padding, saltLength: 48 })
  return encodeDer(TAG.bitString, Uint8Array.of(0), signature)
}

/** A signed X.509 version 2 revocation list in DER. @param request.revoked content of each serial number's INTEGER. */
export function encodeCrl(request: {
  /** Common name. */
  readonly issuer: string
  readonly issuerKey: KeyObject
  readonly thisUpdate: Date
  readonly nextUpdate: Date
  readonly revoked: readonly Uint8Array[]
  /** DER of each extension. */
  readonly extensions: readonly Uint8Array[]
}): Uint8Array {
  const algorithm = encodePssSha384()
  const date = encodeTime(request.thisUpdate)
  const entries = request.revoked.map((serial) =>
    encodeDer(TAG.sequence, encodeDer(TAG.integer, serial), date),
  )
  const tbs = encodeDer(
    TAG.sequence,
    encodeInteger(1),
    algorithm,
    encodeName(request.issuer),
    date,
    encodeTime(request.nextUpdate),
    ...(entries.length === 0 ? [] : [encodeDer(TAG.sequence, ...entries)]),
    encodeDer(contextTag(0), encodeDer(TAG.sequence, ...request.extensions)),
  )
  return encodeDer(TAG.sequence, tbs, algorithm, signPss(tbs, request.issuerKey))
}

/** The revocation list of a simulated root: empty, and good for as long as the root, whose key is thrown away. */
export function issueSimulatedCrl(ark: SimulatedAuthority, now: Date): Uint8Array {
  return encodeCrl({
    issuer: ark.name,
    issuerKey: ark.key,
    thisUpdate: now,
    nextUpdate: new Date(now.getTime() + AUTHORITY_YEARS * YEAR_MS),
    revoked: [],
    extensions: [encodeExtension(CRL_OID.number, false, encodeInteger(1))],
  })
}

/** DER of one extension. */
export function encodeExtension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  const flag = critical ? [encodeDer(TAG.boolean, Uint8Array.of(0xff))] : []
  return encodeDer(TAG.sequence, encodeOid(oid), ...flag, encodeDer(TAG.octetString, value))
}

/** Basic constraints and key usage of an authority. @param pathLength null: no limit. */
export function authorityExtensions(pathLength: number | null): Uint8Array[] {
  const ca = encodeDer(TAG.boolean, Uint8Array.of(0xff))
  const limit = pathLength === null ? [] : [encodeInteger(pathLength)]
  const bits = (0x80 >> KEY_USAGE.keyCertSign) | (0x80 >> KEY_USAGE.crlSign)
  return [
    encodeExtension(OID_BASIC_CONSTRAINTS, true, encodeDer(TAG.sequence, ca, ...limit)),
    encodeExtension(OID_KEY_USAGE, true, encodeDer(TAG.bitString, Uint8Array.of(1, bits))),
  ]
}

/** The common name comes first, so that every tool that prints the name begins with it. */
function encodeName(commonName: string): Uint8Array {
  const attribute = (oid: string, text: string) =>
    encodeDer(TAG.set, encodeDer(TAG.sequence, encodeOid(oid), encodeDer(TAG.utf8String, Buffer.from(text))))
  return encodeDer(
    TAG.sequence,
    attribute("2.5.4.3", commonName),
    attribute("2.5.4.10", "Cosmian VM simulator, not hardware"),
  )
}

/** UTCTime up to 2049, as RFC 5280 wants it. */
function encodeTime(time: Date): Uint8Array {
  const digits = time
    .toISOString()
    .replace(/\.\d+Z$/, "")
    .replace(/\D/g, "")
  if (time.getUTCFullYear() >= 2050) return encodeDer(TAG.generalizedTime, Buffer.from(`${digits}Z`))
  return encodeDer(TAG.utcTime, Buffer.from(`${digits.slice(2)}Z`))
}

/** 16 random bytes, positive and in shortest form. */
function randomSerial(): Uint8Array {
  const serial = Uint8Array.from(randomBytes(16))
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40
  return serial
}
