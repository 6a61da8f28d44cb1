/** A Nitro attestation PKI that does not exist, and documents of instances under it. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto"
import { cbor } from "../../src/formats/cbor.ts"
import { contextTag, encodeDer, encodeInteger, encodeOid, TAG } from "../../src/formats/x509/der.ts"
import { authorityExtensions } from "../../src/native/simulated-certificates.ts"
import { keyUsage } from "./tpm-certificates.ts"

/** A time at which every certificate is valid. */
export const NITRO_AT = new Date("2026-03-01T12:00:00Z")
export const NITRO_NONCE = new Uint8Array(32).fill(7)
export const ES384 = Uint8Array.of(0xa1, 0x01, 0x38, 0x22)

interface Keys {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

interface Request {
  readonly subject: string
  readonly issuer: string
  readonly key: Keys
  readonly signer: Keys
  readonly extensions: readonly Uint8Array[]
  /** UTCTime. */
  readonly notAfter?: string
}

const ECDSA_SHA384 = encodeDer(TAG.sequence, encodeOid("1.2.840.10045.4.3.3"))

export function nitroKey(namedCurve = "P-384"): Keys {
  return generateKeyPairSync("ec", { namedCurve })
}

/** As AWS makes them: ECDSA with SHA-384, valid from 2026. */
export function nitroCertificate(request: Request): Uint8Array {
  const time = (text: string) => encodeDer(TAG.utcTime, new TextEncoder().encode(text))
  const tbs = encodeDer(
    TAG.sequence,
    encodeDer(contextTag(0), encodeInteger(2)),
    encodeInteger(1),
    ECDSA_SHA384,
    name(request.issuer),
    encodeDer(TAG.sequence, time("260101000000Z"), time(request.notAfter ?? "490101000000Z")),
    name(request.subject),
    new Uint8Array(request.key.publicKey.export({ type: "spki", format: "der" })),
    encodeDer(contextTag(3), encodeDer(TAG.sequence, ...request.extensions)),
  )
  const signature = sign("sha384", tbs, request.signer.privateKey)
  return encodeDer(TAG.sequence, tbs, ECDSA_SHA384, encodeDer(TAG.bitString, Uint8Array.of(0), signature))
}

function name(commonName: string): Uint8Array {
  const attribute = encodeDer(
    TAG.sequence,
    encodeOid("2.5.4.3"),
    encodeDer(TAG.utf8String, new TextEncoder().encode(commonName)),
  )
  return encodeDer(TAG.sequence, encodeDer(TAG.set, attribute))
}

export interface NitroPki {
  readonly rootDer: Uint8Array
  readonly middle: Keys
  readonly bundle: readonly Uint8Array[]
  readonly certificate: Uint8Array
  readonly key: Keys
  readonly roots: ReadonlySet<string>
}

const DIGITAL_SIGNATURE = 0

export function nitroPki(): NitroPki {
  const [root, middle, key] = [nitroKey(), nitroKey(), nitroKey()]
  const rootDer = nitroCertificate({
    subject: "test aws.nitro-enclaves",
    issuer: "test aws.nitro-enclaves",
    key: root,
    signer: root,
    extensions: authorityExtensions(null),
  })
  const middleDer = nitroCertificate({
    subject: "zone",
    issuer: "test aws.nitro-enclaves",
    key: middle,
    signer: root,
    extensions: authorityExtensions(0),
  })
  return {
    rootDer,
    middle,
    bundle: [rootDer, middleDer],
    certificate: nitroLeaf(middle, key),
    key,
    roots: new Set([createHash("sha256").update(rootDer).digest("hex")]),
  }
}

export function nitroLeaf(signer: Keys, key: Keys, change: Partial<Request> = {}): Uint8Array {
  return nitroCertificate({
    subject: "i-1",
    issuer: "zone",
    key,
    signer,
    extensions: [keyUsage(DIGITAL_SIGNATURE)],
    ...change,
  })
}

export const nitroPcr = (index: number) => new Uint8Array(48).fill(index)

/** Members in the order in which they are written: name and CBOR. */
export type NitroMembers = (readonly [string, Uint8Array])[]

export function nitroMembers({
  bundle,
  certificate,
}: Pick<NitroPki, "bundle" | "certificate">): NitroMembers {
  const pcrs = Array.from({ length: 24 }, (_, index) => [cbor.unsigned(index), cbor.bytes(nitroPcr(index))])
  return [
    ["module_id", cbor.text("i-1-tpm0000000000000000")],
    ["digest", cbor.text("SHA384")],
    ["timestamp", Uint8Array.from(Buffer.from("1b0000019ca976b800", "hex"))],
    ["nitrotpm_pcrs", cbor.map(...pcrs.flat())],
    ["certificate", cbor.bytes(certificate)],
    ["cabundle", cbor.array(...bundle.map(cbor.bytes))],
    ["public_key", Uint8Array.of(0xf6)],
    ["user_data", cbor.bytes(Uint8Array.of(1, 2, 3))],
    ["nonce", cbor.bytes(NITRO_NONCE)],
  ]
}

/** With one member another, or gone. */
export function withMember(members: NitroMembers, name: string, value: Uint8Array | null): NitroMembers {
  return members.flatMap((entry) =>
    entry[0] !== name ? [entry] : value === null ? [] : [[name, value] as const],
  )
}

export function nitroPayload(members: NitroMembers): Uint8Array {
  return cbor.map(...members.flatMap(([key, value]) => [cbor.text(key), value]))
}

/** The same map with indefinite length. */
export function nitroOpenPayload(members: NitroMembers): Uint8Array {
  const items = members.flatMap(([key, value]) => [cbor.text(key), value])
  return new Uint8Array(Buffer.concat([Uint8Array.of(0xbf), ...items, Uint8Array.of(0xff)]))
}

/** COSE_Sign1, signed whatever it holds. */
export function nitroSign(
  payload: Uint8Array,
  { privateKey }: Keys,
  change: { header?: Uint8Array; unprotected?: Uint8Array; tag?: number; hash?: string } = {},
): Uint8Array {
  const { header = ES384, unprotected = cbor.map(), hash = "sha384" } = change
  const signed = cbor.array(
    cbor.text("Signature1"),
    cbor.bytes(header),
    cbor.bytes(new Uint8Array(0)),
    cbor.bytes(payload),
  )
  const signature = new Uint8Array(sign(hash, signed, { key: privateKey, dsaEncoding: "ieee-p1363" }))
  const document = cbor.array(cbor.bytes(header), unprotected, cbor.bytes(payload), cbor.bytes(signature))
  return change.tag === undefined ? document : cbor.tag(change.tag, document)
}

export function nitroDocument(pki: NitroPki): Uint8Array {
  return nitroSign(nitroPayload(nitroMembers(pki)), pki.key)
}
