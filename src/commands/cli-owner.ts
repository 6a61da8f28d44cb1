import { defineCommand } from "citty"
import { appArgs, appOf, connectionArgs } from "./agent-options.ts"
import { meta } from "./command.ts"

const VM = "cosmian_vm --url https://vm.example:5555"

const ownerKeyCommand = defineCommand({
  meta: meta({
    name: "key",
    description: "make an owner's key",
    details: [
      "Writes an Ed25519 key (PEM, mode 0600) and prints the line for [auth] in the agent's configuration. The same kind of key signs snapshots.",
    ],
    examples: [
      { line: "cosmian_vm owner key -o owner.pem", does: "then put the printed line into agent.toml" },
    ],
  }),
  args: {
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      required: true,
      description: "where to write the private key; an existing file is kept and its public half printed",
    },
    json: connectionArgs.json,
  },
  async run({ args }) {
    const { makeOwnerKey } = await import("./owner.ts")
    return makeOwnerKey({ output: args.output, json: args.json === true })
  },
})

const ownerClaimCommand = defineCommand({
  meta: meta({
    name: "claim",
    description: "become the owner of a VM that has none yet",
    details: [
      "For images that are built without an owner's key and with first_owner = true in [auth]. The VM has to attest first, so compare it with a snapshot or policy. Whoever is first owns the VM for good: where this fails because there is an owner already, and it was not you, do not use the VM.",
    ],
    examples: [
      {
        line: `${VM} owner claim --owner-key owner.pem -s vm.snapshot`,
        does: "once, right after the VM started",
      },
    ],
  }),
  args: appArgs,
  async run({ args }) {
    const { claimVm } = await import("./owner.ts")
    return claimVm(appOf(args))
  },
})

export const ownerCommand = defineCommand({
  meta: meta({ name: "owner", description: "keys that may have the agent do something" }),
  args: connectionArgs,
  subCommands: { key: ownerKeyCommand, claim: ownerClaimCommand },
})
