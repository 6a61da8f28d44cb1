import { shortHex } from "../formats/hex.ts"
import { printable } from "../formats/path-text.ts"
import {
  diffSnapshots,
  type FileDifference,
  type FileGroup,
  type SnapshotDiff,
} from "../policy/snapshot-diff.ts"
import type { ValueDifference } from "../policy/snapshot-values.ts"
import { jsonText } from "./json-text.ts"
import { count } from "./progress.ts"
import { readSnapshotFile } from "./snapshot-file.ts"
import { openTerminal, type Style, type Terminal } from "./terminal.ts"

/** Groups and files of a group that are shown; all of them are in `--json`. */
const SHOWN_GROUPS = 50
const SHOWN_FILES = 10
/** A package's version says more than its files. */
const SHOWN_PACKAGE_FILES = 4
const MARKS = { added: "+", removed: "-", changed: "~" } as const

/** `snapshot diff`: prints how two snapshots differ. Returns the exit code, which does not tell whether they do. */
export function showSnapshotDiff(
  before: string,
  after: string,
  json: boolean,
  terminal: Terminal = openTerminal(),
): number {
  const diff = diffSnapshots(readSnapshotFile(before), readSnapshotFile(after))
  terminal.out(json ? jsonText(diff) : renderDiff(diff, terminal.outStyle))
  return 0
}

/** The difference as text, made from the object that `--json` prints. */
export function renderDiff(diff: SnapshotDiff, style: Style): string {
  const lines = [summary(diff, style)]
  lines.push(...values("Taken:", diff.origin, style), ...values("Reference values:", diff.references, style))
  const { groups, digestsCompared } = diff.files
  if (!digestsCompared)
    lines.push(
      "",
      style.yellow("The digests are of different algorithms: only the names of files were compared."),
    )
  const byPackage = groups.filter(({ by }) => by === "package")
  const others = groups.filter(({ by }) => by === "directory")
  lines.push(...groupsOf("Packages:", byPackage, style))
  lines.push(...groupsOf(byPackage.length === 0 ? "Files:" : "Files of no known package:", others, style))
  return `${lines.join("\n")}\n`
}

function groupsOf(title: string, groups: readonly FileGroup[], style: Style): string[] {
  if (groups.length === 0) return []
  const lines = ["", style.bold(title)]
  for (const group of groups.slice(0, SHOWN_GROUPS)) lines.push(...groupLines(group, style))
  const rest = groups.slice(SHOWN_GROUPS)
  if (rest.length > 0) {
    const files = rest.reduce((sum, group) => sum + group.files.length, 0)
    lines.push(`  … and ${count(files)} more in ${count(rest.length)} places; --json lists them all`)
  }
  return lines
}

function summary({ equal, files }: SnapshotDiff, style: Style): string {
  const { added, removed, changed, unchanged } = files
  if (equal)
    return `${style.green("EQUAL")}: the same reference values, and the same ${count(unchanged)} files`
  return `${style.yellow("DIFFERENT")}: files ${counts({ added, removed, changed })}, ${count(unchanged)} unchanged`
}

function counts(of: Pick<FileGroup, "added" | "removed" | "changed">): string {
  return `${count(of.added)} added, ${count(of.removed)} removed, ${count(of.changed)} changed`
}

function values(title: string, differences: readonly ValueDifference[], style: Style): string[] {
  if (differences.length === 0) return []
  return [
    "",
    style.bold(title),
    ...differences.flatMap(({ name, meaning, before, after }) => [
      `  ${printable(name)}${meaning === undefined ? "" : `  ${style.dim(meaning)}`}`,
      `    ${style.red("-")} ${before === null ? "none" : printable(before)}`,
      `    ${style.green("+")} ${after === null ? "none" : printable(after)}`,
    ]),
  ]
}

function groupLines(group: FileGroup, style: Style): string[] {
  const limit = group.by === "package" ? SHOWN_PACKAGE_FILES : SHOWN_FILES
  const shown = group.files.slice(0, limit).map((file) => `    ${fileLine(file, group, style)}`)
  const rest = group.files.length - shown.length
  return [
    `  ${style.bold(printable(group.name))}${versions(group)}  ${style.dim(counts(group))}`,
    ...shown,
    ...(rest > 0 ? [`    … and ${count(rest)} more`] : []),
  ]
}

/** `5.2.15-2 -> 5.2.15-3`, and what that is. */
function versions({ package: change }: FileGroup): string {
  if (change === undefined) return ""
  const text = (list: readonly string[] | null) => printable((list ?? []).join(", "))
  switch (change.kind) {
    case "added":
      return ` ${text(change.after)} installed`
    case "removed":
      return ` ${text(change.before)} removed`
    case "upgraded":
      return ` ${text(change.before)} -> ${text(change.after)}`
    case "same":
      return ` ${text(change.after ?? change.before)}`
  }
}

/** Inside its directory a file needs no more than its own name. */
function fileLine({ path, kind, before, after }: FileDifference, group: FileGroup, style: Style): string {
  const name = group.by === "directory" ? path.slice(path.lastIndexOf("/") + 1) : path
  const paint = { added: style.green, removed: style.red, changed: style.yellow }[kind]
  const digests = kind === "changed" ? `  ${style.dim(`${short(before)} -> ${short(after)}`)}` : ""
  return `${paint(MARKS[kind])} ${printable(name)}${digests}`
}

function short(digests: readonly string[]): string {
  return digests.map((digest) => shortHex(Buffer.from(digest, "hex"), 6)).join(", ")
}
