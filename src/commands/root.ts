import { connectionArgs } from "./agent-options.ts"
import { cliCommand, cliCommands } from "./cli.ts"
import { ownerCommand } from "./cli-owner.ts"
import { meta } from "./command.ts"

/** The executable itself: the tools, and the CLI's commands directly. */
export const rootCommand = {
  meta: meta({
    name: "cosmian_vm",
    description: "prove that a confidential VM is genuine, unmodified and yours",
    details: [
      "A snapshot of the configured VM is taken once; from then on the running VM is verified against it at any time, from anywhere: genuine hardware, what booted, every file that ran, and that the connection ends inside that VM.",
    ],
    examples: [
      { line: "cosmian_vm --url https://vm.example:5555 snapshot -o vm.snapshot", does: "take a snapshot" },
      {
        line: "cosmian_vm --url https://vm.example:5555 verify -s vm.snapshot",
        does: "verify the VM against it",
      },
    ],
  }),
  args: connectionArgs,
  subCommands: {
    ...cliCommands,
    owner: ownerCommand,
    cli: cliCommand,
    agent: async () => (await import("./agent.ts")).agentCommand,
    doctor: async () => (await import("./doctor.ts")).doctorCommand,
    bootstrap: async () => (await import("./bootstrap.ts")).bootstrapCommand,
    attestation: async () => (await import("./attestation.ts")).attestationCommand,
    fstool: async () => (await import("./fstool.ts")).fstoolCommand,
    certtool: async () => (await import("./certtool.ts")).certtoolCommand,
    eventlog: async () => (await import("./eventlog.ts")).eventLogCommand,
    collateral: async () => (await import("./collateral.ts")).collateralCommand,
    ima: async () => (await import("./ima.ts")).imaCommand,
    policy: async () => (await import("./policy.ts")).policyCommand,
    simulate: async () => (await import("./simulate.ts")).simulateCommand,
    completion: async () => (await import("./completion.ts")).completionCommand,
    man: async () => (await import("./man.ts")).manCommand,
  },
}
