import { describe, expect, test } from "bun:test"
import { z } from "zod"
import { vector, vectorsUnder } from "../../../../test/fakes/vectors.ts"
import { CodedError } from "../../../errors.ts"
import { fromHex, toHex } from "../../hex.ts"
import { type Launch, type LaunchMode, launchMeasurement, ovmfLaunchDigest } from "./launch-digest.ts"
import { parseOvmf } from "./ovmf.ts"
import { VCPU_TYPES, vcpuSignature } from "./vcpu.ts"

const Row = z.object({
  name: z.string(),
  mode: z.enum(["SEV_SNP", "SEV_ES", "SEV"]),
  vcpus: z.number(),
  vcpu_type: z.string().nullable(),
  ovmf: z.string(),
  kernel: z.string().nullable(),
  initrd: z.string().nullable(),
  append: z.string().nullable(),
  guest_features: z.number(),
  snp_ovmf_hash_str: z.string().nullish(),
  vmm_type: z.enum(["QEMU", "ec2", "gce"]).default("QEMU"),
  expected: z.string(),
})

const MODES: Readonly<Record<string, LaunchMode>> = { SEV_SNP: "snp", SEV_ES: "seves", SEV: "sev" }

function launchOf(row: z.infer<typeof Row>): Launch {
  return {
    mode: MODES[row.mode] ?? "snp",
    ovmf: vector(row.ovmf),
    ovmfDigest: row.snp_ovmf_hash_str ? fromHex(row.snp_ovmf_hash_str) : null,
    // Both files of the vectors are /dev/null: empty.
    boot:
      row.kernel === null
        ? null
        : { kernel: new Uint8Array(0), initrd: new Uint8Array(0), commandLine: row.append ?? "" },
    vcpus: row.vcpus,
    vcpuSignature: VCPU_TYPES.get(row.vcpu_type ?? "") ?? 0,
    vmm: row.vmm_type,
    guestFeatures: BigInt(row.guest_features),
  }
}

const files = vectorsUnder("measure")
for (const { file } of files.filter((entry) => entry.file.endsWith(".json")))
  describe(file, () => {
    const rows = z.array(Row).parse(JSON.parse(new TextDecoder().decode(vector(file))))
    for (const row of rows)
      test(row.name, () => {
        if (row.expected.startsWith("error:"))
          expect(() => launchMeasurement(launchOf(row))).toThrowCode("ERR_KERNEL_HASHES")
        else expect(toHex(launchMeasurement(launchOf(row)))).toBe(row.expected)
      })
  })

describe.skipIf(files.length === 0)("OVMF image", () => {
  const images = files.filter(({ file }) => file.endsWith(".bin")).map(({ file }) => vector(file))

  test("a digest of the firmware alone can stand for the image", () => {
    for (const ovmf of images) {
      const launch: Launch = {
        mode: "snp",
        ovmf,
        ovmfDigest: null,
        boot: null,
        vcpus: 2,
        vcpuSignature: 1,
        vmm: "QEMU",
        guestFeatures: 1n,
      }
      const shortened = { ...launch, ovmfDigest: ovmfLaunchDigest(ovmf) }
      expect(launchMeasurement(shortened)).toEqual(launchMeasurement(launch))
    }
  })

  test("any byte changed gives another digest or a coded error", () => {
    for (const image of images) {
      const original = toHex(ovmfLaunchDigest(image))
      for (let at = 0; at < image.length; at++) {
        const changed = Uint8Array.from(image)
        changed[at] = (changed[at] ?? 0) ^ (1 + (at % 255))
        try {
          expect(toHex(ovmfLaunchDigest(changed))).not.toBe(original)
        } catch (error) {
          if (!(error instanceof CodedError)) throw error
        }
      }
    }
  })

  test("every shorter image is refused or read, and never runs over its end", () => {
    for (const image of images)
      for (let size = 0; size < image.length; size++)
        expect(() => parseOvmf(image.subarray(image.length - size))).toThrowCode("ERR_MALFORMED")
  })
})

test("a page without any table is firmware that knows nothing of SEV-SNP", () => {
  expect(parseOvmf(new Uint8Array(4096))).toMatchObject({ sections: [], hashTableGpa: null, resetEip: null })
})

test("more than one processor needs firmware that says where the others begin", () => {
  const launch: Launch = {
    mode: "snp",
    ovmf: new Uint8Array(4096),
    ovmfDigest: null,
    boot: null,
    vcpus: 2,
    vcpuSignature: 0,
    vmm: "QEMU",
    guestFeatures: 1n,
  }
  expect(() => launchMeasurement(launch)).toThrowCode("ERR_UNSUPPORTED")
  expect(() => launchMeasurement({ ...launch, vcpus: 0 })).toThrowCode("ERR_MALFORMED")
  expect(() => launchMeasurement({ ...launch, ovmfDigest: new Uint8Array(4) })).toThrowCode("ERR_MALFORMED")
})

test("a signature is built from family, model and stepping as CPUID gives it", () => {
  expect(vcpuSignature(23, 1, 2)).toBe(0x800f12)
  expect(vcpuSignature(25, 17, 0)).toBe(0xa10f10)
  expect(vcpuSignature(26, 0, 0)).toBe(0xb00f00)
  expect(VCPU_TYPES.get("EPYC-Milan-v2")).toBe(0xa00f11)
})
