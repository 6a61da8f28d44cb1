/** Interfaces to the machine. Raw bytes out; parsing is for `formats/`. Errors are NativeError. */
import type { SealedSecret } from "../formats/luks/systemd-tpm2-token.ts"

/** A TPM 2.0. Each call is atomic for the caller; calls are queued, none blocks the server's thread. */
export interface Tpm {
  /** `count` random bytes from the TPM, 1 to 1024. */
  random(count: number): Promise<Uint8Array>
  /**
   * Makes the EK and AK persistent where they are not yet, and returns their public areas.
   * EK: TCG ECC P-256 template at 0x81000050. AK: restricted ECDSA P-256/SHA-256 signing key at 0x81000051.
   */
  ensureKeys(): Promise<TpmKeys>
  /**
   * Signs the selected PCRs of the SHA-256 bank under the AK. `qualifyingData`: at most 64 bytes. `keyHandle`: another
   * persistent key that is to sign, by its own scheme.
   */
  quote(request: {
    pcrs: readonly number[]
    qualifyingData: Uint8Array
    keyHandle?: number
  }): Promise<TpmQuote>
  /** Makes a primary key of the endorsement hierarchy persistent where none is there yet, and returns its TPMT_PUBLIC. */
  ensureKey(handle: number, template: Uint8Array): Promise<Uint8Array>
  /**
   * Opens a credential that was made for the AK and an endorsement key (TPM2_ActivateCredential). `ek`: the public key of its
   * certificate. `keyHandle`: as for quotes. Gives the secret.
   */
  activateCredential(request: {
    readonly ek:
      | { readonly type: "rsa"; readonly modulus: Uint8Array }
      | { readonly type: "ecc"; readonly curveId: number; readonly x: Uint8Array; readonly y: Uint8Array }
    readonly idObject: Uint8Array
    readonly encryptedSecret: Uint8Array
    readonly keyHandle?: number
  }): Promise<Uint8Array>
  /** TPMT_PUBLIC of a persistent key, or null where there is none. */
  readPublic(handle: number): Promise<Uint8Array | null>
  /** An NV index's content, or null where it is not defined. */
  readNv(index: number): Promise<Uint8Array | null>
  /** Writes all of an NV index; one that is not defined is made, as the owner's, with the size of `data`. */
  writeNv(index: number, data: Uint8Array): Promise<void>
  /**
   * An attestation document of AWS's NitroTPM over its PCRs and this nonce (up to 64 bytes); null where the TPM is another one.
   */
  nitroDocument(nonce: Uint8Array): Promise<Uint8Array | null>
  /** Releases the transport. */
  close(): Promise<void>
}

export interface TpmKeys {
  /** TPMT_PUBLIC of the endorsement key. */
  readonly ekPublic: Uint8Array
  /** TPMT_PUBLIC of the attestation key. */
  readonly akPublic: Uint8Array
}

export interface TpmQuote {
  /** TPMS_ATTEST: the bytes that were signed. */
  readonly attest: Uint8Array
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array
  /** Values of the quoted PCRs (32 bytes each), in ascending order of PCR; they hash to the quote's pcrDigest. */
  readonly pcrValues: readonly Uint8Array[]
}

/** A secret under a TPM's storage root key, as `systemd-tpm2` tokens hold it. Useless without that very TPM. */
export interface TpmSealing {
  /**
   * Seals 1 to 128 bytes under the storage root key. Commands and answers that carry the secret are encrypted on their
   * way. Nothing stays in the TPM. The caller wipes secret and PIN.
   * @throws NativeError ERR_TOO_LARGE, ERR_TPM_COMMAND, ERR_TPM_SESSION
   */
  seal(request: SealRequest): Promise<SealedSecret>
  /**
   * The secret again, to be wiped after use, as the PIN. `pin`: null where the secret has none.
   * @throws NativeError ERR_SEALED_ELSEWHERE where another TPM sealed it; ERR_SEALED_PCRS where a PCR differs from then;
   *   ERR_SEALED_PIN; ERR_TPM_LOCKOUT after too many wrong PINs; ERR_TPM_SESSION; ERR_UNSUPPORTED for a policy or key that
   *   we do not make nor know
   */
  unseal(sealed: SealedSecret, pin: Uint8Array | null): Promise<Uint8Array>
}

/** What a TPM keeps for encrypted volumes. */
export interface TpmStorage extends TpmSealing {
  readonly headers: HeaderReferences
  /** Values of PCRs of the SHA-256 bank, 32 bytes each, ascending by PCR. */
  pcrs(wanted: readonly number[]): Promise<readonly Uint8Array[]>
  /** Releases the transport. */
  close(): Promise<void>
}

export interface SealRequest {
  readonly secret: Uint8Array
  /** PCRs of the SHA-256 bank, as they are now; none: any boot of this TPM's machine gets the secret. */
  readonly pcrs: readonly number[]
  /** A PIN that is asked for in addition; null for none. Wrong ones are counted by the TPM's lockout. */
  readonly pin: Uint8Array | null
  /**
   * Under which storage root key. `srk` (where absent): the persistent one at 0x81000001, made where it is not there; systemd
   * opens the secret from version 254 on. `systemd-252`: one that systemd 252 makes as well; but it takes part in the TPM's
   * lockout, and a TPM may count power cuts as wrong PINs.
   */
  readonly storageKey?: "srk" | "systemd-252"
}

/**
 * The TPM's memory of which LUKS header belongs to a volume: an NV index. The host that writes the disk cannot reach it
 * where the TPM runs inside the TEE.
 */
export interface HeaderReferences {
  /**
   * What is remembered for the volume of this name, or null where nothing is.
   * @throws NativeError ERR_HEADER_REFERENCE where the index is another's, is of another form, or was not written by a
   *   system that booted as this one did (`pcrs`)
   */
  read(name: HeaderReferenceName): Promise<HeaderReference | null>
  /** Remembers exactly these headers, in place of what was there. */
  write(name: HeaderReferenceName, reference: HeaderReference): Promise<void>
  /** Forgets the volume. Not an error where it was not known. */
  remove(volume: string): Promise<void>
  /** Takes back what a `write` that was cut short left: an index with nothing in it. One that holds something stays. */
  removeUnwritten(volume: string): Promise<void>
}

/** Which reference is meant. Neither part may come from the header: the host writes that. */
export interface HeaderReferenceName {
  /** The volume's name in the configuration. */
  readonly volume: string
  /** PCRs of the SHA-256 bank, whose values allow writing; none: any system that this machine boots may write. */
  readonly pcrs: readonly number[]
}

export interface HeaderReference {
  /** SHA-256 of the header's bytes, as the whole file is. */
  readonly current: Uint8Array
  /**
   * SHA-256 of a header that is about to take its place: written before the file is exchanged, so that being killed in
   * between locks nobody out. Null at rest.
   */
  readonly next: Uint8Array | null
}

/** What a TEE says about itself. */
export interface TeeReport {
  readonly kind: "sev-snp"
  /** ATTESTATION_REPORT, 1184 bytes. */
  readonly report: Uint8Array
  /** Certificates the host gave beside the report (DER). Hints, never anchors. */
  readonly certificates: readonly TeeCertificate[]
}

export interface TeeCertificate {
  readonly name: "ARK" | "ASK" | "ASVK" | "VCEK" | "VLEK" | "CRL" | "other"
  /** GUID of the certificate table entry, lower-case with dashes. */
  readonly guid: string
  readonly der: Uint8Array
}

/** What a trust domain of Intel's says about itself. */
export interface TdxReport {
  readonly kind: "tdx"
  /** TDX quote, as the quoting enclave on the host made it. */
  readonly quote: Uint8Array
}

/** What an Azure VM says about itself, by way of the paravisor in front of it. */
export interface AzureReport {
  readonly kind: "azure-snp" | "azure-tdx"
  /** The HCL report, whose claims hold the report data as `user-data`. */
  readonly hclReport: Uint8Array
  /** Quote over the TDREPORT inside; null for SEV-SNP. */
  readonly tdQuote: Uint8Array | null
  /** Certificates that the metadata service gave for the SEV-SNP report inside. Hints, never anchors. */
  readonly certificates: readonly TeeCertificate[]
  /** Why there are no certificates where there should be some; null where nothing is missing. */
  readonly certificatesMissing: string | null
}

/** What any TEE says about itself, by the way that the machine has. */
export type AnyReport = TeeReport | TdxReport | AzureReport

/** A source of reports: of SEV-SNP, unless its type says otherwise. */
export interface ReportDevice<R = TeeReport> {
  /** Which path answers, for logs: `sev-guest`, `configfs-tsm`, `azure-vtpm`, `simulated`. */
  readonly provider: string
  /** A report over exactly 64 bytes of report data. */
  getReport(reportData: Uint8Array): Promise<R>
}

/** What a derived key depends on beside the chip's secret and the request itself: fields of the report. */
export const DERIVED_KEY_FIELDS = [
  "policy",
  "image-id",
  "family-id",
  "measurement",
  "guest-svn",
  "tcb",
] as const
export type DerivedKeyField = (typeof DERIVED_KEY_FIELDS)[number]

export interface DerivedKeyRequest {
  /** The chip's own secret, or that of the migration agent the VM came with. */
  readonly rootKey: "vcek" | "vmrk"
  /** Another value of one of these gives another key. */
  readonly fields: readonly DerivedKeyField[]
  /** Mixed in where `fields` has `guest-svn`; not above the report's. */
  readonly guestSvn: number
  /** Mixed in where `fields` has `tcb`; not above the report's committed TCB. u64. */
  readonly tcbVersion: bigint
}

/** A TEE that derives keys from a secret which no software sees. */
export interface KeyDerivation {
  readonly provider: string
  /** 32 bytes: the same for the same request of the same VM on the same chip. */
  deriveKey(request: DerivedKeyRequest): Promise<Uint8Array>
}

/** The kernel's IMA measurement list. */
export interface MeasurementListSource {
  /** binary_runtime_measurements. */
  readBinary(): Promise<Uint8Array>
  /** ascii_runtime_measurements. */
  readAscii(): Promise<string>
}

/** What firmware and boot loader measured, as they logged it. Null where there is no such log, or it cannot be read. */
export interface EventLogSource {
  /** A TPM's: binary_bios_measurements. */
  readFirmware(): Promise<Uint8Array | null>
  /** A trust domain's: data of the ACPI table CCEL. */
  readConfidential(): Promise<Uint8Array | null>
  /** What the kernel says that it was started with: /proc/cmdline. Null where it is longer than evidence holds. */
  readCommandLine(): Promise<Uint8Array | null>
}

/** The devices of one machine, handed down from `commands/`. Null where the machine has none. */
export interface Devices {
  readonly tee: ReportDevice<AnyReport> | null
  readonly tpm: Tpm | null
  /** Persistent handle of the attestation key that the platform put into the TPM; absent: the agent makes its own. */
  readonly akHandle?: number
  readonly ima: MeasurementListSource | null
  /** Absent: the machine has no event logs. */
  readonly eventLogs?: EventLogSource
}
