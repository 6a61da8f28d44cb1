import { defineCommand } from "citty"
import { listOf, meta, repeatable } from "./command.ts"

const json = { type: "boolean", description: "print one JSON object on standard output" } as const

const snapshotFile = (description: string) =>
  ({ type: "positional", required: true, valueHint: "FILE", description }) as const

const showCommand = defineCommand({
  meta: meta({
    name: "show",
    description: "tell what a snapshot holds",
    details: ["Nothing is verified: what is shown is what the file says."],
    examples: [
      { line: "cosmian_vm snapshot show vm.snapshot", does: "when and of which VM it was taken" },
      {
        line: "cosmian_vm snapshot show --json vm.snapshot.zst",
        does: "the same of a compressed one, for a program",
      },
    ],
  }),
  args: {
    file: snapshotFile("the snapshot; - is standard input"),
    packages: { type: "boolean", description: "list the packages, each with its number of files" },
    json,
  },
  async run({ args }) {
    const { showSnapshot } = await import("./snapshot-show.ts")
    return showSnapshot({
      file: args.file,
      packages: args.packages === true,
      json: args.json === true,
    })
  },
})

const diffCommand = defineCommand({
  meta: meta({
    name: "diff",
    description: "tell how two snapshots differ",
    details: [
      "Reference values of TEE, TPM, boot and IMA by name; packages that were installed, removed or upgraded; files that were added, removed or changed, by package where it is known and else by directory. The text shows the first ones, --json all of them.",
      'Exit code 0 means that both could be read, whether they differ or not; in the JSON object, "equal" tells.',
    ],
    examples: [
      { line: "cosmian_vm snapshot diff before.snapshot after.snapshot", does: "what an update changed" },
      {
        line: "cosmian_vm snapshot diff --json before.snapshot after.snapshot | jq .equal",
        does: "for a program",
      },
    ],
  }),
  args: {
    before: snapshotFile("the earlier snapshot"),
    after: snapshotFile("the later snapshot"),
    json,
  },
  async run({ args }) {
    const { showSnapshotDiff } = await import("./snapshot-diff.ts")
    return showSnapshotDiff(args.before, args.after, args.json === true)
  },
})

const mergeCommand = defineCommand({
  meta: meta({
    name: "merge",
    description: "allow the files of several snapshots, while an update rolls out",
    details: [
      "The result holds the file digests of all of them. All other reference values have to be equal, save the TPM's clock, of which the latest is kept; else each difference is named and nothing is written.",
      "A signature of one of them does not hold for the result: sign it anew.",
    ],
    examples: [
      {
        line: "cosmian_vm snapshot merge before.snapshot after.snapshot -o rollout.snapshot",
        does: "until every program was restarted",
      },
    ],
  }),
  args: {
    file: repeatable(snapshotFile("the snapshots, two or more")),
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      required: true,
      description: "where to write the result; compressed where the name ends in .zst",
    },
  },
  async run({ args }) {
    const { mergeSnapshotFiles } = await import("./snapshot-merge.ts")
    return mergeSnapshotFiles(listOf(args.file), args.output)
  },
})

const signCommand = defineCommand({
  meta: meta({
    name: "sign",
    description: "sign a snapshot with an Ed25519 key",
    details: [
      "The signature is a detached DSSE envelope in a file of its own, over the JSON text: a snapshot may be compressed before or after.",
    ],
    examples: [
      { line: "openssl genpkey -algorithm ed25519 -out key.pem", does: "make a key, once" },
      { line: "cosmian_vm snapshot sign vm.snapshot --key key.pem", does: "writes vm.snapshot.sig" },
    ],
  }),
  args: {
    file: snapshotFile("the snapshot; - is standard input"),
    key: {
      type: "string",
      valueHint: "FILE",
      required: true,
      description: "private Ed25519 key, PKCS #8 in PEM; nobody else may be able to read it",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      description: "where to write the signature; FILE.sig unless said",
    },
  },
  async run({ args }) {
    const { signSnapshotFile } = await import("./snapshot-sign.ts")
    return signSnapshotFile({ file: args.file, key: args.key, output: args.output ?? null })
  },
})

const checkSignatureCommand = defineCommand({
  meta: meta({
    name: "check-signature",
    description: "check that a snapshot was signed with a key",
    details: ["Exit code 0 means that the snapshot is, bit by bit, what the key's holder signed."],
    examples: [
      { line: "openssl pkey -in key.pem -pubout -out public.pem", does: "the key that others need" },
      {
        line: "cosmian_vm snapshot check-signature vm.snapshot --key public.pem",
        does: "with the signature in vm.snapshot.sig",
      },
    ],
  }),
  args: {
    file: snapshotFile("the snapshot; - is standard input"),
    key: {
      type: "string",
      valueHint: "FILE",
      required: true,
      description: "public Ed25519 key in PEM",
    },
    signature: {
      type: "string",
      valueHint: "FILE",
      description: "the signature; FILE.sig unless said",
    },
    json,
  },
  async run({ args }) {
    const { checkSnapshotSignature } = await import("./snapshot-sign.ts")
    return checkSnapshotSignature({
      file: args.file,
      key: args.key,
      signature: args.signature ?? null,
      json: args.json === true,
    })
  },
})

/** What is done with snapshots that were taken: `snapshot show`, `diff`, `merge`, `sign`, `check-signature`. No VM is asked. */
export const snapshotSubCommands = {
  show: showCommand,
  diff: diffCommand,
  merge: mergeCommand,
  sign: signCommand,
  "check-signature": checkSignatureCommand,
}
