import { defineCommand } from "citty"
import {
  anchorArgs,
  connectionArgs,
  connectionOf,
  credentialArgs,
  credentialsOf,
  expectationOf,
  imaArgs,
  trustOf,
} from "./agent-options.ts"
import { listOf, meta } from "./command.ts"
import { snapshotSubCommands } from "./snapshot-commands.ts"

export const snapshotCommand = defineCommand({
  meta: meta({
    name: "snapshot",
    description: "record the VM's state: what it is verified against from now on",
    details: [
      "The VM has to attest first: nothing is recorded through a relay or from a machine that does not prove itself. Then the agent hashes the files of the VM, and hardware, boot and TPM values of the verified evidence are added.",
      "The file is written whole or not at all. Keep it where nobody else can change it. Where its name ends in .zst it is compressed; every command reads both.",
      "A policy or measurement says which VM is meant, as long as there is no snapshot to tell it by. A token (--token-file) is sent to no VM without one: it is a secret. An owner's key only signs.",
      "The commands below work on snapshots that were taken, and ask no VM.",
    ],
    examples: [
      {
        line: "cosmian_vm --url https://vm.example:5555 --allow-insecure-tls snapshot -o vm.snapshot",
        does: "a VM with the agent's own certificate",
      },
      {
        line: "cosmian_vm snapshot --trust-root sim/tee/trust-root.pem --allow-insecure-tls",
        does: "a simulated VM on this machine",
      },
      {
        line: "cosmian_vm --url https://vm.example:5555 snapshot --policy vm.toml --token-file token",
        does: "an agent that asks for a token, once the VM is the one of the policy",
      },
    ],
  }),
  args: {
    ...connectionArgs,
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      default: "cosmian_vm.snapshot",
      description: "where to write the snapshot",
    },
    "save-evidence": {
      type: "string",
      valueHint: "FILE",
      description: "keep the evidence that the VM was verified by; the snapshot names it",
    },
    policy: {
      type: "string",
      valueHint: "FILE",
      description: "what the VM has to be, before it is recorded or sent a token: our TOML or Cocos' JSON",
    },
    measurement: {
      type: "string",
      valueHint: "HEX",
      description:
        "what it has to have launched: MEASUREMENT (SEV-SNP) or MRTD (TDX); nothing else is compared",
    },
    "any-vm": {
      type: "boolean",
      description: "send the token to whichever genuine confidential VM answers; anybody can rent one",
    },
    ...imaArgs,
    ...anchorArgs,
    ...credentialArgs,
  },
  subCommands: snapshotSubCommands,
  async run({ args }) {
    const { takeSnapshot } = await import("./snapshot.ts")
    return takeSnapshot({
      ...connectionOf(args),
      ...trustOf(args),
      ...expectationOf(args),
      output: args.output,
      credentials: credentialsOf(args),
      saveEvidence: args["save-evidence"] ?? null,
      violations: args.violations ?? null,
      imaPolicies: listOf(args["ima-policy"]),
    })
  },
})

export const enrollCommand = defineCommand({
  meta: meta({
    name: "enroll",
    description: "have the VM's TPM prove its attestation key, and keep the proof in the snapshot",
    details: [
      "The VM is verified against the snapshot; then its TPM has to open a secret that only the TPM with this certificate can open, and only for this attestation key. From then on every verification against the snapshot asks for the key that was proven. A snapshot that was taken with --tpm-ca is enrolled already.",
      "A TPM without a certificate can be enrolled by its endorsement key (--ek), got in a way that you trust: from whoever runs the TPM, or read on the machine before anybody else was there (tpm2_createek -u). Another TPM is refused.",
      "A signature over the snapshot has to be made again.",
    ],
    examples: [
      {
        line: "cosmian_vm enroll --url https://vm.example:5555 --allow-insecure-tls -s vm.snapshot --tpm-ca tpm-ca",
        does: "enroll the TPM of a VM whose snapshot was taken before",
      },
      {
        line: "cosmian_vm enroll --url https://vm.example:5555 --allow-insecure-tls -s vm.snapshot --ek ek.pub",
        does: "a TPM without certificate, known by its endorsement key",
      },
    ],
  }),
  args: {
    ...connectionArgs,
    snapshot: {
      type: "string",
      alias: "s",
      valueHint: "FILE",
      required: true,
      description: "the VM's snapshot",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      description: "where to write the enrolled snapshot, instead of over the snapshot",
    },
    ek: {
      type: "string",
      valueHint: "FILE",
      description:
        "public half of the endorsement key that the TPM has to have, instead of a certificate: PEM, DER, TPM2B_PUBLIC or TPMT_PUBLIC",
    },
    "accept-reboot": {
      type: "boolean",
      description: "a restart is no failure where TPM key and boot PCRs are the snapshot's",
    },
    ...anchorArgs,
  },
  async run({ args }) {
    const { enrollKey } = await import("./enroll.ts")
    return enrollKey({
      ...connectionOf(args),
      ...trustOf(args),
      snapshot: args.snapshot,
      output: args.output ?? null,
      acceptReboot: args["accept-reboot"] === true,
      ek: args.ek ?? null,
    })
  },
})
