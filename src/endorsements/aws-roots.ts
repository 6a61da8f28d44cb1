/**
 * SHA-256 of the DER of the certificates that AWS's Nitro attestation documents may rest on: "aws.nitro-enclaves", G1, for the
 * commercial partition. Other partitions have others, which AWS gives to their users.
 * Source: Amazon EC2 User Guide, "Validate a NitroTPM Attestation Document", section "Attestation Document validation".
 */
export const AWS_NITRO_ROOTS: ReadonlySet<string> = new Set([
  "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b",
])
