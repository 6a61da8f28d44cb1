import { existsSync } from "node:fs"
import { CodedError } from "../../errors.ts"
import { hasDeviceMapper } from "../../native/block-stack.ts"
import { hasProgram, runProgram } from "../../native/run-program.ts"
import { wipe } from "../passphrase.ts"
import { type CreateWatcher, createVolume } from "./create.ts"
import type { FstoolMachine } from "./machine.ts"
import { readAgentConfiguration } from "./open-machine.ts"
import { newPassword } from "./passwords.ts"
import { DEFAULT_LOCATION, type Volume, volumeAt } from "./volume-config.ts"

const SECTOR = 4096
const PROGRAMS = ["cryptsetup", "dmsetup", "mkfs.ext4"]

/**
 * Makes the volume that the agent's files are in, unless it is there or agent.toml does without. The password is a random one,
 * kept inside unless `keepPassword` or agent.toml says no; nobody is shown it.
 * @throws CodedError ERR_STORAGE_UNAVAILABLE where this machine cannot have one and agent.toml insists
 */
export async function makeAgentVolume(
  machine: FstoolMachine,
  keepPassword: boolean,
  watcher: CreateWatcher,
): Promise<void> {
  const { storage } = readAgentConfiguration()
  const volume = volumeAt(DEFAULT_LOCATION)
  if (storage.encrypted === "off") return
  const there = [volume.header, volume.container].filter((path) => existsSync(path))
  if (there.length === 1) throw halfThere(volume, there[0] ?? "")
  if (there.length > 0) return
  const missing = await missingParts(machine)
  if (missing.length > 0) {
    const found = missing.join("; ")
    if (storage.encrypted === "required")
      throw new CodedError("ERR_STORAGE_UNAVAILABLE", {
        at: "the agent's encrypted volume",
        expected: "device mapper, cryptsetup and a TPM",
        found,
        hint: 'the agent\'s TLS key would lie on the disk in clear; to accept that: [storage] encrypted = "when-possible" in agent.toml',
      })
    machine.talk(
      `warning: no encrypted volume (${found}): the agent's files are NOT encrypted, as agent.toml allows`,
    )
    return
  }
  const passphrase = newPassword()
  const size = Math.ceil(storage.sizeBytes / SECTOR) * SECTOR
  const enrol = { pcrs: storage.pcrs, pin: null }
  const request = {
    ...{ volume, size, passphrase, enrol },
    ...{ keepPassphrase: storage.keepPassword && keepPassword, showPassphrase: () => {} },
  }
  try {
    await createVolume(request, machine, watcher)
  } finally {
    wipe(passphrase)
  }
}

/** Never taken for a machine without a volume: the agent's files would be made anew, in clear where that is allowed. */
function halfThere({ header, container }: Volume, found: string): CodedError {
  return new CodedError("ERR_STORAGE_UNAVAILABLE", {
    at: "the agent's encrypted volume",
    expected: `${header} and ${container}`,
    found: `only ${found}`,
    hint: `put the other one back (a backup of the header: fstool header restore); if the data may go, remove ${found}`,
  })
}

/** What this machine lacks for an encrypted volume that opens by itself, in words. */
async function missingParts(machine: FstoolMachine): Promise<string[]> {
  const missing: string[] = []
  if (machine.tpm === null) missing.push(`TPM: ${machine.tpmAbsence}`)
  for (const program of PROGRAMS) if (!hasProgram(program)) missing.push(`${program} is not installed`)
  if (!hasDeviceMapper()) await loadModules()
  if (!hasDeviceMapper()) missing.push("the kernel has no device mapper (/dev/mapper/control)")
  return missing
}

/** Where they are not built in, cryptsetup would load them itself, but only once there is a device mapper. */
async function loadModules(): Promise<void> {
  if (hasProgram("modprobe"))
    await runProgram("modprobe", ["--all", "--quiet", "dm_mod", "dm_crypt", "dm_integrity"])
}
