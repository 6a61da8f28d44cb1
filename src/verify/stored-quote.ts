import { createHash } from "node:crypto"
import { ParseError, VerifyError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { ALG, CURVE, type HashName, hashName } from "../formats/tpm/algorithms.ts"
import { parseAttest, type QuoteAttest } from "../formats/tpm/attest.ts"
import type { KeyFile } from "../formats/tpm/key-file.ts"
import { selectedPcrs, selectionText } from "../formats/tpm/pcr-selection.ts"
import type { PcrValues } from "../formats/tpm/pcr-values.ts"
import { tpmName } from "../formats/tpm/public.ts"
import { parseSignature, type TpmSignature } from "../formats/tpm/signature.ts"
import { inside, single, TAG } from "../formats/x509/der.ts"
import { bareKey, type SignatureKey, verifyAttestationKey, verifyTpmSignature } from "./tpm-signature.ts"
import { markVerified, type Verified } from "./verified.ts"

/**
 * A quote that was stored, judged by whoever holds the files: it may be over any banks and PCRs, and what it was asked for may
 * not be known. `verifyQuote` is the stricter one, for a verifier that asked itself.
 */
export interface StoredQuote {
  /** TPMS_ATTEST. */
  readonly quote: Uint8Array
  /** TPMT_SIGNATURE, or the bare signature: as long as the RSA modulus; r and s; or both in DER. */
  readonly signature: Uint8Array
  /** The key by which the quote has to be signed. */
  readonly key: QuoteKey
  /** What the quote has to repeat, exactly; null: nothing shows for which request it was made. */
  readonly nonce: Uint8Array | null
  /** Values to be proven, more than the quoted ones among them; null: none, and the quoted PCRs stay unknown. */
  readonly pcrs: PcrValues | null
}

/** A key, and what is known of the TPM object that it is. */
export interface QuoteKey {
  /** Where the scheme is null, the signature names it: the holder of the key chose, and each is as good as the other. */
  readonly key: SignatureKey
  /** TPM Name; null for a key of which the attributes are not known. */
  readonly name: Uint8Array | null
}

/** What the holder of the key stated. */
export interface QuoteStatement {
  readonly attest: QuoteAttest
  readonly scheme: TpmSignature["scheme"]
  /** Of the signature and of `pcrDigest`. */
  readonly hash: HashName
  readonly akName: Uint8Array | null
  readonly freshness: "nonce" | "not-checked"
  /** Quoted PCRs with their values; null where none were given. */
  readonly pcrs: PcrValues | null
}

/**
 * The key of a file, with the attributes of an attestation key where it has any.
 * @throws VerifyError ERR_TPM_AK_ATTRIBUTES, ERR_TPM_AK_KEY
 */
export function quoteKeyOf(file: KeyFile): QuoteKey {
  if (file.kind === "bare") {
    const scheme = { scheme: ALG.rsassa, hash: ALG.sha256 }
    return { key: { ...bareKey(file.spki, scheme), scheme: null }, name: null }
  }
  verifyAttestationKey(file.key)
  return { key: file.key, name: tpmName(file.key) }
}

/**
 * Verifies a stored quote. Structure comes before the signature: what is no quote is told so, whoever signed it.
 * @throws ParseError where a structure is malformed, ERR_TPM_MAGIC, ERR_TPM_ATTEST_TYPE
 * @throws VerifyError ERR_TPM_AK_KEY, ERR_TPM_SCHEME, ERR_TPM_SIGNATURE, ERR_TPM_QUALIFYING_DATA, ERR_TPM_PCR_SELECTION,
 *   ERR_TPM_PCR_DIGEST
 */
export function verifyStoredQuote(stored: StoredQuote): Verified<QuoteStatement> {
  const attest = parseAttest(stored.quote)
  const signature = signatureOf(stored.signature, stored.key.key)
  const scheme = stored.key.key.scheme ?? { scheme: ALG[signature.scheme], hash: signature.hash }
  const hash = verifyTpmSignature({ ...stored.key.key, scheme }, signature, stored.quote)
  if (stored.nonce !== null) verifyNonce(attest, stored.nonce)
  verifyNotEmpty(attest)
  return markVerified({
    attest,
    scheme: signature.scheme,
    hash,
    akName: stored.key.name,
    freshness: stored.nonce === null ? ("not-checked" as const) : ("nonce" as const),
    pcrs: stored.pcrs === null ? null : verifyPcrs(attest, stored.pcrs, hash),
  })
}

function signatureOf(bytes: Uint8Array, key: SignatureKey): TpmSignature {
  const hash =
    key.scheme?.hash ?? (key.type === "ecc" && key.curveId === CURVE.p384 ? ALG.sha384 : ALG.sha256)
  if (key.type === "rsa") {
    if (bytes.length !== key.modulus.length) return parseSignature(bytes)
    const scheme = key.scheme?.scheme === ALG.rsapss ? "rsapss" : "rsassa"
    return { scheme, hash, signature: bytes }
  }
  if (bytes[0] === TAG.sequence) return { scheme: "ecdsa", hash, ...derIntegers(bytes) }
  // A bare signature may begin as a TPMT_SIGNATURE does, so its length decides: the latter is longer.
  const size = key.curveId === CURVE.p384 ? 48 : 32
  if (bytes.length !== 2 * size) return parseSignature(bytes)
  return { scheme: "ecdsa", hash, r: bytes.subarray(0, size), s: bytes.subarray(size) }
}

function derIntegers(bytes: Uint8Array): { r: Uint8Array; s: Uint8Array } {
  const reader = inside(single(bytes, TAG.sequence, "signature"))
  const [r, s] = [reader.next(TAG.integer, "r"), reader.next(TAG.integer, "s")]
  reader.end()
  for (const { content, place } of [r, s])
    if ((content[0] ?? 0x80) >= 0x80)
      throw new ParseError("ERR_MALFORMED", { at: place, expected: "a positive number", found: "another" })
  return { r: r.content, s: s.content }
}

function verifyNonce({ extraData }: QuoteAttest, nonce: Uint8Array): void {
  if (!bytesEqual(extraData, nonce))
    throw new VerifyError("ERR_TPM_QUALIFYING_DATA", {
      at: "TPMS_ATTEST extraData",
      expected: shortHex(nonce, 64),
      found: extraData.length === 0 ? "nothing" : shortHex(extraData, 64),
      hint: "an old quote, or one made for another request, is being shown",
    })
}

/** A quote over no PCR says nothing about the machine. */
function verifyNotEmpty({ pcrSelect }: QuoteAttest): void {
  if (pcrSelect.every((selection) => selectedPcrs(selection).length === 0))
    throw new VerifyError("ERR_TPM_PCR_SELECTION", {
      at: "TPMS_QUOTE_INFO pcrSelect",
      expected: "at least one PCR",
      found: selectionText(pcrSelect),
    })
}

/** The TPM signs one digest over all values, bank by bank in the order of the selection. */
function verifyPcrs(attest: QuoteAttest, given: PcrValues, hash: HashName): PcrValues {
  const digest = createHash(hash)
  const proven = new Map<HashName, Map<number, Uint8Array>>()
  for (const selection of attest.pcrSelect) {
    const bank = hashName(selection.hash)
    for (const pcr of selectedPcrs(selection)) {
      const value = bank === null ? undefined : given[bank]?.get(pcr)
      if (bank === null || value === undefined) throw missing(pcr, selectionText([selection]))
      digest.update(value)
      proven.set(bank, (proven.get(bank) ?? new Map<number, Uint8Array>()).set(pcr, value))
    }
  }
  const found = new Uint8Array(digest.digest())
  if (!bytesEqual(found, attest.pcrDigest))
    throw new VerifyError("ERR_TPM_PCR_DIGEST", {
      at: "TPMS_QUOTE_INFO pcrDigest",
      expected: shortHex(attest.pcrDigest),
      found: shortHex(found),
      hint: "the values are not those at the time of the quote",
    })
  return Object.fromEntries(proven)
}

function missing(pcr: number, selection: string): VerifyError<"ERR_TPM_PCR_DIGEST"> {
  return new VerifyError("ERR_TPM_PCR_DIGEST", {
    at: "PCR values",
    expected: `a value for each of ${selection}`,
    found: `none for PCR ${pcr}`,
    hint: "give the values of all quoted PCRs in the banks that were quoted",
  })
}
