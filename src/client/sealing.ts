import { type SealedContent, sealingInfo } from "../formats/sealed-content.ts"
import { loadSealingSuite } from "../formats/sealing-suite.ts"

/**
 * Seals content to the key of an agent that has attested it.
 * @param key 32 bytes, X25519. @param use what for: `app-init`, `bootstrap`.
 * @param aad what it is sealed beside: DER SubjectPublicKeyInfo of the connection's TLS key.
 */
export async function seal(
  content: Uint8Array,
  key: Uint8Array,
  use: string,
  aad: Uint8Array,
): Promise<SealedContent> {
  const suite = await loadSealingSuite()
  const recipientPublicKey = await suite.kem.deserializePublicKey(key)
  const context = await suite.createSenderContext({ recipientPublicKey, info: sealingInfo(use) })
  const ciphertext = new Uint8Array(await context.seal(content, aad))
  return { enc: new Uint8Array(context.enc), ciphertext }
}
