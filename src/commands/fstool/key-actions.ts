import { existsSync } from "node:fs"
import { join } from "node:path"
import { writeFileAtomically } from "../../agent/atomic-file.ts"
import { UsageError } from "../../errors.ts"
import { readBounded } from "../../native/memory-file.ts"
import { mountedAt } from "../../native/volume-tools.ts"
import { wipe } from "../passphrase.ts"
import { openTerminal, type Terminal } from "../terminal.ts"
import { PASSWORD_FILE } from "./create.ts"
import {
  addPassphrase,
  changePassphrase,
  enrolTpm,
  removePassphrase,
  setRecoveryKey,
  unenrolTpm,
} from "./keys.ts"
import type { Unlocking } from "./open-volume.ts"
import { advise, noTpm, parsePcrs } from "./option-values.ts"
import type { NewPasswordOptions, TokenFormat, UnlockOptions, VolumeOptions } from "./options.ts"
import { checkTerminal, chooseNewPassword, choosePin, newPassword, showOnTerminal } from "./passwords.ts"
import { withVolume } from "./session.ts"
import type { Volume } from "./volume-config.ts"

/** Bytes of a kept password, at most. */
const MAX_KEPT = 4096

export async function changePassword(
  options: VolumeOptions & UnlockOptions & NewPasswordOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  return withVolume(options, terminal, async (work, unlocking) => {
    const former = await oldPassword(unlocking)
    const { password, generated } = await chooseNewPassword(options)
    try {
      await changePassphrase(work, former, password)
      if (generated) showOnTerminal(`New password of ${work.volume.name}`, password)
      return updateKept(work.volume, former, password)
        ? `password changed, also in ${PASSWORD_FILE}`
        : "password changed"
    } finally {
      wipe(former, password)
    }
  })
}

export async function addPassword(
  options: VolumeOptions & UnlockOptions & NewPasswordOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  return withVolume(options, terminal, async (work, unlocking) => {
    const { password, generated } = await chooseNewPassword(options)
    try {
      const keyslot = await addPassphrase(work, unlocking, password)
      if (generated) showOnTerminal(`New password of ${work.volume.name}`, password)
      return `password added, in keyslot ${keyslot}`
    } finally {
      wipe(password)
    }
  })
}

export async function removePassword(
  options: VolumeOptions & UnlockOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  return withVolume(options, terminal, async (work, unlocking) => {
    const former = await oldPassword(unlocking)
    try {
      return `password removed from keyslot ${await removePassphrase(work, former)}`
    } finally {
      wipe(former)
    }
  })
}

export interface EnrollOptions extends VolumeOptions, UnlockOptions {
  readonly pcrs: string | null
  readonly pin: boolean
  readonly newPinFile: string | null
  readonly tokenFormat: TokenFormat
  readonly remove: boolean
}

export async function enroll(options: EnrollOptions, terminal: Terminal = openTerminal()): Promise<number> {
  return withVolume(options, terminal, async (work, unlocking) => {
    if (options.remove) return `${await unenrolTpm(work, unlocking)} enrolment(s) of the TPM removed`
    const { machine } = work
    if (machine.tpm === null) throw noTpm(machine, "enroll")
    const pcrs = parsePcrs(options.pcrs)
    await advise(pcrs, machine)
    const pin = await choosePin(options.pin, options.newPinFile)
    try {
      const storageKey = options.tokenFormat === "systemd-252" ? "systemd-252" : "srk"
      const keyslot = await enrolTpm(work, unlocking, { pcrs, pin, storageKey })
      if (storageKey === "systemd-252")
        machine.talk(
          "warning: this enrolment takes part in the TPM's lockout: after wrong PINs, and with some TPMs after power cuts, only a password opens the volume for some minutes",
        )
      const condition = pcrs.length === 0 ? "at any boot" : `while PCRs ${pcrs.join(", ")} are as now`
      return `the TPM opens it ${condition}${pin === null ? "" : ", with the PIN"} (keyslot ${keyslot})`
    } finally {
      wipe(pin)
    }
  })
}

export async function recoveryKey(
  options: VolumeOptions & UnlockOptions & { readonly output: string | null },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const { output } = options
  if (output === null) checkTerminal("recovery-key", "or write it to a file with --output")
  else if (existsSync(output))
    throw new UsageError("ERR_BAD_VALUE", {
      at: output,
      expected: "a file that is not there yet",
      found: "one",
    })
  return withVolume(options, terminal, async (work, unlocking) => {
    const key = newPassword()
    try {
      // Written first: a key that opens the volume and that nobody has would be of no use.
      if (output !== null) writeFileAtomically(output, Buffer.concat([key, Buffer.from("\n")]), 0o600)
      const keyslot = await setRecoveryKey(work, unlocking, key)
      if (output === null) showOnTerminal(`Recovery key of ${work.volume.name}`, key)
      return `recovery key made, in keyslot ${keyslot}`
    } finally {
      wipe(key)
    }
  })
}

async function oldPassword({ passphrase }: Unlocking): Promise<Uint8Array> {
  if (passphrase !== null) return passphrase()
  throw new UsageError("ERR_PASSPHRASE", {
    at: "--password-file",
    expected: "the password that is meant",
    found: "none, and no terminal to ask on",
  })
}

/** Brings the copy inside the volume up to date, where the volume is mounted and there is one, of this very password. */
function updateKept(volume: Volume, former: Uint8Array, password: Uint8Array): boolean {
  const path = join(volume.mountPoint, PASSWORD_FILE)
  if (mountedAt(volume.mountPoint)?.source !== `/dev/mapper/${volume.name}` || !existsSync(path)) return false
  const kept = readBounded(path, MAX_KEPT)
  if (Buffer.compare(kept, former) !== 0) return false
  writeFileAtomically(path, password, 0o600)
  return true
}
