import { toHex } from "../formats/hex.ts"
import { pathToText } from "../formats/path-text.ts"
import { firstDifference } from "./boot-reference.ts"
import { type FileHashIndex, NO_PACKAGE } from "./file-hashes.ts"
import { fileHashIndex, type Package, type Snapshot } from "./snapshot.ts"
import { installedPackages, packageKey } from "./snapshot-packages.ts"
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
  /** Of the package without its version, or of the directory. */
  readonly name: string
  /** Of a package; absent for a directory. */
  readonly package?: PackageChange
  readonly added: number
  readonly removed: number
  readonly changed: number
  /** In order of path. */
  readonly files: readonly FileDifference[]
}

/** What became of a package. Versions in the order of each snapshot; several where old and new are allowed side by side. */
export interface PackageChange {
  readonly kind: "added" | "removed" | "upgraded" | "same"
  readonly manager: Package["manager"]
  readonly architecture: string | null
  /** Null: that snapshot knows no packages. */
  readonly before: readonly string[] | null
  readonly after: readonly string[] | null
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
    /** Packages first, those without a differing file where their version differs; then directories. */
    readonly groups: readonly FileGroup[]
  }
}

/** What differs between an earlier and a later snapshot. */
export function diffSnapshots(before: Snapshot, after: Snapshot): SnapshotDiff {
  const { hash_algorithm: algorithm } = before
  const digestsCompared =
    algorithm === null || after.hash_algorithm === null || algorithm === after.hash_algorithm
  const groups = new Groups(before.packages ?? null, after.packages ?? null)
  const unchanged = compareFiles(
    fileHashIndex(before),
    fileHashIndex(after),
    digestsCompared,
    (difference, owners) => groups.add(difference, owners),
  )
  const references = differingValues(referenceValues(before), referenceValues(after)).map((difference) =>
    explained(difference, before, after),
  )
  const { added, removed, changed } = groups
  return {
    equal: references.length === 0 && added + removed + changed === 0,
    origin: differingValues(originValues(before), originValues(after)),
    references,
    files: { added, removed, changed, unchanged, digestsCompared, groups: groups.ordered() },
  }
}

/** With the first event that differs, where both snapshots know what was measured into a PCR or RTMR. */
function explained(difference: ValueDifference, before: Snapshot, after: Snapshot): ValueDifference {
  const pcr = /^tpm_reference\.pcrs\.(\d+)$/.exec(difference.name)?.[1]
  const rtmr = /^tee_reference\.rtmr(\d)$/.exec(difference.name)?.[1]
  const eventsOf = ({ boot_reference }: Snapshot) =>
    boot_reference?.[pcr === undefined ? "rtmrs" : "pcrs"][pcr ?? rtmr ?? ""]
  const [then, now] = [eventsOf(before), eventsOf(after)]
  const event = then === undefined || now === undefined ? null : firstDifference(then, now)
  return event === null ? difference : { ...difference, meaning: event.meaning }
}

/** Numbers of the packages that a path belongs to in the two snapshots, or NO_PACKAGE. */
interface Owners {
  readonly before: number
  readonly after: number
}

type Report = (difference: FileDifference, owners: Owners) => void

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
    else {
      const owners = { before: ownerIn(a, atA, endA), after: ownerIn(b, atB, endB) }
      const told = (difference: FileDifference) => report(difference, owners)
      unchanged += comparePaths(digestsByPath(a, atA, endA), digestsByPath(b, atB, endB), digests, told)
    }
    atA = endA
    atB = endB
  }
  return unchanged
}

/** The first package that one of the pairs belongs to. */
function ownerIn(index: FileHashIndex, start: number, end: number): number {
  for (let at = start; at < end; at++) if (index.packageAt(at) !== NO_PACKAGE) return index.packageAt(at)
  return NO_PACKAGE
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
  report: (difference: FileDifference) => void,
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
  readonly #before: readonly Package[] | null
  readonly #after: readonly Package[] | null
  readonly #changes: ReadonlyMap<string, PackageChange>
  readonly #groups = new Map<string, Counted>()

  constructor(before: readonly Package[] | null, after: readonly Package[] | null) {
    this.#before = before
    this.#after = after
    this.#changes = packageChanges(installed(before), installed(after))
  }

  add(difference: FileDifference, { before, after }: Owners): void {
    this[difference.kind] += 1
    const owner = this.#after?.[after] ?? this.#before?.[before] ?? null
    const group = this.#groupOf(owner, directoryOf(difference.path))
    group[difference.kind] += 1
    group.files.push(difference)
  }

  /** Packages first, then directories, each by name. */
  ordered(): FileGroup[] {
    for (const one of [...(installed(this.#before) ?? []), ...(installed(this.#after) ?? [])])
      if (this.#changes.get(packageKey(one))?.kind !== "same") this.#groupOf(one, "")
    return [...this.#groups.values()].sort((a, b) => {
      if (a.by !== b.by) return a.by === "package" ? -1 : 1
      if (a.name !== b.name) return a.name < b.name ? -1 : 1
      return (a.package?.architecture ?? "") < (b.package?.architecture ?? "") ? -1 : 1
    })
  }

  #groupOf(owner: Package | null, directory: string): Counted {
    const key = owner === null ? directory : packageKey(owner)
    const known = this.#groups.get(key)
    if (known !== undefined) return known
    const change = this.#changes.get(key)
    const group: Counted = {
      by: owner === null ? "directory" : "package",
      name: owner?.name ?? directory,
      ...(change === undefined ? {} : { package: change }),
      added: 0,
      removed: 0,
      changed: 0,
      files: [],
    }
    this.#groups.set(key, group)
    return group
  }
}

function installed(packages: readonly Package[] | null): readonly Package[] | null {
  return installedPackages(packages ?? undefined)
}

/** By {@link packageKey}. Where one of the snapshots knows no packages, nothing is said to have changed. */
function packageChanges(
  before: readonly Package[] | null,
  after: readonly Package[] | null,
): ReadonlyMap<string, PackageChange> {
  const all = new Map<string, { first: Package; before: string[]; after: string[] }>()
  for (const [side, packages] of [
    ["before", before],
    ["after", after],
  ] as const)
    for (const one of packages ?? []) {
      const key = packageKey(one)
      const known = all.get(key) ?? { first: one, before: [], after: [] }
      if (!known[side].includes(one.version)) known[side].push(one.version)
      all.set(key, known)
    }
  const both = before !== null && after !== null
  const out = new Map<string, PackageChange>()
  for (const [key, { first, ...versions }] of all)
    out.set(key, {
      kind: both ? kindOf(versions) : "same",
      manager: first.manager,
      architecture: first.architecture,
      before: before === null ? null : versions.before,
      after: after === null ? null : versions.after,
    })
  return out
}

function kindOf({ before, after }: Record<"before" | "after", readonly string[]>): PackageChange["kind"] {
  if (before.length === 0) return "added"
  if (after.length === 0) return "removed"
  const same = before.length === after.length && before.every((version) => after.includes(version))
  return same ? "same" : "upgraded"
}

function directoryOf(path: string): string {
  const end = path.lastIndexOf("/")
  return end <= 0 ? "/" : path.slice(0, end)
}
