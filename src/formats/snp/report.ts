import { ParseError } from "../../errors.ts"
import { bytes, type LayoutValue, layout, u8, u32, u64, zero } from "../layout.ts"
import { productOfCpu, type SnpProduct } from "./tcb.ts"

/** ATTESTATION_REPORT: bytes. */
export const SNP_REPORT_SIZE = 0x4a0
/** Bytes that the signature covers, from the start. */
export const SNP_SIGNED_SIZE = 0x2a0

/** Fields that all versions have at the same place. TCB versions stay raw here: their layout depends on the product. */
const COMMON = {
  version: u32(0x000),
  guestSvn: u32(0x004),
  policy: u64(0x008), // bits: SNP_POLICY
  familyId: bytes(0x010, 16),
  imageId: bytes(0x020, 16),
  vmpl: u32(0x030), // 0 to 3; reports that the host asked for say 0xffffffff
  signatureAlgo: u32(0x034), // 1: ECDSA P-384 with SHA-384
  currentTcb: bytes(0x038, 8),
  platformInfo: u64(0x040), // bits: SNP_PLATFORM_INFO
  flags: u32(0x048), // AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY
  _reserved0: zero(0x04c, 4),
  reportData: bytes(0x050, 64),
  measurement: bytes(0x090, 48), // SHA-384
  hostData: bytes(0x0c0, 32),
  idKeyDigest: bytes(0x0e0, 48), // SHA-384, zero without ID block
  authorKeyDigest: bytes(0x110, 48),
  reportId: bytes(0x140, 32),
  reportIdMa: bytes(0x160, 32), // all ones without migration agent
  reportedTcb: bytes(0x180, 8),
  chipId: bytes(0x1a0, 64), // zero where the host masks it
  committedTcb: bytes(0x1e0, 8),
  currentBuild: u8(0x1e8),
  currentMinor: u8(0x1e9),
  currentMajor: u8(0x1ea),
  _reserved2: zero(0x1eb, 1),
  committedBuild: u8(0x1ec),
  committedMinor: u8(0x1ed),
  committedMajor: u8(0x1ee),
  _reserved3: zero(0x1ef, 1),
  launchTcb: bytes(0x1f0, 8),
  signatureR: bytes(0x2a0, 72), // little-endian
  signatureS: bytes(0x2e8, 72),
  _reservedSignature: zero(0x330, 368),
}

const CPUID = {
  cpuidFamily: u8(0x188), // extended and base family added
  cpuidModel: u8(0x189), // extended and base model joined
  cpuidStepping: u8(0x18a),
  _reserved1: zero(0x18b, 21),
}

const MITIGATIONS = {
  launchMitVector: u64(0x1f8),
  currentMitVector: u64(0x200),
  _reserved4: zero(0x208, 152),
}

/** Version 2: no CPUID. Source: AMD 56860 rev. 1.55, table "ATTESTATION_REPORT Structure". */
const V2 = layout("snp-report", SNP_REPORT_SIZE, {
  ...COMMON,
  _reserved1: zero(0x188, 24),
  _reserved4: zero(0x1f8, 168),
})
/** Versions 3 and 4: with CPUID. Source: AMD 56860 rev. 1.56 and 1.57, Table 23 "ATTESTATION_REPORT Structure". */
const V3 = layout("snp-report", SNP_REPORT_SIZE, { ...COMMON, ...CPUID, _reserved4: zero(0x1f8, 168) })
/** Version 5: with mitigation vectors. Source: AMD 56860 rev. 1.58, Table 23 "ATTESTATION_REPORT Structure". */
const V5 = layout("snp-report", SNP_REPORT_SIZE, { ...COMMON, ...CPUID, ...MITIGATIONS })

/** Which key signed, by SIGNING_KEY. `none`: the firmware was told not to sign. */
export type SnpSigningKey = "VCEK" | "VLEK" | "none"

/** SEV-SNP attestation report, versions 2 to 5. Field names are those of AMD 56860 in camelCase. */
export interface SnpReport extends LayoutValue<typeof COMMON> {
  /** Null in version 2, which has no CPUID fields. */
  readonly cpuid: { readonly family: number; readonly model: number; readonly stepping: number } | null
  /** The product by CPUID; null in version 2: then the certificate has to tell. */
  readonly product: SnpProduct | null
  /** Null before version 5. */
  readonly launchMitVector: bigint | null
  readonly currentMitVector: bigint | null
  readonly authorKeyEnabled: boolean
  /** The host told the firmware not to sign with the chip's key: the signature is zero. */
  readonly maskChipKey: boolean
  readonly signingKey: SnpSigningKey
  /** The bytes as received: 1184. */
  readonly raw: Uint8Array
  /** The bytes under the signature: the first 672 of `raw`. */
  readonly signedBytes: Uint8Array
}

/** Bits of the guest policy. Source: AMD 56860 rev. 1.58, table "Guest Policy Structure". */
export const SNP_POLICY = {
  smtAllowed: 16,
  reservedMustBeOne: 17,
  migrationAgent: 18,
  debug: 19,
  singleSocket: 20,
  cxlAllowed: 21,
  memAes256Xts: 22,
  raplDisabled: 23,
  ciphertextHidingDram: 24,
  pageSwapDisabled: 25,
} as const

/** Bits of PLATFORM_INFO. Source: AMD 56860 rev. 1.58, table "PLATFORM_INFO Field". */
export const SNP_PLATFORM_INFO = {
  smtEnabled: 0,
  tsmeEnabled: 1,
  eccEnabled: 2,
  raplDisabled: 3,
  ciphertextHidingDram: 4,
  aliasCheckComplete: 5,
} as const

/** Whether one bit of a 64-bit field is set. */
export function hasBit(value: bigint, bit: number): boolean {
  return ((value >> BigInt(bit)) & 1n) === 1n
}

/**
 * Reads an attestation report. Structure only: nothing is verified.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_RESERVED_NOT_ZERO, ERR_MALFORMED (VMPL, policy, signing key),
 *   ERR_UNSUPPORTED (version, product)
 */
export function parseSnpReport(raw: Uint8Array): SnpReport {
  const { version } = lengthChecked(raw)
  const signedBytes = raw.subarray(0, SNP_SIGNED_SIZE)
  if (version === 2) {
    const fields = V2.parse(raw)
    const absent = { cpuid: null, product: null, launchMitVector: null, currentMitVector: null }
    return { ...fields, ...absent, ...checkedFields(fields), raw, signedBytes }
  }
  if (version === 3 || version === 4) {
    const fields = V3.parse(raw)
    const absent = { launchMitVector: null, currentMitVector: null }
    return { ...commonOf(fields), ...absent, ...checkedFields(fields), ...cpuOf(fields), raw, signedBytes }
  }
  if (version === 5) {
    const fields = V5.parse(raw)
    const { launchMitVector, currentMitVector } = fields
    const present = { launchMitVector, currentMitVector }
    return { ...commonOf(fields), ...present, ...checkedFields(fields), ...cpuOf(fields), raw, signedBytes }
  }
  throw new ParseError("ERR_UNSUPPORTED", {
    at: "snp-report.version",
    expected: "2 to 5",
    found: `${version}`,
    hint: "use a newer cosmian_vm",
  })
}

/** What a report is made of, for tests and the simulated TEE: the fields of its version. */
export type SnpReportFields = Omit<
  SnpReport,
  "product" | "authorKeyEnabled" | "maskChipKey" | "signingKey" | "raw" | "signedBytes"
>

/** Bytes of a report, signature included as given. @throws ParseError ERR_MALFORMED, ERR_UNSUPPORTED (version) */
export function encodeSnpReport(report: SnpReportFields): Uint8Array {
  const { version, cpuid, launchMitVector, currentMitVector } = report
  if (version === 2) return V2.encode(report)
  if (version < 2 || version > 5 || cpuid === null)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "snp-report.version",
      expected: "2 to 5",
      found: `${version}`,
    })
  const withCpu = {
    ...report,
    cpuidFamily: cpuid.family,
    cpuidModel: cpuid.model,
    cpuidStepping: cpuid.stepping,
  }
  if (version < 5) return V3.encode(withCpu)
  return V5.encode({
    ...withCpu,
    launchMitVector: launchMitVector ?? 0n,
    currentMitVector: currentMitVector ?? 0n,
  })
}

function lengthChecked(raw: Uint8Array): { version: number } {
  // Length comes before version: a buffer of another size is not a report of an unknown version.
  const found = `${raw.length}`
  const expected = `${SNP_REPORT_SIZE} bytes`
  if (raw.length < SNP_REPORT_SIZE)
    throw new ParseError("ERR_TRUNCATED", { at: "snp-report", expected, found })
  if (raw.length > SNP_REPORT_SIZE)
    throw new ParseError("ERR_TRAILING_BYTES", { at: "snp-report", expected, found })
  return { version: COMMON.version.read(raw, "snp-report.version") }
}

type CommonFields = LayoutValue<typeof COMMON>

function commonOf(fields: CommonFields & LayoutValue<typeof CPUID>): CommonFields {
  const { cpuidFamily: _f, cpuidModel: _m, cpuidStepping: _s, ...common } = fields
  return common
}

function cpuOf(fields: LayoutValue<typeof CPUID>): { cpuid: SnpReport["cpuid"]; product: SnpProduct } {
  const { cpuidFamily: family, cpuidModel: model, cpuidStepping: stepping } = fields
  const product = productOfCpu(family, model)
  if (product === null)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "snp-report.cpuid",
      expected: "a Milan, Genoa or Turin processor",
      found: `family 0x${family.toString(16)}, model 0x${model.toString(16)}`,
      hint: "use a newer cosmian_vm",
    })
  return { cpuid: { family, model, stepping }, product }
}

const SIGNING_KEYS: Readonly<Record<number, SnpSigningKey>> = { 0: "VCEK", 1: "VLEK", 7: "none" }

function checkedFields(
  fields: CommonFields,
): Pick<SnpReport, "authorKeyEnabled" | "maskChipKey" | "signingKey"> {
  const { vmpl, policy, flags } = fields
  if (vmpl > 3) throw malformed("vmpl", "0 to 3", `${vmpl}`)
  if (!hasBit(policy, SNP_POLICY.reservedMustBeOne)) throw malformed("policy", "bit 17 set", hex(policy))
  if (flags > 0x1f)
    throw new ParseError("ERR_RESERVED_NOT_ZERO", {
      at: "snp-report.flags",
      expected: "bits 5 to 31 zero",
      found: hex(flags),
    })
  const signingKey = SIGNING_KEYS[(flags >> 2) & 7]
  if (signingKey === undefined) throw malformed("flags", "SIGNING_KEY 0, 1 or 7", `${(flags >> 2) & 7}`)
  return { authorKeyEnabled: (flags & 1) === 1, maskChipKey: (flags & 2) === 2, signingKey }
}

function malformed(field: string, expected: string, found: string): ParseError {
  return new ParseError("ERR_MALFORMED", { at: `snp-report.${field}`, expected, found })
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`
}
