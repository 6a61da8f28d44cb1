import { UsageError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { hasBit } from "../formats/snp/report.ts"
import { encodeTcb, type SnpProduct, tcbComponents } from "../formats/snp/tcb.ts"
import {
  ANY_SNP,
  type AttestationPolicy,
  isPlaceholder,
  type OneOf,
  type PlatformBounds,
  type ProductFloors,
  type SnpExpectations,
  type TcbFloor,
  type TdxExpectations,
  type TpmExpectations,
} from "./attestation-policy.ts"
import {
  type GuestPolicyBounds,
  maskOf,
  maximalGuestPolicy,
  PERMISSIONS,
  versionText,
} from "./guest-policy.ts"
import { encodeU64, littleEndian } from "./policy-values.ts"
import { EXPOSURE_KEYS, OTHER_PLATFORM_BITS, PROTECTION_KEYS } from "./toml-snp.ts"

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined }

/**
 * The text of a policy as Cocos has it. What Cocos has no field for is refused by name, and nothing is left out silently.
 * @throws UsageError ERR_POLICY
 */
export function encodeCocosPolicy(policy: AttestationPolicy): string {
  const { snp, tdx, tpm, boot, ima, trust } = policy
  if (snp !== null && tdx !== null)
    throw refused("[snp] and [tdx]", "one of them in a file", "make a file for each")
  if (boot !== null) throw refused("[boot]", "nothing")
  if (ima !== null) throw refused("[ima]", "nothing")
  const named = snp?.products?.[0]
  const root: Json = {
    ...(tpm === null ? {} : { pcr_values: pcrValues(tpm) }),
    ...(snp === null ? {} : { policy: snpPolicy(snp) }),
    ...(tdx === null ? {} : { policy: tdxPolicy(tdx) }),
    rootOfTrust: {
      ...(named === undefined ? {} : { product: named.product, productLine: named.product }),
      checkCrl: trust.requireRevocation,
      ...(snp === null && tdx !== null
        ? { getCollateral: !trust.offline }
        : { disallowNetwork: trust.offline }),
    },
  }
  return `${JSON.stringify(root, null, 2)}\n`
}

function snpPolicy(snp: SnpExpectations): Json {
  if (snp.idKeyDigests !== null)
    throw refused("id_key_digest", "nothing", "use trusted_id_key_digest under [snp.launch_signer]")
  if (snp.authorKeyDigests !== null)
    throw refused("author_key_digest", "nothing", "use trusted_author_key_digest under [snp.launch_signer]")
  const { signer, firmware, minimumTcb } = snp
  if (minimumTcb.committed !== null) throw refused("minimum_committed_tcb", "nothing")
  return {
    policy: guestPolicy(snp.guestPolicy),
    measurement: single("measurement", snp.measurements),
    hostData: single("host_data", snp.hostData),
    familyId: single("family_id", snp.familyIds),
    imageId: single("image_id", snp.imageIds),
    reportData: single("report_data", snp.reportData),
    reportId: single("report_id", snp.reportIds),
    reportIdMa: single("report_id_ma", snp.reportIdMas),
    chipId: single("chip_id", snp.chipIds),
    vmpl: vmpl(snp.vmpls),
    minimumGuestSvn: snp.minimumGuestSvn === 0 ? undefined : snp.minimumGuestSvn,
    ...floors("minimumTcb", minimumTcb.reported),
    ...floors("minimumLaunchTcb", minimumTcb.launch),
    minimumBuild: firmware.minimumBuild,
    minimumVersion: versionText(firmware.minimumVersion),
    permitProvisionalFirmware: firmware.provisional === "allowed",
    platformInfo: platformInfo(snp.platform),
    requireIdBlock: signer.requireIdBlock,
    requireAuthorKey: signer.requireAuthorKey,
    trustedIdKeyHashes: hashes(signer.trustedIdKeys),
    trustedAuthorKeyHashes: hashes(signer.trustedAuthorKeys),
    product: product(snp.products),
  }
}

function product(products: SnpExpectations["products"]): Json | undefined {
  const [only, ...more] = products ?? []
  if (only === undefined) return undefined
  if (more.length > 0) throw refused("products", "one product")
  const name = `SEV_PRODUCT_${only.product.toUpperCase()}`
  return only.stepping === null ? { name } : { name, machineStepping: only.stepping }
}

function vmpl(vmpls: readonly number[] | null): number | undefined {
  if (vmpls !== null && vmpls.length > 1) throw refused("vmpl", "one level, or any")
  return vmpls?.[0]
}

/** Cocos reads a guest policy as the most that is acceptable; what is not one of that kind has no equal. */
function guestPolicy(bounds: GuestPolicyBounds): string {
  const { minimumAbi, exactAbi, allowed, required } = bounds
  if (exactAbi)
    throw refused("guest_policy.exact", "bounds", "write debug, smt, single_socket, … instead of exact")
  const permitted = allowed & maskOf(Object.values(PERMISSIONS))
  const value = permitted | required | BigInt(minimumAbi.major * 256 + minimumAbi.minor)
  const read = maximalGuestPolicy(value)
  if (read.allowed !== allowed || read.required !== required) throw refused("guest_policy", "other bounds")
  return `${value}`
}

function platformInfo({ allowed, required }: PlatformBounds): string | undefined {
  if (allowed === ANY_SNP.platform.allowed && required === 0n) return undefined
  const other = allowed & OTHER_PLATFORM_BITS
  if (other === OTHER_PLATFORM_BITS)
    throw refused("platform.other_bits", "a list of bits", "write which other bits may be on: other_bits = 0")
  const exposures = Object.values(EXPOSURE_KEYS).filter((bit) => hasBit(allowed, bit))
  const protections = Object.values(PROTECTION_KEYS).filter((bit) => hasBit(required, bit))
  const value = [...exposures, ...protections].reduce((sum, bit) => sum | (1n << BigInt(bit)), other)
  return `${value}`
}

/** One number for the products before Turin, whose layouts are the same, and one for Turin. */
function floors(field: string, byProduct: ProductFloors): { [key: string]: Json } {
  if (byProduct === null) return {}
  const out: { [key: string]: Json } = {}
  const before = (["Milan", "Genoa"] as const).flatMap((name) => {
    const floor = byProduct[name]
    return floor === undefined ? [] : [tcbNumber(floor, name)]
  })
  if (new Set(before).size > 1)
    throw refused(field, "one TCB for Milan and Genoa", "make a file for each product")
  const [first] = before
  if (first !== undefined) out[field] = `${first}`
  if (byProduct.Turin !== undefined) out[`${field}Turin`] = `${tcbNumber(byProduct.Turin, "Turin")}`
  return out
}

function tcbNumber(floor: TcbFloor, name: SnpProduct): bigint {
  const levels: Readonly<Record<string, number | undefined>> = floor
  const level = (component: string) => levels[component] ?? 0
  const tcb = {
    bootloader: level("bootloader"),
    tee: level("tee"),
    snp: level("snp"),
    microcode: level("microcode"),
    ...(tcbComponents(name).includes("fmc") ? { fmc: level("fmc") } : {}),
  }
  return littleEndian(encodeTcb(tcb, name))
}

function tdxPolicy(tdx: TdxExpectations): Json {
  if (tdx.accept.length > 0) throw refused("[[tdx.accept]]", "nothing")
  if (tdx.minimumEvaluationNumber > 0) throw refused("minimum_tcb_evaluation_number", "nothing")
  const [mrTd, ...others] = tdx.mrTds ?? []
  const anyRtmr = tdx.rtmrs.some((rtmr) => rtmr !== null)
  return {
    headerPolicy: {
      ...(tdx.minimumQeSvn === 0 ? {} : { minimumQeSvn: tdx.minimumQeSvn }),
      ...(tdx.minimumPceSvn === 0 ? {} : { minimumPceSvn: tdx.minimumPceSvn }),
      qeVendorId: single("qe_vendor_id", tdx.qeVendorIds),
    },
    tdQuoteBodyPolicy: {
      minimumTeeTcbSvn: tdx.minimumTeeTcbSvn === null ? undefined : base64(tdx.minimumTeeTcbSvn),
      mrSeam: single("mr_seam", tdx.mrSeams),
      tdAttributes: tdx.tdAttributes === null ? undefined : base64(encodeU64(tdx.tdAttributes)),
      xfam: tdx.xfam === null ? undefined : base64(encodeU64(tdx.xfam)),
      ...(mrTd !== undefined && others.length === 0 ? { mrTd: single("mr_td", tdx.mrTds) } : {}),
      ...(others.length > 0 ? { anyMrTd: hashes(tdx.mrTds ?? []) } : {}),
      mrConfigId: single("mr_config_id", tdx.mrConfigIds),
      mrOwner: single("mr_owner", tdx.mrOwners),
      mrOwnerConfig: single("mr_owner_config", tdx.mrOwnerConfigs),
      rtmrs: anyRtmr ? tdx.rtmrs.map((rtmr, index) => single(`rtmr${index}`, rtmr) ?? "") : undefined,
      reportData: single("report_data", tdx.reportData),
      ...(tdx.debug === "allowed" ? { allowDebug: true } : {}),
      ...(tdx.debug === "required" ? { tdattributesDebug: true } : {}),
    },
  }
}

function pcrValues({ akNames, pcrs }: TpmExpectations): Json {
  if (akNames !== null) throw refused("ak_name", "nothing")
  const banks = (["sha1", "sha256", "sha384", "sha512"] as const).flatMap((bank) => {
    const values = pcrs[bank]
    if (values === undefined) return []
    if (bank === "sha512") throw refused("tpm.pcrs.sha512", "sha1, sha256 and sha384")
    const entries = [...values].map(([pcr, expected]) => {
      const [only, ...more] = expected
      if (only === undefined || more.length > 0) throw refused(`tpm.pcrs.${bank}.${pcr}`, "one value")
      return [`${pcr}`, toHex(only)] as const
    })
    return [[bank, Object.fromEntries(entries)] as const]
  })
  return Object.fromEntries(banks)
}

function single(key: string, values: OneOf): string | undefined {
  const [only, ...more] = values ?? []
  if (only === undefined) return undefined
  if (more.length > 0) throw refused(key, "one value", "make a file for each value")
  if (isPlaceholder(only)) throw refused(key, "values that were filled in")
  return base64(only)
}

function hashes(values: readonly Uint8Array[]): Json | undefined {
  return values.length === 0 ? undefined : values.map(base64)
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64")
}

function refused(key: string, expected: string, hint = "keep this policy in TOML"): UsageError {
  return new UsageError("ERR_POLICY", {
    at: key,
    expected: `${expected}, which is what a policy of Cocos' can say`,
    found: "more than that",
    hint,
  })
}
