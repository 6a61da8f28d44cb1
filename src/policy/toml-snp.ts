import { hasBit, SNP_PLATFORM_INFO } from "../formats/snp/report.ts"
import { SNP_PRODUCTS, type SnpProduct, tcbComponents } from "../formats/snp/tcb.ts"
import type { TomlTable } from "../formats/toml-table.ts"
import {
  ANY_SNP,
  type ExpectedProduct,
  type FirmwareFloor,
  type LaunchSigner,
  type PlatformBounds,
  type ProductFloors,
  type SnpExpectations,
  type TcbFloor,
} from "./attestation-policy.ts"
import {
  exactGuestPolicy,
  type GuestPolicyBounds,
  guestPolicyBounds,
  maskOf,
  PERMISSIONS,
  parseVersion,
  RESTRICTIONS,
  type Version,
} from "./guest-policy.ts"
import { bits, hexList } from "./toml-values.ts"

/** Keys of `[snp.guest_policy]` that say what the guest policy may have. */
export const PERMISSION_KEYS = {
  debug: PERMISSIONS.debug,
  migration_agent: PERMISSIONS.migrationAgent,
  smt: PERMISSIONS.smt,
  cxl: PERMISSIONS.cxl,
} as const
/** Whether each is permitted where the key is absent. */
const PERMITTED: Readonly<Record<string, boolean>> = { smt: true, cxl: true }

/** Keys of the same table that say what it must have. */
export const RESTRICTION_KEYS = {
  single_socket: RESTRICTIONS.singleSocket,
  memory_aes_256_xts: RESTRICTIONS.memAes256Xts,
  rapl_disabled: RESTRICTIONS.raplDisabled,
  ciphertext_hiding: RESTRICTIONS.ciphertextHidingDram,
  page_swap_disabled: RESTRICTIONS.pageSwapDisabled,
} as const

/** Keys of `[snp.platform]` for what may be on. */
export const EXPOSURE_KEYS = {
  smt: SNP_PLATFORM_INFO.smtEnabled,
  tsme: SNP_PLATFORM_INFO.tsmeEnabled,
} as const
/** Keys of the same table for what must be on. */
export const PROTECTION_KEYS = {
  ecc: SNP_PLATFORM_INFO.eccEnabled,
  rapl_disabled: SNP_PLATFORM_INFO.raplDisabled,
  ciphertext_hiding: SNP_PLATFORM_INFO.ciphertextHidingDram,
  alias_check_complete: SNP_PLATFORM_INFO.aliasCheckComplete,
} as const
/** Bits of PLATFORM_INFO without a name here. */
export const OTHER_PLATFORM_BITS =
  ANY_SNP.platform.allowed & ~maskOf([...Object.values(EXPOSURE_KEYS), ...Object.values(PROTECTION_KEYS)])

/** Reads `[snp]`. Defaults are strict: VMPL 0, no debugging, no migration agent, firmware committed. */
export function parseSnpTable(table: TomlTable): SnpExpectations {
  const floors = (key: string) => parseFloors(table, key)
  const expectations: SnpExpectations = {
    products: table.strings("products")?.map((text) => parseProduct(table, text)) ?? null,
    measurements: hexList(table, "measurement", 48),
    hostData: hexList(table, "host_data", 32),
    familyIds: hexList(table, "family_id", 16),
    imageIds: hexList(table, "image_id", 16),
    reportData: hexList(table, "report_data", 64),
    reportIds: hexList(table, "report_id", 32),
    reportIdMas: hexList(table, "report_id_ma", 32),
    chipIds: hexList(table, "chip_id", 64, 8),
    idKeyDigests: hexList(table, "id_key_digest", 48),
    authorKeyDigests: hexList(table, "author_key_digest", 48),
    signer: parseSigner(table.table("launch_signer")),
    vmpls: parseVmpl(table),
    minimumGuestSvn: table.integer("minimum_guest_svn", 0, 2 ** 32 - 1) ?? 0,
    guestPolicy: parseGuestPolicy(table.table("guest_policy")),
    platform: parsePlatform(table.table("platform")),
    firmware: parseFirmware(table),
    minimumTcb: {
      reported: floors("minimum_tcb"),
      committed: floors("minimum_committed_tcb"),
      launch: floors("minimum_launch_tcb"),
    },
  }
  table.finish()
  return expectations
}

function parseProduct(table: TomlTable, text: string): ExpectedProduct {
  const [, name, stepping] = /^([A-Za-z]+)(?:-B(\d{1,2}))?$/.exec(text) ?? []
  const product = SNP_PRODUCTS.find((known) => known === name)
  if (product === undefined)
    throw table.fault(
      "products",
      `${SNP_PRODUCTS.join(", ")}, or with a stepping: Milan-B1`,
      JSON.stringify(text),
    )
  return { product, stepping: stepping === undefined ? null : Number(stepping) }
}

function parseVmpl(table: TomlTable): readonly number[] | null {
  const value = table.raw("vmpl")
  if (value === undefined) return [0]
  if (value === "any") return null
  const items: unknown[] = Array.isArray(value) ? value : [value]
  const levels = items.filter((item) => typeof item === "number" && [0, 1, 2, 3].includes(item))
  if (levels.length === items.length && items.length > 0) return levels.map(Number)
  throw table.fault("vmpl", '0 to 3, an array of these, or "any"', JSON.stringify(value) ?? "something else")
}

function parseSigner(table: TomlTable | null): LaunchSigner {
  if (table === null) return ANY_SNP.signer
  const signer: LaunchSigner = {
    requireIdBlock: table.boolean("require_id_block") ?? false,
    requireAuthorKey: table.boolean("require_author_key") ?? false,
    trustedIdKeys: hexList(table, "trusted_id_key_digest", 48) ?? [],
    trustedAuthorKeys: hexList(table, "trusted_author_key_digest", 48) ?? [],
  }
  table.finish()
  return signer
}

function parseGuestPolicy(table: TomlTable | null): GuestPolicyBounds {
  if (table === null) return ANY_SNP.guestPolicy
  const bounds = table.has("exact") ? parseExactPolicy(table) : parsePolicyBounds(table)
  table.finish()
  return bounds
}

function parseExactPolicy(table: TomlTable): GuestPolicyBounds {
  const policy = bits(table, "exact") ?? 0n
  if (!hasBit(policy, 17))
    throw table.fault("exact", "a guest policy: bit 17 is always set", `0x${policy.toString(16)}`)
  return exactGuestPolicy(policy)
}

function parsePolicyBounds(table: TomlTable): GuestPolicyBounds {
  const chosen = (keys: Readonly<Record<string, number>>) =>
    Object.entries(keys).flatMap(([key, bit]) =>
      (table.boolean(key) ?? PERMITTED[key] ?? false) ? [bit] : [],
    )
  return guestPolicyBounds({
    permissions: chosen(PERMISSION_KEYS),
    restrictions: chosen(RESTRICTION_KEYS),
    minimumAbi: parseVersionOf(table, "minimum_abi"),
  })
}

function parsePlatform(table: TomlTable | null): PlatformBounds {
  if (table === null) return ANY_SNP.platform
  const set = (keys: Readonly<Record<string, number>>, fallback: boolean) =>
    maskOf(Object.entries(keys).flatMap(([key, bit]) => ((table.boolean(key) ?? fallback) ? [bit] : [])))
  const other = bits(table, "other_bits") ?? OTHER_PLATFORM_BITS
  if ((other & ~OTHER_PLATFORM_BITS) !== 0n)
    throw table.fault("other_bits", "bits without a key of their own", `0x${other.toString(16)}`)
  const platform: PlatformBounds = {
    allowed: set(EXPOSURE_KEYS, true) | maskOf(Object.values(PROTECTION_KEYS)) | other,
    required: set(PROTECTION_KEYS, false),
  }
  table.finish()
  return platform
}

function parseFirmware(table: TomlTable): FirmwareFloor {
  return {
    minimumVersion: parseVersionOf(table, "minimum_version"),
    minimumBuild: table.integer("minimum_build", 0, 255) ?? 0,
    provisional: table.choice("provisional_firmware", ["refused", "allowed"]) ?? "refused",
  }
}

function parseVersionOf(table: TomlTable, key: string): Version {
  const text = table.string(key)
  if (text === null) return { major: 0, minor: 0 }
  const version = parseVersion(text)
  if (version === null) throw table.fault(key, 'major.minor in quotes, such as "1.55"', JSON.stringify(text))
  return version
}

/** `[snp.minimum_tcb.Milan]`: a table for each product. */
function parseFloors(table: TomlTable, key: string): ProductFloors {
  const byProduct = table.table(key)
  if (byProduct === null) return null
  const floors: { -readonly [P in SnpProduct]?: TcbFloor } = {}
  for (const product of SNP_PRODUCTS) {
    const levels = byProduct.table(product)
    if (levels !== null) floors[product] = parseFloor(levels, product)
  }
  byProduct.finish()
  if (Object.keys(floors).length === 0)
    throw table.fault(key, `a table for a product: [snp.${key}.Milan]`, "none")
  return floors
}

function parseFloor(levels: TomlTable, product: SnpProduct): TcbFloor {
  const named = tcbComponents(product).flatMap((component) => {
    const level = levels.integer(component, 0, 255)
    return level === null ? [] : [[component, level] as const]
  })
  levels.finish()
  if (named.length === 0) throw levels.fault("", `components: ${tcbComponents(product).join(", ")}`, "none")
  return Object.fromEntries(named)
}
