import type { OneOf } from "./attestation-policy.ts"

/**
 * What an administrator expects of the events that firmware and boot loader measured: `[boot]` of a policy. Only events of
 * registers that the log gives exactly are counted, so each requirement asks for the log by itself.
 */
export interface BootExpectations {
  /** UEFI Secure Boot has to have been on. */
  readonly secureBoot: boolean
  /**
   * SHA-256 of certificates, 32 bytes each: everything that Secure Boot let start has to have been vouched for by one of them.
   * Implies `secureBoot`. Null: not compared.
   */
  readonly authorities: OneOf
  /** SHA-256 of certificates: the firmware's list of signers (db) may hold these and nothing else. Null: not compared. */
  readonly db: OneOf
  readonly commandLine: CommandLineExpectations
}

/** Of the kernel's command line, word by word; `*` stands for any text, `?` for one character. */
export interface CommandLineExpectations {
  /** Each has to fit a word, and every word of the same name. */
  readonly required: readonly string[]
  /** None may fit a word. */
  readonly forbidden: readonly string[]
  /** Digests of initial RAM disks that the kernel's own measurement of its command line may be followed by. */
  readonly initrds: readonly Uint8Array[]
}
