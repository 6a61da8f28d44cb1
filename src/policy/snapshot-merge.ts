import { CodedError } from "../errors.ts"
import { FileHashIndex, FileHashIndexBuilder, NO_PACKAGE } from "./file-hashes.ts"
import { fileHashIndex, type Snapshot, supersededIndex } from "./snapshot.ts"
import { PackageTable } from "./snapshot-packages.ts"
import { differingValues, referenceValues } from "./snapshot-values.ts"

/** A snapshot with the name of its file, for messages. */
export interface NamedSnapshot {
  readonly name: string
  readonly snapshot: Snapshot
}

/** Differences that are named in an error; there are never many more values than this. */
const NAMED_DIFFERENCES = 20

/**
 * One snapshot that allows the files of all of them, for the time of a roll-out. Time, host and agent version are those of the
 * one taken last.
 * @param snapshots at least one.
 * @throws CodedError ERR_SNAPSHOT_MERGE where a reference value other than a file's differs: those are named.
 */
export function mergeSnapshots(snapshots: readonly NamedSnapshot[]): Snapshot {
  const [first, ...others] = snapshots
  if (first === undefined) throw new CodedError("ERR_INTERNAL", { at: "merge", found: "no snapshot" })
  for (const other of others) checkSameReferences(first, other)
  let latest = first.snapshot
  for (const { snapshot } of others) if (timeOf(snapshot) > timeOf(latest)) latest = snapshot
  const { tpm_reference } = first.snapshot
  const { superseded, packages, ...rest } = latest
  return {
    ...bootOf(snapshots),
    ...rest,
    tpm_reference: tpm_reference && { ...tpm_reference, clock: latestClock(snapshots) },
    unreadable: unreadableOf(snapshots),
    ...filesOf(snapshots.map(({ snapshot }) => snapshot)),
  }
}

type Files = Pick<Snapshot, "filehashes" | "packages" | "superseded">

/** All files of all, each with its package. What one of them accepts is superseded in none. */
function filesOf(snapshots: readonly Snapshot[]): Files {
  const table = new PackageTable()
  const owned = snapshots.map((snapshot) => ({ snapshot, numbers: table.numbers(snapshot.packages ?? []) }))
  const files = owned
    .map(({ snapshot, numbers }) => ({ index: fileHashIndex(snapshot), numbers }))
    .reduce(union, NOTHING)
  const old = owned
    .map(({ snapshot, numbers }) => ({ index: supersededIndex(snapshot), numbers }))
    .reduce(union, NOTHING)
  const kept = without(old.index, files.index)
  return {
    filehashes: snapshots.every(({ filehashes }) => filehashes === null) ? null : files.index,
    ...(snapshots.every(({ packages }) => packages === undefined) ? {} : { packages: table.packages }),
    ...(kept.length === 0 ? {} : { superseded: kept }),
  }
}

/** What was booted is the same in all; an older one may not say it. */
function bootOf(snapshots: readonly NamedSnapshot[]): Pick<Snapshot, "boot_reference"> {
  const [known] = snapshots.flatMap(({ snapshot }) => snapshot.boot_reference ?? [])
  return known === undefined ? {} : { boot_reference: known }
}

function checkSameReferences(first: NamedSnapshot, other: NamedSnapshot): void {
  const differences = differingValues(referenceValues(first.snapshot), referenceValues(other.snapshot))
  if (differences.length === 0) return
  const named = differences.slice(0, NAMED_DIFFERENCES)
  const rest = differences.length - named.length
  throw new CodedError("ERR_SNAPSHOT_MERGE", {
    at: other.name,
    expected: `the reference values of ${first.name}`,
    found: [
      ...named.map(({ name, before, after }) => `${name}: ${after ?? "none"} instead of ${before ?? "none"}`),
      ...(rest > 0 ? [`${rest} more`] : []),
    ].join("; "),
    hint: "merge snapshots of one VM from one boot; verify against each of the others by itself",
  })
}

/** Milliseconds; snapshots that do not tell their time come first. */
function timeOf({ taken_at }: Snapshot): number {
  const time = taken_at === null ? Number.NaN : Date.parse(taken_at)
  return Number.isNaN(time) ? Number.NEGATIVE_INFINITY : time
}

/** The strictest one: in the same boot, a TPM whose clock is behind it is an old copy of the VM. */
function latestClock(snapshots: readonly NamedSnapshot[]): number | null {
  const clocks = snapshots.flatMap(({ snapshot }) => snapshot.tpm_reference?.clock ?? [])
  return clocks.length === 0 ? null : Math.max(...clocks)
}

/** Each path once, with the reason that was given first. */
function unreadableOf(snapshots: readonly NamedSnapshot[]): Snapshot["unreadable"] {
  const reasons = new Map<string, string>()
  for (const { snapshot } of snapshots)
    for (const [path, reason] of snapshot.unreadable) if (!reasons.has(path)) reasons.set(path, reason)
  return [...reasons]
}

/** An index and the number that each of its packages gets in the result; null: the numbers are those already. */
interface Owned {
  readonly index: FileHashIndex
  readonly numbers: readonly number[] | null
}

const NOTHING: Owned = { index: FileHashIndex.EMPTY, numbers: null }

/** All pairs of both, each once, in order. */
function union(a: Owned, b: Owned): Owned {
  const builder = new FileHashIndexBuilder()
  const add = ({ index, numbers }: Owned, position: number) => {
    const owner = index.packageAt(position)
    const number = numbers === null ? owner : (numbers[owner] ?? NO_PACKAGE)
    builder.add(index.pathAt(position), index.digestAt(position), number)
  }
  let atA = 0
  let atB = 0
  while (atA < a.index.length || atB < b.index.length) {
    const order =
      atA === a.index.length ? 1 : atB === b.index.length ? -1 : a.index.compare(atA, b.index, atB)
    // Where both have it, the one that knows its package is taken.
    if (order < 0 || (order === 0 && a.index.packageAt(atA) !== NO_PACKAGE)) add(a, atA)
    else add(b, atB)
    if (order <= 0) atA = behind(a.index, atA)
    if (order >= 0) atB = behind(b.index, atB)
  }
  return { index: builder.build(), numbers: null }
}

/** Pairs of an index that another does not have; packages keep their numbers. */
export function without(index: FileHashIndex, other: FileHashIndex): FileHashIndex {
  const builder = new FileHashIndexBuilder()
  let next = 0
  for (let at = 0; at < index.length; at++) {
    while (next < other.length && other.compare(next, index, at) < 0) next += 1
    if (next < other.length && other.compare(next, index, at) === 0) continue
    builder.add(index.pathAt(at), index.digestAt(at), index.packageAt(at))
  }
  return builder.build()
}

/** Position of the next pair that is not the one at `position` once more. */
function behind(index: FileHashIndex, position: number): number {
  let next = position + 1
  while (next < index.length && index.compare(position, index, next) === 0) next += 1
  return next
}
