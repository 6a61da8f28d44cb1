import { UsageError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { hasBit } from "../formats/snp/report.ts"
import { SNP_PRODUCTS } from "../formats/snp/tcb.ts"
import {
  type AcceptedStatus,
  ANY_SNP,
  type AttestationPolicy,
  isPlaceholder,
  type LaunchSigner,
  type OneOf,
  type PlatformBounds,
  type ProductFloors,
  type SnpExpectations,
  type TdxExpectations,
  type TpmExpectations,
} from "./attestation-policy.ts"
import { type GuestPolicyBounds, type Version, versionText } from "./guest-policy.ts"
import { bootSections } from "./toml-boot.ts"
import { imaSections } from "./toml-ima.ts"
import {
  EXPOSURE_KEYS,
  OTHER_PLATFORM_BITS,
  PERMISSION_KEYS,
  PROTECTION_KEYS,
  RESTRICTION_KEYS,
} from "./toml-snp.ts"

/**
 * The text of a policy in our format, which reads back as the same policy. What equals a default that is not obvious is
 * written out all the same.
 * @param comments lines for the head of the file, without their marks.
 * @throws UsageError ERR_POLICY for a value that was never filled in
 */
export function encodeTomlPolicy(policy: AttestationPolicy, comments: readonly string[] = []): string {
  const { snp, tdx, tpm, boot, ima, trust } = policy
  const sections = [
    [...comments.map((line) => `# ${line}`.trimEnd()), "version = 1"],
    trustLines(trust),
    ...(snp === null ? [] : snpSections(snp)),
    ...(tdx === null ? [] : tdxSections(tdx)),
    ...(tpm === null ? [] : tpmSections(tpm)),
    ...(boot === null ? [] : bootSections(boot)),
    ...(ima === null ? [] : imaSections(ima)),
  ]
  return `${sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n")}\n`
}

function trustLines({ requireRevocation, offline }: AttestationPolicy["trust"]): string[] {
  const lines = [
    ...(requireRevocation ? ["require_revocation = true"] : []),
    ...(offline ? ["offline = true"] : []),
  ]
  return lines.length === 0 ? [] : ["[trust]", ...lines]
}

function snpSections(snp: SnpExpectations): string[][] {
  const { firmware, minimumTcb } = snp
  const main = [
    "[snp]",
    ...(snp.products === null
      ? []
      : [
          `products = ${list(snp.products.map(({ product, stepping }) => (stepping === null ? product : `${product}-B${stepping}`)))}`,
        ]),
    ...hexLine("measurement", snp.measurements),
    ...hexLine("host_data", snp.hostData),
    ...hexLine("family_id", snp.familyIds),
    ...hexLine("image_id", snp.imageIds),
    ...hexLine("report_data", snp.reportData),
    ...hexLine("report_id", snp.reportIds),
    ...hexLine("report_id_ma", snp.reportIdMas),
    ...hexLine("chip_id", snp.chipIds),
    ...hexLine("id_key_digest", snp.idKeyDigests),
    ...hexLine("author_key_digest", snp.authorKeyDigests),
    `vmpl = ${snp.vmpls === null ? '"any"' : vmplText(snp.vmpls)}`,
    ...numberLine("minimum_guest_svn", snp.minimumGuestSvn),
    ...versionLine("minimum_version", firmware.minimumVersion),
    ...numberLine("minimum_build", firmware.minimumBuild),
    `provisional_firmware = "${firmware.provisional}"`,
  ]
  return [
    main,
    guestPolicyLines(snp.guestPolicy),
    platformLines(snp.platform),
    signerLines(snp.signer),
    ...floorSections("minimum_tcb", minimumTcb.reported),
    ...floorSections("minimum_committed_tcb", minimumTcb.committed),
    ...floorSections("minimum_launch_tcb", minimumTcb.launch),
  ]
}

function vmplText(vmpls: readonly number[]): string {
  const [only, ...more] = vmpls
  return more.length === 0 ? `${only}` : `[${vmpls.join(", ")}]`
}

function guestPolicyLines(bounds: GuestPolicyBounds): string[] {
  const { allowed, required, minimumAbi, exactAbi } = bounds
  const abi = BigInt(minimumAbi.major * 256 + minimumAbi.minor)
  if (exactAbi) return ["[snp.guest_policy]", `exact = 0x${(required | abi).toString(16)}`]
  return [
    "[snp.guest_policy]",
    ...Object.entries(PERMISSION_KEYS).map(([key, bit]) => `${key} = ${hasBit(allowed, bit)}`),
    ...Object.entries(RESTRICTION_KEYS).map(([key, bit]) => `${key} = ${hasBit(required, bit)}`),
    ...versionLine("minimum_abi", minimumAbi),
  ]
}

function platformLines({ allowed, required }: PlatformBounds): string[] {
  if (allowed === ANY_SNP.platform.allowed && required === 0n) return []
  const other = allowed & OTHER_PLATFORM_BITS
  return [
    "[snp.platform]",
    ...Object.entries(EXPOSURE_KEYS).map(([key, bit]) => `${key} = ${hasBit(allowed, bit)}`),
    ...Object.entries(PROTECTION_KEYS).map(([key, bit]) => `${key} = ${hasBit(required, bit)}`),
    ...(other === OTHER_PLATFORM_BITS ? [] : [`other_bits = "0x${other.toString(16)}"`]),
  ]
}

function signerLines(signer: LaunchSigner): string[] {
  const { requireIdBlock, requireAuthorKey, trustedIdKeys, trustedAuthorKeys } = signer
  const lines = [
    ...(requireIdBlock ? ["require_id_block = true"] : []),
    ...(requireAuthorKey ? ["require_author_key = true"] : []),
    ...(trustedIdKeys.length > 0 ? hexLine("trusted_id_key_digest", trustedIdKeys) : []),
    ...(trustedAuthorKeys.length > 0 ? hexLine("trusted_author_key_digest", trustedAuthorKeys) : []),
  ]
  return lines.length === 0 ? [] : ["[snp.launch_signer]", ...lines]
}

function floorSections(key: string, floors: ProductFloors): string[][] {
  if (floors === null) return []
  return SNP_PRODUCTS.flatMap((product) => {
    const floor = floors[product]
    if (floor === undefined) return []
    const levels = Object.entries(floor).map(([component, level]) => `${component} = ${level}`)
    return [[`[snp.${key}.${product}]`, ...levels]]
  })
}

function tdxSections(tdx: TdxExpectations): string[][] {
  const main = [
    "[tdx]",
    ...hexLine("mr_td", tdx.mrTds),
    ...hexLine("mr_seam", tdx.mrSeams),
    ...hexLine("mr_config_id", tdx.mrConfigIds),
    ...hexLine("mr_owner", tdx.mrOwners),
    ...hexLine("mr_owner_config", tdx.mrOwnerConfigs),
    ...tdx.rtmrs.flatMap((rtmr, index) => hexLine(`rtmr${index}`, rtmr)),
    ...hexLine("report_data", tdx.reportData),
    ...hexLine("qe_vendor_id", tdx.qeVendorIds),
    ...bitsLine("td_attributes", tdx.tdAttributes),
    ...bitsLine("xfam", tdx.xfam),
    `debug = "${tdx.debug}"`,
    ...hexLine("minimum_tee_tcb_svn", tdx.minimumTeeTcbSvn === null ? null : [tdx.minimumTeeTcbSvn]),
    ...numberLine("minimum_qe_svn", tdx.minimumQeSvn),
    ...numberLine("minimum_pce_svn", tdx.minimumPceSvn),
    ...numberLine("minimum_tcb_evaluation_number", tdx.minimumEvaluationNumber),
  ]
  return [main, ...tdx.accept.map(acceptanceLines)]
}

function acceptanceLines({ status, until, advisories }: AcceptedStatus): string[] {
  return [
    "[[tdx.accept]]",
    `status = "${status}"`,
    `until = ${untilText(until)}`,
    `advisories = ${advisories === null ? '"any"' : list(advisories)}`,
  ]
}

/** The last moment of a day is written as the day. */
function untilText(until: Date): string {
  const iso = until.toISOString()
  return iso.endsWith("T23:59:59.999Z") ? iso.slice(0, 10) : iso
}

function tpmSections({ akNames, pcrs }: TpmExpectations): string[][] {
  const banks = (["sha1", "sha256", "sha384", "sha512"] as const).flatMap((bank) => {
    const values = pcrs[bank]
    if (values === undefined) return []
    const lines = [...values]
      .sort(([a], [b]) => a - b)
      .flatMap(([pcr, expected]) => hexLine(`${pcr}`, expected))
    return [[`[tpm.pcrs.${bank}]`, ...lines]]
  })
  // A table that only holds tables needs no heading.
  return akNames === null && banks.length > 0 ? banks : [["[tpm]", ...hexLine("ak_name", akNames)], ...banks]
}

function hexLine(key: string, values: OneOf): string[] {
  if (values === null) return []
  if (values.some(isPlaceholder))
    throw new UsageError("ERR_POLICY", {
      at: key,
      expected: "a value",
      found: "one that was never filled in",
      hint: "write the value, or leave the field out, before converting the policy",
    })
  const [only, ...more] = values.map(toHex)
  return [`${key} = ${more.length === 0 && only !== undefined ? `"${only}"` : list(values.map(toHex))}`]
}

function bitsLine(key: string, value: bigint | null): string[] {
  return value === null ? [] : [`${key} = "0x${value.toString(16)}"`]
}

function numberLine(key: string, value: number): string[] {
  return value === 0 ? [] : [`${key} = ${value}`]
}

function versionLine(key: string, version: Version): string[] {
  return version.major === 0 && version.minor === 0 ? [] : [`${key} = "${versionText(version)}"`]
}

function list(items: readonly string[]): string {
  const quoted = items.map((item) => JSON.stringify(item))
  const line = `[${quoted.join(", ")}]`
  return line.length <= 90 ? line : `[\n${quoted.map((item) => `  ${item},`).join("\n")}\n]`
}
