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

const updateCommand = defineCommand({
  meta: meta({
    name: "update",
    description: "accept the files of an updated package, taken from the package itself",
    details: [
      "The VM is not asked. Each package has to be vouched for: a .deb by the lists of a repository whose Release file is signed by a key of --keyring, a .rpm by its own signature, any of them by its SHA-256. Else nothing is written.",
      "The digests of the package's earlier version are accepted no more, so that a rollback is noticed; configuration files keep theirs. What ran before the update stays in the kernel's list until the VM is rebooted: --keep-old accepts both until then.",
      "Files that are made on the VM itself, like caches and initial RAM disks, are in no package.",
      "Signatures are checked with gpgv, and .xz is read with xz: both have to be installed.",
    ],
    examples: [
      {
        line: "cosmian_vm snapshot update -s vm.snapshot --deb bash_5.2.15-2_amd64.deb --release InRelease --packages Packages.xz --keyring /usr/share/keyrings/debian-archive-keyring.gpg",
        does: "a package of a Debian repository",
      },
      {
        line: "cosmian_vm snapshot update -s vm.snapshot -o new.snapshot --rpm bash-5.2.26-4.x86_64.rpm --keyring RPM-GPG-KEY-vendor",
        does: "a signed RPM package; the old snapshot stays",
      },
      {
        line: "cosmian_vm snapshot update -s vm.snapshot --deb tool.deb --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        does: "a package of your own, whose digest you know from where it was built",
      },
    ],
  }),
  args: {
    snapshot: {
      type: "string",
      alias: "s",
      valueHint: "FILE",
      required: true,
      description: "the snapshot; - is standard input",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      description: "where to write the result; in place of the snapshot unless said",
    },
    deb: repeatable({ type: "string", valueHint: "FILE", description: "a .deb package" }),
    rpm: repeatable({ type: "string", valueHint: "FILE", description: "a .rpm package" }),
    release: {
      type: "string",
      valueHint: "FILE",
      description: "InRelease file of the repository, or Release with Release.gpg beside it",
    },
    packages: repeatable({
      type: "string",
      valueHint: "FILE",
      description: "Packages file that the Release file names; may be compressed (gz, xz, zst)",
    }),
    keyring: repeatable({
      type: "string",
      valueHint: "FILE",
      description: "OpenPGP public keys to believe, binary or armoured",
    }),
    sha256: repeatable({
      type: "string",
      valueHint: "HEX",
      description: "digest of a package that is to be believed",
    }),
    unauthenticated: {
      type: "boolean",
      description: "believe packages that nobody vouches for; snapshot and verdicts say so",
    },
    "keep-old": { type: "boolean", description: "go on accepting the files that are replaced" },
    "allow-downgrade": { type: "boolean", description: "accept a version older than the snapshot's" },
    at: {
      type: "string",
      valueHint: "RFC3339",
      description: "judge the Release file's dates as of this time; now unless said",
    },
    json,
  },
  async run({ args }) {
    const { updateSnapshotFile } = await import("./snapshot-update.ts")
    return updateSnapshotFile({
      snapshot: args.snapshot,
      output: args.output ?? null,
      debs: listOf(args.deb),
      rpms: listOf(args.rpm),
      release: args.release ?? null,
      lists: listOf(args.packages),
      keyrings: listOf(args.keyring),
      digests: listOf(args.sha256),
      unauthenticated: args.unauthenticated === true,
      keepOld: args["keep-old"] === true,
      allowDowngrade: args["allow-downgrade"] === true,
      at: args.at ?? null,
      json: args.json === true,
    })
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

/** What is done with snapshots that were taken: `snapshot show`, `diff`, `merge`, `update`, `sign`, `check-signature`. No VM is asked. */
export const snapshotSubCommands = {
  show: showCommand,
  diff: diffCommand,
  merge: mergeCommand,
  update: updateCommand,
  sign: signCommand,
  "check-signature": checkSignatureCommand,
}
