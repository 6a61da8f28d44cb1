import { existsSync } from "node:fs"
import { UsageError } from "../../errors.ts"
import { wipe } from "../passphrase.ts"
import { openTerminal, type Terminal } from "../terminal.ts"
import { createVolume } from "./create.ts"
import { type FstoolMachine, withLocation } from "./machine.ts"
import { withMachine } from "./open-machine.ts"
import { mountVolume } from "./open-volume.ts"
import { advise, noTpm, parsePcrs, wholeSectors } from "./option-values.ts"
import type { CreateOptions } from "./options.ts"
import { choosePassword, choosePin, showOnTerminal, withUnlocking } from "./passwords.ts"
import { done, recoverAt, watched } from "./session.ts"
import { defaultName, isVolumeName, tidyPath, type Volume, volumeAt } from "./volume-config.ts"
import { readVolumes } from "./volumes-file.ts"

/** `fstool create`, and the bare form. */
export async function create(options: CreateOptions, terminal: Terminal = openTerminal()): Promise<number> {
  return withMachine(options, terminal, async (machine) => {
    const { volume, size } = requested(options)
    await recoverAt(volume.location, machine)
    if (options.ifMissing && existsSync(volume.header))
      return mountExisting(options, machine, volume, terminal)
    const pcrs = parsePcrs(options.pcrs)
    await advise(pcrs, machine)
    const { password, generated } = await choosePassword(options, (message) =>
      machine.talk(`warning: ${message}`),
    )
    const pin = await choosePin(options.pin, options.pinFile)
    if (machine.tpm === null) {
      if (pcrs.length > 0 || pin !== null) throw noTpm(machine, "--pcrs and --pin")
      machine.talk(`warning: there is no TPM (${machine.tpmAbsence}): only the password opens this volume`)
    }
    const request = {
      volume,
      size,
      passphrase: password,
      enrol: machine.tpm === null ? null : { pcrs, pin },
      keepPassphrase: options.keepPassword,
      showPassphrase: () => {
        if (generated && process.stderr.isTTY === true) showOnTerminal(`Password of ${volume.name}`, password)
      },
    }
    try {
      await watched(options, terminal, (watcher) => createVolume(request, machine, watcher))
    } finally {
      wipe(password, pin)
    }
    await done(options, machine, terminal, volume, `made, mounted at ${volume.mountPoint}`)
    return 0
  })
}

async function mountExisting(
  options: CreateOptions,
  machine: FstoolMachine,
  volume: Volume,
  terminal: Terminal,
): Promise<number> {
  const known = readVolumes(options.volumesFile).find(({ header }) => header === volume.header) ?? volume
  // A password on the command line is for a volume that is made; the one that is there is the TPM's to open.
  const unlock = { ...options, passwordFile: options.password === "-" ? "-" : options.passwordFile }
  const changed = await withUnlocking(unlock, (unlocking) =>
    withLocation(known.location, machine, (tools) =>
      mountVolume(known, machine, tools, { ...unlocking, first: "tpm" }),
    ),
  )
  const was = changed ? "was there, mounted" : "was there, and mounted"
  await done(options, machine, terminal, known, `${was} at ${known.mountPoint}`)
  return 0
}

/** The volume that a command line describes, and the bytes of its container; null for a device. */
function requested(options: CreateOptions): { volume: Volume; size: number | null } {
  // Cosmian VM 1.3 wanted the container's path here.
  const given = tidyPath(absolute(options.location, "--location"))
  const location = given.endsWith("/container") ? given.slice(0, -"/container".length) || "/" : given
  const name = options.name ?? defaultName(location)
  if (!isVolumeName(name))
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--name",
      expected: "1 to 64 letters, digits and _.-",
      found: JSON.stringify(name),
    })
  if ((options.size === null) === (options.container === null))
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: "fstool",
      expected: "--size SIZE for a container file, or --container DEVICE",
      hint: 'see "cosmian_vm fstool --help"',
    })
  const usual = volumeAt(location, name)
  const volume: Volume = {
    ...usual,
    container:
      options.container === null ? usual.container : tidyPath(absolute(options.container, "--container")),
    mountPoint:
      options.mountPoint === null
        ? usual.mountPoint
        : tidyPath(absolute(options.mountPoint, "--mount-point")),
    fileSystem: options.fileSystem,
    integrity: options.integrity === "none" ? "none" : "required",
    atBoot: options.atBoot,
  }
  return { volume, size: options.size === null ? null : wholeSectors(options.size) }
}

function absolute(path: string, at: string): string {
  if (path.startsWith("/") && !path.includes("\0") && !path.split("/").includes("..")) return path
  throw new UsageError("ERR_BAD_VALUE", {
    at,
    expected: "an absolute path without ..",
    found: JSON.stringify(path),
  })
}
