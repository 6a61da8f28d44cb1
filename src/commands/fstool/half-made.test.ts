import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { HeaderReference, HeaderReferences } from "../../native/ports.ts"
import { VolumeTools } from "../../native/volume-tools.ts"
import { headerDigest } from "../trusted-header.ts"
import {
  beginHalfMade,
  halfMadeLocations,
  makeMountPoint,
  markFinished,
  type Places,
  putInPlace,
  recoverHalfMade,
} from "./half-made.ts"
import { parseVolumes, type Volume, volumeAt } from "./volume-config.ts"

let dir: string
let volume: Volume
let places: Places
const tools = new VolumeTools(null)
const HEADER = Buffer.from("a header")

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "fstool-half-made-"))
  volume = volumeAt(join(dir, "vault"), "test_half_made")
  places = { journal: join(dir, "creating"), volumesFile: join(dir, "etc", "volumes.toml") }
  mkdirSync(volume.location)
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

/** A TPM that remembers this header, or none. */
function remembering(header: Uint8Array | null): HeaderReferences {
  const reference: HeaderReference | null =
    header === null ? null : { current: headerDigest(header), next: null }
  return {
    read: async () => reference,
    write: async () => {},
    remove: async () => {},
    removeUnwritten: async () => {},
  }
}

/** All but the last step is done. */
function almostFinished(locationWasMade = false) {
  const made = beginHalfMade(volume, locationWasMade, places)
  writeFileSync(made.container, "data")
  makeMountPoint(made)
  writeFileSync(made.header, HEADER)
  markFinished(made)
  return made
}

const recover = (references: HeaderReferences | null) =>
  recoverHalfMade(volume.location, tools, references, places)

describe("a volume whose making was cut short", () => {
  test("is taken back: container, header, mount point", async () => {
    almostFinished()
    expect(await recover(remembering(null))).toBe("taken back")
    expect(readdirSync(volume.location)).toEqual([])
    expect(existsSync(places.volumesFile)).toBe(false)
    expect(readdirSync(places.journal)).toEqual([])
    expect(await recover(remembering(null))).toBeNull()
  })

  test("with the location, where that was made for it", async () => {
    almostFinished(true)
    await recover(remembering(null))
    expect(existsSync(volume.location)).toBe(false)
  })

  test("is put in its place where the TPM remembers its header", async () => {
    almostFinished()
    expect(await recover(remembering(HEADER))).toBe("finished")
    expect(readdirSync(volume.location).sort()).toEqual(["container", "data", "header"])
    expect(parseVolumes(readFileSync(places.volumesFile, "utf8"), "volumes.toml")).toEqual([volume])
  })

  test("also when the header was in its place already", async () => {
    const made = almostFinished()
    putInPlace(made, places.volumesFile)
    const again = beginHalfMade(volume, false, places)
    expect(existsSync(again.container)).toBe(false)
    expect(await recover(remembering(HEADER))).toBe("finished")
    expect(readdirSync(volume.location).sort()).toEqual(["container", "data", "header"])
  })

  test("is not put in its place because the disk says so: another header than the TPM's", async () => {
    almostFinished()
    expect(await recover(remembering(Buffer.from("another header")))).toBe("taken back")
    expect(readdirSync(volume.location)).toEqual([])
  })

  test("without a TPM the disk is all there is to ask", async () => {
    almostFinished()
    expect(await recover(null)).toBe("finished")
  })

  test("is taken back where the note about it is not whole, or is about another place", async () => {
    for (const note of ["", "[[volume]]", `[[volume]]\nlocation = "/"\n`]) {
      const made = almostFinished()
      writeFileSync(made.note, note)
      expect(await recover(remembering(HEADER))).toBe("taken back")
      expect(existsSync(made.directory)).toBe(false)
      rmSync(volume.mountPoint, { recursive: true, force: true })
    }
  })

  test("is found wherever it is, until it is done", async () => {
    const made = almostFinished()
    const other = volumeAt(join(dir, "other"), "test_other")
    mkdirSync(other.location)
    const second = beginHalfMade(other, true, places)
    expect(halfMadeLocations(places.journal).sort()).toEqual([other.location, volume.location])
    await recover(remembering(null))
    expect(halfMadeLocations(places.journal)).toEqual([other.location])
    // A note that is not whole, and one that stands for another place than it is about.
    writeFileSync(second.note, "[[volume]]")
    writeFileSync(join(places.journal, "other.toml"), `[[volume]]\nlocation = "/"\n`)
    expect(halfMadeLocations(places.journal)).toEqual([])
    expect(readdirSync(places.journal)).toEqual([])
    expect(halfMadeLocations(join(dir, "nowhere"))).toEqual([])
    expect(existsSync(made.directory)).toBe(false)
  })

  test("at a place that is not there now is kept in mind", () => {
    almostFinished()
    rmSync(volume.location, { recursive: true })
    expect(halfMadeLocations(places.journal)).toEqual([])
    expect(readdirSync(places.journal)).toHaveLength(1)
  })

  test("goes into the list of volumes that it was made for", async () => {
    almostFinished()
    const other = { ...places, volumesFile: join(dir, "other.toml") }
    expect(await recoverHalfMade(volume.location, tools, null, other)).toBe("finished")
    expect(existsSync(other.volumesFile)).toBe(false)
    expect(existsSync(places.volumesFile)).toBe(true)
  })

  test("what was in the location before stays", async () => {
    writeFileSync(join(volume.location, "notes"), "mine")
    almostFinished(true)
    await recover(remembering(null))
    expect(readdirSync(volume.location)).toEqual(["notes"])
  })
})
