import { defineCommand } from "citty"
import { BANKS } from "../verify/ima-replay.ts"
import { imaArgs } from "./agent-options.ts"
import { listOf, meta, repeatable } from "./command.ts"

const json = { type: "boolean", description: "print one JSON object on standard output" } as const

const listFile = {
  type: "positional",
  required: true,
  valueHint: "FILE",
  description: "the measurement list; - is standard input",
} as const

const file = (description: string) => ({ type: "string", valueHint: "FILE", description }) as const

const FORMS =
  "FILE is binary_runtime_measurements or ascii_runtime_measurements of /sys/kernel/security/ima, or one of their forms for a single bank (binary_runtime_measurements_sha256), plain or compressed with gzip or zstd. What it is, its content tells. Lists of any length are read in bounded memory."

const showCommand = defineCommand({
  meta: meta({
    name: "show",
    description: "print the entries of a measurement list",
    details: [
      FORMS,
      "Nothing is verified: what is shown is what the file says. A file signature that is malformed is told at its entry, and makes the exit code 16.",
    ],
    examples: [
      {
        line: "cosmian_vm ima show /sys/kernel/security/ima/binary_runtime_measurements",
        does: "on the VM: what ran since it booted",
      },
      { line: "cosmian_vm ima show --json list.zst", does: "for a program" },
    ],
  }),
  args: { file: listFile, json },
  async run({ args }) {
    const { showList } = await import("./ima-show.ts")
    return showList(args.file, args.json === true)
  },
})

const replayCommand = defineCommand({
  meta: meta({
    name: "replay",
    description: "compute the PCR that a measurement list gives",
    details: [
      FORMS,
      "Each entry's template digest is computed anew from its data and has to be the one in the list. A violation extends each bank with ones.",
      "With --pcrs, the values there have to be reached at some entry; what follows that entry was measured later. Exit code 16: they are not reached, or an entry does not hold.",
    ],
    examples: [
      { line: "cosmian_vm ima replay list.bin", does: "PCR 10 of the SHA-256 bank" },
      {
        line: "tpm2_pcrread sha256:10 > pcrs.txt; cosmian_vm ima replay /sys/kernel/security/ima/binary_runtime_measurements --pcrs pcrs.txt",
        does: "on the VM: whether list and TPM agree",
      },
    ],
  }),
  args: {
    file: listFile,
    bank: {
      type: "enum",
      options: [...BANKS],
      default: "sha256",
      description: "the bank of the TPM's PCRs",
    },
    pcrs: file("PCR values to compare with: JSON by bank and number, or what tpm2_pcrread prints"),
    "padded-sha1": {
      type: "boolean",
      description: "extend as kernels before 5.8 do: with the SHA-1 digest, filled up with zeros",
    },
    json,
  },
  async run({ args }) {
    const { replayList } = await import("./ima-replay.ts")
    return replayList({
      file: args.file,
      bank: args.bank,
      pcrs: args.pcrs ?? null,
      padded: args["padded-sha1"] === true,
      json: args.json === true,
    })
  },
})

const appraiseCommand = defineCommand({
  meta: meta({
    name: "appraise",
    description: "judge a measurement list against a snapshot, as verify does",
    details: [
      FORMS,
      "With --quote, --signature, --ak and --pcrs the list has to give PCR 10 as that key's TPM quoted it; the key is the one that you name, and for which request the quote was made is not looked at (see attestation validate). With --pcrs alone the values are taken for true. With neither, the list is judged as it is, and the result says that nothing vouches for it.",
      "boot_aggregate is computed anew where PCRs 0 to 9 are known, and compared with the snapshot's in any case.",
      "Exit code 0 means that nothing is wrong; 14 the quote, 16 the list.",
    ],
    examples: [
      {
        line: "cosmian_vm ima appraise list.bin --snapshot vm.snapshot --whitelist extra.txt",
        does: "what ran and is not the snapshot's",
      },
      {
        line: "cosmian_vm ima appraise list.bin --snapshot vm.snapshot --quote quote.msg --signature quote.sig --ak ak.pub --pcrs pcrs.json --json",
        does: "with the TPM's word for it, for a program",
      },
    ],
  }),
  args: {
    file: listFile,
    snapshot: { ...file("the snapshot to compare with"), alias: "s", required: true },
    whitelist: { ...file("more files that may run"), alias: "w" },
    "ima-key": repeatable(
      file("also accept files that this key signed; certificate or public key, PEM or DER"),
    ),
    "evm-key": repeatable(file("the same for portable signatures of EVM (template evm-sig)")),
    policy: file("policy with a table [ima]"),
    ...imaArgs,
    quote: file("the TPM's quote (TPMS_ATTEST)"),
    signature: file("its signature: TPMT_SIGNATURE, or the bare signature"),
    ak: file("the TPM's attestation key: TPM2B_PUBLIC, TPMT_PUBLIC, or the bare key in PEM or DER"),
    pcrs: file("PCR values: JSON by bank and number, or what tpm2_pcrread prints"),
    at: {
      type: "string",
      valueHint: "RFC3339",
      description: "judge dates in the whitelist as of this time; now unless said",
    },
    json,
  },
  async run({ args }) {
    const { appraiseList } = await import("./ima-appraise.ts")
    return appraiseList({
      file: args.file,
      snapshot: args.snapshot,
      whitelist: args.whitelist ?? null,
      imaKeys: listOf(args["ima-key"]),
      evmKeys: listOf(args["evm-key"]),
      policy: args.policy ?? null,
      violations: args.violations ?? null,
      imaPolicies: listOf(args["ima-policy"]),
      quote: args.quote ?? null,
      signature: args.signature ?? null,
      ak: args.ak ?? null,
      pcrs: args.pcrs ?? null,
      at: args.at ?? null,
      json: args.json === true,
    })
  },
})

const policyCommand = defineCommand({
  meta: meta({
    name: "policy",
    description: "tell what an IMA policy measures, and what it leaves out",
    details: [
      "FILE is the text of a policy, such as /etc/ima/ima-policy. It is read as the kernel does, and refused as it would be. Exit code 16: programs, libraries, modules, firmware, kexec or later policies are not all measured.",
    ],
    examples: [
      { line: "cosmian_vm ima policy /etc/ima/ima-policy", does: "what this VM will measure after a reboot" },
    ],
  }),
  args: {
    file: {
      type: "positional",
      required: true,
      valueHint: "FILE",
      description: "the policy; - is standard input",
    },
    json,
  },
  async run({ args }) {
    const { showImaPolicy } = await import("./ima-policy.ts")
    return showImaPolicy(args.file, args.json === true)
  },
})

/** Measurement lists by themselves: shown, replayed, and judged against a snapshot. */
export const imaCommand = defineCommand({
  meta: meta({
    name: "ima",
    description: "look into the kernel's list of files that ran",
    details: [
      "For a whole VM there is verify. These commands are for one measurement list at a time, in a file: to see what is in it, and why verify says what it says.",
    ],
    examples: [
      { line: "cosmian_vm ima show list.bin", does: "each entry" },
      { line: "cosmian_vm ima replay list.bin --pcrs pcrs.json", does: "whether it gives the TPM's PCR 10" },
    ],
  }),
  subCommands: {
    show: showCommand,
    replay: replayCommand,
    appraise: appraiseCommand,
    policy: policyCommand,
  },
})
