import { defineCommand } from "citty"
import { pcrHelp } from "../policy/pcr-advice.ts"
import { meta } from "./command.ts"
import { DEFAULT_LOCATION, FILE_SYSTEMS, VOLUMES_FILE } from "./fstool/volume-config.ts"

/** Where volumes are written down, which TPM, how to answer. */
const machineArgs = {
  volumes: {
    type: "string",
    valueHint: "FILE",
    default: VOLUMES_FILE,
    description: "where this machine's volumes are written down",
  },
  tpm: {
    type: "string",
    valueHint: "DEVICE",
    description:
      "the TPM: a device, a TCTI such as swtpm:port=2321, or none (default: tpm_device of agent.toml, else /dev/tpmrm0 where there is one)",
  },
  json: { type: "boolean", description: "print one JSON object on standard output" },
  quiet: { type: "boolean", alias: "q", description: "say only what is wrong; no progress" },
} as const

const volumeArg = {
  volume: {
    type: "positional",
    required: false,
    valueHint: "VOLUME",
    description: "name or location of the volume; not needed where there is only one",
  },
} as const

/** How a volume that exists is opened. The TPM is tried first, unless one of these is given. */
const unlockArgs = {
  "password-file": {
    type: "string",
    valueHint: "FILE",
    description: "open with the password in this file instead of the TPM; - reads standard input",
  },
  "password-fd": {
    type: "string",
    valueHint: "N",
    description: "open with the password that this file descriptor gives",
  },
  "pin-file": {
    type: "string",
    valueHint: "FILE",
    description: "the PIN that an enrolment of the TPM asks for; - reads standard input",
  },
} as const

const FILE_SYSTEM_NAMES: ("ext4" | "xfs")[] = [...FILE_SYSTEMS]
const INTEGRITY_NAMES: ("hmac-sha256" | "none")[] = ["hmac-sha256", "none"]

const PASSWORD_RULE =
  "A password is one line, in any encoding; the line's end is not part of it. It is asked for on the terminal, or read from a file, a descriptor or standard input; it is never in the arguments or environment of any program that fstool starts."

const createArgs = {
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

const createCommand = defineCommand({
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
    const { create } = await import("./fstool/create-action.ts")
    return create(createOptionsOf(args))
  },
})

const openCommand = defineCommand({
  meta: meta({
    name: "open",
    description: "open a volume as /dev/mapper/NAME, without mounting it",
    details: [
      "The header is read once, into memory. That copy is checked against what is accepted of a header (ciphers, key derivation, no null cipher) and against what the TPM remembers, and that copy is used.",
    ],
    examples: [
      { line: "cosmian_vm fstool open", does: "by the TPM; asks for the password where that fails" },
    ],
  }),
  args: { ...volumeArg, ...unlockArgs, ...machineArgs },
  async run({ args }) {
    const { open } = await import("./fstool/actions.ts")
    return open({ ...machineOf(args), ...unlockOf(args), volume: args.volume ?? null })
  },
})

const closeCommand = defineCommand({
  meta: meta({
    name: "close",
    description: "unmount and close a volume",
    examples: [{ line: "cosmian_vm fstool close db", does: "nothing where it is closed already" }],
  }),
  args: { ...volumeArg, ...machineArgs },
  async run({ args }) {
    const { close } = await import("./fstool/actions.ts")
    return close({ ...machineOf(args), volume: args.volume ?? null })
  },
})

const mountCommand = defineCommand({
  meta: meta({
    name: "mount",
    description: "open and mount a volume, or all of them",
    details: [
      "What is mounted already stays. With --all every volume of volumes.toml that is to be mounted at boot is tried, whatever happens to the others; the exit code is that of the first one that failed.",
    ],
    examples: [
      { line: "cosmian_vm fstool mount", does: "by the TPM; asks for the password where that fails" },
      { line: "cosmian_vm fstool mount --all", does: "what mount_luks.service does at boot" },
    ],
  }),
  args: {
    ...volumeArg,
    all: { type: "boolean", description: "every volume that is mounted at boot" },
    "first-start": {
      type: "boolean",
      description: "the agent's own volume; made where it is missing, as [storage] of agent.toml says",
    },
    ...unlockArgs,
    ...machineArgs,
  },
  async run({ args }) {
    const { mount } = await import("./fstool/actions.ts")
    return mount({
      ...machineOf(args),
      ...unlockOf(args),
      volume: args.volume ?? null,
      all: args.all === true,
      firstStart: args["first-start"] === true,
    })
  },
})

const unmountCommand = defineCommand({
  meta: meta({
    name: "unmount",
    description: "unmount a volume, which stays open",
    examples: [{ line: "cosmian_vm fstool unmount db", does: "nothing where it is not mounted" }],
  }),
  args: { ...volumeArg, ...machineArgs },
  async run({ args }) {
    const { unmount } = await import("./fstool/actions.ts")
    return unmount({ ...machineOf(args), volume: args.volume ?? null })
  },
})

const statusCommand = defineCommand({
  meta: meta({
    name: "status",
    description: "show the volumes: what opens them, how they are encrypted, whether they are mounted",
    details: ["Exit code 0 where nothing is wrong with any header, else that of the first problem."],
    examples: [{ line: "cosmian_vm fstool status --json", does: "for a program" }],
  }),
  args: { ...volumeArg, ...machineArgs },
  async run({ args }) {
    const { status } = await import("./fstool/actions.ts")
    return status({ ...machineOf(args), volume: args.volume ?? null })
  },
})

const resizeCommand = defineCommand({
  meta: meta({
    name: "resize",
    description: "grow a volume while it is in use",
    details: [
      "Container, mapping and file system grow. Shrinking is not possible. Killed in the middle: run it again.",
    ],
    examples: [
      { line: "cosmian_vm fstool resize --size 200GB", does: "a container file" },
      { line: "cosmian_vm fstool resize disk", does: "a block device that has become larger" },
    ],
  }),
  args: {
    ...volumeArg,
    size: { type: "string", valueHint: "SIZE", description: "new size of the container file" },
    ...unlockArgs,
    ...machineArgs,
  },
  async run({ args }) {
    const { resize } = await import("./fstool/actions.ts")
    return resize({
      ...machineOf(args),
      ...unlockOf(args),
      volume: args.volume ?? null,
      size: args.size ?? null,
    })
  },
})

const newPasswordArgs = {
  "new-password-file": {
    type: "string",
    valueHint: "FILE",
    description: "read the new password from this file; - is standard input",
  },
  "generate-password": {
    type: "boolean",
    description: "make a random new password, and show it once, on the terminal",
  },
} as const

const passwordChange = defineCommand({
  meta: meta({
    name: "change",
    description: "replace a password by another",
    details: [
      PASSWORD_RULE,
      "The copy luks_password inside the volume, where there is one, is brought up to date when the volume is mounted.",
    ],
    examples: [
      { line: "cosmian_vm fstool password change", does: "asks for the old and the new one" },
      {
        line: "cosmian_vm fstool password change --password-file old --new-password-file new",
        does: "in a script",
      },
    ],
  }),
  args: { ...volumeArg, ...newPasswordArgs, ...unlockArgs, ...machineArgs },
  async run({ args }) {
    const { changePassword } = await import("./fstool/key-actions.ts")
    return changePassword({
      ...machineOf(args),
      ...unlockOf(args),
      ...newPasswordOf(args),
      volume: args.volume ?? null,
    })
  },
})

const passwordAdd = defineCommand({
  meta: meta({
    name: "add",
    description: "add another password",
    details: [PASSWORD_RULE],
    examples: [{ line: "cosmian_vm fstool password add", does: "the TPM, or an old password, allows it" }],
  }),
  args: { ...volumeArg, ...newPasswordArgs, ...unlockArgs, ...machineArgs },
  async run({ args }) {
    const { addPassword } = await import("./fstool/key-actions.ts")
    return addPassword({
      ...machineOf(args),
      ...unlockOf(args),
      ...newPasswordOf(args),
      volume: args.volume ?? null,
    })
  },
})

const passwordRemove = defineCommand({
  meta: meta({
    name: "remove",
    description: "remove a password, which has to be given",
    details: ["The last password or recovery key stays: a TPM can break, and its PCRs change."],
    examples: [{ line: "cosmian_vm fstool password remove --password-file old", does: "that one" }],
  }),
  args: { ...volumeArg, ...unlockArgs, ...machineArgs },
  async run({ args }) {
    const { removePassword } = await import("./fstool/key-actions.ts")
    return removePassword({ ...machineOf(args), ...unlockOf(args), volume: args.volume ?? null })
  },
})

const passwordCommand = defineCommand({
  meta: meta({ name: "password", description: "change, add and remove passwords" }),
  subCommands: { change: passwordChange, add: passwordAdd, remove: passwordRemove },
})

const enrollCommand = defineCommand({
  meta: meta({
    name: "enroll",
    description: "have this VM's TPM open the volume, in place of former enrolments",
    details: [
      "The key is sealed under the TPM's storage root key, in a token that systemd-cryptsetup reads too. Without --pcrs every boot of this VM gets it, also one with another kernel: that protects against a copied disk, not against somebody who changes what boots. With --pcrs only a boot that measured the same gets it, and after an update of what is measured the volume opens with its password until it is enrolled again.",
      `What a PCR holds, and what changes it. ${pcrHelp().join(". ")}. PCR 10 and those from 16 on are refused.`,
      "Where the host runs the TPM, the host can read what is sealed in it: see limitations.md.",
    ],
    examples: [
      { line: "cosmian_vm fstool enroll --pcrs 7", does: "only under the same Secure Boot keys" },
      {
        line: "cosmian_vm fstool enroll --pcrs 4,8,9 --pin",
        does: "the same kernel and command line, and a PIN",
      },
      { line: "cosmian_vm fstool enroll --remove", does: "only passwords and recovery keys open it" },
    ],
  }),
  args: {
    ...volumeArg,
    pcrs: createArgs.pcrs,
    pin: createArgs.pin,
    "new-pin-file": { type: "string", valueHint: "FILE", description: "as --pin, with the PIN in this file" },
    remove: { type: "boolean", description: "remove the TPM's enrolments instead" },
    ...unlockArgs,
    ...machineArgs,
  },
  async run({ args }) {
    const { enroll } = await import("./fstool/key-actions.ts")
    return enroll({
      ...machineOf(args),
      ...unlockOf(args),
      volume: args.volume ?? null,
      pcrs: args.pcrs ?? null,
      pin: args.pin === true,
      newPinFile: args["new-pin-file"] ?? null,
      remove: args.remove === true,
    })
  },
})

const recoveryCommand = defineCommand({
  meta: meta({
    name: "recovery-key",
    description: "make a recovery key of 256 random bits, in place of a former one",
    details: [
      "It is a password like any other, shown once on the terminal, or written to a file. Keep it elsewhere.",
    ],
    examples: [
      { line: "cosmian_vm fstool recovery-key", does: "shows it once" },
      {
        line: "cosmian_vm fstool recovery-key --output key.txt",
        does: "in a script: a file that only you can read",
      },
    ],
  }),
  args: {
    ...volumeArg,
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      description: "write it to this file, which must not exist",
    },
    ...unlockArgs,
    ...machineArgs,
  },
  async run({ args }) {
    const { recoveryKey } = await import("./fstool/key-actions.ts")
    return recoveryKey({
      ...machineOf(args),
      ...unlockOf(args),
      volume: args.volume ?? null,
      output: args.output ?? null,
    })
  },
})

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
    const { headerBackup } = await import("./fstool/actions.ts")
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
    const { headerRestore } = await import("./fstool/actions.ts")
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
    const { headerAccept } = await import("./fstool/actions.ts")
    return headerAccept({ ...machineOf(args), ...unlockOf(args), volume: args.volume ?? null })
  },
})

const headerCommand = defineCommand({
  meta: meta({ name: "header", description: "back up, restore and accept the LUKS header" }),
  subCommands: { backup: headerBackup, restore: headerRestore, accept: headerAccept },
})

const wipeCommand = defineCommand({
  meta: meta({
    name: "wipe",
    description: "destroy a volume: its keys, its container, what the TPM remembers",
    details: [
      "Nobody can read the data afterwards, also not with a password, unless somebody has a copy of the header.",
    ],
    examples: [{ line: "cosmian_vm fstool wipe db --yes", does: "without asking" }],
  }),
  args: {
    ...volumeArg,
    yes: { type: "boolean", description: "do not ask" },
    ...machineArgs,
  },
  async run({ args }) {
    const { destroy } = await import("./fstool/actions.ts")
    return destroy({ ...machineOf(args), volume: args.volume ?? null, sure: args.yes === true })
  },
})

export const fstoolCommand = defineCommand({
  meta: meta({
    name: "fstool",
    description: "encrypted volumes that only this VM opens",
    details: [
      "Without a subcommand it makes a volume, as the tool of earlier versions did.",
      `Volumes are written down in ${VOLUMES_FILE}; mount_luks.service mounts them at boot.`,
    ],
    examples: [
      { line: "cosmian_fstool --size 100GB", does: "the same as cosmian_vm fstool create --size 100GB" },
      { line: "cosmian_vm fstool status", does: "what there is" },
    ],
  }),
  args: createArgs,
  subCommands: {
    create: createCommand,
    open: openCommand,
    close: closeCommand,
    mount: mountCommand,
    unmount: unmountCommand,
    status: statusCommand,
    resize: resizeCommand,
    password: passwordCommand,
    enroll: enrollCommand,
    "recovery-key": recoveryCommand,
    header: headerCommand,
    wipe: wipeCommand,
  },
  async run({ args }) {
    const { create } = await import("./fstool/create-action.ts")
    return create(createOptionsOf(args))
  },
})

/** Where things are, and how to answer. */
export interface MachineOptions {
  readonly volumesFile: string
  /** As given; null: to be looked for. */
  readonly tpm: string | null
  readonly json: boolean
  readonly quiet: boolean
}

export interface VolumeOptions extends MachineOptions {
  /** Name or location; null: the only one. */
  readonly volume: string | null
}

/** How a volume that exists is to be opened; all null: by the TPM, then by asking. */
export interface UnlockOptions {
  readonly passwordFile: string | null
  readonly passwordFd: string | null
  readonly pinFile: string | null
}

export interface NewPasswordOptions {
  readonly newPasswordFile: string | null
  readonly generatePassword: boolean
}

export interface CreateOptions extends MachineOptions, UnlockOptions {
  readonly size: string | null
  readonly location: string
  readonly password: string | null
  readonly generatePassword: boolean
  readonly keepPassword: boolean
  readonly name: string | null
  readonly container: string | null
  readonly mountPoint: string | null
  readonly fileSystem: "ext4" | "xfs"
  readonly integrity: "hmac-sha256" | "none"
  readonly pcrs: string | null
  readonly pin: boolean
  readonly ifMissing: boolean
  readonly atBoot: boolean
}

interface MachineArgs {
  volumes: string
  tpm: string | undefined
  json: boolean | undefined
  quiet: boolean | undefined
}

function machineOf(args: MachineArgs): MachineOptions {
  return {
    volumesFile: args.volumes,
    tpm: args.tpm ?? null,
    json: args.json === true,
    quiet: args.quiet === true,
  }
}

interface UnlockArgs {
  "password-file": string | undefined
  "password-fd": string | undefined
  "pin-file": string | undefined
}

function unlockOf(args: UnlockArgs): UnlockOptions {
  return {
    passwordFile: args["password-file"] ?? null,
    passwordFd: args["password-fd"] ?? null,
    pinFile: args["pin-file"] ?? null,
  }
}

interface NewPasswordArgs {
  "new-password-file": string | undefined
  "generate-password": boolean | undefined
}

function newPasswordOf(args: NewPasswordArgs): NewPasswordOptions {
  return {
    newPasswordFile: args["new-password-file"] ?? null,
    generatePassword: args["generate-password"] === true,
  }
}

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

function createOptionsOf(args: CreateArgs): CreateOptions {
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
