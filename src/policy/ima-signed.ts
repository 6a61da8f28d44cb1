import { CodedError } from "../errors.ts"
import { HASH_ALGORITHMS } from "../formats/hash-algorithms.ts"
import { toHex } from "../formats/hex.ts"
import { fieldBytes, fileDigest, type MeasurementList } from "../formats/ima/measurement-list.ts"
import { CONTENT_NAMES, type Content } from "../formats/ima/template.ts"
import { verifyAppendedSignature } from "../verify/ima-modsig.ts"
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
    if (this.#keys.length === 0) return false
    for (const signature of signaturesOf(list, index)) {
      if (this.#refused >= MAX_REFUSED) return false
      const key = `${toHex(signature.digest)}:${toHex(signature.bytes)}`
      if (this.#known.has(key) || this.#refusal(signature) === null) {
        if (this.#known.size < MAX_KNOWN) this.#known.add(key)
        this.accepted += 1
        return true
      }
      this.#refused += 1
    }
    return false
  }

  /** Why an entry's signature does not count; null where nobody asked, or it has none. */
  whyNot(list: MeasurementList, index: number): string | null {
    if (this.#keys.length === 0) return null
    const refusals = signaturesOf(list, index).map((signature) => this.#refusal(signature))
    return refusals.length === 0 ? null : refusals.join("; ")
  }

  #refusal({ kind, bytes, ...measured }: Signature): string | null {
    try {
      if (kind === "appended") verifyAppendedSignature(bytes, measured, this.#keys)
      else verifyFileSignature(bytes, measured, this.#keys)
      return null
    } catch (error) {
      if (error instanceof CodedError) return error.message
      throw error
    }
  }
}

/** A signature, with the digest that it has to be over. */
interface Signature {
  /** `security.ima`, or appended to the content as modules have it. */
  readonly kind: "attribute" | "appended"
  readonly bytes: Uint8Array
  readonly algorithm: string
  readonly digest: Uint8Array
  readonly content: Content
}

function signaturesOf(list: MeasurementList, index: number): Signature[] {
  const attribute = fieldBytes(list, index, "sig")
  const algorithm = HASH_ALGORITHMS[list.algorithm[index] ?? 0]?.name ?? ""
  const content = CONTENT_NAMES[list.content[index] ?? 0] ?? "file"
  const digest = fileDigest(list, index)
  const own: Signature[] =
    attribute === null || attribute.length === 0
      ? []
      : [{ kind: "attribute", bytes: attribute, algorithm, digest, content }]
  const appended = appendedSignature(list, index)
  return appended === null ? own : [...own, appended]
}

/**
 * The signature that is appended to a file. Its digest is another than the entry's own, and which fields are the two rests on the
 * template's name, which the TPM does not vouch for: so this one name counts. No other template of the kernel has five fields.
 */
function appendedSignature(list: MeasurementList, index: number): Signature | null {
  if (list.templates[list.template[index] ?? -1]?.name !== "ima-modsig") return null
  const bytes = fieldBytes(list, index, "modsig")
  const field = fieldBytes(list, index, "d-modsig")
  if (bytes === null || field === null || bytes.length === 0 || field.length === 0) return null
  const colon = field.indexOf(COLON)
  const algorithm = Buffer.from(field.subarray(0, colon)).toString("latin1")
  return { kind: "appended", bytes, algorithm, digest: field.subarray(colon + 2), content: "file" }
}

const COLON = 0x3a
