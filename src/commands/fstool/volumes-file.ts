import { existsSync, mkdirSync } from "node:fs"
import { dirname } from "node:path"
import { writeFileAtomically } from "../../agent/atomic-file.ts"
import { UsageError } from "../../errors.ts"
import { readInput } from "../input-files.ts"
import { suggest } from "../suggest.ts"
import {
  DEFAULT_LOCATION,
  parseVolumes,
  tidyPath,
  type Volume,
  volumeAt,
  withoutVolume,
  withVolume,
} from "./volume-config.ts"

const MAX_FILE = 1024 * 1024

/**
 * The volumes of this machine: those of the file, and the one of Cosmian VM 1.3 where it lies in its place and is not written
 * down. That one was made without integrity protection.
 * @throws UsageError ERR_CONFIG
 */
export function readVolumes(file: string): Volume[] {
  const written = existsSync(file) ? parseVolumes(textOf(file), file) : []
  const old = volumeAt(DEFAULT_LOCATION)
  const known = written.some(({ location, name }) => location === old.location || name === old.name)
  if (known || !existsSync(old.container) || !existsSync(old.header)) return written
  return [{ ...old, integrity: "none" }, ...written]
}

/**
 * The volume that is meant: by name, by its location or container, or the only one.
 * @throws UsageError ERR_VOLUME_UNKNOWN
 */
export function findVolume(volumes: readonly Volume[], wanted: string | null): Volume {
  if (volumes.length === 0)
    throw new UsageError("ERR_VOLUME_UNKNOWN", {
      at: wanted ?? "volume",
      expected: "a volume",
      found: "none on this machine",
      hint: "make one: cosmian_vm fstool create --size 10GB",
    })
  const names = volumes.map(({ name }) => name)
  const expected = `one of ${names.join(", ")}`
  if (wanted === null) {
    const [only] = volumes
    if (only !== undefined && volumes.length === 1) return only
    throw new UsageError("ERR_VOLUME_UNKNOWN", {
      at: "volume",
      expected,
      found: "no name",
      hint: "say which one is meant",
    })
  }
  const path = tidyPath(wanted)
  const found = volumes.find(
    ({ name, location, container }) =>
      name === wanted || (wanted.startsWith("/") && (location === path || container === path)),
  )
  if (found !== undefined) return found
  const near = suggest(wanted, names)
  throw new UsageError("ERR_VOLUME_UNKNOWN", {
    at: wanted,
    expected,
    hint: near === null ? "cosmian_vm fstool status lists them" : `did you mean ${near}?`,
  })
}

/** Writes a volume down. One that is there already, word for word, stays. */
export function rememberVolume(file: string, volume: Volume): void {
  const text = existsSync(file) ? textOf(file) : HEADING
  if (parseVolumes(text, file).some((known) => Bun.deepEquals(known, volume))) return
  const added = withVolume(text, file, volume)
  mkdirSync(dirname(file), { recursive: true })
  writeFileAtomically(file, added, 0o644)
}

export function forgetVolume(file: string, name: string): void {
  if (!existsSync(file)) return
  const text = textOf(file)
  const rest = withoutVolume(text, file, name)
  if (rest !== text) writeFileAtomically(file, rest, 0o644)
}

/** @throws UsageError ERR_CONFIG where the volume could not be written down */
export function checkRoomFor(file: string, volume: Volume): void {
  withVolume(existsSync(file) ? textOf(file) : "", file, volume)
}

const HEADING = "# Encrypted volumes. All settings: /usr/share/doc/cosmian-vm/fstool.md\n"

function textOf(file: string): string {
  return Buffer.from(readInput(file, MAX_FILE)).toString("utf8")
}
