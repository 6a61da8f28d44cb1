import type { Shown, ShownRecord } from "../formats/describe/shown.ts"
import type { BootReference } from "../policy/boot-reference.ts"
import { NO_PACKAGE } from "../policy/file-hashes.ts"
import { fileHashIndex, type Snapshot } from "../policy/snapshot.ts"
import { installedPackages } from "../policy/snapshot-packages.ts"
import { jsonText } from "./json-text.ts"
import { renderShown } from "./render-shown.ts"
import { readSnapshotFile } from "./snapshot-file.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

export interface ShowOptions {
  readonly file: string
  /** List the packages, instead of telling their number. */
  readonly packages: boolean
  readonly json: boolean
}

/** `snapshot show`: prints what a snapshot holds, with the number of its files in their place. Returns the exit code. */
export function showSnapshot(options: ShowOptions, terminal: Terminal = openTerminal()): number {
  const { file, json } = options
  const summary = summaryOf(readSnapshotFile(file), options.packages)
  if (json) terminal.out(jsonText(summary))
  else
    terminal.out(
      `${terminal.outStyle.bold("snapshot")}  ${terminal.outStyle.dim("(not verified)")}\n${renderShown(summary, terminal.outStyle)}`,
    )
  return 0
}

/** Everything but the list of files. Null: the snapshot does not hold it. */
export function summaryOf(snapshot: Snapshot, listPackages = false): ShownRecord {
  const { filehashes, unreadable, packages, superseded, boot_reference, ...rest } = snapshot
  return {
    ...Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, shown(value)])),
    ...(boot_reference === undefined ? {} : { boot_reference: shownBoot(boot_reference) }),
    files: filehashes?.length ?? null,
    superseded: superseded?.length ?? 0,
    packages: listPackages ? packagesOf(snapshot) : (installedPackages(packages)?.length ?? null),
    unreadable: unreadable.map(([path, reason]) => ({ path, reason })),
  }
}

/** Events by register, each on a line. */
function shownBoot({ pcrs, rtmrs }: BootReference): ShownRecord {
  const registers = (prefix: string, events: BootReference["pcrs"]) =>
    Object.entries(events)
      .filter(([, list]) => list.length > 0)
      .map(([register, list]) => [
        `${prefix}${register}`,
        list.map(([type, digest, what]) => ({ type, digest, what })),
      ])
  return Object.fromEntries([...registers("pcr", pcrs), ...registers("rtmr", rtmrs)])
}

/** Each package with the number of its files, in order of name. */
function packagesOf(snapshot: Snapshot): Shown {
  const { packages } = snapshot
  if (packages === undefined) return null
  const index = fileHashIndex(snapshot)
  const files = new Array<number>(packages.length).fill(0)
  for (let at = 0; at < index.length; at++) {
    const owner = index.packageAt(at)
    if (owner !== NO_PACKAGE) files[owner] = (files[owner] ?? 0) + 1
  }
  return packages
    .map((one, index) => ({ ...one, files: files[index] ?? 0 }))
    .filter(({ replaced }) => replaced === undefined)
    .map(({ manager, replaced, ...one }) => ({ ...one, manager }))
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
}

function shown(value: unknown): Shown {
  if (value === null || value === undefined) return null
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value
  if (Array.isArray(value)) return value.map(shown)
  if (typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, shown(inner)]))
  return String(value)
}
