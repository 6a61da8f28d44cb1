import { toHex } from "../formats/hex.ts"
import { pathToText } from "../formats/path-text.ts"
import type { FileHashIndex } from "./file-hashes.ts"
import { fileHashIndex, type Snapshot } from "./snapshot.ts"
import { differingValues, originValues, referenceValues, type ValueDifference } from "./snapshot-values.ts"

/** A file that two snapshots have differently. Digests in hex, in order; a path may have several. */
export interface FileDifference {
  readonly path: string
  readonly kind: "added" | "removed" | "changed"
  /** Empty for an added file. */
  readonly before: readonly string[]
  /** Empty for a removed file. */
  readonly after: readonly string[]
}

/** Differing files of one package, or, where the package is not known, of one directory. */
export interface FileGroup {
  readonly by: "package" | "directory"
  readonly name: string
  readonly added: number
  readonly removed: number
  readonly changed: number
  /** In order of path. */
  readonly files: readonly FileDifference[]
}

export interface SnapshotDiff {
  /** Nothing differs that a VM is verified against. */
  readonly equal: boolean
  /** When and where they were taken. */
  readonly origin: readonly ValueDifference[]
  /** TEE, TPM, boot and IMA values. */
  readonly references: readonly ValueDifference[]
  readonly files: {
    readonly added: number
    readonly removed: number
    readonly changed: number
    readonly unchanged: number
    /** False where the snapshots hold digests of different algorithms: then only paths are compared, and none counts as changed. */
    readonly digestsCompared: boolean
    readonly groups: readonly FileGroup[]
  }
}

/** Package that a file belongs to; null where it is not known. */
export type PackageOf = (path: string) => string | null

/** What differs between an earlier and a later snapshot. */
export function diffSnapshots(
  before: Snapshot,
  after: Snapshot,
  packageOf: PackageOf = () => null,
): SnapshotDiff {
  const { hash_algorithm: algorithm } = before
  const digestsCompared =
    algorithm === null || after.hash_algorithm === null || algorithm === after.hash_algorithm
  const groups = new Groups(packageOf)
  const unchanged = compareFiles(fileHashIndex(before), fileHashIndex(after), digestsCompared, (difference) =>
    groups.add(difference),
  )
  const references = differingValues(referenceValues(before), referenceValues(after))
  const { added, removed, changed } = groups
  return {
    equal: references.length === 0 && added + removed + changed === 0,
    origin: differingValues(originValues(before), originValues(after)),
    references,
    files: { added, removed, changed, unchanged, digestsCompared, groups: groups.ordered() },
  }
}

type Report = (difference: FileDifference) => void

/** Walks both indexes once, in their common order. Returns the number of paths without a difference. */
function compareFiles(a: FileHashIndex, b: FileHashIndex, digests: boolean, report: Report): number {
  let unchanged = 0
  let atA = 0
  let atB = 0
  while (atA < a.length || atB < b.length) {
    const order = atA === a.length ? 1 : atB === b.length ? -1 : a.comparePath(atA, b, atB)
    const endA = order <= 0 ? endOfPath(a, atA) : atA
    const endB = order >= 0 ? endOfPath(b, atB) : atB
    // Nearly all files: one digest on each side, and the same.
    if (endA - atA === 1 && endB - atB === 1 && a.compare(atA, b, atB) === 0) unchanged += 1
    else unchanged += comparePaths(digestsByPath(a, atA, endA), digestsByPath(b, atB, endB), digests, report)
    atA = endA
    atB = endB
  }
  return unchanged
}

/** Position behind the pairs whose paths equal that at `start`, as far as the index can tell them apart. */
function endOfPath(index: FileHashIndex, start: number): number {
  let end = start + 1
  while (end < index.length && index.comparePath(start, index, end) === 0) end += 1
  return end
}

/** An index takes `a b` and `a_b` for one path, as the kernel's list does; here they are two. */
function digestsByPath(index: FileHashIndex, start: number, end: number): Map<string, Set<string>> {
  const out = new Map<string, Set<string>>()
  for (let at = start; at < end; at++) {
    const path = pathToText(index.pathAt(at))
    const known = out.get(path)
    const digest = toHex(index.digestAt(at))
    if (known === undefined) out.set(path, new Set([digest]))
    else known.add(digest)
  }
  return out
}

function comparePaths(
  a: ReadonlyMap<string, ReadonlySet<string>>,
  b: ReadonlyMap<string, ReadonlySet<string>>,
  digests: boolean,
  report: Report,
): number {
  let unchanged = 0
  for (const path of new Set([...a.keys(), ...b.keys()])) {
    const before = [...(a.get(path) ?? [])]
    const after = [...(b.get(path) ?? [])]
    if (before.length === 0) report({ path, kind: "added", before, after })
    else if (after.length === 0) report({ path, kind: "removed", before, after })
    else if (digests && (before.length !== after.length || before.some((digest, at) => digest !== after[at])))
      report({ path, kind: "changed", before, after })
    else unchanged += 1
  }
  return unchanged
}

type Counted = { -readonly [K in keyof Omit<FileGroup, "files">]: FileGroup[K] } & {
  readonly files: FileDifference[]
}

class Groups {
  added = 0
  removed = 0
  changed = 0
  readonly #packageOf: PackageOf
  readonly #groups = new Map<string, Counted>()

  constructor(packageOf: PackageOf) {
    this.#packageOf = packageOf
  }

  add(difference: FileDifference): void {
    this[difference.kind] += 1
    const group = this.#groupOf(difference.path)
    group[difference.kind] += 1
    group.files.push(difference)
  }

  /** Packages first, then directories, each by name. */
  ordered(): FileGroup[] {
    return [...this.#groups.values()].sort((a, b) => {
      if (a.by !== b.by) return a.by === "package" ? -1 : 1
      return a.name < b.name ? -1 : 1
    })
  }

  #groupOf(path: string): Counted {
    const owner = this.#packageOf(path)
    const by = owner === null ? "directory" : "package"
    const name = owner ?? directoryOf(path)
    const key = `${by} ${name}`
    const known = this.#groups.get(key)
    if (known !== undefined) return known
    const group: Counted = { by, name, added: 0, removed: 0, changed: 0, files: [] }
    this.#groups.set(key, group)
    return group
  }
}

function directoryOf(path: string): string {
  const end = path.lastIndexOf("/")
  return end <= 0 ? "/" : path.slice(0, end)
}
