import { defineCommand } from "citty"
import { meta } from "../command.ts"
import {
  type MachineArgs,
  machineArgs,
  machineOf,
  PASSWORD_RULE,
  type UnlockArgs,
  unlockOf,
} from "./option-tables.ts"
import type { CreateOptions } from "./options.ts"
import { DEFAULT_LOCATION, FILE_SYSTEMS } from "./volume-config.ts"

const FILE_SYSTEM_NAMES: ("ext4" | "xfs")[] = [...FILE_SYSTEMS]
const INTEGRITY_NAMES: ("hmac-sha256" | "none")[] = ["hmac-sha256", "none"]

export const createArgs = {
  size: {
    type: "string",
    valueHint: "SIZE",
    description: "size of the container: 100GB (powers of 1000), 100GiB or 100G (powers of 1024)",
  },
  location: {
    type: "string",
    valueHint: "DIR",
    default: DEFAULT_LOCATION,
    description: "directory of container, header and mount point data; made where it is missing",
  },
  password: {
    type: "string",
    valueHint: "PASSWORD",
    description:
      "the password, - to read it from standard input. Written here it is seen by every user of this machine: prefer - or --password-file",
  },
  "password-file": {
    type: "string",
    valueHint: "FILE",
    description: "read the password from this file; - is standard input",
  },
  "password-fd": {
    type: "string",
    valueHint: "N",
    description: "read the password from this file descriptor",
  },
  "generate-password": {
    type: "boolean",
    description: "make a random password, and show it once, on the terminal",
  },
  "keep-password": {
    type: "boolean",
    description: "keep a copy of the password inside the volume, in luks_password, readable by root only",
  },
  name: {
    type: "string",
    valueHint: "NAME",
    description: "name of the volume and of its mapping in /dev/mapper (default: made from the location)",
  },
  container: {
    type: "string",
    valueHint: "DEVICE",
    description: "an empty block device to take whole, instead of a file of --size",
  },
  "mount-point": {
    type: "string",
    valueHint: "DIR",
    description: "where it is mounted (default: data in the location)",
  },
  filesystem: {
    type: "enum",
    options: FILE_SYSTEM_NAMES,
    default: "ext4",
    description: "the file system inside",
  },
  integrity: {
    type: "enum",
    options: INTEGRITY_NAMES,
    default: "hmac-sha256",
    description:
      "none: faster, and no first pass over all sectors; but whoever writes the disk can garble data without a read error",
  },
  pcrs: {
    type: "string",
    valueHint: "LIST",
    description:
      "the TPM opens the volume only while these PCRs are as now: 7, or 4,7,9 (default: none, any boot of this VM)",
  },
  pin: { type: "boolean", description: "the TPM asks for a PIN as well, which is asked for now" },
  "pin-file": { type: "string", valueHint: "FILE", description: "as --pin, with the PIN in this file" },
  "if-missing": {
    type: "boolean",
    description: "where the volume exists already, open and mount it instead",
  },
  "no-boot": { type: "boolean", description: "do not mount it at boot" },
  ...machineArgs,
} as const

const CREATE_DETAILS = [
  `LUKS2 with a detached header: AES-256-XTS, HMAC-SHA-256 over each sector, Argon2id for the password. Container, header and mount point are called ${"`container`, `header` and `data`"}, as those of Cosmian VM 1.3.`,
  "The TPM of this VM can open it from now on, and remembers which header belongs to it. Without a TPM only the password opens it.",
  "Either all of it is made or nothing is left. Where fstool is killed, the next one cleans up.",
  PASSWORD_RULE,
]

export const createCommand = defineCommand({
  meta: meta({
    name: "create",
    description: "make an encrypted volume that this VM's TPM opens, and mount it",
    details: CREATE_DETAILS,
    examples: [
      { line: "cosmian_vm fstool create --size 100GB", does: "asks for a password, twice" },
      {
        line: "cosmian_vm fstool create --size 20GiB --location /srv/db --password-file - --if-missing < password",
        does: "in a script: makes it once, mounts it every time",
      },
      {
        line: "cosmian_vm fstool create --container /dev/nvme1n1 --location /srv/disk --generate-password",
        does: "a whole disk, and a password that is shown once",
      },
    ],
  }),
  args: createArgs,
  async run({ args }) {
    const { create } = await import("./create-action.ts")
    return create(createOptionsOf(args))
  },
})

interface CreateArgs extends MachineArgs, UnlockArgs {
  size: string | undefined
  location: string
  password: string | undefined
  "generate-password": boolean | undefined
  "keep-password": boolean | undefined
  name: string | undefined
  container: string | undefined
  "mount-point": string | undefined
  filesystem: "ext4" | "xfs"
  integrity: "hmac-sha256" | "none"
  pcrs: string | undefined
  pin: boolean | undefined
  "if-missing": boolean | undefined
  "no-boot": boolean | undefined
}

export function createOptionsOf(args: CreateArgs): CreateOptions {
  return {
    ...machineOf(args),
    ...unlockOf(args),
    size: args.size ?? null,
    location: args.location,
    password: args.password ?? null,
    generatePassword: args["generate-password"] === true,
    keepPassword: args["keep-password"] === true,
    name: args.name ?? null,
    container: args.container ?? null,
    mountPoint: args["mount-point"] ?? null,
    fileSystem: args.filesystem,
    integrity: args.integrity,
    pcrs: args.pcrs ?? null,
    pin: args.pin === true,
    ifMissing: args["if-missing"] === true,
    atBoot: args["no-boot"] !== true,
  }
}
