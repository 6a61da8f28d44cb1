import { hasBit, SNP_POLICY } from "../formats/snp/report.ts"

export interface Version {
  readonly major: number
  readonly minor: number
}

/** What the guest policy of a report may and must be. */
export interface GuestPolicyBounds {
  /** Bits that it may have (SNP_POLICY), as a mask. */
  readonly allowed: bigint
  /** Bits that it must have. */
  readonly required: bigint
  /** Firmware ABI version that it must at least ask for. */
  readonly minimumAbi: Version
  /** True: the ABI version has to be `minimumAbi` itself. */
  readonly exactAbi: boolean
}

/** Bits that let the host do more. */
export const PERMISSIONS = {
  smt: SNP_POLICY.smtAllowed,
  migrationAgent: SNP_POLICY.migrationAgent,
  debug: SNP_POLICY.debug,
  cxl: SNP_POLICY.cxlAllowed,
} as const

/** Bits that ask the host for more protection. */
export const RESTRICTIONS = {
  singleSocket: SNP_POLICY.singleSocket,
  memAes256Xts: SNP_POLICY.memAes256Xts,
  raplDisabled: SNP_POLICY.raplDisabled,
  ciphertextHidingDram: SNP_POLICY.ciphertextHidingDram,
  pageSwapDisabled: SNP_POLICY.pageSwapDisabled,
} as const

const ALWAYS = maskOf([SNP_POLICY.reservedMustBeOne])
/** Bits with a meaning, above the ABI version. */
export const KNOWN_BITS = maskOf(Object.values(SNP_POLICY))

/** Nothing that gives the VM away: no debugging, no migration agent, no bit without a meaning. */
export const GUEST_POLICY_DEFAULT: GuestPolicyBounds = guestPolicyBounds({
  permissions: [PERMISSIONS.smt, PERMISSIONS.cxl],
  restrictions: [],
  minimumAbi: { major: 0, minor: 0 },
})

/** Bounds that permit these bits and ask for those; a report with more restrictions fits, too. */
export function guestPolicyBounds(bounds: {
  readonly permissions: readonly number[]
  readonly restrictions: readonly number[]
  readonly minimumAbi: Version
}): GuestPolicyBounds {
  return {
    allowed: ALWAYS | maskOf(bounds.permissions) | maskOf(Object.values(RESTRICTIONS)),
    required: ALWAYS | maskOf(bounds.restrictions),
    minimumAbi: bounds.minimumAbi,
    exactAbi: false,
  }
}

/** Bounds that only this very guest policy fits. */
export function exactGuestPolicy(policy: bigint): GuestPolicyBounds {
  const bits = policy & ~0xffffn
  return { allowed: bits, required: bits, minimumAbi: abiOf(policy), exactAbi: true }
}

/** A guest policy read as the most that is acceptable: its permissions, its restrictions, its ABI version as the least. */
export function maximalGuestPolicy(policy: bigint): GuestPolicyBounds {
  const set = (bits: Readonly<Record<string, number>>) =>
    Object.values(bits).filter((bit) => hasBit(policy, bit))
  return guestPolicyBounds({
    permissions: set(PERMISSIONS),
    restrictions: set(RESTRICTIONS),
    minimumAbi: abiOf(policy),
  })
}

export function withDebug(bounds: GuestPolicyBounds): GuestPolicyBounds {
  return { ...bounds, allowed: bounds.allowed | maskOf([SNP_POLICY.debug]) }
}

/** Firmware ABI version that a guest policy asks for. */
export function abiOf(policy: bigint): Version {
  return { major: Number((policy >> 8n) & 0xffn), minor: Number(policy & 0xffn) }
}

export function maskOf(bits: readonly number[]): bigint {
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n)
}

/** Below, equal or above: -1, 0, 1. */
export function compareVersions(a: Version, b: Version): number {
  return Math.sign(a.major * 256 + a.minor - (b.major * 256 + b.minor))
}

export function versionText({ major, minor }: Version): string {
  return `${major}.${minor}`
}

/** Reads `1.55`; null where it is none. */
export function parseVersion(text: string): Version | null {
  const [, major, minor] = /^(\d{1,3})\.(\d{1,3})$/.exec(text)?.map(Number) ?? []
  if (major === undefined || minor === undefined || major > 255 || minor > 255) return null
  return { major, minor }
}
