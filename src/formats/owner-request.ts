import { createHash } from "node:crypto"
import { preAuthEncoding } from "./dsse.ts"
import { fromBase64, toBase64, toHex } from "./hex.ts"

/**
 * What an owner signs to have the agent do something. The agent takes every part from the request as it arrived and from its own
 * TLS key, so a signature holds for one request, to one VM, over one TLS key, once.
 */
export interface OwnerRequest {
  /** `POST`. */
  readonly method: string
  /** Path and query as sent: `/v1/app/init`. */
  readonly path: string
  readonly body: Uint8Array
  /** A nonce of the agent's, from `GET /v1/auth/nonce`. */
  readonly nonce: Uint8Array
  /** DER SubjectPublicKeyInfo of the agent's TLS key on the connection that carries the request. */
  readonly spki: Uint8Array
}

/** What a signature of an owner is made for: a signature over something else is none over a request. */
const PAYLOAD_TYPE = "application/vnd.cosmian.agent-request"
const SCHEME = "Cosmian-Owner"
/** Longest nonce and signature that are looked at, in characters of base64. */
const MAX_PART = 128

/**
 * The bytes that are signed (Ed25519): DSSE's pre-authentication encoding of the lines method, path, SHA-256 of the body (hex),
 * nonce (base64 without padding), SHA-256 of the TLS key (hex), each ending in a newline.
 */
export function ownerRequestBytes({ method, path, body, nonce, spki }: OwnerRequest): Uint8Array {
  const lines = [method, path, sha256(body), toBase64(nonce), sha256(spki)]
  return preAuthEncoding(PAYLOAD_TYPE, Buffer.from(lines.map((line) => `${line}\n`).join("")))
}

/** The value of the header `Authorization`: `Cosmian-Owner nonce.signature`, both in base64 without padding. */
export function encodeOwnerAuthorization(nonce: Uint8Array, signature: Uint8Array): string {
  return `${SCHEME} ${toBase64(nonce)}.${toBase64(signature)}`
}

/** Nonce and signature of such a header; null for any other value. */
export function parseOwnerAuthorization(
  header: string,
): { readonly nonce: Uint8Array; readonly signature: Uint8Array } | null {
  const [, nonceText = "", signatureText = ""] =
    /^Cosmian-Owner +([A-Za-z0-9+/=]+)\.([A-Za-z0-9+/=]+) *$/i.exec(header) ?? []
  if (nonceText === "" || nonceText.length > MAX_PART || signatureText.length > MAX_PART) return null
  const nonce = fromBase64(nonceText)
  const signature = fromBase64(signatureText)
  return nonce === null || signature === null ? null : { nonce, signature }
}

function sha256(bytes: Uint8Array): string {
  return toHex(createHash("sha256").update(bytes).digest())
}
