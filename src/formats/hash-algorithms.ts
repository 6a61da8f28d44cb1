/** Hash algorithms by the names the kernel gives them, with digest sizes in bytes. */

export interface HashAlgorithm {
  readonly name: string
  /** Digest size in bytes. */
  readonly size: number
  /** Whether a digest of this algorithm still identifies a file against somebody who makes files on purpose. */
  readonly accepted: boolean
}

/**
 * Source: Linux 6.12, crypto/hash_info.c, `hash_algo_name` and `hash_digest_size`.
 * SHA-1 stays accepted: IMA's default on many kernels, and what the predecessor's snapshots hold.
 */
export const HASH_ALGORITHMS: readonly HashAlgorithm[] = [
  { name: "sha256", size: 32, accepted: true },
  { name: "sha1", size: 20, accepted: true },
  { name: "sha512", size: 64, accepted: true },
  { name: "sha384", size: 48, accepted: true },
  { name: "sha224", size: 28, accepted: true },
  { name: "md5", size: 16, accepted: false },
  { name: "md4", size: 16, accepted: false },
  { name: "rmd128", size: 16, accepted: false },
  { name: "rmd160", size: 20, accepted: false },
  { name: "rmd256", size: 32, accepted: false },
  { name: "rmd320", size: 40, accepted: false },
  { name: "wp256", size: 32, accepted: false },
  { name: "wp384", size: 48, accepted: false },
  { name: "wp512", size: 64, accepted: false },
  { name: "tgr128", size: 16, accepted: false },
  { name: "tgr160", size: 20, accepted: false },
  { name: "tgr192", size: 24, accepted: false },
  { name: "sm3", size: 32, accepted: true },
  { name: "streebog256", size: 32, accepted: true },
  { name: "streebog512", size: 64, accepted: true },
  { name: "sha3-256", size: 32, accepted: true },
  { name: "sha3-384", size: 48, accepted: true },
  { name: "sha3-512", size: 64, accepted: true },
]

/** The algorithm of that name, or null. */
export function hashAlgorithm(name: string): HashAlgorithm | null {
  return HASH_ALGORITHMS.find((algorithm) => algorithm.name === name) ?? null
}

/** The SHA-1 or SHA-2 algorithm with digests of that size, or null: what a bare digest is taken for. */
export function hashAlgorithmOfSize(size: number): HashAlgorithm | null {
  return (
    HASH_ALGORITHMS.find((algorithm) => algorithm.size === size && algorithm.name.startsWith("sha")) ?? null
  )
}
