import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readdirSync, renameSync, rmdirSync, rmSync } from "node:fs"
import { dirname, join } from "node:path"
import { flushDirectory, makePrivateDirectory, writeFileAtomically } from "../../agent/atomic-file.ts"
import { CodedError } from "../../errors.ts"
import { bytesEqual } from "../../formats/hex.ts"
import { MAX_LUKS_IMAGE } from "../../formats/luks/header.ts"
import { blockName, findMapping } from "../../native/block-stack.ts"
import { readBounded } from "../../native/memory-file.ts"
import type { HeaderReferences } from "../../native/ports.ts"
import { mountedAt, type VolumeTools } from "../../native/volume-tools.ts"
import { headerDigest } from "../trusted-header.ts"
import { forgetCreating, noteCreating, wasBegunNow } from "./opened.ts"
import { encodeVolume, parseVolumes, type Volume } from "./volume-config.ts"
import { rememberVolume } from "./volumes-file.ts"

/** Where volumes in the making are noted, so that they are found wherever they are: one file for each, its entry as in `volumes.toml`. */
export const JOURNAL = "/var/lib/cosmian_vm/creating"
/** Directory, in a volume's location, of what is being made. While it is noted, the volume is not finished. */
const DIRECTORY = ".cosmian_vm-creating"
/** Names of directories that did not exist before, one file for each. */
const MADE = { location: "made-location", mountPoint: "made-mount-point" } as const
/** There when all is done but the renaming. Counts only on a machine without a TPM: see `isFinished`. */
const FINISHED = "finished"
/** Holds the path of the `volumes.toml` that the volume goes into. */
const VOLUMES_FILE = "volumes-file"
const MAX_NOTE = 64 * 1024

/** A volume in the making: where its parts are until they are put in their places. */
export interface HalfMade {
  readonly volume: Volume
  /** Written before anything else, removed last. */
  readonly note: string
  readonly directory: string
  /** A block device is in its place already. */
  readonly container: string
  readonly header: string
}

function halfMadeOf(volume: Volume, journal: string): HalfMade {
  const directory = join(volume.location, DIRECTORY)
  return {
    volume,
    note: noteOf(volume.location, journal),
    directory,
    container: blockName(volume.container) === null ? join(directory, "container") : volume.container,
    header: join(directory, "header"),
  }
}

function noteOf(location: string, journal: string): string {
  return join(journal, `${createHash("sha256").update(location).digest("hex").slice(0, 32)}.toml`)
}

/** Notes on the disk which volume is being made, before anything of it is. The caller has the lock of its location. */
export function beginHalfMade(
  volume: Volume,
  locationWasMade: boolean,
  { journal, volumesFile }: Places,
): HalfMade {
  const made = halfMadeOf(volume, journal)
  try {
    makePrivateDirectory(journal)
    writeFileAtomically(made.note, encodeVolume(volume), 0o600)
    // Said by fstool that is killed from here on, and found by any later one.
    noteCreating(volume.name)
    mkdirSync(made.directory, { mode: 0o700 })
    if (locationWasMade) mark(made, MADE.location)
    writeFileAtomically(join(made.directory, VOLUMES_FILE), volumesFile, 0o600)
    flushDirectory(volume.location)
    return made
  } catch (error) {
    forget(made, true)
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
 * that were made for it. What the TPM remembers is not touched here: it is written last. Mount and mappings are gone after a
 * reboot; those of this boot are only touched where its memory says that the volume was being made: the disk is the host's.
 */
export async function removeHalfMade(made: HalfMade, tools: VolumeTools): Promise<void> {
  const { volume, directory } = made
  const begunNow = wasBegunNow(volume.name)
  const mount = mountedAt(volume.mountPoint)
  const mapping = findMapping(volume.name)
  if (begunNow && mount !== null && mapping !== null && mount.device === mapping.device)
    await tools.unmount(volume.mountPoint)
  // A container that was put in its place before the last step failed.
  for (const [from, to] of [
    [volume.container, made.container],
    [volume.header, made.header],
  ] as const)
    if (from !== to && existsSync(directory) && existsSync(from) && !existsSync(to)) renameSync(from, to)
  if (begunNow) await tools.removeMappings(made.container, volume.name)
  const locationWasMade = has(made, MADE.location)
  if (has(made, MADE.mountPoint)) removeIfEmpty(volume.mountPoint)
  rmSync(directory, { recursive: true, force: true })
  flushDirectory(volume.location)
  forget(made, locationWasMade)
}

/** The last thing of all. @param withLocation whether the location goes too, where nothing is in it. */
function forget({ volume, note, directory }: HalfMade, withLocation: boolean): void {
  rmSync(directory, { recursive: true, force: true })
  rmSync(note, { force: true })
  forgetCreating(volume.name)
  if (!withLocation) return
  if (dirname(dirname(note)) === volume.location) removeIfEmpty(dirname(note))
  removeIfEmpty(volume.location)
}

/**
 * Puts the parts of a finished volume in their places and writes it into `volumes.toml`. What was done already stays, so that
 * a crash in the middle is mended by doing it again.
 */
export function putInPlace(made: HalfMade, volumesFile: string): void {
  const { volume } = made
  for (const [from, to] of [
    [made.header, volume.header],
    [made.container, volume.container],
  ] as const)
    if (from !== to && existsSync(from)) {
      renameSync(from, to)
      flushDirectory(dirname(to))
    }
  rememberVolume(volumesFile, volume)
  forget(made, false)
  flushDirectory(volume.location)
}

/** What fstool works with to clean up. */
export interface Places {
  /** Directory of the notes. */
  readonly journal: string
  /** Where this machine's volumes are written down. */
  readonly volumesFile: string
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
  { journal, volumesFile }: Places,
): Promise<"finished" | "taken back" | null> {
  const directory = join(location, DIRECTORY)
  const note = noteOf(location, journal)
  const volume = notedVolume(note)
  if (volume?.location !== location) {
    if (!existsSync(directory)) return null
    // Of another machine, or the note is damaged: nothing of it is in its place.
    rmSync(directory, { recursive: true, force: true })
    rmSync(note, { force: true })
    return "taken back"
  }
  const made = halfMadeOf(volume, journal)
  if (await isFinished(made, references)) {
    putInPlace(made, has(made, VOLUMES_FILE) ? read(made, VOLUMES_FILE) : volumesFile)
    return "finished"
  }
  await references?.removeUnwritten(volume.name)
  await removeHalfMade(made, tools)
  return "taken back"
}

/** Locations of volumes whose making was begun and not ended, as far as they are there. A damaged note is removed. */
export function halfMadeLocations(journal: string): string[] {
  if (!existsSync(journal)) return []
  return readdirSync(journal).flatMap((name) => {
    const note = join(journal, name)
    const location = notedVolume(note)?.location ?? null
    if (location !== null && note === noteOf(location, journal)) return existsSync(location) ? [location] : []
    rmSync(note, { recursive: true, force: true })
    return []
  })
}

function notedVolume(note: string): Volume | null {
  if (!existsSync(note)) return null
  try {
    const [volume] = parseVolumes(Buffer.from(readBounded(note, MAX_NOTE)).toString("utf8"), note)
    return volume ?? null
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

function read(made: HalfMade, name: string): string {
  return Buffer.from(readBounded(join(made.directory, name), MAX_NOTE)).toString("utf8")
}

function has(made: HalfMade, name: string): boolean {
  return existsSync(join(made.directory, name))
}

export function removeIfEmpty(directory: string): void {
  if (existsSync(directory) && readdirSync(directory).length === 0) rmdirSync(directory)
}
