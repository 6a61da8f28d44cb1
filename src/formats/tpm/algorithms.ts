/**
 * Algorithm identifiers that this product knows.
 * Source: TCG Algorithm Registry, revision 1.32, table "TPM_ALG_ID".
 */
export const ALG = {
  rsa: 0x0001,
  sha1: 0x0004,
  aes: 0x0006,
  keyedHash: 0x0008,
  sha256: 0x000b,
  sha384: 0x000c,
  sha512: 0x000d,
  null: 0x0010,
  rsassa: 0x0014,
  rsaes: 0x0015,
  rsapss: 0x0016,
  oaep: 0x0017,
  ecdsa: 0x0018,
  ecdh: 0x0019,
  ecc: 0x0023,
  cfb: 0x0043,
} as const

/** Source: TCG Algorithm Registry, revision 1.32, table "TPM_ECC_CURVE". */
export const CURVE = { p256: 0x0003, p384: 0x0004 } as const

/** Names of the hash algorithms, as node:crypto and IMA write them, by identifier. */
const HASHES: Readonly<Record<number, HashName>> = {
  [ALG.sha1]: "sha1",
  [ALG.sha256]: "sha256",
  [ALG.sha384]: "sha384",
  [ALG.sha512]: "sha512",
}
export type HashName = "sha1" | "sha256" | "sha384" | "sha512"

/** The hash algorithm with this identifier, or null where it is none that we know. */
export function hashName(algorithm: number): HashName | null {
  return HASHES[algorithm] ?? null
}

/** An identifier for people: `sha256`, or its number where it has no name here. */
export function algorithmText(algorithm: number): string {
  const known = Object.entries(ALG).find(([, value]) => value === algorithm)
  return known === undefined ? `0x${algorithm.toString(16).padStart(4, "0")}` : known[0]
}
