/** What the commands of fstool are told. */

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

/** Of a TPM's enrolment: the first version of systemd that opens it. */
export type TokenFormat = "systemd-254" | "systemd-252"

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
