import { createHash } from "node:crypto"
import { CodedError, UsageError } from "../errors.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { verifyAuthorityItself } from "../verify/certificate-chain.ts"
import type { NitroAnchor } from "../verify/nitro-tpm.ts"

/**
 * SHA-256 of the DER of the certificates that AWS's Nitro attestation documents may rest on: "aws.nitro-enclaves", G1, for the
 * commercial partition. Other partitions have others, which AWS gives to their users.
 * Source: Amazon EC2 User Guide, "Validate a NitroTPM Attestation Document", section "Attestation Document validation".
 */
export const AWS_NITRO_ROOTS: ReadonlySet<string> = new Set([
  "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b",
])

/** The same, as what a verification rests on unless the user names another root. */
export const NITRO_ANCHORS: readonly NitroAnchor[] = [...AWS_NITRO_ROOTS].map((fingerprint) => ({
  fingerprint,
  simulated: false,
}))

const ROOT_NAME = "aws.nitro-enclaves"

/** Whether a root of that common name is one for {@link nitroAnchorFromDer}. */
export function isNitroRootName(name: string): boolean {
  return name === ROOT_NAME || name.endsWith(` ${ROOT_NAME}`)
}

/**
 * The anchor of `--trust-root FILE`: a self-signed certificate. Whatever it says, what rests on it counts as simulated, unless it is
 * AWS's own.
 * @throws UsageError ERR_TRUST_ROOT
 */
export function nitroAnchorFromDer(der: Uint8Array): NitroAnchor {
  try {
    verifyAuthorityItself(parseCertificate(der))
  } catch (cause) {
    if (!(cause instanceof CodedError)) throw cause
    throw new UsageError("ERR_TRUST_ROOT", {
      at: "trust root",
      expected: `a root certificate named ${ROOT_NAME}`,
      found: cause.message,
      cause,
    })
  }
  const fingerprint = createHash("sha256").update(der).digest("hex")
  return { fingerprint, simulated: !AWS_NITRO_ROOTS.has(fingerprint) }
}
