import { createPrivateKey, createPublicKey } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import { AcmeError } from "../errors.ts"
import { loadLibrary } from "./connection.ts"
import { KEY_TYPES, type KeyType } from "./kinds.ts"

/** A new private key, PKCS #8 in PEM. */
export async function makeKey(type: KeyType): Promise<string> {
  const { crypto } = await loadLibrary()
  switch (type) {
    case "p256":
      return (await crypto.createPrivateEcdsaKey("P-256")).toString()
    case "p384":
      return (await crypto.createPrivateEcdsaKey("P-384")).toString()
    default:
      return (await crypto.createPrivateRsaKey(Number(type.slice(3)))).toString()
  }
}

/** Certificate signing request, PEM, without a subject: authorities look at the alternative names. */
export async function makeRequest(keyPem: string, names: readonly string[]): Promise<string> {
  const { crypto } = await loadLibrary()
  const [, csr] = await crypto.createCsr({ altNames: [...names] }, keyPem)
  return csr.toString()
}

/** Bytes; the largest kind has some 3000. */
const MAX_KEY_BYTES = 64 * 1024

/** The key in a file. @throws AcmeError ERR_ACME_WORKSPACE for what is no key, or of a kind that is not made here */
export function readKey(file: string): string {
  const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0
  const pem = size > 0 && size <= MAX_KEY_BYTES ? readFileSync(file, "utf8") : ""
  keyTypeOf(pem, file)
  return pem
}

/**
 * The kind of a key.
 * @throws AcmeError ERR_ACME_WORKSPACE for what is no key, or of a kind that is not made here
 */
export function keyTypeOf(keyPem: string, at: string): KeyType {
  try {
    const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey(createPrivateKey(keyPem))
    const name =
      asymmetricKeyType === "ec"
        ? { prime256v1: "p256", secp384r1: "p384" }[asymmetricKeyDetails?.namedCurve ?? ""]
        : `${asymmetricKeyType}${asymmetricKeyDetails?.modulusLength}`
    const type = KEY_TYPES.find((known) => known === name)
    if (type !== undefined) return type
  } catch {
    // Told below, without the content.
  }
  throw new AcmeError("ERR_ACME_WORKSPACE", {
    at,
    expected: `a private key, one of ${KEY_TYPES.join(", ")}`,
    found: "something else",
    hint: "move the file away",
  })
}
