import type { ErrorCode } from "../errors.ts"
import { shortHex, toHex } from "../formats/hex.ts"
import { hasBit, SNP_PLATFORM_INFO, SNP_POLICY, type SnpReport } from "../formats/snp/report.ts"
import type { SnpAttestation } from "../verify/snp.ts"
import type { Verified } from "../verify/verified.ts"
import type { SevPolicy, Snapshot, TeeReference } from "./snapshot.ts"
import { snpReferenceIn } from "./snapshot-tee.ts"
import { appraiseTcb } from "./tcb.ts"
import type { Claim, Finding } from "./verdict.ts"

const RETAKE = "if the change was meant, take a new snapshot; otherwise do not trust this VM"

/** What the reference fixes: the predecessor's members, and ours where the snapshot has them. */
interface Reference {
  readonly sev: SevPolicy
  readonly ours: TeeReference | null
}

/**
 * Appraises a genuine SNP report. Every mismatch becomes a finding; a reference value that is missing is one too.
 * @param reference null only when a snapshot is about to be taken: then what needs no reference is judged.
 */
export function appraiseTee(
  attestation: Verified<SnpAttestation>,
  reference: Snapshot | null,
): { tee: Claim; tcb: Claim } {
  return { tee: appraiseReport(attestation, reference), tcb: appraiseTcb(attestation, reference) }
}

/** The snapshot members that hold a report's reference values. */
export function teeReferenceOf(attestation: Verified<SnpAttestation>): {
  tee_policy: { readonly Sev: SevPolicy }
  tee_reference: TeeReference
} {
  const { report, product, reportedTcb, committedTcb, launchTcb } = attestation
  return {
    tee_policy: { Sev: sevPolicyOf(report) },
    tee_reference: {
      product,
      vmpl: report.vmpl,
      host_data: toHex(report.hostData),
      platform_info: Number(report.platformInfo),
      reported_tcb: { ...reportedTcb },
      committed_tcb: { ...committedTcb },
      launch_tcb: { ...launchTcb },
    },
  }
}

/** What a report says, as the predecessor's snapshots hold it. The caller answers for where the report comes from. */
export function sevPolicyOf(report: SnpReport): SevPolicy {
  return {
    measurement: toHex(report.measurement),
    // Belongs to one nonce: never a reference value.
    report_data: null,
    family_id: toHex(report.familyId),
    image_id: toHex(report.imageId),
    guest_svn: report.guestSvn,
    id_key_digest: toHex(report.idKeyDigest),
    author_key_digest: toHex(report.authorKeyDigest),
    policy: Number(report.policy),
    report_id: toHex(report.reportId),
    report_id_ma: toHex(report.reportIdMa),
  }
}

function appraiseReport(attestation: SnpAttestation, reference: Snapshot | null): Claim {
  const { report } = attestation
  const facts = factsOf(attestation)
  if (reference === null) return withoutReference(attestation, facts)
  const expected = referenceOf(reference)
  if (expected === null)
    return verdictOf([...alwaysRefused(report), noReference(reference)], attestation, facts)
  const findings = [
    ...alwaysRefused(report),
    ...vmplFindings(report, expected.ours?.vmpl ?? 0),
    ...policyFindings(report, expected.sev.policy),
    ...launchFindings(report, expected.sev),
    ...(expected.ours === null ? [] : oursFindings(attestation, expected.ours)),
  ]
  return verdictOf(findings, attestation, facts)
}

/** Taking a snapshot: another privilege level than 0 is what a VM under an SVSM has, so the administrator decides. */
function withoutReference(attestation: SnpAttestation, facts: Claim["facts"]): Claim {
  const refused = alwaysRefused(attestation.report)
  const vmpl = vmplFindings(attestation.report, 0)
  if (refused.length > 0 || vmpl.length === 0) return verdictOf(refused, attestation, facts)
  return {
    check: "tee",
    status: "warning",
    summary: `a genuine report, asked for at VMPL ${attestation.report.vmpl}`,
    findings: vmpl,
    facts,
  }
}

function verdictOf(findings: readonly Finding[], attestation: SnpAttestation, facts: Claim["facts"]): Claim {
  const { product, signer, anchor } = attestation
  const hardware = anchor.simulated ? `SIMULATED ${product}` : `AMD ${product}`
  if (findings.length === 0) {
    const summary = `${hardware} processor, report signed by its ${signer}, chain ends at the pinned ${anchor.name}`
    return { check: "tee", status: "passed", summary, findings, facts }
  }
  const summary = `the report is genuine (${hardware}), but its content is not accepted: ${findings.map(({ subject }) => subject).join(", ")}`
  return { check: "tee", status: "failed", failureClass: "tee", summary, findings, facts }
}

function factsOf({ report, product, signer, anchor, chipId, cspId }: SnpAttestation): Claim["facts"] {
  return {
    product,
    signer,
    anchor: anchor.name,
    reportVersion: report.version,
    measurement: toHex(report.measurement),
    policy: hex(report.policy),
    vmpl: report.vmpl,
    guestSvn: report.guestSvn,
    platformInfo: hex(report.platformInfo),
    hostData: toHex(report.hostData),
    ...(chipId === null ? {} : { chipId: toHex(chipId) }),
    ...(cspId === null ? {} : { cspId }),
  }
}

function referenceOf({ tee_policy, tee_reference }: Snapshot): Reference | null {
  if (tee_policy === null || !("Sev" in tee_policy)) return null
  return { sev: tee_policy.Sev, ours: snpReferenceIn(tee_reference) }
}

function noReference(snapshot: Snapshot): Finding {
  const found = snapshot.tee_policy === null ? "no TEE" : (Object.keys(snapshot.tee_policy)[0] ?? "nothing")
  return finding("ERR_TEE_REFERENCE", "snapshot", "tee_policy for SEV-SNP", found, {
    meaning: "the snapshot was taken of a VM without SEV-SNP, so there is nothing to compare the report with",
    remedy: "take a new snapshot of this VM",
  })
}

/** Whatever a snapshot says, these make the TEE worthless. */
function alwaysRefused({ policy }: SnpReport): Finding[] {
  const findings: Finding[] = []
  if (hasBit(policy, SNP_POLICY.debug))
    findings.push(
      finding("ERR_TEE_DEBUG", "policy", "debugging forbidden", "debugging allowed", {
        meaning: "the host may read and write the VM's memory",
        remedy: "start the VM with a policy that forbids debugging",
      }),
    )
  if (hasBit(policy, SNP_POLICY.migrationAgent))
    findings.push(
      finding("ERR_TEE_MIGRATION", "policy", "no migration agent", "a migration agent allowed", {
        meaning: "a migration agent holds the VM's secrets, and nothing here vouches for it",
        remedy: "start the VM with a policy that forbids migration agents",
      }),
    )
  const unknown = policy >> BigInt(SNP_POLICY.pageSwapDisabled + 1)
  if (unknown !== 0n)
    findings.push(
      finding("ERR_TEE_POLICY", "policy", "bits that are known", hex(policy), {
        meaning: "the guest policy has bits of which this version does not know what they allow",
        remedy: "use a newer cosmian_vm",
      }),
    )
  return findings
}

function vmplFindings({ vmpl }: SnpReport, expected: number): Finding[] {
  if (vmpl === expected) return []
  return [
    finding("ERR_TEE_VMPL", "VMPL", `${expected}`, `${vmpl}`, {
      meaning:
        vmpl > expected
          ? "software of a lower privilege level than the expected one asked for the report"
          : "software of a higher privilege level than the expected one asked for the report",
      remedy:
        "have the report made by the VM's own kernel; if the VM now runs under an SVSM, take a new snapshot",
    }),
  ]
}

/** All bits have to be equal: those that allow less are a change of the VM, too. */
function policyFindings({ policy }: SnpReport, expected: number | null): Finding[] {
  if (expected === null) return [missing("policy")]
  const difference = policy ^ BigInt(expected)
  if (difference === 0n) return []
  const named = Object.entries(SNP_POLICY).filter(([, bit]) => hasBit(difference, bit))
  const bits = named.map(([name, bit]) => `${name} ${hasBit(policy, bit) ? "now set" : "now clear"}`)
  const abi = (difference & 0xffffn) === 0n ? [] : ["firmware ABI version"]
  return [
    finding("ERR_TEE_POLICY", "policy", hex(BigInt(expected)), hex(policy), {
      meaning: `the VM was started with another guest policy: ${[...bits, ...abi].join(", ") || "bits without a name"}`,
      remedy: RETAKE,
    }),
  ]
}

function launchFindings(report: SnpReport, sev: SevPolicy): Finding[] {
  const compare = (code: ErrorCode, name: keyof SevPolicy, found: Uint8Array, meaning: string): Finding[] => {
    const expected = sev[name]
    if (typeof expected !== "string") return [missing(name)]
    if (expected.toLowerCase() === toHex(found)) return []
    return [finding(code, name, shorten(expected), shortHex(found), { meaning, remedy: RETAKE })]
  }
  return [
    ...compare(
      "ERR_TEE_MEASUREMENT",
      "measurement",
      report.measurement,
      "the VM was launched from other firmware, kernel or settings than at the snapshot",
    ),
    ...compare(
      "ERR_TEE_ID_KEY",
      "id_key_digest",
      report.idKeyDigest,
      "another owner's key signed the launch, or none where one did before",
    ),
    ...compare(
      "ERR_TEE_AUTHOR_KEY",
      "author_key_digest",
      report.authorKeyDigest,
      "another author's key stands behind the owner's key of this launch",
    ),
    ...compare("ERR_TEE_IMAGE", "family_id", report.familyId, "the launch names another family of guests"),
    ...compare("ERR_TEE_IMAGE", "image_id", report.imageId, "the launch names another image"),
    ...svnFindings(report, sev.guest_svn),
  ]
}

function svnFindings({ guestSvn }: SnpReport, expected: number | null): Finding[] {
  if (expected === null) return [missing("guest_svn")]
  if (guestSvn >= expected) return []
  return [
    finding("ERR_TEE_GUEST_SVN", "guest_svn", `${expected} or higher`, `${guestSvn}`, {
      meaning: "the guest went back to a version with known weaknesses",
      remedy: "start the current image",
    }),
  ]
}

function oursFindings({ report, product }: SnpAttestation, ours: TeeReference): Finding[] {
  const findings: Finding[] = []
  if (ours.product !== product)
    findings.push(
      finding("ERR_TEE_PRODUCT", "product", ours.product, product, {
        meaning: "the VM runs on another processor family than at the snapshot",
        remedy: RETAKE,
      }),
    )
  if (ours.host_data.toLowerCase() !== toHex(report.hostData))
    findings.push(
      finding("ERR_TEE_HOST_DATA", "host_data", shorten(ours.host_data), shortHex(report.hostData), {
        meaning: "the host attached other data to the launch than at the snapshot",
        remedy: RETAKE,
      }),
    )
  // Absent in snapshots of hosts whose protections are not to be compared.
  if (ours.platform_info !== undefined)
    findings.push(...platformFindings(report.platformInfo, BigInt(ours.platform_info)))
  return findings
}

/** Protections that the snapshot's host had must still be there; new ones are welcome. SMT counts when it appears. */
function platformFindings(found: bigint, expected: bigint): Finding[] {
  return Object.entries(SNP_PLATFORM_INFO).flatMap(([name, bit]) => {
    const [before, now] = [hasBit(expected, bit), hasBit(found, bit)]
    const weaker = bit === SNP_PLATFORM_INFO.smtEnabled ? now && !before : before && !now
    if (!weaker) return []
    return [
      finding("ERR_TEE_PLATFORM", `platform_info ${name}`, before ? "on" : "off", now ? "on" : "off", {
        meaning: "the host that runs the VM protects it less than the snapshot's host did",
        remedy: RETAKE,
      }),
    ]
  })
}

function missing(name: keyof SevPolicy): Finding {
  return finding("ERR_TEE_REFERENCE", name, "a value in the snapshot", "none", {
    meaning: `the snapshot does not say which ${name} is expected`,
    remedy: "take a new snapshot",
  })
}

function finding(
  code: ErrorCode,
  subject: string,
  expected: string,
  found: string,
  text: { meaning: string; remedy: string },
): Finding {
  return { code, subject, expected, found, ...text }
}

function shorten(text: string): string {
  return text.length <= 16 ? text : `${text.slice(0, 16)}…`
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`
}
