import { createHash } from "node:crypto"
import { type CodedError, VerifyError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { type LuksHeader, MAX_LUKS_IMAGE, parseLuksHeader } from "../formats/luks/header.ts"
import { type MemoryFile, memoryFile, readBounded } from "../native/memory-file.ts"
import type { HeaderReference, HeaderReferenceName, HeaderReferences } from "../native/ports.ts"
import { appraiseLuksHeader, DEFAULT_LUKS_POLICY, type LuksPolicy } from "../policy/luks-header.ts"
import type { Finding } from "../policy/verdict.ts"

/**
 * A LUKS header that was read once, checked, and is held in memory: what is handed to cryptsetup is what was checked, and
 * the disk is not read again.
 */
export interface TrustedHeader {
  readonly header: LuksHeader
  /** The bytes that were checked. */
  readonly bytes: Uint8Array
  /** SHA-256 of them. */
  readonly digest: Uint8Array
  /**
   * Whether the TPM knows it. `current`; `before` and `after`: the one or the other header of a change that was interrupted,
   * to be settled; `absent`: the TPM remembers nothing; `unchecked`: no TPM was given.
   */
  readonly reference: "current" | "before" | "after" | "absent" | "unchecked"
  /**
   * The bytes as a sealed memory file, to be passed as a child's descriptor N with `--header /proc/self/fd/N`. The caller
   * closes it.
   */
  file(): Promise<MemoryFile>
}

export interface TrustOptions {
  readonly policy?: LuksPolicy
  /** Where the TPM remembers the header; null: there is no TPM, or it is not asked, by the user's choice. */
  readonly reference: { readonly store: HeaderReferences; readonly name: HeaderReferenceName } | null
  /** What is done when the TPM remembers nothing of the volume: taken as an error unless `accept`. */
  readonly absent: "refuse" | "accept"
}

/**
 * Reads the header at `path`, checks it by the allow-list and against the TPM's memory.
 * @throws NativeError ERR_IO, ERR_TOO_LARGE, ERR_HEADER_REFERENCE. @throws ParseError as parseLuksHeader.
 * @throws VerifyError the code of the first finding of appraiseLuksHeader; ERR_HEADER_CHANGED; ERR_HEADER_REFERENCE_ABSENT
 */
export async function openTrustedHeader(path: string, options: TrustOptions): Promise<TrustedHeader> {
  return trustHeader(readBounded(path, MAX_LUKS_IMAGE), path, options)
}

/** The same for bytes that were read already. @param place for messages. @throws as openTrustedHeader */
export async function trustHeader(
  bytes: Uint8Array,
  place: string,
  options: TrustOptions,
): Promise<TrustedHeader> {
  const header = parseLuksHeader(bytes)
  const [first] = appraiseLuksHeader(header, options.policy ?? DEFAULT_LUKS_POLICY)
  if (first !== undefined) throw refused(place, first)
  const digest = headerDigest(bytes)
  const reference = await checkReference(place, digest, options)
  return {
    header,
    bytes,
    digest,
    reference,
    file: () => memoryFile(bytes, { name: "luks-header", sealed: true }),
  }
}

/** What a header is remembered by: SHA-256 of the whole image. */
export function headerDigest(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(bytes).digest())
}

async function checkReference(
  place: string,
  digest: Uint8Array,
  { reference, absent }: TrustOptions,
): Promise<TrustedHeader["reference"]> {
  if (reference === null) return "unchecked"
  const remembered = await reference.store.read(reference.name)
  if (remembered === null) {
    if (absent === "accept") return "absent"
    throw new VerifyError("ERR_HEADER_REFERENCE_ABSENT", {
      at: place,
      hint: "another TPM, or a volume of older software: look at the header yourself before you accept it",
    })
  }
  return match(place, digest, remembered)
}

function match(
  place: string,
  digest: Uint8Array,
  { current, next }: HeaderReference,
): "current" | "before" | "after" {
  if (bytesEqual(digest, current)) return next === null ? "current" : "before"
  if (next !== null && bytesEqual(digest, next)) return "after"
  throw new VerifyError("ERR_HEADER_CHANGED", {
    at: place,
    expected: `SHA-256 ${shortHex(current)}`,
    found: shortHex(digest),
    hint: "somebody else wrote the header, or an old one was put back: restore your backup of the latest",
  })
}

function refused(place: string, finding: Finding): CodedError {
  return new VerifyError(finding.code, {
    at: `${place}, ${finding.subject}`,
    ...(finding.expected === undefined ? {} : { expected: finding.expected }),
    ...(finding.found === undefined ? {} : { found: finding.found }),
    hint: finding.remedy,
  })
}
