import { CodedError } from "../errors.ts"
import { type FileHashIndex, FileHashIndexBuilder } from "./file-hashes.ts"
import { fileHashIndex, type Snapshot } from "./snapshot.ts"
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
  return {
    ...latest,
    tpm_reference: tpm_reference && { ...tpm_reference, clock: latestClock(snapshots) },
    unreadable: unreadableOf(snapshots),
    filehashes: snapshots.every(({ snapshot }) => snapshot.filehashes === null)
      ? null
      : snapshots.map(({ snapshot }) => fileHashIndex(snapshot)).reduce(union),
  }
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

/** All pairs of both, each once, in order. */
function union(a: FileHashIndex, b: FileHashIndex): FileHashIndex {
  const builder = new FileHashIndexBuilder()
  let atA = 0
  let atB = 0
  while (atA < a.length || atB < b.length) {
    const order = atA === a.length ? 1 : atB === b.length ? -1 : a.compare(atA, b, atB)
    if (order <= 0) builder.add(a.pathAt(atA), a.digestAt(atA))
    else builder.add(b.pathAt(atB), b.digestAt(atB))
    if (order <= 0) atA = behind(a, atA)
    if (order >= 0) atB = behind(b, atB)
  }
  return builder.build()
}

/** Position of the next pair that is not the one at `position` once more. */
function behind(index: FileHashIndex, position: number): number {
  let next = position + 1
  while (next < index.length && index.compare(position, index, next) === 0) next += 1
  return next
}
