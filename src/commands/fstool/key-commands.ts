/** Commands that change what opens a volume. */
import { defineCommand } from "citty"
import { pcrHelp } from "../../policy/pcr-advice.ts"
import { meta } from "../command.ts"
import { createArgs } from "./create-command.ts"
import { machineArgs, machineOf, PASSWORD_RULE, unlockArgs, unlockOf, volumeArg } from "./option-tables.ts"
import type { NewPasswordOptions, TokenFormat } from "./options.ts"

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
    const { changePassword } = await import("./key-actions.ts")
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
    const { addPassword } = await import("./key-actions.ts")
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
    const { removePassword } = await import("./key-actions.ts")
    return removePassword({ ...machineOf(args), ...unlockOf(args), volume: args.volume ?? null })
  },
})

export const passwordCommand = defineCommand({
  meta: meta({ name: "password", description: "change, add and remove passwords" }),
  subCommands: { change: passwordChange, add: passwordAdd, remove: passwordRemove },
})

const TOKEN_FORMATS: TokenFormat[] = ["systemd-254", "systemd-252"]

export const enrollCommand = defineCommand({
  meta: meta({
    name: "enroll",
    description: "have this VM's TPM open the volume, in place of former enrolments",
    details: [
      "The key is sealed under the TPM's storage root key, in a token that systemd-cryptsetup reads too. Without --pcrs every boot of this VM gets it, also one with another kernel: that protects against a copied disk, not against somebody who changes what boots. With --pcrs only a boot that measured the same gets it, and after an update of what is measured the volume opens with its password until it is enrolled again.",
      `What a PCR holds, and what changes it. ${pcrHelp().join(". ")}. PCR 10 and those from 16 on are refused.`,
      "With --token-format systemd-252 the systemd-cryptsetup of Debian 12 opens the volume too, by tpm2-device=auto in /etc/crypttab. The price: that key takes part in the TPM's dictionary-attack lockout, so wrong PINs at any other object of the TPM, and with some TPMs power cuts, lock it for some minutes; until then only a password opens the volume. systemd, of any version, opens whatever header lies on the disk: only fstool checks it and asks the TPM about it.",
      "Where the host runs the TPM, the host can read what is sealed in it: see limitations.md.",
    ],
    examples: [
      { line: "cosmian_vm fstool enroll --pcrs 7", does: "only under the same Secure Boot keys" },
      {
        line: "cosmian_vm fstool enroll --pcrs 4,8,9 --pin",
        does: "the same kernel and command line, and a PIN",
      },
      {
        line: "cosmian_vm fstool enroll --token-format systemd-252",
        does: "for /etc/crypttab of Debian 12; fstool opens it too",
      },
      { line: "cosmian_vm fstool enroll --remove", does: "only passwords and recovery keys open it" },
    ],
  }),
  args: {
    ...volumeArg,
    pcrs: createArgs.pcrs,
    pin: createArgs.pin,
    "new-pin-file": { type: "string", valueHint: "FILE", description: "as --pin, with the PIN in this file" },
    "token-format": {
      type: "enum",
      options: TOKEN_FORMATS,
      default: "systemd-254",
      description:
        "which systemd can open the volume by itself: from 254 on, or also the 252 of Debian 12, whose key the TPM's lockout affects",
    },
    remove: { type: "boolean", description: "remove the TPM's enrolments instead" },
    ...unlockArgs,
    ...machineArgs,
  },
  async run({ args }) {
    const { enroll } = await import("./key-actions.ts")
    return enroll({
      ...machineOf(args),
      ...unlockOf(args),
      volume: args.volume ?? null,
      pcrs: args.pcrs ?? null,
      pin: args.pin === true,
      newPinFile: args["new-pin-file"] ?? null,
      tokenFormat: args["token-format"],
      remove: args.remove === true,
    })
  },
})

export const recoveryCommand = defineCommand({
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
    const { recoveryKey } = await import("./key-actions.ts")
    return recoveryKey({
      ...machineOf(args),
      ...unlockOf(args),
      volume: args.volume ?? null,
      output: args.output ?? null,
    })
  },
})

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
