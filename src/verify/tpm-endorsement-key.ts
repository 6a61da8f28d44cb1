import { CodedError, VerifyError } from "../errors.ts"
import { parseKeyFile } from "../formats/tpm/key-file.ts"
import { hasAttribute, type ObjectAttribute, type TpmPublic } from "../formats/tpm/public.ts"
import { bareKey, spkiOf } from "./tpm-signature.ts"

/** What makes a key an endorsement key: it never leaves its TPM, and opens only what was made for a key beside it. */
const REQUIRED: readonly ObjectAttribute[] = ["fixedTPM", "fixedParent", "restricted", "decrypt"]

/**
 * Reads the public half of an endorsement key that somebody vouches for by having it in a file: TPM2B_PUBLIC, TPMT_PUBLIC, or
 * SubjectPublicKeyInfo in PEM or DER.
 * @returns DER SubjectPublicKeyInfo.
 * @throws ParseError as parseKeyFile; VerifyError ERR_TPM_EK_KEY for another kind of key, as an attestation key by mistake
 */
export function parseEndorsementKey(file: Uint8Array): Uint8Array {
  const read = parseKeyFile(file, "endorsement key")
  if (read.kind === "tpm-public") requireEndorsement(read.key)
  try {
    return spkiOf(read.kind === "tpm-public" ? read.key : bareKey(read.spki, { scheme: 0, hash: null }))
  } catch (error) {
    if (!(error instanceof CodedError) || error.code !== "ERR_TPM_AK_KEY") throw error
    throw wrong("an RSA, P-256 or P-384 key", error.found ?? "another key")
  }
}

function requireEndorsement(key: TpmPublic): void {
  const missing = REQUIRED.filter((attribute) => !hasAttribute(key, attribute))
  if (missing.length > 0 || hasAttribute(key, "sign"))
    throw wrong(
      `a key with ${REQUIRED.join(", ")} that does not sign`,
      missing.length > 0 ? `without ${missing.join(", ")}` : "a key that signs",
    )
}

function wrong(expected: string, found: string): VerifyError<"ERR_TPM_EK_KEY"> {
  return new VerifyError("ERR_TPM_EK_KEY", { at: "endorsement key", expected, found })
}
