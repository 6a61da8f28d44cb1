import { fileDigest, type MeasurementList, pathBytes } from "../formats/ima/measurement-list.ts"
import { pathToText } from "../formats/path-text.ts"
import { type FileHashIndex, NO_PACKAGE } from "./file-hashes.ts"
import { fileHashIndex, type Snapshot, supersededIndex } from "./snapshot.ts"
import type { FileFinding, FilePackage, FileState } from "./verdict.ts"

/** What list and snapshot say about the file of an entry. It explains; whether the file is accepted was settled before. */
export function fileFindingOf(
  list: MeasurementList,
  position: number,
  state: FileState,
  reference: Snapshot | null,
): FileFinding {
  const bytes = pathBytes(list, position)
  const file = { path: pathToText(bytes), position, state }
  if (reference === null) return { ...file, package: null }
  const owner = ownerOf(reference, fileHashIndex(reference), bytes, null)
  if (!REPLACED.includes(state)) return { ...file, package: owner }
  const older = ownerOf(reference, supersededIndex(reference), bytes, fileDigest(list, position))
  return { ...file, package: owner ?? older, ...(older === null ? {} : { older }) }
}

/** States of a file that an update replaced. */
const REPLACED: readonly FileState[] = ["rolled-back", "old-version", "before-update"]

/** Package of a path, and of a digest where there is one. Several versions may have the path: the last one is taken. */
function ownerOf(
  { packages }: Snapshot,
  index: FileHashIndex,
  path: Uint8Array,
  digest: Uint8Array | null,
): FilePackage | null {
  const { start, end } = index.positionsOf(path)
  let owner = NO_PACKAGE
  for (let at = start; at < end; at++) {
    const matches = digest === null || Buffer.compare(index.digestAt(at), digest) === 0
    if (matches && index.packageAt(at) !== NO_PACKAGE) owner = index.packageAt(at)
  }
  const found = packages?.[owner]
  if (found === undefined) return null
  const { manager, name, version, architecture } = found
  return { manager, name, version, architecture }
}

/** How the snapshot is brought up to date, to follow "if you updated". */
export function updateOf({ package: owner }: FileFinding): string {
  if (owner === null)
    return "it, add the line `path digest` to a whitelist (--whitelist) or take a new snapshot"
  const option = owner.manager === "dpkg" ? "--deb" : "--rpm"
  return `the package, run cosmian_vm snapshot update ${option} with the new one, or take a new snapshot`
}
