/**
 * Where things are in the virtual TPM that Azure's paravisor keeps.
 * Source: OpenHCL, tpm_protocol, constants of reserved handles and NV indexes.
 */
export const AZURE_VTPM = {
  /** NV index whose content becomes `user-data` of the next HCL report; the guest defines it. */
  userDataIndex: 0x0140_0002,
  /** NV index of the HCL report; reading it from its start makes a new one, but not more often than every 2 s. */
  hclReportIndex: 0x0140_0001,
  /** Persistent handle of the attestation key: RSA 2048, RSASSA with SHA-256. */
  akHandle: 0x8100_0003,
} as const

/** PCRs that Azure's quotes cover: all, in the SHA-256 bank. */
export const AZURE_QUOTE_PCRS: readonly number[] = Array.from({ length: 24 }, (_, pcr) => pcr)
