import { statSync } from "node:fs"
import { CodedError, UsageError } from "../../errors.ts"
import { blockName, blockSize, findMapping } from "../../native/block-stack.ts"
import { wipe } from "../passphrase.ts"
import type { KeyWork } from "./keys.ts"
import { mountVolume, trustedHeaderOf, type Unlocking, withHeader, withKey } from "./open-volume.ts"

export interface Growth {
  /** Bytes that the file system's device has, before and after. */
  readonly from: number
  readonly to: number
}

/**
 * Grows a volume while it is in use: container, mapping, file system. One that is closed is mounted first. What was cut short is
 * completed by doing it again.
 * @param size bytes of the container; null: all that the block device has.
 * @throws UsageError ERR_BAD_VALUE where the size would shrink it
 */
export async function growVolume(
  work: KeyWork,
  unlocking: Unlocking,
  size: number | null,
  aborted: () => void,
  progress: (done: number, total: number) => void,
): Promise<Growth> {
  const { volume, machine, tools } = work
  const onDevice = blockName(volume.container) !== null
  checkSize(volume.container, onDevice, size)
  await mountVolume(volume, machine, tools, unlocking)
  if (size !== null) await tools.allocate(volume.container, size)
  const mapping = present(volume.name)
  const from = blockSize(mapping.kernelName)
  const to = await tools.growBelow(volume.container, mapping)
  if (to > from) {
    const trusted = await trustedHeaderOf(volume, machine)
    const volumeKey = await withKey(volume, trusted, machine, unlocking, (key) =>
      withHeader(trusted, (header) => tools.cryptsetup.volumeKey(header, key.secret)),
    )
    await tools.resizeCrypt(mapping, to, volumeKey).finally(() => wipe(volumeKey))
    if (findMapping(`${volume.name}_dif`) !== null) await tools.zero(mapping, from, aborted, progress)
  }
  await tools.growFileSystem(volume.fileSystem, `/dev/mapper/${volume.name}`, volume.mountPoint)
  return { from, to }
}

function checkSize(container: string, onDevice: boolean, size: number | null): void {
  if (onDevice !== (size === null))
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--size",
      expected: onDevice ? "no size: a block device is taken whole" : "the new size of the container",
      found: size === null ? "none" : `${size} bytes`,
    })
  const now = onDevice ? 0 : statSync(container).size
  if (size !== null && size < now)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--size",
      expected: `${now} bytes or more: a volume can only grow`,
      found: `${size} bytes`,
    })
}

function present(name: string) {
  const mapping = findMapping(name)
  if (mapping !== null) return mapping
  throw new CodedError("ERR_PROGRAM_FAILED", { at: name, found: "no mapping" })
}
