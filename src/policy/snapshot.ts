import type { FileHashes } from "./file-hashes.ts"

/**
 * The reference values of one VM, taken once by the administrator: the JSON file `cosmian_vm.snapshot`.
 * Member names are those of the file. Format 1 is the predecessor's: the first four members only.
 * Format 2 adds members beside these and changes none.
 */
export interface Snapshot {
  /** 1 where the file names no format. */
  readonly format: 1 | 2
  readonly cloud_type: "AWS" | "Azure" | "GCP" | null
  /** Null where the VM has no TEE. */
  readonly tee_policy: TeePolicy | null
  /** Null where the VM has no TPM. */
  readonly tpm_policy: TpmPolicy | null
  /** Reference values of files. Null where there are none: then no file is known. */
  readonly filehashes: FileHashes | null
  /** ISO 8601. Null in format 1, like all that follow. */
  readonly taken_at: string | null
  readonly agent_version: string | null
  readonly host: string | null
  /** Algorithm of every digest in `filehashes`: `sha256`, `sha1`, … In format 1 the digest's length tells. */
  readonly hash_algorithm: string | null
  readonly tee_reference: TeeReference | null
  readonly tpm_reference: TpmReference | null
  readonly ima_reference: ImaReference | null
  /** Files that could not be hashed, each with the reason (`EACCES`). Empty in format 1. */
  readonly unreadable: readonly (readonly [path: string, reason: string])[]
}

export type TeePolicy =
  | { readonly Sev: SevPolicy }
  | { readonly Tdx: Readonly<Record<string, unknown>> }
  | { readonly Sgx: Readonly<Record<string, unknown>> }

/** Fields of the SNP report that stay equal. Digests and identifiers in hex; null: not fixed. */
export interface SevPolicy {
  /** 48 bytes. */
  readonly measurement: string | null
  /** 64 bytes; belongs to one nonce, so it is null in new snapshots and ignored in old ones. */
  readonly report_data: string | null
  /** 16 bytes. */
  readonly family_id: string | null
  /** 16 bytes. */
  readonly image_id: string | null
  readonly guest_svn: number | null
  /** 48 bytes. */
  readonly id_key_digest: string | null
  /** 48 bytes. */
  readonly author_key_digest: string | null
  /** Guest policy as an integer. */
  readonly policy: number | null
  /** 32 bytes; changes with each start of the VM. */
  readonly report_id: string | null
  /** 32 bytes. */
  readonly report_id_ma: string | null
}

export interface TpmPolicy {
  readonly reset_count: number
  readonly restart_count: number
}

/** What the predecessor's file has no place for. TCBs by component name of the product's layout. */
export interface TeeReference {
  readonly product: string
  readonly vmpl: number
  /** 32 bytes, hex. */
  readonly host_data: string
  readonly platform_info?: number
  readonly reported_tcb: Readonly<Record<string, number>>
  readonly committed_tcb: Readonly<Record<string, number>>
  readonly launch_tcb: Readonly<Record<string, number>>
}

export interface TpmReference {
  /** TPM Name of the AK, hex. */
  readonly ak_name: string
  /** SHA-256 bank, by PCR number: "0" to "9" and "11" to "15"; hex. PCR 10 moves and is not here. */
  readonly pcrs: Readonly<Record<string, string>>
}

export interface ImaReference {
  /** Template of the measurement list: `ima-ng`. */
  readonly template: string
  /** `algorithm:hex` of the list's first entry. */
  readonly boot_aggregate: string
}
