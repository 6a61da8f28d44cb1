import { CodedError } from "../errors.ts"
import { hasBit, SNP_PLATFORM_INFO, SNP_POLICY } from "../formats/snp/report.ts"
import { parseTcb, SNP_PRODUCTS, type SnpProduct } from "../formats/snp/tcb.ts"
import type { JsonValue } from "../formats/strict-json.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import {
  ANY_SNP,
  type ExpectedProduct,
  type FirmwareFloor,
  isPlaceholder,
  type LaunchSigner,
  type OneOf,
  type PlatformBounds,
  type ProductFloors,
  type SnpExpectations,
} from "./attestation-policy.ts"
import { KNOWN_BITS, maskOf, maximalGuestPolicy, parseVersion } from "./guest-policy.ts"
import { snpKeyDigest } from "./launch-key.ts"
import type { ProtoMessage } from "./proto-json.ts"

/** Names and numbers of the enumeration SevProductName. Source: google/go-sev-guest, proto/sevsnp.proto. */
const PRODUCT_NAMES: readonly JsonValue[] = [
  "SEV_PRODUCT_UNKNOWN",
  "SEV_PRODUCT_MILAN",
  "SEV_PRODUCT_GENOA",
  "SEV_PRODUCT_TURIN",
]
const PRODUCTS: readonly (SnpProduct | null)[] = [null, "Milan", "Genoa", "Turin"]

/** Bits of PLATFORM_INFO that say that the host could see more. The others are protections. */
const EXPOSING_BITS = maskOf([SNP_PLATFORM_INFO.smtEnabled, SNP_PLATFORM_INFO.tsmeEnabled])
const PROTECTIONS = maskOf([
  SNP_PLATFORM_INFO.eccEnabled,
  SNP_PLATFORM_INFO.raplDisabled,
  SNP_PLATFORM_INFO.ciphertextHidingDram,
  SNP_PLATFORM_INFO.aliasCheckComplete,
])

/**
 * Reads the `policy` of a SEV-SNP check configuration. A field of value 0 or without bytes counts as absent, as protobuf has it.
 * @param line the product of `root_of_trust`, or null.
 * @throws UsageError ERR_POLICY
 */
export function parseCocosSnp(
  policy: ProtoMessage,
  line: readonly ExpectedProduct[] | null,
  notes: string[],
): SnpExpectations {
  const bytes = (name: string, ...sizes: number[]) => parseBytes(policy, name, sizes, notes)
  const products = parseProduct(policy, line)
  return {
    products,
    measurements: bytes("measurement", 48),
    hostData: bytes("host_data", 32),
    familyIds: bytes("family_id", 16),
    imageIds: bytes("image_id", 16),
    reportData: bytes("report_data", 64),
    reportIds: bytes("report_id", 32),
    reportIdMas: bytes("report_id_ma", 32),
    chipIds: bytes("chip_id", 64, 8),
    idKeyDigests: null,
    authorKeyDigests: null,
    signer: parseSigner(policy),
    vmpls: parseVmpl(policy),
    minimumGuestSvn: policy.integer("minimum_guest_svn", 2 ** 32 - 1) ?? 0,
    guestPolicy: parseGuestPolicy(policy),
    platform: parsePlatform(policy),
    firmware: parseFirmware(policy),
    minimumTcb: {
      reported: parseFloors(policy, "minimum_tcb", products),
      committed: null,
      launch: parseFloors(policy, "minimum_launch_tcb", products),
    },
  }
}

/** `Milan`, or `Milan-B1` with the stepping. */
export function parseProductLine(message: ProtoMessage, field: string, text: string): ExpectedProduct {
  const [, name, stepping] = /^([A-Za-z]+)(?:-B(\d))?$/.exec(text) ?? []
  const product = SNP_PRODUCTS.find((known) => known === name)
  if (product === undefined)
    throw message.fault(field, SNP_PRODUCTS.join(", "), JSON.stringify(text), "use a newer cosmian_vm")
  return { product, stepping: stepping === undefined ? null : Number(stepping) }
}

function parseBytes(policy: ProtoMessage, name: string, sizes: readonly number[], notes: string[]): OneOf {
  const value = policy.bytes(name, ...sizes)
  if (value === null) return null
  if (isPlaceholder(value)) notes.push(`${name} was never filled in ([0]): no report fits this policy`)
  return [value]
}

function parseProduct(
  policy: ProtoMessage,
  line: readonly ExpectedProduct[] | null,
): readonly ExpectedProduct[] | null {
  const message = policy.message("product")
  if (message === null) return line
  const name = message.take("name")
  const index = typeof name === "number" ? name : PRODUCT_NAMES.indexOf(name)
  const product = name === null ? null : PRODUCTS[index]
  if (product === undefined) throw message.fault("name", PRODUCT_NAMES.join(", "), `${String(name)}`)
  // The older field has no way to say "any", and is 0 where it was not set.
  const older = message.integer("stepping", 15) ?? 0
  const stepping = message.wrapped("machine_stepping", 15n) ?? (older === 0 ? null : BigInt(older))
  message.finish()
  const [named] = line ?? []
  if (product === null) return line
  if (named !== undefined && named.product !== product)
    throw policy.fault("product", `${named.product}, as root_of_trust says`, product)
  return [{ product, stepping: stepping === null ? (named?.stepping ?? null) : Number(stepping) }]
}

function parseVmpl(policy: ProtoMessage): readonly number[] | null {
  const vmpl = policy.wrapped("vmpl", 3n)
  return vmpl === null ? null : [Number(vmpl)]
}

/** The most that is acceptable, save the ABI version, which is the least. Absent: what is refused by default. */
function parseGuestPolicy(policy: ProtoMessage): SnpExpectations["guestPolicy"] {
  const value = policy.unsigned("policy") ?? 0n
  if (value === 0n) return ANY_SNP.guestPolicy
  if (!hasBit(value, SNP_POLICY.reservedMustBeOne))
    throw policy.fault("policy", "a guest policy: bit 17 is always set", `0x${value.toString(16)}`)
  if ((value & ~(KNOWN_BITS | 0xffffn)) !== 0n)
    throw policy.fault("policy", "bits that are known", `0x${value.toString(16)}`, "use a newer cosmian_vm")
  return maximalGuestPolicy(value)
}

/** Bits that expose may be on where the policy has them; protections have to be on where it has them. */
function parsePlatform(policy: ProtoMessage): PlatformBounds {
  const value = policy.wrapped("platform_info", 2n ** 64n - 1n)
  if (value === null) return ANY_SNP.platform
  const unknown = ~(EXPOSING_BITS | PROTECTIONS)
  return { allowed: (value & (EXPOSING_BITS | unknown)) | PROTECTIONS, required: value & PROTECTIONS }
}

function parseFirmware(policy: ProtoMessage): FirmwareFloor {
  const text = policy.string("minimum_version") ?? ""
  const minimumVersion = text === "" ? { major: 0, minor: 0 } : parseVersion(text)
  if (minimumVersion === null)
    throw policy.fault("minimum_version", "major.minor, each 0 to 255", JSON.stringify(text))
  return {
    minimumVersion,
    minimumBuild: policy.integer("minimum_build", 255) ?? 0,
    provisional: policy.boolean("permit_provisional_firmware") === true ? "allowed" : "refused",
  }
}

/**
 * A TCB as the little-endian number of its 8 bytes. What the bytes mean depends on the product, so the number is read in the
 * layout of each product that it fits; a report of another product then has no floor, and is refused. Where the field for Turin
 * is there too, the older one is for the products before it.
 */
function parseFloors(
  policy: ProtoMessage,
  field: string,
  products: readonly ExpectedProduct[] | null,
): ProductFloors {
  const [general, turin] = [policy.unsigned(field) ?? 0n, policy.unsigned(`${field}_turin`) ?? 0n]
  if (general === 0n && turin === 0n) return null
  const floors: { -readonly [P in SnpProduct]?: ReturnType<typeof parseTcb> } = {}
  for (const product of SNP_PRODUCTS) {
    const value = product === "Turin" && turin !== 0n ? turin : general
    const floor = value === 0n ? null : tcbOf(value, product)
    if (floor !== null) floors[product] = floor
  }
  if (turin !== 0n && floors.Turin === undefined)
    throw policy.fault(`${field}_turin`, "a TCB in the layout of Turin", `0x${turin.toString(16)}`)
  if (general !== 0n && floors.Milan === undefined && (turin !== 0n || floors.Turin === undefined))
    throw policy.fault(field, "a TCB: reserved bytes are zero", `0x${general.toString(16)}`)
  if (products === null) return floors
  return Object.fromEntries(
    Object.entries(floors).filter(([product]) => products.some((named) => named.product === product)),
  )
}

/** Null where bytes are set that the product's layout has no component for. */
function tcbOf(value: bigint, product: SnpProduct): ReturnType<typeof parseTcb> | null {
  const raw = Uint8Array.from({ length: 8 }, (_, index) => Number((value >> BigInt(8 * index)) & 0xffn))
  try {
    return parseTcb(raw, product)
  } catch (error) {
    if (error instanceof CodedError && error.code === "ERR_RESERVED_NOT_ZERO") return null
    throw error
  }
}

function parseSigner(policy: ProtoMessage): LaunchSigner {
  return {
    requireIdBlock: policy.boolean("require_id_block") ?? false,
    requireAuthorKey: policy.boolean("require_author_key") ?? false,
    trustedIdKeys: [...hashes(policy, "trusted_id_key_hashes"), ...keys(policy, "trusted_id_keys")],
    trustedAuthorKeys: [
      ...hashes(policy, "trusted_author_key_hashes"),
      ...keys(policy, "trusted_author_keys"),
    ],
  }
}

function hashes(policy: ProtoMessage, field: string): Uint8Array[] {
  return (policy.repeatedBytes(field, 48) ?? []).map((value, index) => {
    if (value?.length === 48) return value
    throw policy.fault(`${field}[${index}]`, "48 bytes in base64", "none")
  })
}

/** Certificates of keys: their DER. */
function keys(policy: ProtoMessage, field: string): Uint8Array[] {
  return (policy.repeatedBytes(field) ?? []).map((der, index) => {
    try {
      return snpKeyDigest(parseCertificate(der ?? new Uint8Array(0)).spki)
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      throw policy.fault(`${field}[${index}]`, "a certificate (DER) of an EC key on P-384", error.message)
    }
  })
}
