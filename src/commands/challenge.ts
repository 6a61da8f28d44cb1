import { randomBytes } from "node:crypto"
import type { AgentClient } from "../client/agent-client.ts"
import { makeCredential } from "../client/make-credential.ts"
import { CodedError } from "../errors.ts"
import type { Evidence, TpmEvidence } from "../formats/evidence.ts"
import { credentialProof } from "../formats/tpm/credential.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import { type TpmAuthorities, verifyEkCertificate } from "../verify/tpm-certificate.ts"
import type { CredentialAnswer } from "../verify/tpm-credential.ts"

/**
 * Asks the VM's TPM to show that it holds the attestation key of this evidence, over the connection that the evidence came over.
 * Nothing is asked of a TPM whose certificate does not verify, nor where the VM shows none: judging says so. An endorsement key that
 * the user knows needs no certificate.
 * @returns the answer, or what went wrong; null where there is nothing to ask.
 */
export async function challengeTpm(
  client: AgentClient,
  { tpm }: Evidence,
  by: { readonly tpmAuthorities: TpmAuthorities | null; readonly endorsementKey: Uint8Array | null },
): Promise<CredentialAnswer | CodedError | null> {
  if (tpm === null) return null
  try {
    const ekSpki = by.endorsementKey ?? certifiedKey(tpm, by.tpmAuthorities)
    if (ekSpki === null) return null
    const akName = tpmName(parsePublic(tpm.akPublic))
    const secret = Uint8Array.from(randomBytes(32))
    const made = makeCredential(ekSpki, akName, secret)
    const returned = await client.activateCredential(ekSpki, made)
    return {
      ekSpki,
      akName,
      expected: credentialProof(secret, client.channel.spki),
      returned,
    }
  } catch (error) {
    if (error instanceof CodedError && error.code !== "ERR_INTERRUPTED") return error
    throw error
  }
}

function certifiedKey(
  { ekCertificate, certificates = [] }: TpmEvidence,
  authorities: TpmAuthorities | null,
): Uint8Array | null {
  if (authorities === null || ekCertificate === null) return null
  return verifyEkCertificate(ekCertificate, certificates, authorities, new Date()).certificate.spki
}
