import { createHash } from "node:crypto"

/** Version 1 of the evidence: everything for one verification, bound together. JSON of `GET /v1/evidence`. */
export interface Evidence {
  /** Absent where the VM has no TEE. */
  readonly tee: TeeEvidence | null
  readonly tpm: TpmEvidence | null
  readonly ima: ImaEvidence | null
}

export interface TeeEvidence {
  readonly kind: "sev-snp"
  /** ATTESTATION_REPORT, 1184 bytes. */
  readonly report: Uint8Array
  /** DER certificates that the agent knows. Hints, never anchors. */
  readonly certificates: readonly Uint8Array[]
}

export interface TpmEvidence {
  /** TPMS_ATTEST of a quote over SHA-256 PCRs 0–15. */
  readonly quote: Uint8Array
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array
  /** TPMT_PUBLIC of the AK. */
  readonly akPublic: Uint8Array
  /** Values of PCRs 0–15, 32 bytes each. */
  readonly pcrs: readonly Uint8Array[]
  /** DER certificates of AK and EK where the platform has them. */
  readonly akCertificate: Uint8Array | null
  readonly ekCertificate: Uint8Array | null
}

export interface ImaEvidence {
  /** Index of the first entry in `list`; 0 unless asked otherwise. */
  readonly from: number
  /** binary_runtime_measurements, read after the quote. */
  readonly list: Uint8Array
}

/** PCRs that an evidence quote covers: 0–15, SHA-256 bank. */
export const EVIDENCE_PCRS: readonly number[] = Array.from({ length: 16 }, (_, index) => index)

/**
 * The 64 bytes of report data that bind a TEE report to nonce, TLS key and AK.
 * @param nonce 32 bytes. @param tlsSpki DER SubjectPublicKeyInfo of the agent's TLS key.
 * @param akName TPM Name of the AK (2 bytes of algorithm, then digest); null where there is no TPM.
 */
export function evidenceReportData(
  nonce: Uint8Array,
  tlsSpki: Uint8Array,
  akName: Uint8Array | null,
): Uint8Array {
  return sha(
    "sha512",
    "cosmian-vm/evidence/v1\0",
    nonce,
    sha("sha256", tlsSpki),
    sha("sha256", akName ?? new Uint8Array(0)),
  )
}

/** The 32 bytes of qualifyingData that bind a TPM quote to nonce, TLS key and TEE report (null: no TEE). */
export function evidenceQualifyingData(
  nonce: Uint8Array,
  tlsSpki: Uint8Array,
  report: Uint8Array | null,
): Uint8Array {
  return sha(
    "sha256",
    "cosmian-vm/quote/v1\0",
    nonce,
    sha("sha256", tlsSpki),
    sha("sha256", report ?? new Uint8Array(0)),
  )
}

function sha(algorithm: "sha256" | "sha512", ...parts: (Uint8Array | string)[]): Uint8Array {
  const hash = createHash(algorithm)
  for (const part of parts) hash.update(part)
  return new Uint8Array(hash.digest())
}
