import { existsSync, rmSync } from "node:fs"
import { writeFileAtomically } from "../../agent/atomic-file.ts"
import { CodedError, UsageError } from "../../errors.ts"
import { MAX_LUKS_IMAGE } from "../../formats/luks/header.ts"
import { blockName } from "../../native/block-stack.ts"
import { readBounded } from "../../native/memory-file.ts"
import { openTrustedHeader, type TrustedHeader, trustHeader } from "../trusted-header.ts"
import { destroyFile, replaceHeader } from "./change-header.ts"
import type { KeyWork } from "./keys.ts"
import {
  closeVolume,
  luksPolicyOf,
  trustedHeaderOf,
  type Unlocking,
  withHeader,
  withKey,
} from "./open-volume.ts"
import { forgetVolume } from "./volumes-file.ts"

/** Copies the header, as the TPM knows it, to a file that was not there. */
export async function backUpHeader({ volume, machine }: KeyWork, path: string): Promise<void> {
  const trusted = await trustedHeaderOf(volume, machine)
  if (existsSync(path))
    throw new CodedError("ERR_BAD_VALUE", {
      at: path,
      expected: "a file that is not there yet",
      found: "one",
    })
  writeFileAtomically(path, trusted.bytes, 0o600)
}

/**
 * Puts a backup of the header in its place. It has to be of this volume and to open: with the TPM or a passphrase.
 * @throws as openTrustedHeader, withKey; UsageError ERR_BAD_VALUE for another volume's header
 */
export async function restoreHeader(work: KeyWork, unlocking: Unlocking, path: string): Promise<void> {
  const { volume, machine } = work
  const bytes = readBounded(path, MAX_LUKS_IMAGE)
  const policy = luksPolicyOf(volume)
  const restored = await trustHeader(bytes, path, { policy, reference: null, absent: "accept" })
  const present = await uuidOf(work)
  if (present !== null && present !== restored.header.uuid)
    throw new UsageError("ERR_BAD_VALUE", {
      at: path,
      expected: `a header of the volume ${present}`,
      found: `one of ${restored.header.uuid}`,
    })
  await prove(work, restored, unlocking)
  await replaceHeader(volume, machine, null, bytes)
}

/**
 * Has the TPM remember the header as it is on the disk, whoever wrote it: after somebody looked at it and could open it.
 * @throws CodedError ERR_NO_TPM
 */
export async function acceptHeader(work: KeyWork, unlocking: Unlocking): Promise<TrustedHeader> {
  const { volume, machine } = work
  if (machine.tpm === null)
    throw new CodedError("ERR_NO_TPM", { at: "TPM", found: machine.tpmAbsence ?? "none" })
  const policy = luksPolicyOf(volume)
  const trusted = await openTrustedHeader(volume.header, { policy, reference: null, absent: "accept" })
  await prove(work, trusted, unlocking)
  const name = { volume: volume.name, pcrs: volume.headerPcrs }
  await machine.tpm.headers.write(name, { current: trusted.digest, next: null })
  return trusted
}

/** Destroys a volume: keys first, so that nothing can be read even where the rest fails. */
export async function wipeVolume({ volume, machine, tools }: KeyWork): Promise<void> {
  await closeVolume(volume, tools)
  if (existsSync(volume.header)) destroyFile(volume.header)
  if (blockName(volume.container) === null) rmSync(volume.container, { force: true })
  else await tools.clearStart(volume.container)
  await machine.tpm?.headers.remove(volume.name)
  forgetVolume(machine.volumesFile, volume.name)
}

/** Shows that a header opens. One that was invented does so neither with the TPM nor with the passphrase. */
async function prove(
  { volume, machine, tools }: KeyWork,
  trusted: TrustedHeader,
  unlocking: Unlocking,
): Promise<void> {
  await withKey(volume, trusted, machine, unlocking, (key) =>
    withHeader(trusted, (header) => tools.cryptsetup.keyslotOf(header, key.secret)),
  )
}

/** Of the header on the disk; null where it cannot be read, which is why it is being restored. */
async function uuidOf({ volume }: KeyWork): Promise<string | null> {
  try {
    const policy = luksPolicyOf(volume)
    return (await openTrustedHeader(volume.header, { policy, reference: null, absent: "accept" })).header.uuid
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}
