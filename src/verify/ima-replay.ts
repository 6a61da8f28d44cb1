import { VerifyError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { isViolation, type MeasurementList, measurementEntry } from "../formats/ima/measurement-list.ts"
import { MAX_IMA_NAME, TEMPLATE_DIGEST_BYTES } from "../formats/ima/template.ts"
import { printable } from "../formats/path-text.ts"
import type { HashName } from "../formats/tpm/algorithms.ts"

/** PCR that IMA extends unless the kernel was built otherwise (CONFIG_IMA_MEASURE_PCR_IDX). */
export const IMA_PCR = 10

/** A hash without state that writes into a buffer that is there. */
interface Hash {
  readonly size: number
  readonly into: (data: Uint8Array, out: Uint8Array) => unknown
}

const HASHES: Readonly<Record<HashName, Hash>> = {
  sha1: { size: 20, into: (data, out) => Bun.SHA1.hash(data, out) },
  sha256: { size: 32, into: (data, out) => Bun.SHA256.hash(data, out) },
  sha384: { size: 48, into: (data, out) => Bun.SHA384.hash(data, out) },
  sha512: { size: 64, into: (data, out) => Bun.SHA512.hash(data, out) },
}

/** Banks that can be replayed. */
export const BANKS = ["sha1", "sha256", "sha384", "sha512"] as const satisfies readonly HashName[]

/**
 * A PCR as entry after entry extends it, from zeros. Each entry's template digest is recomputed from its data. A violation
 * extends every bank with ones.
 * Source: Linux 6.12, security/integrity/ima/ima_queue.c (ima_add_template_entry) and ima_init.c.
 */
export class PcrReplay {
  /** The PCR now: a view of what the next entry changes. */
  readonly value: Uint8Array
  readonly #bank: Hash
  readonly #padded: boolean
  /** PCR, then the digest that extends it: what a TPM hashes on an extend. */
  readonly #extended: Uint8Array
  readonly #digest: Uint8Array
  /** Of an entry, in the size that the list has. Not a view for each of a million entries. */
  #stored = Buffer.alloc(TEMPLATE_DIGEST_BYTES)
  readonly #sha1 = new Uint8Array(TEMPLATE_DIGEST_BYTES)
  readonly #oldTemplate = new Uint8Array(TEMPLATE_DIGEST_BYTES + MAX_IMA_NAME + 1)

  /** @param padded as kernels before 5.8 do it: each bank is extended with the SHA-1 digest, filled up with zeros. */
  constructor(bank: HashName, padded = false) {
    this.#bank = HASHES[bank]
    this.#padded = padded
    const { size } = this.#bank
    this.#extended = new Uint8Array(2 * size)
    this.value = this.#extended.subarray(0, size)
    this.#digest = this.#extended.subarray(size)
  }

  /** @throws VerifyError ERR_IMA_TEMPLATE_DIGEST. @param first index of the list's first entry, for messages. */
  extend(list: MeasurementList, index: number, first = 0): void {
    if (isViolation(list, index)) this.#digest.fill(0xff)
    else {
      const data = hashedData(list, index, this.#oldTemplate)
      const stored = this.#check(list, index, first, data)
      if (this.#padded) this.#digest.fill(0).set(this.#shortDigest(data))
      else if (stored.length === this.#digest.length) this.#digest.set(stored)
      else this.#bank.into(data, this.#digest)
    }
    this.#bank.into(this.#extended, this.value)
  }

  #shortDigest(data: Uint8Array): Uint8Array {
    HASHES.sha1.into(data, this.#sha1)
    return this.#sha1
  }

  /** The entry's template digest, computed from its data and found to be the stored one. */
  #check(list: MeasurementList, index: number, first: number, data: Uint8Array): Uint8Array {
    if (this.#stored.length !== list.templateDigestBytes)
      this.#stored = Buffer.alloc(list.templateDigestBytes)
    const computed = this.#stored
    digestOfSize(list.templateDigestBytes).into(data, computed)
    const at = list.templateDigestAt[index] ?? 0
    if (computed.compare(list.bytes, at, at + computed.length) !== 0)
      throw wrongDigest(list, index, first, computed)
    return computed
  }
}

function digestOfSize(size: number): Hash {
  switch (size) {
    case 32:
      return HASHES.sha256
    case 48:
      return HASHES.sha384
    case 64:
      return HASHES.sha512
    default:
      return HASHES.sha1
  }
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

function wrongDigest(
  list: MeasurementList,
  index: number,
  first: number,
  computed: Uint8Array,
): VerifyError<"ERR_IMA_TEMPLATE_DIGEST"> {
  return new VerifyError("ERR_IMA_TEMPLATE_DIGEST", {
    at: entryPlace(list, index, first),
    expected: toHex(computed),
    found: toHex(measurementEntry(list, index).templateDigest),
    hint: "the list was edited after the kernel wrote it: do not trust it",
  })
}

/** Where an entry stands, for messages. */
export function entryPlace(list: MeasurementList, index: number, first = 0): string {
  return `measurement list, entry ${first + index} (${printable(measurementEntry(list, index).path)})`
}

/** All PCRs that the entries of a list extend. There is nearly always one, PCR 10; rules of the policy may name others. */
export class PcrReplays {
  readonly #bank: HashName
  readonly #padded: boolean
  readonly #replays: Map<number, PcrReplay>

  /** @param padded as in {@link PcrReplay}. */
  constructor(bank: HashName, padded: boolean) {
    this.#bank = bank
    this.#padded = padded
    this.#replays = new Map([[IMA_PCR, new PcrReplay(bank, padded)]])
  }

  /** @throws VerifyError ERR_IMA_TEMPLATE_DIGEST, ERR_IMA_PCR */
  extend(list: MeasurementList, index: number, first: number): void {
    const pcr = list.pcr[index] ?? 0
    let replay = this.#replays.get(pcr)
    if (replay === undefined) {
      if (pcr > LAST_PCR)
        throw new VerifyError("ERR_IMA_PCR", {
          at: entryPlace(list, index, first),
          expected: `a PCR from 0 to ${LAST_PCR}`,
          found: `${pcr}`,
        })
      replay = new PcrReplay(this.#bank, this.#padded)
      this.#replays.set(pcr, replay)
    }
    replay.extend(list, index, first)
  }

  /** Whether each PCR now has the value given for it. A PCR without a given one does not. */
  equal(expected: ReadonlyMap<number, Uint8Array>): boolean {
    for (const [pcr, { value }] of this.#replays) {
      const other = expected.get(pcr)
      if (other === undefined || !same(value, other)) return false
    }
    return true
  }

  /** PCRs with their values, by number. */
  values(): (readonly [pcr: number, value: Uint8Array])[] {
    return [...this.#replays].map(([pcr, { value }]) => [pcr, value] as const).sort(([a], [b]) => a - b)
  }
}

/** Of a TPM for PCs. */
const LAST_PCR = 23

/** Compared after each entry, so without a call into native code. */
export function same(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false
  return true
}
