/** Commands for volumes that exist. */
import { defineCommand } from "citty"
import { meta } from "../command.ts"
import { machineArgs, machineOf, unlockArgs, unlockOf, volumeArg } from "./option-tables.ts"

export const openCommand = defineCommand({
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
    const { open } = await import("./actions.ts")
    return open({ ...machineOf(args), ...unlockOf(args), volume: args.volume ?? null })
  },
})

export const closeCommand = defineCommand({
  meta: meta({
    name: "close",
    description: "unmount and close a volume",
    examples: [{ line: "cosmian_vm fstool close db", does: "nothing where it is closed already" }],
  }),
  args: { ...volumeArg, ...machineArgs },
  async run({ args }) {
    const { close } = await import("./actions.ts")
    return close({ ...machineOf(args), volume: args.volume ?? null })
  },
})

export const mountCommand = defineCommand({
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
    "no-keep-password": {
      type: "boolean",
      description: "with --first-start: keep no copy of its password inside, whatever agent.toml says",
    },
    ...unlockArgs,
    ...machineArgs,
  },
  async run({ args }) {
    const { mount } = await import("./actions.ts")
    return mount({
      ...machineOf(args),
      ...unlockOf(args),
      volume: args.volume ?? null,
      all: args.all === true,
      firstStart: args["first-start"] === true,
      keepPassword: args["no-keep-password"] !== true,
    })
  },
})

export const unmountCommand = defineCommand({
  meta: meta({
    name: "unmount",
    description: "unmount a volume, which stays open",
    examples: [{ line: "cosmian_vm fstool unmount db", does: "nothing where it is not mounted" }],
  }),
  args: { ...volumeArg, ...machineArgs },
  async run({ args }) {
    const { unmount } = await import("./actions.ts")
    return unmount({ ...machineOf(args), volume: args.volume ?? null })
  },
})

export const statusCommand = defineCommand({
  meta: meta({
    name: "status",
    description: "show the volumes: what opens them, how they are encrypted, whether they are mounted",
    details: ["Exit code 0 where nothing is wrong with any header, else that of the first problem."],
    examples: [{ line: "cosmian_vm fstool status --json", does: "for a program" }],
  }),
  args: { ...volumeArg, ...machineArgs },
  async run({ args }) {
    const { status } = await import("./actions.ts")
    return status({ ...machineOf(args), volume: args.volume ?? null })
  },
})

export const resizeCommand = defineCommand({
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
    const { resize } = await import("./actions.ts")
    return resize({
      ...machineOf(args),
      ...unlockOf(args),
      volume: args.volume ?? null,
      size: args.size ?? null,
    })
  },
})

export const wipeCommand = defineCommand({
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
    const { destroy } = await import("./actions.ts")
    return destroy({ ...machineOf(args), volume: args.volume ?? null, sure: args.yes === true })
  },
})
