import { ParseError } from "../../errors.ts"
import { CborReader, cbor } from "../cbor.ts"
import { bytesEqual, shortHex } from "../hex.ts"

/** Of a whole document. Real ones have about 5 KiB. */
const MAX_DOCUMENT_BYTES = 64 * 1024
const MAX_CERTIFICATE_BYTES = 1024
/** Of `public_key`, `user_data` and `nonce` each. */
const MAX_DATA_BYTES = 1024
const MAX_PCRS = 32
/** Certificates in `cabundle`, the root's included. AWS's have four. */
const MAX_BUNDLE = 8
const MEMBERS = 9
/** SHA-384. */
const PCR_BYTES = 48
/** Two integers of P-384. */
const SIGNATURE_BYTES = 96

const TAG_COSE_SIGN1 = 18
/** The map {1: -35}: algorithm ES384, and nothing else. Source: RFC 9053, section 2.1, table 1. */
const PROTECTED_ES384 = Uint8Array.of(0xa1, 0x01, 0x38, 0x22)

/**
 * A NitroTPM attestation document, not verified: COSE_Sign1 around a CBOR map.
 * Source: Amazon EC2 User Guide, "Validate a NitroTPM Attestation Document", sections "Attestation Document specification" and
 * "COSE and CBOR".
 */
export interface NitroDocument {
  /** What the signature is over: the Sig_structure of RFC 9052, section 4.4. */
  readonly signed: Uint8Array
  /** 96 bytes: r and s, big-endian. */
  readonly signature: Uint8Array
  readonly moduleId: string
  /** Milliseconds since 1970, UTC. */
  readonly timestamp: bigint
  /** SHA-384 bank: 48 bytes each, by number. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>
  /** DER; its key made the signature. */
  readonly certificate: Uint8Array
  /** DER: the root first, then downwards to the issuer of `certificate`. */
  readonly caBundle: readonly Uint8Array[]
  /** What the software that asked for the document had put in; null: nothing. Up to 1024 bytes each. */
  readonly publicKey: Uint8Array | null
  readonly userData: Uint8Array | null
  readonly nonce: Uint8Array | null
}

/**
 * Reads a document, tagged or not. Members that AWS does not document are refused, as are those that occur twice.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_LARGE, ERR_TRAILING_BYTES
 */
export function parseNitroDocument(bytes: Uint8Array): NitroDocument {
  if (bytes.length > MAX_DOCUMENT_BYTES)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "NitroTPM document",
      expected: `at most ${MAX_DOCUMENT_BYTES} bytes`,
      found: `${bytes.length}`,
    })
  const reader = new CborReader(bytes, "NitroTPM document")
  if (reader.isNext("tag")) demand(reader.tag("tag") === TAG_COSE_SIGN1, "tag", "18 (COSE_Sign1)")
  demand(reader.array("COSE_Sign1") === 4, "COSE_Sign1", "four items")
  const header = reader.bytes("protected header")
  demand(
    bytesEqual(header, PROTECTED_ES384),
    "protected header",
    "{1: -35} (ES384) alone",
    shortHex(header, 16),
  )
  demand(reader.map("unprotected header") === 0, "unprotected header", "an empty map")
  const payload = reader.bytes("payload")
  const signature = reader.bytes("signature")
  demand(signature.length === SIGNATURE_BYTES, "signature", "96 bytes", `${signature.length} bytes`)
  reader.end()
  const none = new Uint8Array(0)
  const signed = cbor.array(
    cbor.text("Signature1"),
    cbor.bytes(header),
    cbor.bytes(none),
    cbor.bytes(payload),
  )
  return { signed, signature, ...parsePayload(payload) }
}

type Members = { -readonly [K in keyof Omit<NitroDocument, "signed" | "signature">]?: NitroDocument[K] }

function parsePayload(payload: Uint8Array): Omit<NitroDocument, "signed" | "signature"> {
  const reader = new CborReader(payload, "NitroTPM document, payload")
  const seen = new Set<string>()
  const read: Members = {}
  reader.pairs("map", MEMBERS, () => {
    const key = reader.text("key")
    demand(!seen.has(key), "payload", "each member once", JSON.stringify(key.slice(0, 40)))
    seen.add(key)
    readMember(reader, key, read)
  })
  reader.end()
  const { moduleId, timestamp, pcrs, certificate, caBundle } = read
  if (
    moduleId === undefined ||
    timestamp === undefined ||
    pcrs === undefined ||
    certificate === undefined ||
    caBundle === undefined ||
    !seen.has("digest")
  )
    throw malformed(
      "payload",
      "module_id, timestamp, digest, nitrotpm_pcrs, certificate and cabundle",
      [...seen].join(", ").slice(0, 160),
    )
  const { publicKey = null, userData = null, nonce = null } = read
  return { moduleId, timestamp, pcrs, certificate, caBundle, publicKey, userData, nonce }
}

function readMember(reader: CborReader, key: string, into: Members): void {
  switch (key) {
    case "module_id":
      into.moduleId = reader.text(key)
      demand(into.moduleId !== "" && into.moduleId.length <= 256, key, "1 to 256 characters")
      return
    case "timestamp":
      into.timestamp = reader.unsigned64(key)
      // The furthest time that a Date takes.
      demand(into.timestamp <= 8_640_000_000_000_000n, key, "milliseconds since 1970")
      return
    case "digest":
      demand(reader.text(key) === "SHA384", key, "SHA384")
      return
    case "nitrotpm_pcrs":
      into.pcrs = readPcrs(reader)
      return
    case "certificate":
      into.certificate = readCertificate(reader, key)
      return
    case "cabundle":
      into.caBundle = readBundle(reader)
      return
    case "public_key":
      into.publicKey = readData(reader, key)
      return
    case "user_data":
      into.userData = readData(reader, key)
      return
    case "nonce":
      into.nonce = readData(reader, key)
      return
    default:
      throw malformed("payload", "members that are documented", JSON.stringify(key.slice(0, 40)))
  }
}

function readPcrs(reader: CborReader): Map<number, Uint8Array> {
  const pcrs = new Map<number, Uint8Array>()
  reader.pairs("nitrotpm_pcrs", MAX_PCRS, () => {
    const index = reader.unsigned("PCR number")
    demand(
      index < MAX_PCRS && !pcrs.has(index),
      "nitrotpm_pcrs",
      "numbers from 0 to 31, each once",
      `${index}`,
    )
    const value = reader.bytes(`PCR ${index}`)
    demand(value.length === PCR_BYTES, `PCR ${index}`, `${PCR_BYTES} bytes`, `${value.length}`)
    pcrs.set(index, value)
  })
  demand(pcrs.size > 0, "nitrotpm_pcrs", "a PCR or more", "none")
  return pcrs
}

function readBundle(reader: CborReader): Uint8Array[] {
  const count = reader.array("cabundle")
  demand(count > 0 && count <= MAX_BUNDLE, "cabundle", `1 to ${MAX_BUNDLE} certificates`, `${count}`)
  return Array.from({ length: count }, (_, index) => readCertificate(reader, `cabundle[${index}]`))
}

function readCertificate(reader: CborReader, what: string): Uint8Array {
  const der = reader.bytes(what)
  demand(
    der.length > 0 && der.length <= MAX_CERTIFICATE_BYTES,
    what,
    `1 to ${MAX_CERTIFICATE_BYTES} bytes`,
    `${der.length}`,
  )
  return der
}

function readData(reader: CborReader, what: string): Uint8Array | null {
  if (reader.null()) return null
  const data = reader.bytes(what)
  demand(data.length <= MAX_DATA_BYTES, what, `at most ${MAX_DATA_BYTES} bytes`, `${data.length}`)
  return data
}

function demand(holds: boolean, what: string, expected: string, found = "something else"): void {
  if (!holds) throw malformed(what, expected, found)
}

function malformed(what: string, expected: string, found: string): ParseError {
  return new ParseError("ERR_MALFORMED", { at: `NitroTPM document, ${what}`, expected, found })
}
