import type { OneOf } from "./attestation-policy.ts"

/** A single expected value; null: not compared. */
export function only(value: Uint8Array | null): OneOf {
  return value === null ? null : [value]
}

/** The integer that little-endian bytes stand for. */
export function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n)
}

/** The 8 bytes of an integer, little-endian. */
export function encodeU64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, value, true)
  return bytes
}
