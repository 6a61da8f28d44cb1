import { createHash, createPublicKey, type KeyObject } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { parseSgxQuote, type SgxQuote } from "../formats/sgx/quote.ts"
import { type IntelInput, verifyIntelQuote } from "./intel-quote.ts"
import { evaluateSgxTcb } from "./intel-tcb.ts"
import type { IntelAttestation } from "./tdx.ts"
import { markVerified, type Verified } from "./verified.ts"

/** What a genuine SGX quote proves. */
export interface SgxAttestation extends IntelAttestation {
  readonly kind: "sgx"
  readonly quote: SgxQuote
}

/**
 * Proves that an enclave of an Intel platform made a quote, and what Intel says about that platform; as `verifyTdx`.
 * @param input.quote version 3, zeros behind its end allowed.
 * @throws ParseError where anything is malformed
 * @throws VerifyError ERR_QUOTE_*, ERR_QE_*, ERR_PCK_MISSING, ERR_CERT_*, ERR_CRL_*, ERR_REVOCATION_NOT_CHECKED,
 *   ERR_COLLATERAL_*, ERR_TCB_NO_LEVEL
 */
export function verifySgx(input: IntelInput & { readonly quote: Uint8Array }): Verified<SgxAttestation> {
  const quote = parseSgxQuote(input.quote)
  const { chain, documents, revocation } = verifyIntelQuote(quote, "SGX", input)
  const { qeReport } = quote.signature
  return markVerified({
    kind: "sgx" as const,
    quote,
    anchor: chain.anchor,
    platform: chain.platform,
    qe: qeReport,
    tcb: documents === null ? null : evaluateSgxTcb(documents, chain.platform, qeReport),
    revocation,
    at: input.at,
  })
}

/**
 * MRSIGNER of the enclaves that a key signs: SHA-256 of the modulus, 384 bytes little-endian.
 * Source: Intel SDM, volume 3D, section 37.4.1.2 "Signing Key (MRSIGNER)" ; SIGSTRUCT takes RSA-3072 with exponent 3 only.
 * @param spki DER SubjectPublicKeyInfo. @throws VerifyError ERR_CERT_ALGORITHM
 */
export function mrSignerOfKey(spki: Uint8Array): Uint8Array {
  const modulus = Buffer.from(rsa3072(spki).export({ format: "jwk" }).n ?? "", "base64url")
  return new Uint8Array(createHash("sha256").update(modulus.toReversed()).digest())
}

function rsa3072(spki: Uint8Array): KeyObject {
  const expected = "an RSA key of 3072 bits with exponent 3"
  let key: KeyObject
  try {
    key = createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" })
  } catch (cause) {
    throw new VerifyError("ERR_CERT_ALGORITHM", {
      at: "enclave signer's key",
      expected,
      found: "none",
      cause,
    })
  }
  const { modulusLength, publicExponent } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType !== "rsa" || modulusLength !== 3072 || publicExponent !== 3n)
    throw new VerifyError("ERR_CERT_ALGORITHM", {
      at: "enclave signer's key",
      expected,
      found: `${key.asymmetricKeyType} ${modulusLength ?? ""}`.trim(),
    })
  return key
}
