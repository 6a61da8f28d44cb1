import { closeSync, constants, existsSync, fstatSync, fsyncSync, openSync, rmSync, writeSync } from "node:fs"
import { dirname } from "node:path"
import { flushDirectory, writeFileAtomically } from "../../agent/atomic-file.ts"
import { MAX_LUKS_IMAGE } from "../../formats/luks/header.ts"
import { type MemoryFile, memoryFile, readBounded } from "../../native/memory-file.ts"
import { type TrustedHeader, trustHeader } from "../trusted-header.ts"
import type { FstoolMachine } from "./machine.ts"
import { luksPolicyOf, trustedHeaderOf } from "./open-volume.ts"
import type { Volume } from "./volume-config.ts"

/**
 * Changes a volume's header: a copy in memory is changed, checked as if somebody else had written it, and exchanged for the
 * one on the disk. The TPM is told first what is coming, so that being killed at any moment leaves a header that it knows.
 * @param change gets the copy, to which cryptsetup may write, and the header as it was.
 * @throws as openTrustedHeader, and what `change` throws: then nothing was changed
 */
export async function changeHeader<T>(
  volume: Volume,
  machine: FstoolMachine,
  change: (copy: MemoryFile, trusted: TrustedHeader) => Promise<T>,
): Promise<T> {
  const trusted = await trustedHeaderOf(volume, machine)
  const copy = await memoryFile(trusted.bytes, { name: "luks-header", sealed: false })
  try {
    const result = await change(copy, trusted)
    await replaceHeader(volume, machine, trusted, readBounded(`/proc/self/fd/${copy.fd}`, MAX_LUKS_IMAGE))
    return result
  } finally {
    copy.close()
  }
}

/**
 * Puts a header in the place of the one that is there. @param former null where nothing was trusted before.
 * @throws as openTrustedHeader: a header that would not be opened is not written
 */
export async function replaceHeader(
  volume: Volume,
  { tpm }: FstoolMachine,
  former: TrustedHeader | null,
  bytes: Uint8Array,
): Promise<void> {
  const policy = luksPolicyOf(volume)
  const trusted = await trustHeader(bytes, "new header", { policy, reference: null, absent: "accept" })
  const name = { volume: volume.name, pcrs: volume.headerPcrs }
  const next = trusted.digest
  if (tpm !== null && former !== null && former.reference !== "absent")
    await tpm.headers.write(name, { current: former.digest, next })
  const old = existsSync(volume.header) ? openToOverwrite(volume.header) : null
  try {
    writeFileAtomically(volume.header, bytes, 0o600)
    await tpm?.headers.write(name, { current: next, next: null })
    // The keyslots that are no more still stand where the former file was; unless somebody keeps it by another name.
    if (old !== null && fstatSync(old).nlink === 0) overwrite(old)
  } finally {
    if (old !== null) closeSync(old)
  }
}

/** Overwrites a file once before it is removed: what can be done on a disk that somebody else runs. */
export function destroyFile(path: string): void {
  const fd = openToOverwrite(path)
  try {
    overwrite(fd)
  } finally {
    closeSync(fd)
  }
  rmSync(path, { force: true })
  flushDirectory(dirname(path))
}

function openToOverwrite(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_NOFOLLOW)
}

/** In its place: a file written anew would get another one, and leave the bytes where they are. */
function overwrite(fd: number): void {
  const zeros = new Uint8Array(fstatSync(fd).size)
  for (let at = 0; at < zeros.length; ) at += writeSync(fd, zeros, at, zeros.length - at, at)
  fsyncSync(fd)
}
