/** What can be chosen. */

/** On the encrypted volume, where there is one. */
export const DEFAULT_WORKSPACE = "/var/lib/cosmian_vm/data/acme"

/** Types of challenge that can be answered here. Source: RFC 8555, section 8; RFC 8737. */
export type ChallengeType = "http-01" | "tls-alpn-01" | "dns-01"
export const CHALLENGE_TYPES: readonly ChallengeType[] = ["http-01", "tls-alpn-01", "dns-01"]

/** Kinds of certificate key. P-256 is what everybody reads, and quick. */
export const KEY_TYPES = ["p256", "p384", "rsa2048", "rsa3072", "rsa4096"] as const
export type KeyType = (typeof KEY_TYPES)[number]

/** Reasons for a revocation that a subscriber gives. Source: RFC 5280, section 5.3.1. */
export const REVOCATION_REASONS = {
  unspecified: 0,
  "key-compromise": 1,
  "affiliation-changed": 3,
  superseded: 4,
  "cessation-of-operation": 5,
} as const
export type RevocationReason = keyof typeof REVOCATION_REASONS
