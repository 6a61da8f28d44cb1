import { defineCommand } from "citty"
import { LAUNCH_MODES } from "../formats/snp/launch/launch-digest.ts"
import { VMM_TYPES } from "../formats/snp/launch/vmsa.ts"
import { SNP_PRODUCTS } from "../formats/snp/tcb.ts"
import { meta } from "./command.ts"

const TARGETS: ("toml" | "cocos")[] = ["toml", "cocos"]

const outputArg = {
  output: {
    type: "string",
    alias: "o",
    valueHint: "FILE",
    description: "write to this file instead of standard output",
  },
} as const

const jsonArg = {
  json: { type: "boolean", description: "print one JSON object on standard output" },
} as const

const policyFile = {
  type: "positional",
  required: true,
  valueHint: "FILE",
  description: "policy in TOML, Cocos' policy in JSON, or a snapshot; - reads standard input",
} as const

const fromReportCommand = defineCommand({
  meta: meta({
    name: "from-report",
    description: "write the policy that a report fits",
    details: [
      "The policy fixes what was launched and how, and asks for a platform that is no older. It does not name the chip, and nothing that belongs to one request or one start.",
      "The report is not verified here. Verify it first, or take it from a VM that you started yourself: attestation validate FILE.",
    ],
    examples: [
      { line: "cosmian_vm policy from-report report.bin -o vm.toml", does: "SEV-SNP report or TDX quote" },
    ],
  }),
  args: {
    file: {
      type: "positional",
      required: true,
      valueHint: "FILE",
      description: "SEV-SNP report (alone or with its certificates) or TDX quote; - reads standard input",
    },
    product: {
      type: "enum",
      options: [...SNP_PRODUCTS],
      description: "processor family, where neither report nor certificates name it",
    },
    ...outputArg,
  },
  async run({ args }) {
    const { policyFromReport } = await import("./policy-actions.ts")
    return policyFromReport({
      file: args.file,
      product: args.product ?? null,
      output: args.output ?? null,
    })
  },
})

const convertCommand = defineCommand({
  meta: meta({
    name: "convert",
    description: "write a policy in another format",
    details: ["Nothing is left out silently: what the other format cannot say is an error that names it."],
    examples: [
      { line: "cosmian_vm policy convert attestation_policy.json --to toml -o vm.toml", does: "from Cocos" },
      { line: "cosmian_vm policy convert cosmian_vm.snapshot --to toml", does: "from a snapshot" },
    ],
  }),
  args: {
    file: policyFile,
    to: { type: "enum", options: TARGETS, required: true, description: "the format to write" },
    ...outputArg,
  },
  async run({ args }) {
    const { convertPolicy } = await import("./policy-actions.ts")
    return convertPolicy({ file: args.file, to: args.to, output: args.output ?? null })
  },
})

const checkCommand = defineCommand({
  meta: meta({
    name: "check",
    description: "read a policy, and say what it fixes and what it leaves open",
    details: ["Exit code 2 means that the policy is not understood; file, line and key are named."],
    examples: [{ line: "cosmian_vm policy check vm.toml", does: "before it is used" }],
  }),
  args: { file: policyFile, ...jsonArg },
  async run({ args }) {
    const { checkPolicy } = await import("./policy-actions.ts")
    return checkPolicy({ file: args.file, json: args.json === true })
  },
})

const measureCommand = defineCommand({
  meta: meta({
    name: "measure",
    description: "compute the launch measurement that a VM will have",
    details: [
      "All that is measured at launch has to be given as the host loads it: firmware, number and model of processors, and kernel, initial RAM disk and command line where the host boots them directly. Without --kernel what the firmware's boot loader starts is not part of the measurement.",
    ],
    examples: [
      {
        line: "cosmian_vm policy measure --ovmf OVMF.fd --kernel vmlinuz --initrd initrd.img --append='console=ttyS0' --vcpus 4 --vcpu-type EPYC-v4",
        does: "a direct boot under QEMU",
      },
      { line: "cosmian_vm policy measure --ovmf ovmf.fd --vcpus 2 --vmm-type ec2", does: "on AWS" },
    ],
  }),
  args: {
    ovmf: { type: "string", valueHint: "FILE", required: true, description: "firmware image" },
    "ovmf-hash": {
      type: "string",
      valueHint: "HEX",
      description:
        "launch digest of another build of the firmware with the same tables, instead of measuring the image",
    },
    kernel: { type: "string", valueHint: "FILE", description: "Linux kernel that the host loads" },
    initrd: { type: "string", valueHint: "FILE", description: "initial RAM disk that the host loads" },
    append: { type: "string", valueHint: "TEXT", description: "kernel command line that the host gives" },
    vcpus: { type: "string", valueHint: "N", required: true, description: "number of processors" },
    "vcpu-type": {
      type: "string",
      valueHint: "MODEL",
      description: "QEMU's name of the processor model: EPYC-v4, EPYC-Milan-v2, …",
    },
    "vcpu-sig": {
      type: "string",
      valueHint: "N",
      description: "CPUID signature of the processor model, instead of its name",
    },
    "guest-features": {
      type: "string",
      valueHint: "N",
      default: "0x1",
      description: "SEV features of the VM as the host sets them; Linux 6.11 and later set 0x21",
    },
    "vmm-type": {
      type: "enum",
      options: [...VMM_TYPES],
      default: "QEMU",
      description: "whose first register values the processors have",
    },
    mode: {
      type: "enum",
      options: [...LAUNCH_MODES],
      default: "snp",
      description: "snp, or one of the technologies before it",
    },
    ...jsonArg,
  },
  async run({ args }) {
    const { measureLaunch } = await import("./measure-launch.ts")
    return measureLaunch({
      mode: args.mode,
      ovmf: args.ovmf,
      ovmfHash: args["ovmf-hash"] ?? null,
      kernel: args.kernel ?? null,
      initrd: args.initrd ?? null,
      append: args.append ?? null,
      vcpus: args.vcpus,
      vcpuType: args["vcpu-type"] ?? null,
      vcpuSignature: args["vcpu-sig"] ?? null,
      guestFeatures: args["guest-features"],
      vmm: args["vmm-type"],
      json: args.json === true,
    })
  },
})

/** `policy`: what is expected of evidence. */
export const policyCommand = defineCommand({
  meta: meta({
    name: "policy",
    description: "make, convert and check policies: what is expected of a VM's evidence",
  }),
  subCommands: {
    "from-report": fromReportCommand,
    convert: convertCommand,
    check: checkCommand,
    measure: measureCommand,
  },
})
