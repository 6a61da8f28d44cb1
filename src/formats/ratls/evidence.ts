import { createHash } from "node:crypto"
import { ParseError } from "../../errors.ts"
import { CborReader, cbor } from "../cbor.ts"
import { TEE_TYPE } from "../intel/quote.ts"
import type { Certificate } from "../x509/certificate.ts"

/** TEEs whose evidence a certificate can hold. */
export type RatlsTee = "snp" | "tdx" | "sgx"

/**
 * Extensions that hold evidence. Those of the predecessor hold the bare quote or report; Intel's arc is used for AMD as well.
 * Source: certificates of Cosmian VM 1.3; TCG DICE Attestation Architecture, version 1.1, "tcg-dice-conceptual-message-wrapper"
 * (earlier "tcg-dice-tagged-evidence").
 */
export const RATLS_OID = {
  sgx: "1.2.840.113741.1337.6",
  snp: "1.2.840.113741.1337.7",
  tdx: "1.2.840.113741.1337.8",
  dice: "2.23.133.5.4.9",
} as const

/**
 * CBOR tag of `[quote, claims]`. Source: IANA registry "CBOR Tags", 60000 (Intel TEE quote), which refers to "Interoperable
 * RA-TLS SGX / TDX Evidence Tags and Formats" of the Confidential Computing Consortium.
 */
const TAG_INTEL_QUOTE = 60000
/**
 * Media type of a SEV-SNP report in a conceptual message wrapper, for which no CBOR tag is registered. Source:
 * draft-deeglaze-amd-sev-snp-corim-profile-02, section "New media types"; RFC 9999, section on records (type, value, indicator).
 */
const SNP_MEDIA_TYPE = "application/vnd.amd.sev-snp.attestation-report"
/** The wrapper's indicator for evidence. Source: RFC 9999, "cm-ind": bit 2. */
const INDICATES_EVIDENCE = 4

/** Hash algorithms of a hash entry, by number. Source: IANA registry "Named Information Hash Algorithm". */
const HASHES: ReadonlyMap<number, { readonly name: string; readonly size: number }> = new Map([
  [1, { name: "sha256", size: 32 }],
  [7, { name: "sha384", size: 48 }],
  [8, { name: "sha512", size: 64 }],
])
const SHA256 = 1
const MAX_CLAIMS = 4096

/** One piece of evidence in a certificate. Nothing in it is verified. */
export interface RatlsEvidence {
  readonly form: "predecessor" | "dice"
  readonly oid: string
  readonly tee: RatlsTee
  /** SEV-SNP: a report file (see `parseSnpReportFile`). Otherwise a quote, which zeros may follow. */
  readonly content: Uint8Array
  /** Null: the report data begin with the SHA-256 of the key as a point. */
  readonly claims: RatlsClaims | null
}

/** Claims that an Intel quote of the DICE form commits to by the SHA-256 of their bytes. */
export interface RatlsClaims {
  readonly bytes: Uint8Array
  readonly pubkeyHash: { readonly algorithm: string; readonly value: Uint8Array }
  /** Null where the certificate was made for no request. */
  readonly nonce: Uint8Array | null
}

/**
 * Evidence in a certificate's extensions; empty where it holds none.
 * @throws ParseError ERR_MALFORMED (also: evidence of two TEEs), ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE, ERR_UNSUPPORTED
 */
export function parseRatlsEvidence({ extensions }: Pick<Certificate, "extensions">): RatlsEvidence[] {
  const found: RatlsEvidence[] = []
  for (const tee of ["sgx", "snp", "tdx"] as const) {
    const oid = RATLS_OID[tee]
    const extension = extensions.get(oid)
    if (extension !== undefined)
      found.push({ form: "predecessor", oid, tee, content: extension.value, claims: null })
  }
  const dice = extensions.get(RATLS_OID.dice)
  if (dice !== undefined) found.push(parseDiceEvidence(dice.value))
  const tees = new Set(found.map(({ tee }) => tee))
  if (tees.size > 1)
    throw new ParseError("ERR_MALFORMED", {
      at: "RA-TLS certificate",
      expected: "evidence of one TEE",
      found: [...tees].join(" and "),
    })
  return found
}

/** The content of the DICE extension. @throws as parseRatlsEvidence */
function parseDiceEvidence(value: Uint8Array): RatlsEvidence {
  const reader = new CborReader(value, "DICE evidence")
  const evidence = reader.isNext("tag") ? parseTaggedQuote(reader) : parseWrappedReport(reader)
  reader.end()
  return evidence
}

function parseTaggedQuote(reader: CborReader): RatlsEvidence {
  const tag = reader.tag("tag")
  if (tag !== TAG_INTEL_QUOTE)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "DICE evidence, tag",
      expected: `${TAG_INTEL_QUOTE} (Intel TEE quote)`,
      found: `${tag}`,
    })
  requireCount(reader.array("evidence"), 2)
  const content = reader.bytes("quote")
  const claims = parseClaims(reader.bytes("claims"))
  return { form: "dice", oid: RATLS_OID.dice, tee: teeOfQuote(content), content, claims }
}

/** SGX and TDX quotes share their header: TEE type, u32 little-endian at offset 4. */
function teeOfQuote(quote: Uint8Array): "sgx" | "tdx" {
  if (quote.length < 8) throw new ParseError("ERR_TRUNCATED", { at: "DICE evidence, quote" })
  const type = new DataView(quote.buffer, quote.byteOffset, quote.byteLength).getUint32(4, true)
  return type === TEE_TYPE.tdx ? "tdx" : "sgx"
}

function parseWrappedReport(reader: CborReader): RatlsEvidence {
  const count = reader.array("wrapper")
  if (count !== 2) requireCount(count, 3)
  const type = reader.text("media type")
  if (type !== SNP_MEDIA_TYPE)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "DICE evidence, media type",
      expected: SNP_MEDIA_TYPE,
      found: JSON.stringify(type.slice(0, 100)),
    })
  const content = reader.bytes("report")
  if (count === 3 && (reader.unsigned("indicator") & INDICATES_EVIDENCE) === 0)
    throw new ParseError("ERR_MALFORMED", { at: "DICE evidence, indicator", expected: "evidence" })
  return { form: "dice", oid: RATLS_OID.dice, tee: "snp", content, claims: null }
}

function requireCount(found: number, expected: number): void {
  if (found !== expected)
    throw new ParseError("ERR_MALFORMED", {
      at: "DICE evidence",
      expected: `${expected} members`,
      found: `${found}`,
    })
}

/** Source: "Interoperable RA-TLS X.509 Cert and Evidence Formats", section "Evidence Custom Claims". */
function parseClaims(bytes: Uint8Array): RatlsClaims {
  if (bytes.length > MAX_CLAIMS)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "DICE claims",
      expected: `at most ${MAX_CLAIMS} bytes`,
      found: `${bytes.length}`,
    })
  const reader = new CborReader(bytes, "DICE claims")
  const values = new Map<string, Uint8Array>()
  for (let left = reader.map("claims"); left > 0; left--) {
    const name = reader.text("name")
    const known = (name === "pubkey-hash" || name === "nonce") && !values.has(name)
    if (!known)
      throw new ParseError("ERR_MALFORMED", {
        at: "DICE claims",
        expected: "pubkey-hash and nonce, once each",
        found: JSON.stringify(name.slice(0, 40)),
      })
    values.set(name, reader.bytes(name))
  }
  reader.end()
  const hash = values.get("pubkey-hash")
  if (hash === undefined)
    throw new ParseError("ERR_MALFORMED", { at: "DICE claims", expected: "pubkey-hash", found: "none" })
  return { bytes, pubkeyHash: parseHashEntry(hash), nonce: values.get("nonce") ?? null }
}

function parseHashEntry(bytes: Uint8Array): RatlsClaims["pubkeyHash"] {
  const reader = new CborReader(bytes, "DICE claims, pubkey-hash")
  requireCount(reader.array("hash entry"), 2)
  const id = reader.unsigned("algorithm")
  const value = reader.bytes("value")
  reader.end()
  const hash = HASHES.get(id)
  if (hash === undefined)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "DICE claims, pubkey-hash",
      expected: "SHA-256, SHA-384 or SHA-512",
      found: `algorithm ${id}`,
    })
  if (value.length !== hash.size)
    throw new ParseError("ERR_MALFORMED", {
      at: "DICE claims, pubkey-hash",
      expected: `${hash.size} bytes`,
      found: `${value.length}`,
    })
  return { algorithm: hash.name, value }
}

/** Claims that name a key. @param spki its DER SubjectPublicKeyInfo. */
export function encodeKeyClaims(spki: Uint8Array): Uint8Array {
  const entry = cbor.array(cbor.unsigned(SHA256), cbor.bytes(sha256(spki)))
  return cbor.map(cbor.text("pubkey-hash"), cbor.bytes(entry))
}

/** The DICE extension's content for an Intel quote whose report data begin with the claims' SHA-256. */
export function encodeTaggedQuote(quote: Uint8Array, claims: Uint8Array): Uint8Array {
  return cbor.tag(TAG_INTEL_QUOTE, cbor.array(cbor.bytes(quote), cbor.bytes(claims)))
}

/** The DICE extension's content for a SEV-SNP report (1184 bytes). */
export function encodeWrappedReport(report: Uint8Array): Uint8Array {
  return cbor.array(cbor.text(SNP_MEDIA_TYPE), cbor.bytes(report), cbor.unsigned(INDICATES_EVIDENCE))
}

/**
 * Report data of the predecessor's form, 64 bytes: SHA-256 of the P-256 point as SEC 1 writes it uncompressed (0x04, x, y), then
 * 32 bytes of any data, or zeros.
 * @param spki DER SubjectPublicKeyInfo of an uncompressed P-256 key: its last 65 bytes are the point.
 */
export function ratlsReportData(spki: Uint8Array, extraData: Uint8Array = new Uint8Array(32)): Uint8Array {
  const data = new Uint8Array(64)
  data.set(sha256(spki.subarray(-65)))
  data.set(extraData, 32)
  return data
}

/** Report data of an Intel quote of the DICE form, 64 bytes: SHA-256 of the claims, then zeros. */
export function claimsReportData(claims: Uint8Array): Uint8Array {
  const data = new Uint8Array(64)
  data.set(sha256(claims))
  return data
}

function sha256(bytes: Uint8Array): Uint8Array {
  return createHash("sha256").update(bytes).digest()
}
