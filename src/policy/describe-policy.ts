import { hasBit, SNP_PLATFORM_INFO, SNP_POLICY } from "../formats/snp/report.ts"
import {
  ANY_SNP,
  type AttestationPolicy,
  type OneOf,
  type ProductFloors,
  type SnpExpectations,
  type TdxExpectations,
  type TpmExpectations,
} from "./attestation-policy.ts"
import type { BootExpectations } from "./boot-expectations.ts"
import { versionText } from "./guest-policy.ts"
import type { ImaExpectations } from "./ima-expectations.ts"
import { valuesText } from "./policy-findings.ts"

/** What a policy says about one kind of evidence. */
export interface PolicyPart {
  readonly about: string
  /** What is compared, with the expected value. */
  readonly fixed: Readonly<Record<string, string>>
  /** What is not compared. */
  readonly open: readonly string[]
}

export interface PolicyDescription {
  readonly parts: readonly PolicyPart[]
  /** What has no effect, and what should not be left open, a sentence each. */
  readonly notes: readonly string[]
}

/** A name, and the expected value as text; null where it is not compared. */
type Line = readonly [name: string, expected: string | null]

/** Says what a policy fixes and what it leaves open. */
export function describePolicy(policy: AttestationPolicy): PolicyDescription {
  const { snp, tdx, tpm, boot, ima, trust } = policy
  const parts = [
    ...(snp === null ? [] : [part("SEV-SNP", snpLines(snp))]),
    ...(tdx === null ? [] : [part("Intel TDX", tdxLines(tdx))]),
    ...(tpm === null ? [] : [part("TPM", tpmLines(tpm))]),
    ...(boot === null ? [] : [part("boot events", bootLines(boot))]),
    ...(ima === null ? [] : [part("IMA", imaLines(ima))]),
    part("collateral", [
      ["revocation", trust.requireRevocation ? "required by name" : null],
      ["network", trust.offline ? "not used" : null],
    ]),
  ]
  const notes = [...policy.notes, ...advice(policy)]
  return { parts: parts.filter(({ fixed, open }) => Object.keys(fixed).length + open.length > 0), notes }
}

function part(about: string, lines: readonly Line[]): PolicyPart {
  return {
    about,
    fixed: Object.fromEntries(lines.flatMap(([name, text]) => (text === null ? [] : [[name, text]]))),
    open: lines.flatMap(([name, text]) => (text === null ? [name] : [])),
  }
}

function advice({ snp, tdx, tpm }: AttestationPolicy): string[] {
  const notes: string[] = []
  const signed = snp !== null && (snp.signer.requireIdBlock || snp.signer.requireAuthorKey)
  if (snp !== null && snp.measurements === null && snp.idKeyDigests === null && !signed)
    notes.push("SEV-SNP: neither a measurement nor who signs the launch is fixed, so any software may run")
  if (snp !== null && hasBit(snp.guestPolicy.allowed, SNP_POLICY.debug))
    notes.push("SEV-SNP: debugging is allowed, so the host may read the VM's memory")
  if (snp !== null && hasBit(snp.guestPolicy.allowed, SNP_POLICY.migrationAgent))
    notes.push("SEV-SNP: a migration agent is allowed, and nothing vouches for it")
  if (snp !== null && snp.minimumTcb.reported === null)
    notes.push("SEV-SNP: no least TCB is fixed, so firmware with known weaknesses passes")
  if (tdx !== null && tdx.mrTds === null)
    notes.push("Intel TDX: no measurement is fixed, so any firmware may run")
  if (tdx !== null && tdx.debug !== "refused")
    notes.push("Intel TDX: debugging is allowed, so the host may read the TD's memory")
  if (tpm === null) notes.push("no PCR values are expected, so what the firmware started is not compared")
  return notes
}

function snpLines(snp: SnpExpectations): Line[] {
  const { minimumTcb, firmware, signer, platform } = snp
  const signers = [
    ...(signer.requireIdBlock ? ["an ID block"] : []),
    ...(signer.requireAuthorKey ? ["an author key"] : []),
    ...signer.trustedIdKeys.map((key) => `ID key ${valuesText([key])}`),
    ...signer.trustedAuthorKeys.map((key) => `author key ${valuesText([key])}`),
  ]
  return [
    [
      "products",
      snp.products
        ?.map(({ product, stepping }) => (stepping === null ? product : `${product} stepping ${stepping}`))
        .join(", ") ?? null,
    ],
    ["measurement", values(snp.measurements)],
    ["host_data", values(snp.hostData)],
    ["family_id", values(snp.familyIds)],
    ["image_id", values(snp.imageIds)],
    ["report_data", values(snp.reportData)],
    ["report_id", values(snp.reportIds)],
    ["report_id_ma", values(snp.reportIdMas)],
    ["chip_id", values(snp.chipIds)],
    ["id_key_digest", values(snp.idKeyDigests)],
    ["author_key_digest", values(snp.authorKeyDigests)],
    ["launch_signer", signers.join(", ") || null],
    ["vmpl", snp.vmpls?.join(" or ") ?? null],
    ["minimum_guest_svn", positive(snp.minimumGuestSvn)],
    ["guest_policy", guestPolicyText(snp)],
    [
      "platform",
      platform.allowed === ANY_SNP.platform.allowed && platform.required === 0n
        ? null
        : bitsText(SNP_PLATFORM_INFO, platform.allowed, platform.required),
    ],
    ["minimum_version", version(firmware.minimumVersion)],
    ["minimum_build", positive(firmware.minimumBuild)],
    ["provisional_firmware", firmware.provisional === "refused" ? "refused" : null],
    ["minimum_tcb", floorsText(minimumTcb.reported)],
    ["minimum_committed_tcb", floorsText(minimumTcb.committed)],
    ["minimum_launch_tcb", floorsText(minimumTcb.launch)],
  ]
}

function guestPolicyText({ guestPolicy }: SnpExpectations): string {
  const { allowed, required, minimumAbi, exactAbi } = guestPolicy
  const { reservedMustBeOne: _, ...named } = SNP_POLICY
  const abi = exactAbi ? `ABI ${versionText(minimumAbi)}` : `ABI ${versionText(minimumAbi)} or higher`
  return `${bitsText(named, allowed, required)}; ${abi}`
}

/** Which bits must be on, and which must be off; the others may be either. */
function bitsText(names: Readonly<Record<string, number>>, allowed: bigint, required: bigint): string {
  const on = Object.keys(names).filter((name) => hasBit(required, names[name] ?? 0))
  const off = Object.keys(names).filter((name) => !hasBit(allowed, names[name] ?? 0))
  return [
    ...(on.length > 0 ? [`on: ${on.join(", ")}`] : []),
    ...(off.length > 0 ? [`off: ${off.join(", ")}`] : []),
  ].join("; ")
}

function tdxLines(tdx: TdxExpectations): Line[] {
  const accepted = tdx.accept.map(
    ({ status, until, advisories }) =>
      `${status} until ${until.toISOString()} (${advisories === null ? "any advisory" : advisories.join(", ") || "no advisory"})`,
  )
  return [
    ["mr_td", values(tdx.mrTds)],
    ["mr_seam", values(tdx.mrSeams)],
    ["mr_config_id", values(tdx.mrConfigIds)],
    ["mr_owner", values(tdx.mrOwners)],
    ["mr_owner_config", values(tdx.mrOwnerConfigs)],
    ...tdx.rtmrs.map((rtmr, index): Line => [`rtmr${index}`, values(rtmr)]),
    ["report_data", values(tdx.reportData)],
    ["qe_vendor_id", values(tdx.qeVendorIds)],
    ["td_attributes", tdx.tdAttributes === null ? null : hex(tdx.tdAttributes)],
    ["xfam", tdx.xfam === null ? null : hex(tdx.xfam)],
    ["debug", tdx.debug],
    ["minimum_tee_tcb_svn", tdx.minimumTeeTcbSvn === null ? null : [...tdx.minimumTeeTcbSvn].join(" ")],
    ["minimum_qe_svn", positive(tdx.minimumQeSvn)],
    ["minimum_pce_svn", positive(tdx.minimumPceSvn)],
    ["minimum_tcb_evaluation_number", positive(tdx.minimumEvaluationNumber)],
    ["TCB status", ["UpToDate", ...accepted].join("; ")],
  ]
}

function tpmLines({ akNames, pcrs }: TpmExpectations): Line[] {
  const banks = (["sha1", "sha256", "sha384", "sha512"] as const).map((bank): Line => {
    const numbers = [...(pcrs[bank]?.keys() ?? [])].sort((a, b) => a - b)
    return [`PCRs (${bank})`, numbers.length === 0 ? null : numbers.join(", ")]
  })
  return [["ak_name", values(akNames)], ...banks]
}

function bootLines({ secureBoot, authorities, db, commandLine }: BootExpectations): Line[] {
  const { required, forbidden, initrds } = commandLine
  return [
    ["secure_boot", secureBoot || authorities !== null ? "on" : null],
    ["authority", values(authorities)],
    ["db", values(db)],
    ["command_line.required", required.join(" ") || null],
    ["command_line.forbidden", forbidden.join(" ") || null],
    ...(initrds.length === 0 ? [] : [["command_line.initrd", values(initrds)] as const]),
  ]
}

function imaLines({ violations, required }: ImaExpectations): Line[] {
  const ignored =
    violations?.mode === "ignore-paths"
      ? `at most ${violations.max} of ${violations.paths.join(", ")} are left out`
      : null
  return [
    ["violations", violations === null ? null : (ignored ?? violations.mode)],
    ["required", required.join(", ") || null],
  ]
}

function floorsText(floors: ProductFloors): string | null {
  if (floors === null) return null
  const products = Object.entries(floors).map(([product, floor]) => {
    const levels = Object.entries(floor).map(([component, level]) => `${component} ${level}`)
    return `${product}: ${levels.join(", ")}`
  })
  return products.join("; ")
}

function values(expected: OneOf): string | null {
  return expected === null ? null : valuesText(expected)
}

function positive(value: number): string | null {
  return value === 0 ? null : `${value} or higher`
}

function version(value: { readonly major: number; readonly minor: number }): string | null {
  return value.major === 0 && value.minor === 0 ? null : `${versionText(value)} or higher`
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`
}
