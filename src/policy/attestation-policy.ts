import type { TcbStatus } from "../formats/intel/tcb-info.ts"
import type { SnpProduct, Tcb } from "../formats/snp/tcb.ts"
import type { BootExpectations } from "./boot-expectations.ts"
import { GUEST_POLICY_DEFAULT, type GuestPolicyBounds, type Version, withDebug } from "./guest-policy.ts"
import type { ImaExpectations } from "./ima-expectations.ts"

/** `source` of the policy that is used where none is given. */
export const DEFAULT_SOURCE = "default policy"

/** Values of which one has to be found; null: not compared. An empty list is never made: nothing would fit it. */
export type OneOf = readonly Uint8Array[] | null

/** Stands for a value that has to be there and that nobody filled in: no value of evidence has its size, so nothing fits it. */
export const PLACEHOLDER = Uint8Array.of(0)

export function isPlaceholder(value: Uint8Array): boolean {
  return value.length === 1 && value[0] === 0
}

/**
 * What an administrator expects of a confidential VM, whichever file it was written in: our TOML, Cocos' JSON, or a
 * snapshot. Where a TEE is judged, a part that is null refuses the evidence it is about. Without `tpm` no PCRs are compared,
 * without `boot` no events, and without `ima` the list of files that ran is judged as without a policy.
 */
export interface AttestationPolicy {
  /** What it was read from, for messages: a file's name, or `default policy`. */
  readonly source: string
  readonly snp: SnpExpectations | null
  readonly tdx: TdxExpectations | null
  readonly tpm: TpmExpectations | null
  readonly boot: BootExpectations | null
  readonly ima: ImaExpectations | null
  readonly trust: TrustExpectations
  /** What the file says and what has no effect here, a sentence each. */
  readonly notes: readonly string[]
}

/** Of an SEV-SNP report. Field names are those of AMD 56860. */
export interface SnpExpectations {
  readonly products: readonly ExpectedProduct[] | null
  /** 48 bytes each. */
  readonly measurements: OneOf
  /** 32 bytes each. */
  readonly hostData: OneOf
  /** 16 bytes each. */
  readonly familyIds: OneOf
  /** 16 bytes each. */
  readonly imageIds: OneOf
  /** 64 bytes each. */
  readonly reportData: OneOf
  /** 32 bytes each. */
  readonly reportIds: OneOf
  /** 32 bytes each. */
  readonly reportIdMas: OneOf
  /** 64 bytes, or 8 for Turin. */
  readonly chipIds: OneOf
  /** SHA-384 of keys, or zeros for a launch without one; both lists have to fit. */
  readonly idKeyDigests: OneOf
  readonly authorKeyDigests: OneOf
  readonly signer: LaunchSigner
  /** Null: not compared, and another one than 0 gives a warning. */
  readonly vmpls: readonly number[] | null
  readonly minimumGuestSvn: number
  readonly guestPolicy: GuestPolicyBounds
  readonly platform: PlatformBounds
  readonly firmware: FirmwareFloor
  readonly minimumTcb: TcbFloors
}

export interface ExpectedProduct {
  readonly product: SnpProduct
  /** Stepping of the processor; null: any. */
  readonly stepping: number | null
}

/**
 * Who has to have signed the launch. An ID key counts where it is trusted itself, or where a trusted author key stands
 * behind it. Lists that are not empty are enforced whether or not something is required.
 */
export interface LaunchSigner {
  readonly requireIdBlock: boolean
  /** Implies `requireIdBlock`. */
  readonly requireAuthorKey: boolean
  /** SHA-384 digests, 48 bytes each. */
  readonly trustedIdKeys: readonly Uint8Array[]
  readonly trustedAuthorKeys: readonly Uint8Array[]
}

/** Bits of PLATFORM_INFO (SNP_PLATFORM_INFO), as masks. */
export interface PlatformBounds {
  readonly allowed: bigint
  readonly required: bigint
}

/** Of the platform's firmware, whose version the report names beside the TCB. */
export interface FirmwareFloor {
  /** Of the current version; 0.0: any. */
  readonly minimumVersion: Version
  /** Of the current version. */
  readonly minimumBuild: number
  /** Whether the host may run a newer version than the one it has committed to, and so may fall back. */
  readonly provisional: "allowed" | "refused"
}

/** Patch levels that components must at least have; one that is not named may have any. */
export type TcbFloor = Partial<Tcb>

/**
 * Floors by product, as layouts and levels differ. Null: no floor. Where there is a record, the product of the report has to
 * be in it: a floor that nobody wrote is not a floor of zero.
 */
export type ProductFloors = { readonly [P in SnpProduct]?: TcbFloor } | null

export interface TcbFloors {
  readonly reported: ProductFloors
  readonly committed: ProductFloors
  readonly launch: ProductFloors
}

/** Of a TDX quote. Field names are those of Intel's quote. */
export interface TdxExpectations {
  /** 48 bytes each, like the following. */
  readonly mrTds: OneOf
  readonly mrSeams: OneOf
  readonly mrConfigIds: OneOf
  readonly mrOwners: OneOf
  readonly mrOwnerConfigs: OneOf
  readonly rtmrs: readonly [OneOf, OneOf, OneOf, OneOf]
  /** 64 bytes each. */
  readonly reportData: OneOf
  /** 16 bytes. */
  readonly qeVendorIds: OneOf
  /** All 64 bits; null: not compared. */
  readonly tdAttributes: bigint | null
  readonly xfam: bigint | null
  /** The DEBUG attribute. */
  readonly debug: "refused" | "allowed" | "required"
  /** 16 components, compared one by one; null: not compared. */
  readonly minimumTeeTcbSvn: Uint8Array | null
  readonly minimumQeSvn: number
  readonly minimumPceSvn: number
  /** TCB evaluation data number of Intel's documents. */
  readonly minimumEvaluationNumber: number
  /** TCB statuses other than UpToDate that pass for a while. */
  readonly accept: readonly AcceptedStatus[]
}

/** TCB statuses that an administrator may accept. Revoked is none of them. Source: Intel PCS API v4, "tcbStatus". */
export const ACCEPTABLE_STATUSES = [
  "SWHardeningNeeded",
  "ConfigurationNeeded",
  "ConfigurationAndSWHardeningNeeded",
  "OutOfDate",
  "OutOfDateConfigurationNeeded",
] as const satisfies readonly TcbStatus[]
export type AcceptableStatus = (typeof ACCEPTABLE_STATUSES)[number]

export interface AcceptedStatus {
  readonly status: AcceptableStatus
  /** Last moment at which it is accepted. */
  readonly until: Date
  /** Advisories that may apply, all of which were weighed; null: any. */
  readonly advisories: readonly string[] | null
}

/** Banks of PCRs that a policy may name. */
export const PCR_BANKS = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 } as const
export type PcrBank = keyof typeof PCR_BANKS

/** Of a TPM quote. */
export interface TpmExpectations {
  /** TPM Names of attestation keys; null: any. */
  readonly akNames: OneOf
  /** Expected values by bank and PCR number. A PCR that is not named is not compared. */
  readonly pcrs: { readonly [B in PcrBank]?: ReadonlyMap<number, readonly Uint8Array[]> }
}

/** How the vendor's documents are to be used. */
export interface TrustExpectations {
  /** True: the file asks for revocation lists by name. That it does not ask turns no check off. */
  readonly requireRevocation: boolean
  /** True: nothing may be fetched. */
  readonly offline: boolean
}

/** Evidence is judged for being genuine, and for what never is acceptable; nothing says which software it should be. */
export function defaultPolicy(options: { readonly allowDebug: boolean }): AttestationPolicy {
  const snp = options.allowDebug ? { ...ANY_SNP, guestPolicy: withDebug(ANY_SNP.guestPolicy) } : ANY_SNP
  return {
    source: DEFAULT_SOURCE,
    snp,
    tdx: options.allowDebug ? { ...ANY_TDX, debug: "allowed" } : ANY_TDX,
    tpm: null,
    boot: null,
    ima: null,
    trust: { requireRevocation: false, offline: false },
    notes: [],
  }
}

/** What was launched has to be this and nothing else: MEASUREMENT of a SEV-SNP guest or MRTD of a trust domain, 48 bytes. */
export function policyOfMeasurement(measurement: Uint8Array, source: string): AttestationPolicy {
  return {
    ...defaultPolicy({ allowDebug: false }),
    source,
    snp: { ...ANY_SNP, measurements: [measurement] },
    tdx: { ...ANY_TDX, mrTds: [measurement] },
  }
}

/** Every bit of PLATFORM_INFO. */
const ALL_BITS = 0xffff_ffff_ffff_ffffn

/** Expectations that fix nothing, to build others from. Debugging and migration agents stay refused. */
export const ANY_SNP: SnpExpectations = {
  products: null,
  measurements: null,
  hostData: null,
  familyIds: null,
  imageIds: null,
  reportData: null,
  reportIds: null,
  reportIdMas: null,
  chipIds: null,
  idKeyDigests: null,
  authorKeyDigests: null,
  signer: { requireIdBlock: false, requireAuthorKey: false, trustedIdKeys: [], trustedAuthorKeys: [] },
  vmpls: null,
  minimumGuestSvn: 0,
  guestPolicy: GUEST_POLICY_DEFAULT,
  platform: { allowed: ALL_BITS, required: 0n },
  firmware: { minimumVersion: { major: 0, minor: 0 }, minimumBuild: 0, provisional: "allowed" },
  minimumTcb: { reported: null, committed: null, launch: null },
}

/** Expectations that fix nothing, to build others from. Debugging stays refused, and so is any status but UpToDate. */
export const ANY_TDX: TdxExpectations = {
  mrTds: null,
  mrSeams: null,
  mrConfigIds: null,
  mrOwners: null,
  mrOwnerConfigs: null,
  rtmrs: [null, null, null, null],
  reportData: null,
  qeVendorIds: null,
  tdAttributes: null,
  xfam: null,
  debug: "refused",
  minimumTeeTcbSvn: null,
  minimumQeSvn: 0,
  minimumPceSvn: 0,
  minimumEvaluationNumber: 0,
  accept: [],
}
