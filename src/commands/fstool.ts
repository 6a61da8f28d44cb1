import { defineCommand } from "citty"
import { meta } from "./command.ts"
import { createArgs, createCommand, createOptionsOf } from "./fstool/create-command.ts"
import { headerCommand } from "./fstool/header-commands.ts"
import { enrollCommand, passwordCommand, recoveryCommand } from "./fstool/key-commands.ts"
import {
  closeCommand,
  mountCommand,
  openCommand,
  resizeCommand,
  statusCommand,
  unmountCommand,
  wipeCommand,
} from "./fstool/volume-commands.ts"
import { VOLUMES_FILE } from "./fstool/volume-config.ts"

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
