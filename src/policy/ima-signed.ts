import { createHash } from "node:crypto"
import { CodedError } from "../errors.ts"
import { HASH_ALGORITHMS } from "../formats/hash-algorithms.ts"
import { toHex } from "../formats/hex.ts"
import { fieldBytes, fileDigest, type MeasurementList } from "../formats/ima/measurement-list.ts"
import { type MetadataFields, parseFileMetadata } from "../formats/ima/metadata.ts"
import { KIND_NUMBERS } from "../formats/ima/signature.ts"
import { CONTENT_NAMES, type Content } from "../formats/ima/template.ts"
import { verifyEvmSignature } from "../verify/evm-signature.ts"
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
  /** What was accepted, by all that its signature is over: a file that ran twice is verified once, as long as there are not too many. */
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
      const key = knownBy(signature)
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

  #refusal({ kind, bytes, metadata, ...measured }: Signature): string | null {
    try {
      if (metadata !== null) verifyEvmSignature(bytes, parseFileMetadata(metadata), measured, this.#keys)
      else if (kind === "appended") verifyAppendedSignature(bytes, measured, this.#keys)
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
  /** `security.ima`; appended to the content as modules have it; or `security.evm`. */
  readonly kind: "attribute" | "appended" | "evm"
  readonly bytes: Uint8Array
  readonly algorithm: string
  readonly digest: Uint8Array
  readonly content: Content
  /** What a signature of kind "evm" is over, as the entry has it; null with the others. */
  readonly metadata: MetadataFields | null
}

/** All that an answer rests on, so that it may be given again for the same. */
function knownBy({ kind, algorithm, digest, bytes, content, metadata }: Signature): string {
  const hash = createHash("sha256")
  for (const field of metadata === null ? [] : Object.values(metadata))
    hash.update(`${field?.length ?? "none"}:`).update(field ?? "")
  return [kind, content, algorithm, toHex(digest), toHex(bytes), hash.digest("hex")].join(":")
}

function signaturesOf(list: MeasurementList, index: number): Signature[] {
  const algorithm = HASH_ALGORITHMS[list.algorithm[index] ?? 0]?.name ?? ""
  const content = CONTENT_NAMES[list.content[index] ?? 0] ?? "file"
  const measured = { algorithm, digest: fileDigest(list, index), content }
  const found: Signature[] = []
  const metadata = metadataOf(list, index)
  const attribute = fieldBytes(list, index, "sig") ?? signatureAmong(metadata)
  if (attribute !== null && attribute.length > 0)
    found.push({ kind: "attribute", bytes: attribute, ...measured, metadata: null })
  const appended = appendedSignature(list, index)
  if (appended !== null) found.push(appended)
  const evm = fieldBytes(list, index, "evmsig")
  if (evm !== null && evm.length > 0) found.push({ kind: "evm", bytes: evm, ...measured, metadata })
  return found
}

/** `security.ima` among the attributes, where it is a signature of content or fs-verity digest by itself. Null: it is none, or not there. */
function signatureAmong(metadata: MetadataFields): Uint8Array | null {
  if (metadata.xattrnames === null) return null
  try {
    const { ima } = parseFileMetadata(metadata)
    return ima[0] === KIND_NUMBERS.ima || ima[0] === KIND_NUMBERS.verity ? ima : null
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

function metadataOf(list: MeasurementList, index: number): MetadataFields {
  return {
    xattrnames: fieldBytes(list, index, "xattrnames"),
    xattrlengths: fieldBytes(list, index, "xattrlengths"),
    xattrvalues: fieldBytes(list, index, "xattrvalues"),
    iuid: fieldBytes(list, index, "iuid"),
    igid: fieldBytes(list, index, "igid"),
    imode: fieldBytes(list, index, "imode"),
  }
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
  return {
    kind: "appended",
    bytes,
    algorithm,
    digest: field.subarray(colon + 2),
    content: "file",
    metadata: null,
  }
}

const COLON = 0x3a
