import { CodedError, UsageError } from "../errors.ts"
import { hashAlgorithmOfSize } from "../formats/hash-algorithms.ts"
import { printable } from "../formats/path-text.ts"
import { encodeSnapshotBytes, fileHashIndex, MAX_SNAPSHOT_BYTES, type Snapshot } from "../policy/snapshot.ts"
import { type NewPackage, type PackageUpdate, updateSnapshot } from "../policy/snapshot-update.ts"
import { contentFor } from "./compressed-file.ts"
import { readInput } from "./input-files.ts"
import { jsonText } from "./json-text.ts"
import { type PackageContent, readDeb, readRpm } from "./package-content.ts"
import { type Authenticity, PackageTrust, type TrustChoice } from "./package-trust.ts"
import { count } from "./progress.ts"
import { readSnapshotFile } from "./snapshot-file.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { timeOf } from "./time-option.ts"
import { beginFile } from "./write-file.ts"

export interface UpdateFilesOptions extends TrustChoice {
  readonly snapshot: string
  /** Null: in place of the snapshot. */
  readonly output: string | null
  readonly debs: readonly string[]
  readonly rpms: readonly string[]
  readonly keepOld: boolean
  readonly allowDowngrade: boolean
  /** Time as of which a Release file has to hold, as given; null: now. */
  readonly at: string | null
  readonly json: boolean
}

/** A package that was read and is vouched for. */
interface Accepted extends NewPackage {
  readonly authenticity: Authenticity
  readonly hasScripts: boolean
}

const MAX_PACKAGE = 2 * 1024 * 1024 * 1024 - 1

/**
 * `snapshot update`: writes a snapshot with the files of packages in place of their predecessors'. Returns the exit code.
 * @throws UsageError ERR_MISSING_ARGUMENT, ERR_BAD_VALUE; what PackageTrust, readDeb, readRpm and updateSnapshot throw.
 */
export async function updateSnapshotFile(
  options: UpdateFilesOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const { debs, rpms } = options
  const output = options.output ?? options.snapshot
  if (debs.length + rpms.length === 0)
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: "snapshot update",
      expected: "--deb FILE or --rpm FILE",
      hint: `see "cosmian_vm snapshot update --help"`,
    })
  if (output === "-")
    throw new UsageError("ERR_MISSING_ARGUMENT", { at: "snapshot update", expected: "-o FILE" })
  const snapshot = readSnapshotFile(options.snapshot)
  const algorithm = algorithmOf(snapshot)
  const trust = await PackageTrust.open(options, options.at === null ? new Date() : timeOf(options.at))
  const accepted: Accepted[] = []
  for (const path of debs) accepted.push(await acceptDeb(path, algorithm, trust))
  for (const path of rpms) accepted.push(await acceptRpm(path, algorithm, trust))
  const { snapshot: updated, updates } = updateSnapshot(snapshot, accepted, options)
  write(output, updated)
  if (options.json) terminal.out(jsonText(resultOf(output, accepted, updates)))
  else report(output, accepted, updates, options, terminal)
  return 0
}

async function acceptDeb(path: string, algorithm: string, trust: PackageTrust): Promise<Accepted> {
  const content = readInput(path, MAX_PACKAGE)
  // Nothing in a package is looked at before somebody vouches for it.
  const authenticity = trust.ofDeb(path, content)
  return acceptedOf("dpkg", await readDeb(path, content, algorithm), authenticity)
}

async function acceptRpm(path: string, algorithm: string, trust: PackageTrust): Promise<Accepted> {
  const content = readInput(path, MAX_PACKAGE)
  // The signature is in the package, so it has to be read first.
  const rpm = readRpm(path, content, algorithm)
  return acceptedOf("rpm", rpm, await trust.ofRpm(path, content, rpm))
}

function acceptedOf(
  manager: "dpkg" | "rpm",
  { name, version, architecture, files, hasScripts }: PackageContent,
  authenticity: Authenticity,
): Accepted {
  const { source } = authenticity
  return { package: { manager, name, version, architecture, source }, files, hasScripts, authenticity }
}

/** In the predecessor's format the size of the digests tells. */
function algorithmOf(snapshot: Snapshot): string {
  const index = fileHashIndex(snapshot)
  const size = index.length === 0 ? 0 : index.digestAt(0).length
  const algorithm = snapshot.hash_algorithm ?? hashAlgorithmOfSize(size)?.name
  if (algorithm !== undefined) return algorithm
  throw new CodedError("ERR_PACKAGE_ALGORITHM", {
    at: "snapshot",
    expected: "digests of files",
    found: "none, so that it cannot be told by which algorithm the VM measures",
    hint: "take a new snapshot of the VM",
  })
}

function write(path: string, snapshot: Snapshot): void {
  const content = encodeSnapshotBytes(snapshot)
  if (content.length > MAX_SNAPSHOT_BYTES)
    throw new CodedError("ERR_TOO_LARGE", {
      at: path,
      expected: `at most ${MAX_SNAPSHOT_BYTES} bytes`,
      found: `${content.length}`,
      hint: "take a new snapshot: it holds no replaced files",
    })
  const pending = beginFile(path, 0o644)
  try {
    pending.commit(contentFor(path, content))
  } finally {
    pending.abandon()
  }
}

function resultOf(file: string, accepted: readonly Accepted[], updates: readonly PackageUpdate[]): unknown {
  return {
    file,
    packages: updates.map(({ package: one, ...counts }, index) => ({
      ...one,
      reason: accepted[index]?.authenticity.reason,
      ...counts,
      hasScripts: accepted[index]?.hasScripts,
    })),
  }
}

function report(
  output: string,
  accepted: readonly Accepted[],
  updates: readonly PackageUpdate[],
  { keepOld }: UpdateFilesOptions,
  terminal: Terminal,
): void {
  const { outStyle: style } = terminal
  const lines = updates.flatMap((update, index) => {
    const { package: one, before, added, unchanged, superseded, kept } = update
    const authenticity = accepted[index]?.authenticity
    const mark = one.source === "unauthenticated" ? style.yellow("[ WARNING ]") : style.green("[ OK ]")
    const versions = before.length === 0 ? `${one.version} (new)` : `${before.join(", ")} -> ${one.version}`
    const files = [
      `${count(added)} new digests`,
      `${count(superseded)} no longer accepted`,
      `${count(unchanged)} unchanged`,
      ...(kept > 0 ? [`${count(kept)} kept beside the new ones`] : []),
    ]
    return [
      `${mark} ${style.bold(one.name)} ${printable(versions)}: ${printable(authenticity?.reason ?? "")}`,
      `       ${files.join(", ")}`,
    ]
  })
  const notes = [
    keepOld
      ? "Old versions are still accepted (--keep-old): update again without it once all of them were replaced."
      : "Old versions are no longer accepted. What ran of them before the update stays in the kernel's list until the VM is rebooted.",
    "Files that are made on the VM itself (caches, initial RAM disks, what installation scripts write) are in no package and not known.",
    "A signature of the old snapshot does not hold for the new one.",
  ]
  terminal.out(`${lines.join("\n")}\n${style.green("[ OK ]")} written to ${printable(output)}\n`)
  terminal.out(`${notes.map((note) => `       ${note}`).join("\n")}\n`)
}
