import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto"
import { UsageError, VerifyError } from "../errors.ts"
import { type DetachedEnvelope, preAuthEncoding } from "../formats/dsse.ts"
import { parsePem } from "../formats/pem.ts"

/** What the signature says the signed bytes are: a signature over something else is none over a snapshot. */
export const SNAPSHOT_PAYLOAD_TYPE = "application/vnd.cosmian.snapshot+json"
const SIGNATURE_BYTES = 64

/** Signs the JSON text of a snapshot with an Ed25519 key. */
export function signSnapshot(json: Uint8Array, key: KeyObject): DetachedEnvelope {
  const signature = sign(null, preAuthEncoding(SNAPSHOT_PAYLOAD_TYPE, json), key)
  const keyId = keyIdOf(createPublicKey(key))
  return {
    payloadType: SNAPSHOT_PAYLOAD_TYPE,
    signatures: [{ keyId, signature: new Uint8Array(signature) }],
  }
}

/**
 * Proves that the holder of the key signed the JSON text of a snapshot. One signature by this key is enough; what the envelope
 * says about keys is not looked at.
 * @param key from {@link parseVerifyingKey}.
 * @returns the identifier of the key.
 * @throws VerifyError ERR_SNAPSHOT_SIGNATURE.
 */
export function verifySnapshotSignature(
  json: Uint8Array,
  envelope: DetachedEnvelope,
  key: KeyObject,
): string {
  const keyId = keyIdOf(key)
  if (envelope.payloadType !== SNAPSHOT_PAYLOAD_TYPE)
    throw new VerifyError("ERR_SNAPSHOT_SIGNATURE", {
      at: "payloadType",
      expected: SNAPSHOT_PAYLOAD_TYPE,
      found: JSON.stringify(envelope.payloadType.slice(0, 80)),
      hint: "this signature was made for something else than a snapshot",
    })
  const signed = preAuthEncoding(SNAPSHOT_PAYLOAD_TYPE, json)
  for (const { signature } of envelope.signatures)
    if (signature.length === SIGNATURE_BYTES && verify(null, signed, key, signature)) return keyId
  throw new VerifyError("ERR_SNAPSHOT_SIGNATURE", {
    expected: `a signature by key ${keyId}`,
    found: `none that verifies among ${envelope.signatures.length} (${envelope.signatures
      .map((each) => (each.keyId === "" ? "key not named" : each.keyId.slice(0, 80)))
      .join(", ")})`,
    hint: "the snapshot was changed after it was signed, or another key signed it: do not use it",
  })
}

/** Identifier of an Ed25519 key: SHA-256 of the DER of its SubjectPublicKeyInfo, in hex. */
function keyIdOf(publicKey: KeyObject): string {
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
