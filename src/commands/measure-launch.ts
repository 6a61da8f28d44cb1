import { UsageError } from "../errors.ts"
import { fromHex, toHex } from "../formats/hex.ts"
import type { DirectBoot } from "../formats/snp/launch/kernel-hashes.ts"
import { type LaunchMode, launchMeasurement, MAX_VCPUS } from "../formats/snp/launch/launch-digest.ts"
import { MAX_OVMF } from "../formats/snp/launch/ovmf.ts"
import { VCPU_TYPES } from "../formats/snp/launch/vcpu.ts"
import type { VmmType } from "../formats/snp/launch/vmsa.ts"
import { readInput } from "./input-files.ts"
import { jsonText } from "./json-text.ts"
import { suggest } from "./suggest.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

/** Cap of a kernel or initial RAM disk, in bytes. */
const MAX_BOOT_FILE = 2 * 1024 * 1024 * 1024 - 1

export interface MeasureOptions {
  readonly mode: LaunchMode
  readonly ovmf: string
  readonly ovmfHash: string | null
  readonly kernel: string | null
  readonly initrd: string | null
  readonly append: string | null
  readonly vcpus: string
  readonly vcpuType: string | null
  readonly vcpuSignature: string | null
  readonly guestFeatures: string
  readonly vmm: VmmType
  readonly json: boolean
}

/** `policy measure`: prints the measurement in hex, or as JSON. */
export async function measureLaunch(
  options: MeasureOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const { mode, vmm, json } = options
  const launch = {
    mode,
    vmm,
    vcpus: Number(integer("--vcpus", options.vcpus, BigInt(MAX_VCPUS))),
    vcpuSignature: signatureOf(options),
    guestFeatures: integer("--guest-features", options.guestFeatures, 2n ** 64n - 1n),
    ovmfDigest: ovmfDigest(options),
    boot: bootOf(options),
    ovmf: readInput(options.ovmf, MAX_OVMF),
  }
  const measurement = toHex(launchMeasurement(launch))
  terminal.out(json ? jsonText({ measurement }) : `${measurement}\n`)
  return 0
}

function bootOf({ kernel, initrd, append }: MeasureOptions): DirectBoot | null {
  if (kernel === null) {
    const orphan = initrd !== null ? "--initrd" : append !== null ? "--append" : null
    if (orphan === null) return null
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: orphan,
      expected: `--kernel FILE, with which ${orphan} belongs`,
      hint: "a host that boots no kernel directly gives neither initial RAM disk nor command line",
    })
  }
  if (append?.includes("\0") === true)
    throw new UsageError("ERR_BAD_VALUE", { at: "--append", expected: "text without NUL" })
  return {
    kernel: readInput(kernel, MAX_BOOT_FILE),
    initrd: initrd === null ? new Uint8Array(0) : readInput(initrd, MAX_BOOT_FILE),
    commandLine: append ?? "",
  }
}

function signatureOf({ mode, vmm, vcpuType, vcpuSignature }: MeasureOptions): number {
  if (vcpuType !== null && vcpuSignature !== null)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--vcpu-sig",
      expected: "--vcpu-type or --vcpu-sig",
      found: "both",
    })
  if (vcpuSignature !== null) return Number(integer("--vcpu-sig", vcpuSignature, 2n ** 32n - 1n))
  if (vcpuType !== null) return typeSignature(vcpuType)
  // Other hosts show the guest no processor model, and SEV alone measures no registers.
  if (vmm !== "QEMU" || mode === "sev") return 0
  throw new UsageError("ERR_MISSING_ARGUMENT", {
    at: "policy measure",
    expected: "--vcpu-type MODEL",
    hint: "QEMU puts the processor model into the measured registers: say which one the VM has",
  })
}

function typeSignature(type: string): number {
  const signature = VCPU_TYPES.get(type)
  if (signature !== undefined) return signature
  const names = [...VCPU_TYPES.keys()]
  const near = suggest(type, names)
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--vcpu-type",
    expected: `one of ${names.join(", ")}`,
    found: type,
    hint: near === null ? "give the CPUID signature with --vcpu-sig" : `did you mean ${near}?`,
  })
}

function ovmfDigest({ mode, ovmfHash }: MeasureOptions): Uint8Array | null {
  if (ovmfHash === null) return null
  const digest = fromHex(ovmfHash)
  if (digest?.length !== 48)
    throw new UsageError("ERR_BAD_VALUE", { at: "--ovmf-hash", expected: "48 bytes in hex", found: ovmfHash })
  if (mode !== "snp")
    throw new UsageError("ERR_BAD_VALUE", { at: "--ovmf-hash", expected: "--mode snp", found: mode })
  return digest
}

function integer(option: string, text: string, max: bigint): bigint {
  const value = /^(?:\d{1,20}|0x[0-9a-fA-F]{1,16})$/.test(text) ? BigInt(text) : null
  if (value !== null && value <= max) return value
  throw new UsageError("ERR_BAD_VALUE", {
    at: option,
    expected: `an integer up to ${max}, decimal or with 0x`,
    found: text,
  })
}
