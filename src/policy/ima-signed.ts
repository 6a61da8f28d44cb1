import { CodedError } from "../errors.ts"
import { HASH_ALGORITHMS } from "../formats/hash-algorithms.ts"
import { toHex } from "../formats/hex.ts"
import { fieldBytes, fileDigest, type MeasurementList } from "../formats/ima/measurement-list.ts"
import { CONTENT_NAMES } from "../formats/ima/template.ts"
import { type ImaKey, verifyFileSignature } from "../verify/ima-signature.ts"

/** Signatures that may fail before no more are looked at, so that a hostile VM cannot keep the verifier busy. */
const MAX_REFUSED = 1000
const MAX_KNOWN = 100_000

/** Accepts entries whose file a trusted key has signed. */
export class SignedFiles {
  /** Entries accepted. */
  accepted = 0
  readonly #keys: readonly ImaKey[]
  /** Digest and signature of what was accepted: a file that ran twice is verified once, as long as there are not too many. */
  readonly #known = new Set<string>()
  #refused = 0

  constructor(keys: readonly ImaKey[]) {
    this.#keys = keys
  }

  /** Whether the entry's own signature, by a trusted key, is over its digest. */
  accept(list: MeasurementList, index: number): boolean {
    if (this.#keys.length === 0 || this.#refused >= MAX_REFUSED) return false
    const signature = this.#signature(list, index)
    if (signature === null) return false
    const key = `${toHex(fileDigest(list, index))}:${toHex(signature)}`
    if (!this.#known.has(key)) {
      if (this.#refusal(list, index, signature) !== null) {
        this.#refused += 1
        return false
      }
      if (this.#known.size < MAX_KNOWN) this.#known.add(key)
    }
    this.accepted += 1
    return true
  }

  /** Why an entry's signature does not count; null where nobody asked, or it has none. */
  whyNot(list: MeasurementList, index: number): string | null {
    const signature = this.#keys.length === 0 ? null : this.#signature(list, index)
    return signature === null ? null : this.#refusal(list, index, signature)
  }

  #signature(list: MeasurementList, index: number): Uint8Array | null {
    const signature = fieldBytes(list, index, "sig")
    return signature === null || signature.length === 0 ? null : signature
  }

  #refusal(list: MeasurementList, index: number, signature: Uint8Array): string | null {
    const measured = {
      algorithm: HASH_ALGORITHMS[list.algorithm[index] ?? 0]?.name ?? "",
      digest: fileDigest(list, index),
      content: CONTENT_NAMES[list.content[index] ?? 0] ?? "file",
    }
    try {
      verifyFileSignature(signature, measured, this.#keys)
      return null
    } catch (error) {
      if (error instanceof CodedError) return error.message
      throw error
    }
  }
}
