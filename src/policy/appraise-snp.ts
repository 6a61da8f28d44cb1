import type { ErrorCode } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { hasBit, SNP_PLATFORM_INFO, SNP_POLICY, type SnpReport } from "../formats/snp/report.ts"
import type { SnpAttestation } from "../verify/snp.ts"
import { appraiseSnpTcb } from "./appraise-snp-tcb.ts"
import {
  type AttestationPolicy,
  DEFAULT_SOURCE,
  type LaunchSigner,
  type OneOf,
  type SnpExpectations,
} from "./attestation-policy.ts"
import { abiOf, compareVersions, versionText } from "./guest-policy.ts"
import { mismatch, notOneOf, policyClaim, silentPolicy, valuesText } from "./policy-findings.ts"
import type { Claim, Finding } from "./verdict.ts"

/** Appraises a genuine SNP report by a policy: every mismatch is a finding. */
export function appraiseSnpByPolicy(
  attestation: SnpAttestation,
  policy: AttestationPolicy,
): { tee: Claim; tcb: Claim } {
  const { product, signer, anchor } = attestation
  const hardware = anchor.simulated ? `SIMULATED ${product}` : `AMD ${product}`
  const claim = (findings: readonly Finding[], warnings: readonly Finding[]): Claim =>
    policyClaim({
      check: "tee",
      failureClass: "tee",
      findings,
      warnings,
      summary: `${hardware} processor, report signed by its ${signer}, chain ends at the pinned ${anchor.name}; ${passedMeans(policy)}`,
      facts: factsOf(attestation),
    })
  const { snp } = policy
  if (snp === null)
    return {
      tee: claim([silentPolicy(policy, "SEV-SNP", "[snp]")], []),
      tcb: appraiseSnpTcb(attestation, null),
    }
  return {
    tee: claim(reportFindings(attestation, snp), reportWarnings(attestation.report, snp, policy)),
    tcb: appraiseSnpTcb(attestation, snp),
  }
}

function passedMeans(policy: AttestationPolicy): string {
  if (policy.source === DEFAULT_SOURCE) return "no policy says which software it has to run"
  return `it is as ${policy.source} wants it`
}

function factsOf({ report, product, signer, anchor, cspId, revocation }: SnpAttestation): Claim["facts"] {
  return {
    product,
    signer,
    anchor: anchor.name,
    revocation,
    reportVersion: report.version,
    measurement: toHex(report.measurement),
    policy: hex(report.policy),
    vmpl: report.vmpl,
    guestSvn: report.guestSvn,
    platformInfo: hex(report.platformInfo),
    hostData: toHex(report.hostData),
    chipId: toHex(report.chipId),
    ...(cspId === null ? {} : { cspId }),
  }
}

function reportFindings(attestation: SnpAttestation, snp: SnpExpectations): Finding[] {
  const { report } = attestation
  return [
    ...productFindings(attestation, snp),
    ...guestPolicyFindings(report, snp),
    ...vmplFindings(report, snp.vmpls),
    ...valueFindings(report, snp),
    ...chipFindings(report, snp.chipIds),
    ...signerFindings(report, snp.signer),
    ...guestSvnFindings(report, snp.minimumGuestSvn),
    ...platformFindings(report, snp),
  ]
}

/** What passes because the policy says so, or says nothing, and should be seen all the same. */
function reportWarnings(report: SnpReport, snp: SnpExpectations, policy: AttestationPolicy): Finding[] {
  const warnings: Finding[] = []
  if (hasBit(report.policy, SNP_POLICY.debug))
    warnings.push(
      mismatch("ERR_TEE_DEBUG", "policy", "debugging forbidden", "debugging allowed", {
        meaning: "the host may read and write the VM's memory; the policy accepts that",
        remedy: "use this for tests only",
      }),
    )
  if (snp.vmpls === null && report.vmpl !== 0)
    warnings.push(
      mismatch("ERR_TEE_VMPL", "VMPL", "0", `${report.vmpl}`, {
        meaning:
          "not the most privileged software of the VM asked for the report; the policy does not fix which",
        remedy: "write the privilege level into the policy",
      }),
    )
  if (policy.source !== DEFAULT_SOURCE && fixesNoSoftware(snp))
    warnings.push(
      mismatch("ERR_TEE_MEASUREMENT", "measurement", "a value in the policy", "none", {
        meaning: "the policy fixes neither a measurement nor who signed the launch: any software may run",
        remedy: "write the measurement into the policy",
      }),
    )
  return warnings
}

function fixesNoSoftware({ measurements, idKeyDigests, signer }: SnpExpectations): boolean {
  return measurements === null && idKeyDigests === null && !asksForSigner(signer)
}

function asksForSigner({ requireIdBlock, requireAuthorKey, ...lists }: LaunchSigner): boolean {
  const listed = lists.trustedIdKeys.length + lists.trustedAuthorKeys.length
  return requireIdBlock || requireAuthorKey || listed > 0
}

function productFindings({ product, report }: SnpAttestation, { products }: SnpExpectations): Finding[] {
  if (products === null) return []
  const stepping = report.cpuid?.stepping ?? null
  // A report of version 2 names no stepping, so one that is asked for cannot be shown.
  const fits = products.some(
    (wanted) => wanted.product === product && (wanted.stepping === null || wanted.stepping === stepping),
  )
  if (fits) return []
  const text = (name: string, step: number | null) => (step === null ? name : `${name} stepping ${step}`)
  return [
    mismatch(
      "ERR_TEE_PRODUCT",
      "product",
      products.map((wanted) => text(wanted.product, wanted.stepping)).join(" or "),
      text(product, stepping),
      { meaning: "the VM runs on a processor that the policy does not name" },
    ),
  ]
}

function guestPolicyFindings({ policy }: SnpReport, { guestPolicy }: SnpExpectations): Finding[] {
  const { allowed, required, minimumAbi, exactAbi } = guestPolicy
  const bits = policy & ~0xffffn
  const findings = Object.entries(SNP_POLICY).flatMap(([name, bit]) => {
    const set = hasBit(bits, bit)
    if (set && !hasBit(allowed, bit)) return [policyBit(name, "clear", "set")]
    if (!set && hasBit(required, bit)) return [policyBit(name, "set", "clear")]
    return []
  })
  const unnamed = bits >> BigInt(SNP_POLICY.pageSwapDisabled + 1)
  if (unnamed !== 0n)
    findings.push(
      mismatch("ERR_TEE_POLICY", "policy", "bits that are known", hex(policy), {
        meaning: "the guest policy has bits of which this version does not know what they allow",
        remedy: "use a newer cosmian_vm",
      }),
    )
  const order = compareVersions(abiOf(policy), minimumAbi)
  if (order < 0 || (exactAbi && order > 0))
    findings.push(
      mismatch(
        "ERR_TEE_POLICY",
        "policy ABI version",
        exactAbi ? versionText(minimumAbi) : `${versionText(minimumAbi)} or higher`,
        versionText(abiOf(policy)),
        { meaning: "the VM was started with a guest policy that asks for another firmware ABI version" },
      ),
    )
  return findings
}

function policyBit(name: string, expected: string, found: string): Finding {
  const [code, meaning] = POLICY_BITS[name] ?? [
    "ERR_TEE_POLICY",
    "the VM was started with another guest policy",
  ]
  return mismatch(code, `policy ${name}`, expected, found, {
    meaning,
    remedy: "start the VM with the guest policy that is expected, or change the policy",
  })
}

const POLICY_BITS: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  debug: ["ERR_TEE_DEBUG", "the host may read and write the VM's memory"],
  migrationAgent: [
    "ERR_TEE_MIGRATION",
    "a migration agent holds the VM's secrets, and nothing here vouches for it",
  ],
  smtAllowed: ["ERR_TEE_POLICY", "other programs of the host may share the VM's processor cores"],
  singleSocket: ["ERR_TEE_POLICY", "the VM may run on more than one socket"],
}

function vmplFindings({ vmpl }: SnpReport, expected: readonly number[] | null): Finding[] {
  if (expected === null || expected.includes(vmpl)) return []
  return [
    mismatch("ERR_TEE_VMPL", "VMPL", expected.join(" or "), `${vmpl}`, {
      meaning: "software of another privilege level than the expected one asked for the report",
    }),
  ]
}

type Value = readonly [code: ErrorCode, subject: string, found: Uint8Array, expected: OneOf, meaning: string]

function valueFindings(report: SnpReport, snp: SnpExpectations): Finding[] {
  const values: readonly Value[] = [
    [
      "ERR_TEE_MEASUREMENT",
      "measurement",
      report.measurement,
      snp.measurements,
      "the VM was launched from other firmware, kernel or settings",
    ],
    [
      "ERR_TEE_HOST_DATA",
      "host_data",
      report.hostData,
      snp.hostData,
      "the host attached other data to the launch",
    ],
    [
      "ERR_TEE_IMAGE",
      "family_id",
      report.familyId,
      snp.familyIds,
      "the launch names another family of guests",
    ],
    ["ERR_TEE_IMAGE", "image_id", report.imageId, snp.imageIds, "the launch names another image"],
    [
      "ERR_TEE_REPORT_DATA",
      "report_data",
      report.reportData,
      snp.reportData,
      "the report was made for another request, or by other software",
    ],
    ["ERR_TEE_REPORT_ID", "report_id", report.reportId, snp.reportIds, "this is another run of the VM"],
    [
      "ERR_TEE_REPORT_ID",
      "report_id_ma",
      report.reportIdMa,
      snp.reportIdMas,
      "another migration agent, or one at all, is bound to the VM",
    ],
    [
      "ERR_TEE_ID_KEY",
      "id_key_digest",
      report.idKeyDigest,
      snp.idKeyDigests,
      "another owner's key signed the launch, or none",
    ],
    [
      "ERR_TEE_AUTHOR_KEY",
      "author_key_digest",
      report.authorKeyDigest,
      snp.authorKeyDigests,
      "another author's key stands behind the owner's key of this launch, or none",
    ],
  ]
  return values.flatMap((value) => notOneOf(...value))
}

/** Turin's identifier is 8 bytes, and the report pads it with zeros. */
function chipFindings({ chipId }: SnpReport, expected: OneOf): Finding[] {
  const padded = expected?.map((value) => (value.length === 8 ? padTo64(value) : value)) ?? null
  return notOneOf(
    "ERR_TEE_CHIP",
    "chip_id",
    chipId,
    padded,
    chipId.every((byte) => byte === 0)
      ? "the host hides which processor it is, or the cloud's key signed the report"
      : "the VM runs on a processor that the policy does not name",
  )
}

function padTo64(value: Uint8Array): Uint8Array {
  const padded = new Uint8Array(64)
  padded.set(value)
  return padded
}

/** The firmware checked the signatures at launch, so the digests in the report are enough. */
function signerFindings(report: SnpReport, signer: LaunchSigner): Finding[] {
  const { requireAuthorKey, trustedIdKeys, trustedAuthorKeys } = signer
  const among = (keys: readonly Uint8Array[], digest: Uint8Array) =>
    keys.some((key) => Buffer.compare(key, digest) === 0)
  if (!asksForSigner(signer)) return []
  const authorTrusted = report.authorKeyEnabled && among(trustedAuthorKeys, report.authorKeyDigest)
  if (authorTrusted) return []
  if (requireAuthorKey)
    return [
      mismatch(
        "ERR_TEE_AUTHOR_KEY",
        "author_key_digest",
        trustedAuthorKeys.length === 0
          ? "a trusted author key (the policy names none)"
          : valuesText(trustedAuthorKeys),
        report.authorKeyEnabled ? toHex(report.authorKeyDigest) : "no author key",
        { meaning: "no author whom the policy trusts stands behind the launch" },
      ),
    ]
  if (among(trustedIdKeys, report.idKeyDigest)) return []
  const signed = report.idKeyDigest.some((byte) => byte !== 0)
  return [
    mismatch(
      "ERR_TEE_ID_KEY",
      "id_key_digest",
      trustedIdKeys.length + trustedAuthorKeys.length > 0
        ? valuesText([...trustedIdKeys, ...trustedAuthorKeys])
        : "a trusted ID key (the policy names none)",
      signed ? toHex(report.idKeyDigest) : "no ID key",
      { meaning: "no owner whom the policy trusts signed the launch" },
    ),
  ]
}

function guestSvnFindings({ guestSvn }: SnpReport, minimum: number): Finding[] {
  if (guestSvn >= minimum) return []
  return [
    mismatch("ERR_TEE_GUEST_SVN", "guest_svn", `${minimum} or higher`, `${guestSvn}`, {
      meaning: "the guest is of a version with known weaknesses",
      remedy: "start the current image",
    }),
  ]
}

function platformFindings({ platformInfo }: SnpReport, { platform }: SnpExpectations): Finding[] {
  const names = new Map<number, string>(Object.entries(SNP_PLATFORM_INFO).map(([name, bit]) => [bit, name]))
  return Array.from({ length: 64 }, (_, bit) => bit).flatMap((bit) => {
    const set = hasBit(platformInfo, bit)
    const wrong = set ? !hasBit(platform.allowed, bit) : hasBit(platform.required, bit)
    if (!wrong) return []
    const subject = `platform_info ${names.get(bit) ?? `bit ${bit}`}`
    return [
      mismatch("ERR_TEE_PLATFORM", subject, set ? "off" : "on", set ? "on" : "off", {
        meaning: "the host that runs the VM is set up in another way than the policy asks for",
        remedy: "move the VM to a host that is set up as expected, or change the policy",
      }),
    ]
  })
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`
}
