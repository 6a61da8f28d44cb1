import { defineCommand } from "citty"
import { meta } from "./command.ts"

/** Single pieces of evidence: got from a VM, validated and shown. Each command is in a file of its own. */
export const attestationCommand = defineCommand({
  meta: meta({
    name: "attestation",
    description: "get, validate and look into single reports and quotes",
    details: [
      "For a whole VM there are snapshot and verify. These commands are for one report or quote at a time: to see what a machine gives, and what is in it.",
    ],
    examples: [
      { line: "cosmian_vm attestation get snp -o report.bin", does: "on the VM: a SEV-SNP report" },
      {
        line: "cosmian_vm attestation validate report.bin --mode snp --policy vm.toml",
        does: "anywhere: whether it is genuine, and as expected",
      },
      { line: "cosmian_vm attestation show report.bin", does: "anywhere: each field of it" },
    ],
  }),
  subCommands: {
    get: async () => (await import("./attestation-get.ts")).attestationGetCommand,
    validate: async () => (await import("./attestation-validate.ts")).attestationValidateCommand,
    show: async () => (await import("./attestation-show.ts")).attestationShowCommand,
  },
})
