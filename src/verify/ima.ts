import { VerifyError } from "../errors.ts"
import { shortHex, toHex } from "../formats/hex.ts"
import {
  isViolation,
  type MeasurementList,
  measurementEntry,
  prefixOf,
} from "../formats/ima/measurement-list.ts"
import { MAX_IMA_NAME, TEMPLATE_DIGEST_BYTES } from "../formats/ima/template.ts"
import { printable } from "../formats/path-text.ts"
import { markVerified, type Verified } from "./verified.ts"

/** The part of a measurement list that a TPM vouches for. */
export interface QuotedMeasurements {
  /** The quoted entries and no other. */
  readonly list: MeasurementList
  /** Entries that came after the quote: measured while the evidence was collected. They say nothing yet. */
  readonly notYetQuoted: number
}

/** PCR that IMA extends unless the kernel was built otherwise (CONFIG_IMA_MEASURE_PCR_IDX). */
export const IMA_PCR = 10

/**
 * Finds the prefix of the list that gives the quoted PCR 10, recomputing every template digest from the template data.
 * @param quotedPcr10 SHA-256 bank, 32 bytes, from a verified quote (`verifyQuote`).
 * @throws VerifyError ERR_IMA_PCR, ERR_IMA_TEMPLATE_DIGEST, ERR_IMA_REPLAY.
 */
export function verifyMeasurementList(
  list: MeasurementList,
  quotedPcr10: Uint8Array,
): Verified<QuotedMeasurements> {
  const count = quotedPrefix(list, quotedPcr10)
  return markVerified({ list: prefixOf(list, count), notYetQuoted: list.count - count })
}

/** Number of entries after which the SHA-256 bank holds the quoted value. */
function quotedPrefix(list: MeasurementList, quoted: Uint8Array): number {
  // PCR, then the digest that extends it: what a TPM hashes on an extend. Starts at zeros.
  const extended = new Uint8Array(64)
  const pcr = extended.subarray(0, 32)
  const digest = extended.subarray(32, 64)
  const sha1 = new Uint8Array(TEMPLATE_DIGEST_BYTES)
  const oldTemplate = new Uint8Array(TEMPLATE_DIGEST_BYTES + MAX_IMA_NAME + 1)
  for (let index = 0; index < list.count; index++) {
    if (same(pcr, quoted)) return index
    if (list.pcr[index] !== IMA_PCR) throw wrongPcr(list, index)
    if (isViolation(list, index)) digest.fill(0xff)
    else {
      const data = hashedData(list, index, oldTemplate)
      Bun.SHA1.hash(data, sha1)
      if (!isStoredDigest(list, index, sha1)) throw wrongDigest(list, index, sha1)
      Bun.SHA256.hash(data, digest)
    }
    Bun.SHA256.hash(extended, pcr)
  }
  if (same(pcr, quoted)) return list.count
  throw new VerifyError("ERR_IMA_REPLAY", {
    at: `measurement list of ${list.count} entries`,
    expected: `PCR 10 ${shortHex(quoted)}`,
    found: `PCR 10 ${shortHex(pcr)} at its end`,
    hint: "an entry was removed, added, changed or moved, or the list is of another boot or machine: do not trust it",
  })
}

/** The bytes that the kernel hashes for an entry: template "ima" pads the path with zeros to 256 bytes. */
function hashedData(list: MeasurementList, index: number, oldTemplate: Uint8Array): Uint8Array {
  const start = list.dataAt[index] ?? 0
  const template = list.templates[list.template[index] ?? 0]
  if (template?.unframed !== true) return list.bytes.subarray(start, list.dataEnd[index])
  oldTemplate.fill(0)
  oldTemplate.set(list.bytes.subarray(start, start + TEMPLATE_DIGEST_BYTES))
  oldTemplate.set(list.bytes.subarray(list.pathAt[index], list.pathEnd[index]), TEMPLATE_DIGEST_BYTES)
  return oldTemplate
}

function isStoredDigest(list: MeasurementList, index: number, digest: Uint8Array): boolean {
  const at = list.templateDigestAt[index] ?? 0
  for (let offset = 0; offset < TEMPLATE_DIGEST_BYTES; offset++)
    if (list.bytes[at + offset] !== digest[offset]) return false
  return true
}

/** Compared after each entry, so without a call into native code. */
function same(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false
  return true
}

function wrongPcr(list: MeasurementList, index: number): VerifyError<"ERR_IMA_PCR"> {
  return new VerifyError("ERR_IMA_PCR", {
    at: entryPlace(list, index),
    expected: `PCR ${IMA_PCR}`,
    found: `PCR ${list.pcr[index]}`,
    hint: "remove pcr= from the rules of the IMA policy: only PCR 10 is quoted and replayed",
  })
}

function wrongDigest(
  list: MeasurementList,
  index: number,
  computed: Uint8Array,
): VerifyError<"ERR_IMA_TEMPLATE_DIGEST"> {
  return new VerifyError("ERR_IMA_TEMPLATE_DIGEST", {
    at: entryPlace(list, index),
    expected: toHex(computed),
    found: toHex(measurementEntry(list, index).templateDigest),
    hint: "the list was edited after the kernel wrote it: do not trust it",
  })
}

function entryPlace(list: MeasurementList, index: number): string {
  return `measurement list, entry ${index} (${printable(measurementEntry(list, index).path)})`
}
