import { createHash } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { ALG, type HashName } from "../formats/tpm/algorithms.ts"
import { parseAttest, type QuoteAttest } from "../formats/tpm/attest.ts"
import { selectedPcrs, selectionText, selectPcrs } from "../formats/tpm/pcr-selection.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import { parseSignature, type TpmSignature } from "../formats/tpm/signature.ts"
import { type SignatureKey, verifyAttestationKey, verifyTpmSignature } from "./tpm-signature.ts"
import { markVerified, type Verified } from "./verified.ts"

/** A quote and what is needed to check it, as the attester sent them. */
export interface QuoteEvidence {
  /** TPMS_ATTEST. */
  readonly quote: Uint8Array
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array
  /** TPMT_PUBLIC of the attestation key. */
  readonly akPublic: Uint8Array
  /** Values of the selected PCRs, ascending; 32 bytes each. */
  readonly pcrs: readonly Uint8Array[]
}

/** What the verifier itself asked for. Nothing of it comes from the attester. */
export interface QuoteExpectation {
  readonly qualifyingData: Uint8Array
  /** PCRs of the SHA-256 bank, ascending; not empty. */
  readonly pcrSelection: readonly number[]
}

/** A quote's content, by whichever key it is signed. */
export interface TpmStatement {
  /** Qualified Name of the attestation key: says in which hierarchy it is. */
  readonly qualifiedSigner: Uint8Array
  readonly pcrSelection: readonly number[]
  /** SHA-256 bank, in the order of `pcrSelection`; 32 bytes each. */
  readonly pcrs: readonly Uint8Array[]
  /** Boots. */
  readonly resetCount: number
  /** Suspends since the last boot. */
  readonly restartCount: number
  /** Milliseconds powered, over all boots. */
  readonly clock: bigint
  /** False where the TPM was not shut down in order before this boot. */
  readonly safe: boolean
  readonly firmwareVersion: bigint
}

/** What a TPM with this attestation key stated. That the key is a genuine TPM's is proven elsewhere, or not at all. */
export interface TpmAttestation extends TpmStatement {
  /** TPM Name of the attestation key: names its attributes too. */
  readonly akName: Uint8Array
}

/**
 * What the holder of a bare public key signed. A bare key has no attributes: nothing here shows that it is a TPM's, or that
 * it would not sign a made-up statement. Where a TEE vouches for the key as its virtual TPM's attestation key, the statement
 * is worth as much as that; where nobody does, it proves possession of the key and no more.
 */
export interface BareKeyStatement extends TpmStatement {
  readonly akAttributes: "unknown"
}

/**
 * Verifies a quote: a restricted key of a TPM signed, for this very request, exactly these PCRs with exactly these values.
 * @throws ParseError where a structure is malformed, ERR_TPM_MAGIC, ERR_TPM_ATTEST_TYPE
 * @throws VerifyError ERR_TPM_AK_ATTRIBUTES, ERR_TPM_AK_KEY, ERR_TPM_SCHEME, ERR_TPM_SIGNATURE, ERR_TPM_QUALIFYING_DATA,
 * ERR_TPM_PCR_SELECTION, ERR_TPM_PCR_DIGEST
 */
export function verifyQuote(
  { quote, signature, akPublic, pcrs }: QuoteEvidence,
  expected: QuoteExpectation,
): Verified<TpmAttestation> {
  const key = parsePublic(akPublic)
  verifyAttestationKey(key)
  const statement = verifyStatement({ quote, signature: parseSignature(signature), pcrs }, key, expected)
  return markVerified({ akName: tpmName(key), ...statement })
}

/**
 * Verifies a quote by a key of which nothing but the key itself is known.
 * @param key with the scheme that the verifier demands: the signer does not choose it.
 * @throws as verifyQuote, save ERR_TPM_AK_ATTRIBUTES
 */
export function verifyBareKeyQuote(
  evidence: { quote: Uint8Array; signature: TpmSignature; pcrs: readonly Uint8Array[] },
  key: SignatureKey,
  expected: QuoteExpectation,
): Verified<BareKeyStatement> {
  return markVerified({ akAttributes: "unknown", ...verifyStatement(evidence, key, expected) })
}

function verifyStatement(
  { quote, signature, pcrs }: { quote: Uint8Array; signature: TpmSignature; pcrs: readonly Uint8Array[] },
  key: SignatureKey,
  expected: QuoteExpectation,
): TpmStatement {
  const hash = verifyTpmSignature(key, signature, quote)
  const attest = parseAttest(quote)
  verifyQualifyingData(attest, expected.qualifyingData)
  verifySelection(attest, expected.pcrSelection)
  verifyValues(attest, pcrs, hash)
  return {
    qualifiedSigner: attest.qualifiedSigner,
    pcrSelection: expected.pcrSelection,
    pcrs,
    resetCount: attest.resetCount,
    restartCount: attest.restartCount,
    clock: attest.clock,
    safe: attest.safe,
    firmwareVersion: attest.firmwareVersion,
  }
}

function verifyQualifyingData(attest: QuoteAttest, expected: Uint8Array): void {
  if (!bytesEqual(attest.extraData, expected))
    throw new VerifyError("ERR_TPM_QUALIFYING_DATA", {
      at: "TPMS_ATTEST extraData",
      expected: shortHex(expected),
      found: attest.extraData.length === 0 ? "nothing" : shortHex(attest.extraData),
      hint: "an old quote, or one made for another connection or another VM, is being shown",
    })
}

function verifySelection(attest: QuoteAttest, pcrs: readonly number[]): void {
  const wanted = selectPcrs(ALG.sha256, pcrs)
  const [only, ...others] = attest.pcrSelect
  const exact =
    only !== undefined &&
    others.length === 0 &&
    only.hash === wanted.hash &&
    bytesEqual(Uint8Array.from(selectedPcrs(only)), Uint8Array.from(selectedPcrs(wanted)))
  if (!exact || pcrs.length === 0)
    throw new VerifyError("ERR_TPM_PCR_SELECTION", {
      at: "TPMS_QUOTE_INFO pcrSelect",
      expected: selectionText([wanted]),
      found: selectionText(attest.pcrSelect),
    })
}

/** The TPM signs one digest over all values, so any wrong, missing or swapped one shows. */
function verifyValues(attest: QuoteAttest, values: readonly Uint8Array[], hash: HashName): void {
  const wanted = attest.pcrSelect.flatMap(selectedPcrs).length
  if (values.length !== wanted || values.some((value) => value.length !== 32))
    throw new VerifyError("ERR_TPM_PCR_DIGEST", {
      at: "PCR values",
      expected: `${wanted} values of 32 bytes`,
      found: `${values.length} values of ${[...new Set(values.map((value) => value.length))].join(", ")} bytes`,
    })
  const digest = createHash(hash)
  for (const value of values) digest.update(value)
  const found = new Uint8Array(digest.digest())
  if (!bytesEqual(found, attest.pcrDigest))
    throw new VerifyError("ERR_TPM_PCR_DIGEST", {
      at: "TPMS_QUOTE_INFO pcrDigest",
      expected: shortHex(attest.pcrDigest),
      found: shortHex(found),
    })
}
