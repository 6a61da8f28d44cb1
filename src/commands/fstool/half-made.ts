import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync } from "node:fs"
import { dirname, join } from "node:path"
import { flushDirectory, writeFileAtomically } from "../../agent/atomic-file.ts"
import { CodedError } from "../../errors.ts"
import { bytesEqual } from "../../formats/hex.ts"
import { MAX_LUKS_IMAGE } from "../../formats/luks/header.ts"
import { blockName, findMapping } from "../../native/block-stack.ts"
import { readBounded } from "../../native/memory-file.ts"
import type { HeaderReferences } from "../../native/ports.ts"
import { mountedAt, type VolumeTools } from "../../native/volume-tools.ts"
import { headerDigest } from "../trusted-header.ts"
import { encodeVolume, parseVolumes, type Volume } from "./volume-config.ts"
import { rememberVolume } from "./volumes-file.ts"

/** Directory, in a volume's location, of what is being made. While it is there, the volume is not finished. */
const DIRECTORY = ".cosmian_vm-creating"
/** Which volume is being made: its entry as in `volumes.toml`. */
const VOLUME = "volume.toml"
/** Names of directories that did not exist before, one file for each. */
const MADE = { location: "made-location", mountPoint: "made-mount-point" } as const
/** There when all is done but the renaming. Counts only on a machine without a TPM: see `isFinished`. */
const FINISHED = "finished"

/** A volume in the making: where its parts are until they are put in their places. */
export interface HalfMade {
  readonly volume: Volume
  readonly directory: string
  /** A block device is in its place already. */
  readonly container: string
  readonly header: string
}

function halfMadeOf(volume: Volume): HalfMade {
  const directory = join(volume.location, DIRECTORY)
  return {
    volume,
    directory,
    container: blockName(volume.container) === null ? join(directory, "container") : volume.container,
    header: join(directory, "header"),
  }
}

/** Notes on the disk which volume is being made, before anything of it is. */
export function beginHalfMade(volume: Volume, locationWasMade: boolean): HalfMade {
  const made = halfMadeOf(volume)
  try {
    mkdirSync(made.directory, { mode: 0o700 })
    if (locationWasMade) mark(made, MADE.location)
    writeFileAtomically(join(made.directory, VOLUME), encodeVolume(volume), 0o600)
    flushDirectory(volume.location)
    return made
  } catch (error) {
    rmSync(made.directory, { recursive: true, force: true })
    throw error
  }
}

/** Makes the mount point where it is missing. */
export function makeMountPoint(made: HalfMade): void {
  if (existsSync(made.volume.mountPoint)) return
  mark(made, MADE.mountPoint)
  mkdirSync(made.volume.mountPoint, { recursive: true })
}

export function markFinished(made: HalfMade): void {
  mark(made, FINISHED)
}

/**
 * Takes back everything of a volume in the making: mount, mappings (a loop device goes away with them), files, directories
 * that were made for it. What the TPM remembers is not touched here: it is written last.
 */
export async function removeHalfMade(made: HalfMade, tools: VolumeTools): Promise<void> {
  const { volume, directory } = made
  const mount = mountedAt(volume.mountPoint)
  const mapping = findMapping(volume.name)
  if (mount !== null && mapping !== null && mount.device === mapping.device)
    await tools.unmount(volume.mountPoint)
  // A container that was put in its place before the last step failed.
  for (const [from, to] of [
    [volume.container, made.container],
    [volume.header, made.header],
  ] as const)
    if (from !== to && existsSync(from) && !existsSync(to)) renameSync(from, to)
  await tools.removeMappings(made.container, volume.name)
  const wereMade = { location: has(made, MADE.location), mountPoint: has(made, MADE.mountPoint) }
  rmSync(directory, { recursive: true, force: true })
  if (wereMade.mountPoint) removeIfEmpty(volume.mountPoint)
  if (wereMade.location) removeIfEmpty(volume.location)
  else flushDirectory(volume.location)
}

/**
 * Puts the parts of a finished volume in their places and writes it into `volumes.toml`. What was done already stays, so that
 * a crash in the middle is mended by doing it again.
 */
export function putInPlace(made: HalfMade, volumesFile: string): void {
  const { volume, directory } = made
  for (const [from, to] of [
    [made.header, volume.header],
    [made.container, volume.container],
  ] as const)
    if (from !== to && existsSync(from)) {
      renameSync(from, to)
      flushDirectory(dirname(to))
    }
  rememberVolume(volumesFile, volume)
  rmSync(directory, { recursive: true, force: true })
  flushDirectory(volume.location)
}

/**
 * Ends what a killed fstool left at a location: a volume that was finished but for its last step is put in its place, any
 * other is taken back. The host can write to this disk, so a volume counts as finished only where the TPM says so.
 * @returns what was done; null where there was nothing.
 */
export async function recoverHalfMade(
  location: string,
  tools: VolumeTools,
  references: HeaderReferences | null,
  volumesFile: string,
): Promise<"finished" | "taken back" | null> {
  const directory = join(location, DIRECTORY)
  if (!existsSync(directory)) return null
  const volume = notedVolume(directory, location)
  if (volume === null) {
    // Killed before the note was written: nothing else had been made.
    rmSync(directory, { recursive: true, force: true })
    return "taken back"
  }
  const made = halfMadeOf(volume)
  if (await isFinished(made, references)) {
    putInPlace(made, volumesFile)
    return "finished"
  }
  await removeHalfMade(made, tools)
  return "taken back"
}

function notedVolume(directory: string, location: string): Volume | null {
  const path = join(directory, VOLUME)
  if (!existsSync(path)) return null
  try {
    const [volume] = parseVolumes(readFileSync(path, "utf8"), path)
    return volume?.location === location ? volume : null
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

/** The TPM remembers a header only when all the rest of the volume is done. */
async function isFinished(made: HalfMade, references: HeaderReferences | null): Promise<boolean> {
  if (references === null) return has(made, FINISHED)
  const path = [made.header, made.volume.header].find((each) => existsSync(each))
  if (path === undefined) return false
  const { name, headerPcrs } = made.volume
  const remembered = await references.read({ volume: name, pcrs: headerPcrs })
  return (
    remembered !== null && bytesEqual(remembered.current, headerDigest(readBounded(path, MAX_LUKS_IMAGE)))
  )
}

function mark(made: HalfMade, name: string): void {
  writeFileAtomically(join(made.directory, name), "", 0o600)
}

function has(made: HalfMade, name: string): boolean {
  return existsSync(join(made.directory, name))
}

export function removeIfEmpty(directory: string): void {
  if (existsSync(directory) && readdirSync(directory).length === 0) rmdirSync(directory)
}
