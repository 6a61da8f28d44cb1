import { defineCommand } from "citty"
import { EXIT } from "../errors.ts"
import { anchorArgs, connectionArgs, connectionOf, imaArgs, trustOf } from "./agent-options.ts"
import { listOf, meta, repeatable } from "./command.ts"

const EXIT_CODES = Object.entries(EXIT)
  .map(([name, code]) => `${code} ${name}`)
  .join(", ")

/** What is kept of a verification, and verification of what was kept. */
const recordArgs = {
  report: { type: "string", valueHint: "FILE.html", description: "write the verdict as a page for people" },
  junit: { type: "string", valueHint: "FILE.xml", description: "write the verdict as JUnit XML" },
  sarif: { type: "string", valueHint: "FILE.json", description: "write the verdict as SARIF 2.1.0" },
  "save-evidence": {
    type: "string",
    valueHint: "FILE",
    description: "keep everything that was judged, for --evidence; zstd where the name ends in .zst",
  },
  evidence: {
    type: "string",
    valueHint: "FILE",
    description: "judge saved evidence instead of asking a VM; nothing is fetched",
  },
  at: {
    type: "string",
    valueHint: "RFC3339",
    description: "with --evidence: judge certificates and revocation lists as of this time; now unless said",
  },
} as const

export const verifyCommand = defineCommand({
  meta: meta({
    name: "verify",
    description: "verify the running VM against its snapshot",
    details: [
      "Each check is shown with what was proven, or with what was expected, what was found, what that means and what to do. Exit code 0 means that every check ran and passed, save those left out with --skip.",
      `Exit codes: ${EXIT_CODES}. The first failed check in this order decides.`,
    ],
    examples: [
      {
        line: "cosmian_vm --url https://vm.example:5555 --allow-insecure-tls verify -s vm.snapshot",
        does: "the usual case",
      },
      {
        line: "cosmian_vm --url https://vm.example:5555 verify -s vm.snapshot -w extra.txt -a vm.example:443",
        does: "files that may run besides the snapshot's, and an application that must answer from inside the VM",
      },
      {
        line: "cosmian_vm --url https://vm.example:5555 verify -s vm.snapshot --policy vm.toml",
        does: "what a policy asks for beside it, such as Secure Boot",
      },
      {
        line: "cosmian_vm verify -s vm.snapshot --accept-reboot --json",
        does: "the VM may have been rebooted, as long as the same booted; result for a program",
      },
      {
        line: "cosmian_vm verify -s vm.snapshot --report vm.html --save-evidence vm.evidence.zst",
        does: "a page for an auditor, and what the answer was made from",
      },
      {
        line: "cosmian_vm verify -s vm.snapshot --evidence vm.evidence.zst --allow-insecure-tls --at 2026-01-31T12:00:00Z",
        does: "the same verdict later, on another machine, without a connection",
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
      description: "the snapshot to compare with",
    },
    whitelist: {
      type: "string",
      alias: "w",
      valueHint: "FILE",
      description: "more files that may run: lines of path and hex digest, or with patterns and dates",
    },
    "ima-key": repeatable({
      type: "string",
      valueHint: "FILE",
      description:
        "also accept files that this key signed (security.ima), whatever their path and version; certificate or public key, PEM or DER",
    }),
    "evm-key": repeatable({
      type: "string",
      valueHint: "FILE",
      description: "the same for portable signatures of EVM (security.evm; template evm-sig)",
    }),
    application: repeatable({
      type: "string",
      alias: "a",
      valueHint: "HOST[:PORT]",
      description: "an application whose TLS has to end inside the VM; port 443 unless said",
    }),
    "accept-reboot": {
      type: "boolean",
      description: "a restart is no failure where TPM key and boot PCRs are the snapshot's",
    },
    policy: {
      type: "string",
      valueHint: "FILE",
      description:
        "what is asked for beside the snapshot: our TOML or Cocos' JSON; it can only make the verdict stricter",
    },
    ...imaArgs,
    ...recordArgs,
    ...anchorArgs,
  },
  async run({ args }) {
    const { verifyAgainstSnapshot } = await import("./verify.ts")
    return verifyAgainstSnapshot({
      ...connectionOf(args),
      ...trustOf(args),
      snapshot: args.snapshot,
      whitelist: args.whitelist ?? null,
      imaKeys: listOf(args["ima-key"]),
      evmKeys: listOf(args["evm-key"]),
      applications: listOf(args.application),
      acceptReboot: args["accept-reboot"] === true,
      policy: args.policy ?? null,
      violations: args.violations ?? null,
      imaPolicies: listOf(args["ima-policy"]),
      evidence: args.evidence ?? null,
      at: args.at ?? null,
      outputs: {
        report: args.report ?? null,
        junit: args.junit ?? null,
        sarif: args.sarif ?? null,
        evidence: args["save-evidence"] ?? null,
      },
    })
  },
})
