import { createHash, createPrivateKey, createPublicKey, type KeyObject } from "node:crypto"
import { UsageError } from "../errors.ts"
import { parsePem } from "../formats/pem.ts"

/** Identifier of an Ed25519 key: SHA-256 of the DER of its SubjectPublicKeyInfo, in hex. */
export function keyIdOf(publicKey: KeyObject): string {
  return createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest("hex")
}

/**
 * The private key of a PEM file: one block `PRIVATE KEY` (PKCS #8) with an Ed25519 key. Nothing of it is ever in an error.
 * @throws UsageError ERR_SIGNING_KEY; ParseError of the PEM text.
 */
export function parseSigningKey(pem: string): KeyObject {
  const { label, der } = onlyBlock(pem, "PRIVATE KEY")
  if (label === "ENCRYPTED PRIVATE KEY")
    throw wrongKey("a key without a passphrase", "an encrypted one", "decrypt it with openssl pkey")
  if (label !== "PRIVATE KEY") throw wrongKey("PRIVATE KEY", label, HOW_TO_MAKE)
  return ed25519(() => createPrivateKey({ key: Buffer.from(der), format: "der", type: "pkcs8" }))
}

/**
 * The public key of a PEM file: one block `PUBLIC KEY` (SubjectPublicKeyInfo) with an Ed25519 key.
 * @throws UsageError ERR_SIGNING_KEY; ParseError of the PEM text.
 */
export function parseVerifyingKey(pem: string): KeyObject {
  const { label, der } = onlyBlock(pem, "PUBLIC KEY")
  if (label !== "PUBLIC KEY")
    throw wrongKey("PUBLIC KEY", label, "openssl pkey -in key.pem -pubout -out public.pem gives it")
  return publicKeyOfDer(der)
}

/** The Ed25519 key of a SubjectPublicKeyInfo, 44 bytes of DER. @throws UsageError ERR_SIGNING_KEY. */
export function publicKeyOfDer(der: Uint8Array): KeyObject {
  return ed25519(() => createPublicKey({ key: Buffer.from(der), format: "der", type: "spki" }))
}

const HOW_TO_MAKE = "openssl genpkey -algorithm ed25519 -out key.pem makes one"

function onlyBlock(pem: string, expected: string): { label: string; der: Uint8Array } {
  const blocks = parsePem(pem)
  const [block] = blocks
  if (block !== undefined && blocks.length === 1) return block
  throw wrongKey(`one PEM block ${expected}`, `${blocks.length}`, HOW_TO_MAKE)
}

function ed25519(read: () => KeyObject): KeyObject {
  const key = readable(read)
  if (key?.asymmetricKeyType === "ed25519") return key
  throw wrongKey("an Ed25519 key", key?.asymmetricKeyType ?? "something that is no key", HOW_TO_MAKE)
}

/** Null for what the library does not take for a key. What it says could hold parts of the key, so it is dropped. */
function readable(read: () => KeyObject): KeyObject | null {
  try {
    return read()
  } catch {
    return null
  }
}

function wrongKey(expected: string, found: string, hint: string): UsageError<"ERR_SIGNING_KEY"> {
  return new UsageError("ERR_SIGNING_KEY", { at: "--key", expected, found, hint })
}
