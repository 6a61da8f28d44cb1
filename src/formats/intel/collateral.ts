import { ParseError } from "../../errors.ts"
import { fromHex, toHex } from "../hex.ts"
import { encodePem, parsePem } from "../pem.ts"
import { JsonCursor, type JsonRecord, parseJsonRecord } from "../strict-json.ts"
import { MAX_DOCUMENT_BYTES } from "./document.ts"

/**
 * What Intel says about a platform, as bytes. Nothing in it is verified. Chains are DER certificates in the order of the
 * source: the signer first, then the root; no certificate of them is trusted for being there.
 */
export interface IntelCollateral {
  /** The exact bytes of the signed `tcbInfo` object: the signature covers these and no re-encoding of them. */
  readonly tcbInfo: Uint8Array
  /** r and s, 32 bytes each, big-endian. */
  readonly tcbInfoSignature: Uint8Array
  readonly tcbInfoIssuerChain: readonly Uint8Array[]
  /** The exact bytes of the signed `enclaveIdentity` object. */
  readonly qeIdentity: Uint8Array
  readonly qeIdentitySignature: Uint8Array
  readonly qeIdentityIssuerChain: readonly Uint8Array[]
  /** DER; null where there is none, which fails a verification that is to check revocation. */
  readonly pckCrl: Uint8Array | null
  readonly pckCrlIssuerChain: readonly Uint8Array[]
  /** DER; null where there is none, which fails a verification that is to check revocation. */
  readonly rootCaCrl: Uint8Array | null
}

/** Larger bundles are refused before they are read. Real ones have 20 KB. */
export const MAX_BUNDLE_BYTES = 8 * 1024 * 1024
const MAX_CHAIN = 8

/**
 * Reads a bundle: one JSON object whose members are all strings. Documents stand in it as text, signatures in hex,
 * chains in PEM, revocation lists in hex or PEM. Revocation lists and their chain may be absent; nothing else.
 * @throws ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE
 */
export function parseCollateralBundle(bytes: Uint8Array): IntelCollateral {
  const record = parseJsonRecord("collateral", bytes, MAX_BUNDLE_BYTES)
  const chain = (name: string) => chainOfText(record.string(name), record.place(name))
  const pckCrlChain = record.stringOrNull("pck_crl_issuer_chain")
  const collateral = {
    tcbInfo: new Uint8Array(Buffer.from(record.string("tcb_info"))),
    tcbInfoSignature: signatureMember(record, "tcb_info_signature"),
    tcbInfoIssuerChain: chain("tcb_info_issuer_chain"),
    qeIdentity: new Uint8Array(Buffer.from(record.string("qe_identity"))),
    qeIdentitySignature: signatureMember(record, "qe_identity_signature"),
    qeIdentityIssuerChain: chain("qe_identity_issuer_chain"),
    pckCrl: crlMember(record, "pck_crl"),
    pckCrlIssuerChain:
      pckCrlChain === null ? [] : chainOfText(pckCrlChain, record.place("pck_crl_issuer_chain")),
    rootCaCrl: crlMember(record, "root_ca_crl"),
  }
  record.finish()
  return collateral
}

/** The JSON text of a bundle, as {@link parseCollateralBundle} reads it. Lists that are not there are left out. */
export function encodeCollateralBundle(collateral: IntelCollateral): string {
  const text = (document: Uint8Array) => Buffer.from(document).toString()
  const members: Record<string, string | undefined> = {
    tcb_info: text(collateral.tcbInfo),
    tcb_info_signature: toHex(collateral.tcbInfoSignature),
    tcb_info_issuer_chain: textOfChain(collateral.tcbInfoIssuerChain),
    qe_identity: text(collateral.qeIdentity),
    qe_identity_signature: toHex(collateral.qeIdentitySignature),
    qe_identity_issuer_chain: textOfChain(collateral.qeIdentityIssuerChain),
    pck_crl: collateral.pckCrl === null ? undefined : toHex(collateral.pckCrl),
    pck_crl_issuer_chain:
      collateral.pckCrlIssuerChain.length === 0 ? undefined : textOfChain(collateral.pckCrlIssuerChain),
    root_ca_crl: collateral.rootCaCrl === null ? undefined : toHex(collateral.rootCaCrl),
  }
  return `${JSON.stringify(members, null, 1)}\n`
}

/** A document of Intel's service with its signature. */
export interface SignedDocument {
  /** The exact bytes of the object under the signature. */
  readonly document: Uint8Array
  /** r and s, 32 bytes each, big-endian. */
  readonly signature: Uint8Array
}

/**
 * Reads the body of an answer of Intel's service: `{"tcbInfo": {…}, "signature": "…"}`, and takes the object as it stands.
 * @param member the object's name: `tcbInfo` or `enclaveIdentity`.
 * @throws ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE
 */
export function parsePcsDocument(bytes: Uint8Array, member: "tcbInfo" | "enclaveIdentity"): SignedDocument {
  const cursor = new JsonCursor(member, bytes, MAX_DOCUMENT_BYTES)
  let document: Uint8Array | null = null
  const record = cursor.record("", (name) => {
    if (name !== member || cursor.peek() !== 0x7b) return undefined
    const start = cursor.at
    const value = cursor.value(name)
    document = bytes.subarray(start, cursor.at)
    return value
  })
  cursor.end()
  const found = record.take(member)
  if (document === null) throw record.wrong(member, "an object", found)
  const signature = signatureMember(record, "signature")
  record.finish()
  return { document, signature }
}

/** DER of the certificates of a PEM text. @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_LARGE */
export function chainOfText(text: string, place: string): Uint8Array[] {
  const blocks = parsePem(text)
  const stranger = blocks.find(({ label }) => label !== "CERTIFICATE")
  if (blocks.length === 0 || blocks.length > MAX_CHAIN || stranger !== undefined)
    throw new ParseError("ERR_MALFORMED", {
      at: place,
      expected: `1 to ${MAX_CHAIN} PEM certificates`,
      found: stranger === undefined ? `${blocks.length}` : stranger.label,
    })
  return blocks.map(({ der }) => der)
}

/** DER of a revocation list in hex or PEM. @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_LARGE */
export function crlOfText(text: string, place: string): Uint8Array {
  const [block, ...more] = text.includes("-----BEGIN") ? parsePem(text) : []
  const der = block === undefined ? fromHex(text.trim()) : block.der
  const fits = block === undefined || (block.label === "X509 CRL" && more.length === 0)
  if (der === null || der.length === 0 || !fits)
    throw new ParseError("ERR_MALFORMED", {
      at: place,
      expected: "one revocation list in hex or PEM",
      found: block?.label ?? "something else",
    })
  return der
}

/** The 64 bytes of a signature in hex. @throws ParseError ERR_MALFORMED */
export function signatureOfText(text: string, place: string): Uint8Array {
  const signature = fromHex(text.trim())
  if (signature?.length === 64) return signature
  throw new ParseError("ERR_MALFORMED", {
    at: place,
    expected: "64 bytes in hex",
    found: `${text.length} characters`,
  })
}

function signatureMember(record: JsonRecord, name: string): Uint8Array {
  return signatureOfText(record.string(name), record.place(name))
}

function crlMember(record: JsonRecord, name: string): Uint8Array | null {
  const text = record.stringOrNull(name)
  return text === null ? null : crlOfText(text, record.place(name))
}

function textOfChain(chain: readonly Uint8Array[]): string {
  return chain.map((der) => encodePem("CERTIFICATE", der)).join("")
}
