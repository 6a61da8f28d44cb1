import { existsSync, statfsSync } from "node:fs"
import { CodedError, NativeError, UsageError } from "../../errors.ts"
import { blockName, findMapping } from "../../native/block-stack.ts"
import type { VolumeTools } from "../../native/volume-tools.ts"
import type { FstoolMachine } from "./machine.ts"
import { checkMountPoint } from "./open-volume.ts"
import type { Volume } from "./volume-config.ts"
import { checkRoomFor } from "./volumes-file.ts"

/** Bytes of a detached LUKS2 header, as cryptsetup makes it. */
export const HEADER_BYTES = 16 * 1024 * 1024
/** Below this there is hardly a file system. */
const MIN_BYTES = 16 * 1024 * 1024
const SECTOR = 4096

/** @throws CodedError where the volume could not be made or would be in the way of something */
export async function checkRequest(
  volume: Volume,
  size: number | null,
  machine: FstoolMachine,
  tools: VolumeTools,
): Promise<void> {
  for (const path of size === null ? [volume.header] : [volume.container, volume.header])
    if (existsSync(path)) throw exists(path, "a file")
  if (findMapping(volume.name) !== null) throw exists(`/dev/mapper/${volume.name}`, "a mapping of this name")
  checkRoomFor(machine.volumesFile, volume)
  checkMountPoint(volume.mountPoint)
  if (size === null) await checkDevice(volume.container, tools)
  else checkSize(size, volume)
}

async function checkDevice(device: string, tools: VolumeTools): Promise<void> {
  if (blockName(device) === null)
    throw new UsageError("ERR_BAD_VALUE", { at: "container", expected: "a block device", found: device })
  const signature = await tools.signature(device)
  if (signature === null) return
  throw new CodedError("ERR_VOLUME_EXISTS", {
    at: device,
    expected: "an empty device",
    found: signature,
    hint: `if nobody needs it: wipefs --all ${device}`,
  })
}

function checkSize(size: number, { location }: Volume): void {
  if (size < MIN_BYTES || size % SECTOR !== 0)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--size",
      expected: "at least 16MiB",
      found: `${size} bytes`,
    })
  const { bavail, bsize } = statfsSync(location)
  const room = bavail * bsize
  if (room < size + HEADER_BYTES)
    throw new NativeError("ERR_NO_SPACE", {
      at: location,
      expected: `room for ${size + HEADER_BYTES} bytes`,
      found: `${room}`,
      hint: "choose a smaller --size, or make room",
    })
}

function exists(at: string, found: string): CodedError {
  return new CodedError("ERR_VOLUME_EXISTS", {
    at,
    expected: "nothing there",
    found,
    hint: "create --if-missing takes the volume that is there; fstool wipe destroys it",
  })
}
