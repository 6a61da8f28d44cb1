/** Options that several commands of fstool have. */
import type { MachineOptions, UnlockOptions } from "./options.ts"
import { VOLUMES_FILE } from "./volume-config.ts"

/** Where volumes are written down, which TPM, how to answer. */
export const machineArgs = {
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

export const volumeArg = {
  volume: {
    type: "positional",
    required: false,
    valueHint: "VOLUME",
    description: "name or location of the volume; not needed where there is only one",
  },
} as const

/** How a volume that exists is opened. The TPM is tried first, unless one of these is given. */
export const unlockArgs = {
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

export const PASSWORD_RULE =
  "A password is one line, in any encoding; the line's end is not part of it. It is asked for on the terminal, or read from a file, a descriptor or standard input; it is never in the arguments or environment of any program that fstool starts."

export interface MachineArgs {
  volumes: string
  tpm: string | undefined
  json: boolean | undefined
  quiet: boolean | undefined
}

export function machineOf(args: MachineArgs): MachineOptions {
  return {
    volumesFile: args.volumes,
    tpm: args.tpm ?? null,
    json: args.json === true,
    quiet: args.quiet === true,
  }
}

export interface UnlockArgs {
  "password-file": string | undefined
  "password-fd": string | undefined
  "pin-file": string | undefined
}

export function unlockOf(args: UnlockArgs): UnlockOptions {
  return {
    passwordFile: args["password-file"] ?? null,
    passwordFd: args["password-fd"] ?? null,
    pinFile: args["pin-file"] ?? null,
  }
}
