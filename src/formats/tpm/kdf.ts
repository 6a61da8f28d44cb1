import { createHash, createHmac } from "node:crypto"
import type { HashName } from "./algorithms.ts"

/** Longest key that is derived here: 512 bits. */
const MAX_BYTES = 64

/**
 * KDFa: derives a key from a key. Source: TPM 2.0 Part 1, rev. 1.59, section "KDFa()".
 * @param label without the terminating zero, which is added. @param bits a multiple of 8, at most 512.
 */
export function kdfa(
  hash: HashName,
  key: Uint8Array,
  label: string,
  contextU: Uint8Array,
  contextV: Uint8Array,
  bits: number,
): Uint8Array {
  return blocks(bits, (counter) =>
    createHmac(hash, key)
      .update(counter)
      .update(`${label}\0`)
      .update(contextU)
      .update(contextV)
      .update(u32(bits))
      .digest(),
  )
}

/**
 * KDFe: derives a key from a shared point. Source: TPM 2.0 Part 1, rev. 1.59, section "KDFe for ECDH".
 * @param z x coordinate of the point, as long as the curve's field. @param partyU, @param partyV x coordinates of both keys.
 * @param label, @param bits as for KDFa.
 */
export function kdfe(
  hash: HashName,
  z: Uint8Array,
  label: string,
  partyU: Uint8Array,
  partyV: Uint8Array,
  bits: number,
): Uint8Array {
  return blocks(bits, (counter) =>
    createHash(hash).update(counter).update(z).update(`${label}\0`).update(partyU).update(partyV).digest(),
  )
}

function blocks(bits: number, block: (counter: Uint8Array) => Uint8Array): Uint8Array {
  const size = Math.min(bits / 8, MAX_BYTES)
  const parts: Uint8Array[] = []
  for (let counter = 1, made = 0; made < size; counter++) {
    const part = block(u32(counter))
    parts.push(part)
    made += part.length
  }
  return new Uint8Array(Buffer.concat(parts).subarray(0, size))
}

function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff)
}
