import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto"
import { PCK_OID } from "../../src/formats/intel/pck-extension.ts"
import { contextTag, encodeDer, encodeInteger, encodeOid, TAG } from "../../src/formats/x509/der.ts"
import { authorityExtensions, encodeExtension } from "../../src/native/simulated-certificates.ts"

/** A P-256 key pair. */
export interface FakeKey {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

export function fakeKey(namedCurve = "P-256"): FakeKey {
  return generateKeyPairSync("ec", { namedCurve })
}

export function spkiOf({ publicKey }: FakeKey): Uint8Array {
  return new Uint8Array(publicKey.export({ type: "spki", format: "der" }))
}

/** x and y of a P-256 key. */
export function pointOf(key: FakeKey): Uint8Array {
  return spkiOf(key).slice(-64)
}

/** r and s of an ECDSA signature with SHA-256. */
export function rawSignature(signed: Uint8Array, { privateKey }: FakeKey): Uint8Array {
  return new Uint8Array(sign("sha256", signed, { key: privateKey, dsaEncoding: "ieee-p1363" }))
}

export interface FakeCertificate {
  readonly subject: string
  readonly issuer: string
  readonly key: FakeKey
  readonly signer: FakeKey
  readonly serial: number
  readonly extensions?: readonly Uint8Array[]
  readonly notAfter?: string
}

const ECDSA_SHA256 = encodeDer(TAG.sequence, encodeOid("1.2.840.10045.4.3.2"))

/** A certificate as Intel makes them, valid from 2025 to 2049. */
export function fakeCertificate(request: FakeCertificate): Uint8Array {
  const tbs = encodeDer(
    TAG.sequence,
    encodeDer(contextTag(0), encodeInteger(2)),
    encodeInteger(request.serial),
    ECDSA_SHA256,
    name(request.issuer),
    encodeDer(TAG.sequence, time("250101000000Z"), time(request.notAfter ?? "490101000000Z")),
    name(request.subject),
    spkiOf(request.key),
    ...(request.extensions === undefined
      ? []
      : [encodeDer(contextTag(3), encodeDer(TAG.sequence, ...request.extensions))]),
  )
  return signed(tbs, request.signer)
}

/** Extensions of an authority. */
export const CA_EXTENSIONS = authorityExtensions(null)

/** A revocation list, in force from 2026 to 2028. */
export function fakeIntelCrl(issuer: string, signer: FakeKey, revoked: readonly number[]): Uint8Array {
  const entries = revoked.map((serial) =>
    encodeDer(TAG.sequence, encodeInteger(serial), time("260101000000Z")),
  )
  const tbs = encodeDer(
    TAG.sequence,
    encodeInteger(1),
    ECDSA_SHA256,
    name(issuer),
    time("260101000000Z"),
    time("280101000000Z"),
    ...(entries.length === 0 ? [] : [encodeDer(TAG.sequence, ...entries)]),
  )
  return signed(tbs, signer)
}

export interface FakePlatform {
  readonly components: readonly number[]
  readonly pceSvn: number
  readonly pceId: Uint8Array
  readonly fmspc: Uint8Array
}

/** Intel's extension of a PCK certificate. */
export function pckExtension(platform: FakePlatform): Uint8Array {
  const member = (oid: string, value: Uint8Array) => encodeDer(TAG.sequence, encodeOid(oid), value)
  const octets = (value: Uint8Array) => encodeDer(TAG.octetString, value)
  const tcb = [
    ...platform.components.map((svn, index) => member(`${PCK_OID.tcb}.${index + 1}`, encodeInteger(svn))),
    member(`${PCK_OID.tcb}.17`, encodeInteger(platform.pceSvn)),
    member(`${PCK_OID.tcb}.18`, octets(Uint8Array.from(platform.components))),
  ]
  const members = [
    member(PCK_OID.ppid, octets(new Uint8Array(16))),
    member(PCK_OID.tcb, encodeDer(TAG.sequence, ...tcb)),
    member(PCK_OID.pceId, octets(platform.pceId)),
    member(PCK_OID.fmspc, octets(platform.fmspc)),
    member(PCK_OID.sgxType, encodeDer(0x0a, Uint8Array.of(1))),
  ]
  return encodeExtension(PCK_OID.extension, false, encodeDer(TAG.sequence, ...members))
}

export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(createHash("sha256").update(Buffer.concat(parts)).digest())
}

function signed(tbs: Uint8Array, { privateKey }: FakeKey): Uint8Array {
  const signature = sign("sha256", tbs, privateKey)
  return encodeDer(TAG.sequence, tbs, ECDSA_SHA256, encodeDer(TAG.bitString, Uint8Array.of(0), signature))
}

function name(commonName: string): Uint8Array {
  const attribute = encodeDer(
    TAG.sequence,
    encodeOid("2.5.4.3"),
    encodeDer(TAG.printableString, Buffer.from(commonName)),
  )
  return encodeDer(TAG.sequence, encodeDer(TAG.set, attribute))
}

function time(text: string): Uint8Array {
  return encodeDer(TAG.utcTime, Buffer.from(text))
}
