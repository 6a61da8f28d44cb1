import { createHash } from "node:crypto"
import { NativeError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import type { HeaderReference, HeaderReferenceName } from "./ports.ts"
import * as commands from "./tpm-commands.ts"
import { withStorageKey } from "./tpm-sealing.ts"
import * as sessions from "./tpm-session-commands.ts"

/**
 * The TPM's memory of a volume's header: one NV index of the owner's per volume.
 *
 * Anybody with access to the TPM may read it. With PCRs, it may only be written by a system that booted as the writer did:
 * another system that the machine was made to boot can delete the index and define one of its own, but cannot write it
 * under our policy, and an index with another policy is not believed. Without PCRs it is as good as the access to the TPM.
 */

/**
 * NV indexes of the owner's: 0x01800000 to 0x01bfffff. A volume has the one that its name's hash points to.
 * Source: TCG Registry of Reserved TPM 2.0 Handles and Localities, version 1.1, section 2.2.2.
 */
const FIRST_INDEX = 0x01800000
const INDEX_MASK = 0x3fffff
const NAME_PREFIX = "cosmian-vm/header-reference/v1\0"

/** Content: magic with version (8), SHA-256 of the volume's name, of the header, of the next header or zeros. */
const MAGIC = Uint8Array.from(Buffer.from("CVMHDR\0\x01", "latin1"))
const DIGEST = 32
const SIZE = MAGIC.length + 3 * DIGEST

const READABLE = commands.NV.ownerRead + commands.NV.authRead + commands.NV.noDictionaryAttack

/** @throws as HeaderReferences.read */
export function readReference(
  transceive: commands.Transceive,
  name: HeaderReferenceName,
): HeaderReference | null {
  const index = indexOf(name.volume)
  const found = commands.readNvPublic(transceive, index)
  if (found === null) return null
  if (!isDefinedAs(definitionOf(transceive, name), found))
    throw new NativeError("ERR_HEADER_REFERENCE", {
      at: place(name.volume),
      expected:
        name.pcrs.length === 0
          ? "an index of ours"
          : `one that a system with these PCRs wrote: ${name.pcrs.join(", ")}`,
      found: `attributes 0x${found.attributes.toString(16)}, policy ${shortHex(found.authPolicy) || "none"}, ${found.dataSize} bytes`,
      hint: "after an update that you meant: open the volume by its password, and have the header remembered anew",
    })
  // Defined, and then the power went: nothing was remembered.
  if ((found.attributes & commands.NV.written) === 0) return null
  return decode(name.volume, commands.readNv(transceive, index, index, SIZE, 0))
}

export interface WriteReferenceRequest {
  readonly name: HeaderReferenceName
  readonly reference: HeaderReference
}

/** @throws as HeaderReferences.write */
export function writeReference(
  transceive: commands.Transceive,
  { name, reference }: WriteReferenceRequest,
): void {
  const found = commands.readNvPublic(transceive, indexOf(name.volume))
  const wanted = definitionOf(transceive, name)
  const content = encode(name.volume, reference)
  if (found !== null && isDefinedAs(wanted, found)) {
    writeContent(transceive, found, name, content)
    return
  }
  if (found !== null) removeOwn(transceive, name.volume, found)
  commands.defineNv(transceive, wanted)
  writeContent(transceive, wanted, name, content)
}

/** @throws as HeaderReferences.remove */
export function removeReference(transceive: commands.Transceive, volume: string): void {
  const found = commands.readNvPublic(transceive, indexOf(volume))
  if (found !== null) removeOwn(transceive, volume, found)
}

/** @throws as HeaderReferences.removeUnwritten */
export function removeUnwritten(transceive: commands.Transceive, volume: string): void {
  const found = commands.readNvPublic(transceive, indexOf(volume))
  if (found !== null && isOurKind(found) && (found.attributes & commands.NV.written) === 0)
    commands.undefineNv(transceive, found.nvIndex)
}

function indexOf(volume: string): number {
  const hash = createHash("sha256").update(NAME_PREFIX).update(volume).digest()
  return FIRST_INDEX + (hash.readUInt32BE(0) & INDEX_MASK)
}

function place(volume: string): string {
  return `NV index 0x${indexOf(volume).toString(16)} of volume ${volume}`
}

/** How the index has to be defined, with the PCRs as they are now. */
function definitionOf(
  transceive: commands.Transceive,
  { volume, pcrs }: HeaderReferenceName,
): commands.NvPublic {
  const policy = policyOf(pcrs)
  const authPolicy =
    pcrs.length === 0
      ? new Uint8Array(0)
      : withStorageKey(transceive, (key) => sessions.policyDigest(transceive, key, policy))
  return {
    nvIndex: indexOf(volume),
    nameAlg: ALG.sha256,
    attributes: READABLE + (pcrs.length === 0 ? commands.NV.authWrite : commands.NV.policyWrite),
    authPolicy,
    dataSize: SIZE,
  }
}

function policyOf(pcrs: readonly number[]): sessions.Policy {
  return { bank: ALG.sha256, pcrs, authValue: false }
}

/** Equal in everything but whether it was written. */
function isDefinedAs(wanted: commands.NvPublic, found: commands.NvPublic): boolean {
  return (
    found.nameAlg === wanted.nameAlg &&
    withoutWritten(found.attributes) === wanted.attributes &&
    bytesEqual(found.authPolicy, wanted.authPolicy) &&
    found.dataSize === wanted.dataSize
  )
}

function withoutWritten(attributes: number): number {
  return (attributes & commands.NV.written) === 0 ? attributes : attributes - commands.NV.written
}

function writeContent(
  transceive: commands.Transceive,
  index: commands.NvPublic,
  { pcrs }: HeaderReferenceName,
  content: Uint8Array,
): void {
  const { nvIndex } = index
  if (pcrs.length === 0) {
    commands.writeNv(transceive, nvIndex, nvIndex, content, 0)
    return
  }
  const name = commands.nvName(index)
  withStorageKey(transceive, (key) =>
    sessions.withSession(transceive, key, "policy", (session) => {
      sessions.meetPolicy(transceive, session, policyOf(pcrs))
      commands.writeNv(transceive, nvIndex, nvIndex, content, 0, {
        session,
        names: [name, name],
        authValue: new Uint8Array(0),
        proves: "policy",
        encrypts: { command: false, response: false },
      })
    }),
  )
}

/** Takes an index away that is in our place: another's, or another volume's, is left alone. */
function removeOwn(transceive: commands.Transceive, volume: string, found: commands.NvPublic): void {
  const { nvIndex, attributes, dataSize } = found
  const written = (attributes & commands.NV.written) !== 0
  const ours =
    isOurKind(found) && (!written || isOf(volume, commands.readNv(transceive, nvIndex, nvIndex, SIZE, 0)))
  if (!ours)
    throw new NativeError("ERR_TPM_HANDLE_TAKEN", {
      at: place(volume),
      expected: "no index, or this volume's",
      found: `${dataSize} bytes, attributes 0x${attributes.toString(16)}`,
      hint: `find out whose it is; if nobody's: tpm2_nvundefine 0x${nvIndex.toString(16)}`,
    })
  commands.undefineNv(transceive, nvIndex)
}

function isOurKind({ attributes, dataSize }: commands.NvPublic): boolean {
  const kinds = [READABLE + commands.NV.authWrite, READABLE + commands.NV.policyWrite]
  return dataSize === SIZE && kinds.includes(withoutWritten(attributes))
}

function volumeDigest(volume: string): Uint8Array {
  return new Uint8Array(createHash("sha256").update(volume).digest())
}

function encode(volume: string, { current, next }: HeaderReference): Uint8Array {
  if (current.length !== DIGEST || (next !== null && next.length !== DIGEST))
    throw new NativeError("ERR_TOO_LARGE", {
      at: "header reference",
      expected: "SHA-256 digests",
      found: "others",
    })
  return new Uint8Array(Buffer.concat([MAGIC, volumeDigest(volume), current, next ?? new Uint8Array(DIGEST)]))
}

function isOf(volume: string, content: Uint8Array): boolean {
  const head = new Uint8Array(Buffer.concat([MAGIC, volumeDigest(volume)]))
  return bytesEqual(content.subarray(0, head.length), head)
}

function decode(volume: string, content: Uint8Array): HeaderReference {
  if (content.length !== SIZE || !isOf(volume, content))
    throw new NativeError("ERR_HEADER_REFERENCE", {
      at: place(volume),
      expected: "a reference of this volume",
      found: shortHex(content),
      hint: "another volume, or other software, uses this index: give the volume another name",
    })
  const start = MAGIC.length + DIGEST
  const next = content.slice(start + DIGEST)
  return {
    current: content.slice(start, start + DIGEST),
    next: next.every((byte) => byte === 0) ? null : next,
  }
}
