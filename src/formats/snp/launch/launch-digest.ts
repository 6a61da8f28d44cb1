import { createHash } from "node:crypto"
import { ParseError } from "../../../errors.ts"
import { type DirectBoot, encodeKernelHashes, encodeKernelHashesPage } from "./kernel-hashes.ts"
import { type Ovmf, type OvmfSection, parseOvmf } from "./ovmf.ts"
import { LaunchDigest } from "./page-digest.ts"
import { encodeVmsa, RESET_VECTOR, type VmmType } from "./vmsa.ts"

/** `snp`: SEV-SNP. The older two have no report; their measurement is compared by other means. */
export const LAUNCH_MODES = ["snp", "seves", "sev"] as const
export type LaunchMode = (typeof LAUNCH_MODES)[number]

/** Most processors that one VM has. */
export const MAX_VCPUS = 4096

/** All that goes into the measurement of a launch. */
export interface Launch {
  readonly mode: LaunchMode
  /** Firmware image as the host loads it. */
  readonly ovmf: Uint8Array
  /** Launch digest of the firmware alone (48 bytes), instead of measuring `ovmf`; null: measure it. SEV-SNP only. */
  readonly ovmfDigest: Uint8Array | null
  /** Null where the firmware finds a boot loader itself: then what it starts is not in the measurement. */
  readonly boot: DirectBoot | null
  readonly vcpus: number
  /** CPUID signature of the processor model. */
  readonly vcpuSignature: number
  readonly vmm: VmmType
  /** SEV_FEATURES of the processors; 1 is SNP alone, and newer Linux hosts set 0x21. Not part of the older modes. */
  readonly guestFeatures: bigint
}

/**
 * The measurement that the firmware of the processor will report for a launch: 48 bytes for SEV-SNP, 32 for the others.
 * @throws ParseError ERR_KERNEL_HASHES (firmware without a place for them), ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_LARGE,
 *   ERR_UNSUPPORTED
 */
export function launchMeasurement(launch: Launch): Uint8Array {
  const ovmf = parseOvmf(launch.ovmf)
  checkVcpus(launch.vcpus)
  if (launch.boot !== null) checkHashTable(ovmf, launch.mode)
  return launch.mode === "snp" ? snpMeasurement(launch, ovmf) : legacyMeasurement(launch, ovmf)
}

/** Launch digest after the firmware and before anything else; see `Launch.ovmfDigest`. @throws as launchMeasurement */
export function ovmfLaunchDigest(image: Uint8Array): Uint8Array {
  const digest = new LaunchDigest()
  const ovmf = parseOvmf(image)
  digest.addNormal(ovmf.gpa, ovmf.image)
  return digest.value
}

function snpMeasurement(launch: Launch, ovmf: Ovmf): Uint8Array {
  const digest = new LaunchDigest(launch.ovmfDigest ?? undefined)
  if (launch.ovmfDigest === null) digest.addNormal(ovmf.gpa, ovmf.image)
  for (const section of ovmf.sections) addSection(digest, section, launch, ovmf)
  // EC2 adds the CPUID page after everything else that the firmware asks for.
  if (launch.vmm === "ec2")
    for (const { kind, gpa } of ovmf.sections) if (kind === "cpuid") digest.addBlank("cpuid", gpa)
  for (const page of vmsaPages(launch, ovmf, launch.guestFeatures)) digest.addVmsa(page)
  return digest.value
}

function addSection(digest: LaunchDigest, section: OvmfSection, { vmm, boot }: Launch, ovmf: Ovmf): void {
  const { kind, gpa, size } = section
  switch (kind) {
    case "sec-mem":
      // Google's hypervisor leaves this memory to the guest.
      digest.addBlank(vmm === "gce" ? "unmeasured" : "zero", gpa, size)
      break
    case "secrets":
      digest.addBlank("secrets", gpa)
      break
    case "cpuid":
      if (vmm !== "ec2") digest.addBlank("cpuid", gpa)
      break
    case "svsm-caa":
      digest.addBlank("zero", gpa, size)
      break
    case "kernel-hashes":
      if (boot === null) digest.addBlank("zero", gpa, size)
      else digest.addNormal(gpa, encodeKernelHashesPage(boot, ovmf.hashTableGpa ?? 0))
      break
  }
}

/** SEV and SEV-ES hash the content of what is loaded, one thing after the other, without addresses. */
function legacyMeasurement(launch: Launch, ovmf: Ovmf): Uint8Array {
  const hash = createHash("sha256").update(ovmf.image)
  if (launch.boot !== null) hash.update(encodeKernelHashes(launch.boot))
  if (launch.mode === "seves") for (const page of vmsaPages(launch, ovmf, 0n)) hash.update(page)
  return new Uint8Array(hash.digest())
}

function vmsaPages(launch: Launch, ovmf: Ovmf, sevFeatures: bigint): Uint8Array[] {
  const { vmm, vcpus, vcpuSignature: signature } = launch
  const first = encodeVmsa({ vmm, eip: RESET_VECTOR, sevFeatures, signature })
  if (vcpus === 1) return [first]
  if (ovmf.resetEip === null)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "OVMF image",
      expected: "a SEV-ES reset block, which says where further processors begin",
      found: "none",
      hint: "use firmware built with SEV support",
    })
  const other = encodeVmsa({ vmm, eip: ovmf.resetEip, sevFeatures, signature })
  return [first, ...Array.from({ length: vcpus - 1 }, () => other)]
}

/** Without a place for the hashes the kernel would not be measured, and nobody would notice. */
function checkHashTable(ovmf: Ovmf, mode: LaunchMode): void {
  const section = mode !== "snp" || ovmf.sections.some(({ kind }) => kind === "kernel-hashes")
  // A table at address 0 is how builds without measured boot fill the entry.
  if (section && ovmf.hashTableGpa !== null && ovmf.hashTableGpa !== 0) return
  throw new ParseError("ERR_KERNEL_HASHES", {
    at: "OVMF image",
    expected: "a place for the hashes of kernel, initrd and command line",
    found: "none",
    hint: "use the AmdSev build of OVMF, or leave the kernel out",
  })
}

function checkVcpus(vcpus: number): void {
  if (Number.isInteger(vcpus) && vcpus >= 1 && vcpus <= MAX_VCPUS) return
  throw new ParseError("ERR_MALFORMED", {
    at: "number of processors",
    expected: `1 to ${MAX_VCPUS}`,
    found: `${vcpus}`,
  })
}
