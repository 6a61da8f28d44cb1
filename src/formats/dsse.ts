import { ParseError } from "../errors.ts"
import { fromBase64 } from "./hex.ts"
import { JsonRecord, parseJsonRecord } from "./strict-json.ts"

/**
 * DSSE envelopes that stand beside what they sign: `payload` is empty, and is the content of the signed file.
 * Source: secure-systems-lab/dsse, "DSSE Protocol" and "DSSE Envelope", version 1.0.
 */
export interface DetachedEnvelope {
  readonly payloadType: string
  /** At least one. */
  readonly signatures: readonly EnvelopeSignature[]
}

export interface EnvelopeSignature {
  /** A hint which key it was; proves nothing. Empty where there is none. */
  readonly keyId: string
  readonly signature: Uint8Array
}

/** Cap of an envelope's text, in bytes. */
export const MAX_ENVELOPE_BYTES = 64 * 1024
const MAX_SIGNATURES = 16
const TEXT = new TextEncoder()

/**
 * Reads a detached envelope, strictly.
 * @throws ParseError ERR_MALFORMED (also where it holds a payload of its own), ERR_TOO_LARGE, ERR_TRUNCATED, ERR_TRAILING_BYTES,
 * ERR_DUPLICATE_KEY.
 */
export function parseDetachedEnvelope(bytes: Uint8Array): DetachedEnvelope {
  const root = parseJsonRecord("signature", bytes, MAX_ENVELOPE_BYTES)
  const payload = root.stringOrNull("payload") ?? ""
  // Two contents, of which one is signed and the other is used, is what must not be.
  if (payload !== "") throw root.wrong("payload", "no content: it is the signed file's", payload)
  const payloadType = root.string("payloadType")
  const items = root.array("signatures")
  if (items.length === 0 || items.length > MAX_SIGNATURES)
    throw new ParseError("ERR_MALFORMED", {
      at: root.place("signatures"),
      expected: `1 to ${MAX_SIGNATURES} signatures`,
      found: `${items.length}`,
    })
  const signatures = items.map((item, index) => {
    if (!(item instanceof JsonRecord)) throw root.wrong(`signatures[${index}]`, "an object", item)
    return parseSignature(item)
  })
  root.finish()
  return { payloadType, signatures }
}

/** JSON text of a detached envelope, ending in a newline. */
export function encodeDetachedEnvelope({ payloadType, signatures }: DetachedEnvelope): string {
  const envelope = {
    payload: "",
    payloadType,
    signatures: signatures.map(({ keyId, signature }) => ({
      keyid: keyId,
      sig: Buffer.from(signature).toString("base64"),
    })),
  }
  return `${JSON.stringify(envelope, null, 2)}\n`
}

/** The bytes that a signature is made over: PAE(payloadType, payload). Source: "DSSE Protocol", section "Signature Definition". */
export function preAuthEncoding(payloadType: string, payload: Uint8Array): Uint8Array {
  const type = TEXT.encode(payloadType)
  return Buffer.concat([
    TEXT.encode(`DSSEv1 ${type.length} `),
    type,
    TEXT.encode(` ${payload.length} `),
    payload,
  ])
}

function parseSignature(record: JsonRecord): EnvelopeSignature {
  const keyId = record.stringOrNull("keyid") ?? ""
  const text = record.string("sig")
  // DSSE allows the alphabet for URLs too.
  const signature = fromBase64(text.replaceAll("-", "+").replaceAll("_", "/"))
  if (signature === null || signature.length === 0) throw record.wrong("sig", "base64", text)
  record.finish()
  return { keyId, signature }
}
