import { defineCommand } from "citty"
import { meta } from "../command.ts"
import { machineArgs, machineOf, unlockArgs, unlockOf, volumeArg } from "./option-tables.ts"

const headerFile = {
  type: "positional",
  required: true,
  valueHint: "FILE",
  description: "the backup",
} as const
const volumeOption = {
  volume: { type: "string", valueHint: "VOLUME", description: "name or location of the volume" },
} as const

const headerBackup = defineCommand({
  meta: meta({
    name: "backup",
    description: "copy the header to a file",
    details: [
      "Without its header a volume is lost. The copy opens with the passwords of its day: keep it as you would keep them, and make a new one after each change.",
    ],
    examples: [{ line: "cosmian_vm fstool header backup header.bak", does: "to a file that must not exist" }],
  }),
  args: { file: headerFile, ...volumeOption, ...machineArgs },
  async run({ args }) {
    const { headerBackup } = await import("./actions.ts")
    return headerBackup({ ...machineOf(args), volume: args.volume ?? null, file: args.file })
  },
})

const headerRestore = defineCommand({
  meta: meta({
    name: "restore",
    description: "put a backup of the header in its place",
    details: [
      "It has to be this volume's, acceptable, and to open with the TPM or a password. From then on the TPM remembers it: passwords that were removed since the backup open the volume again.",
    ],
    examples: [{ line: "cosmian_vm fstool header restore header.bak", does: "after the header was damaged" }],
  }),
  args: { file: headerFile, ...volumeOption, ...unlockArgs, ...machineArgs },
  async run({ args }) {
    const { headerRestore } = await import("./actions.ts")
    return headerRestore({
      ...machineOf(args),
      ...unlockOf(args),
      volume: args.volume ?? null,
      file: args.file,
    })
  },
})

const headerAccept = defineCommand({
  meta: meta({
    name: "accept",
    description: "have the TPM remember the header as it is now on the disk",
    details: [
      "For a header that other tools changed, such as systemd-cryptenroll, and that is refused with ERR_HEADER_CHANGED since. It still has to be acceptable and to open with the TPM or a password. Do this only where you know who changed it: an old header that somebody put back looks the same, and brings old passwords back.",
    ],
    examples: [{ line: "cosmian_vm fstool header accept", does: "after systemd-cryptenroll" }],
  }),
  args: { ...volumeArg, ...unlockArgs, ...machineArgs },
  async run({ args }) {
    const { headerAccept } = await import("./actions.ts")
    return headerAccept({ ...machineOf(args), ...unlockOf(args), volume: args.volume ?? null })
  },
})

export const headerCommand = defineCommand({
  meta: meta({ name: "header", description: "back up, restore and accept the LUKS header" }),
  subCommands: { backup: headerBackup, restore: headerRestore, accept: headerAccept },
})
