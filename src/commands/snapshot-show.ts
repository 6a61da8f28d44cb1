import type { Shown, ShownRecord } from "../formats/describe/shown.ts"
import type { Snapshot } from "../policy/snapshot.ts"
import { jsonText } from "./json-text.ts"
import { renderShown } from "./render-shown.ts"
import { readSnapshotFile } from "./snapshot-file.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

/** `snapshot show`: prints what a snapshot holds, with the number of its files in their place. Returns the exit code. */
export function showSnapshot(file: string, json: boolean, terminal: Terminal = openTerminal()): number {
  const summary = summaryOf(readSnapshotFile(file))
  if (json) terminal.out(jsonText(summary))
  else
    terminal.out(
      `${terminal.outStyle.bold("snapshot")}  ${terminal.outStyle.dim("(not verified)")}\n${renderShown(summary, terminal.outStyle)}`,
    )
  return 0
}

/** Everything but the list of files. Null: the snapshot does not hold it. */
export function summaryOf(snapshot: Snapshot): ShownRecord {
  const { filehashes, unreadable, ...rest } = snapshot
  return {
    ...Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, shown(value)])),
    files: filehashes?.length ?? null,
    unreadable: unreadable.map(([path, reason]) => ({ path, reason })),
  }
}

function shown(value: unknown): Shown {
  if (value === null || value === undefined) return null
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value
  if (Array.isArray(value)) return value.map(shown)
  if (typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, shown(inner)]))
  return String(value)
}
