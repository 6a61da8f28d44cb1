import { AgentError } from "../errors.ts"
import { type SealedContent, sealingInfo } from "../formats/sealed-content.ts"
import { loadSealingSuite } from "../formats/sealing-suite.ts"

/** The key pair that content is sealed to. It lives as long as the process and is never written anywhere. */
export class SealingKey {
  #pair: ReturnType<typeof make> | null = null

  /** 32 bytes, X25519. */
  async publicKey(): Promise<Uint8Array> {
    return (await this.#made()).publicKey
  }

  /**
   * Opens what was sealed to this key.
   * @param use what it has to be sealed for. @param aad what it has to be sealed beside: the TLS key of the connection.
   * @throws AgentError ERR_SEALED.
   */
  async open({ enc, ciphertext }: SealedContent, use: string, aad: Uint8Array): Promise<Uint8Array> {
    const { suite, keys } = await this.#made()
    try {
      const info = sealingInfo(use)
      const context = await suite.createRecipientContext({ recipientKey: keys, enc, info })
      return new Uint8Array(await context.open(ciphertext, aad))
    } catch (cause) {
      throw new AgentError("ERR_SEALED", {
        expected: "content sealed to this agent's present key, for this use and this connection",
        found: "something else",
        hint: "the agent was restarted in between, or the content was changed: verify the VM again and send it anew",
        cause,
      })
    }
  }

  #made() {
    this.#pair ??= make().catch((error: unknown) => {
      // Tried anew by the next request.
      this.#pair = null
      throw error
    })
    return this.#pair
  }
}

async function make() {
  const suite = await loadSealingSuite()
  const keys = await suite.kem.generateKeyPair()
  return { suite, keys, publicKey: new Uint8Array(await suite.kem.serializePublicKey(keys.publicKey)) }
}
