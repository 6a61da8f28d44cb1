import type { Snapshot } from "./snapshot.ts"
import type { Claim, Explanation, ExplanationPoint, FilePackage, Finding } from "./verdict.ts"

/** Names that are told in the headline. */
const NAMED = 3
/** Characters of a file's name: a VM can choose some thousand. */
const LONGEST = 120
/** Lines in all; a verdict holds every finding. */
const MAX_POINTS = 200

/** Findings about files of one package, or of none, that are alike. */
export interface FileGroup {
  readonly package: FilePackage | null
  readonly state: NonNullable<Finding["file"]>["state"]
  readonly files: readonly [Finding, ...Finding[]]
}

/** Explains what failed by the packages and files concerned; undefined where no finding is about a file. */
export function explain(claims: readonly Claim[]): Explanation | undefined {
  const groups = claims
    .filter(({ status }) => status === "failed")
    .flatMap(({ findings }) => fileGroups(findings))
  if (groups.length === 0) return undefined
  const points = groups.map(pointOf)
  const isLoud = ({ kind }: ExplanationPoint) => kind === "alarm"
  const ordered = [...points.filter(isLoud), ...points.filter((point) => !isLoud(point))]
  return { headline: headlineOf(groups), points: ordered.slice(0, MAX_POINTS) }
}

/** Adds to what is said of the files that some of them are accepted although nobody vouched for their package. */
export function withSnapshotNotes(claim: Claim, reference: Snapshot | null): Claim {
  const unvouched = (reference?.packages ?? []).filter(
    ({ source, replaced }) => source === "unauthenticated" && replaced === undefined,
  )
  if (claim.check !== "ima" || unvouched.length === 0) return claim
  const names = unvouched.slice(0, NAMED).map(({ name, version }) => `${name} ${version}`)
  const rest = unvouched.length - names.length
  const text = [...names, ...(rest > 0 ? [`${rest} more`] : [])].join(", ")
  return {
    ...claim,
    summary: `${claim.summary}; the snapshot accepts packages that nobody vouched for: ${text}`,
    facts: { ...claim.facts, unauthenticatedPackages: unvouched.length },
  }
}

/** Findings about files, by package and state, in order of alarm; among equals the one with most files first. */
export function fileGroups(findings: readonly Finding[]): FileGroup[] {
  const groups = new Map<
    string,
    { package: FilePackage | null; state: FileGroup["state"]; files: [Finding, ...Finding[]] }
  >()
  for (const finding of findings) {
    const { file } = finding
    if (file === undefined) continue
    const key = JSON.stringify([file.package, file.state, finding.meaning])
    const group = groups.get(key)
    if (group === undefined) groups.set(key, { package: file.package, state: file.state, files: [finding] })
    else group.files.push(finding)
  }
  return [...groups.values()].sort(
    (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || b.files.length - a.files.length,
  )
}

const ORDER: readonly FileGroup["state"][] = [
  "rolled-back",
  "old-version",
  "unknown",
  "written-in-use",
  "unreadable",
  "not-comparable",
  "changed",
  "before-update",
]

/** What an update leaves is a changed file of a package, and what ran before it; nothing of every day explains the rest. */
function isAlarm({ package: owner, state }: FileGroup): boolean {
  return state !== "before-update" && (state !== "changed" || owner === null)
}

function pointOf(group: FileGroup): ExplanationPoint {
  const { package: owner, state, files } = group
  return {
    kind: isAlarm(group) ? "alarm" : "change",
    subject: owner === null ? NO_PACKAGE : `${owner.name} ${owner.version}`,
    // Of a package the number tells enough; a file of none has to be named.
    text: textOf(state, files, owner === null ? `: ${namesOf(files)}` : ""),
  }
}

const NO_PACKAGE = "no package"

function textOf(state: FileGroup["state"], files: FileGroup["files"], names: string): string {
  const count = files.length === 1 ? "1 file" : `${files.length} files`
  const older = files[0].file?.older
  const to = older === undefined ? "an older version" : older.version
  switch (state) {
    case "rolled-back":
      return `rolled back to ${to}: ${count}${names}`
    case "old-version":
      return `still ${to}, or rolled back to it: ${count}${names}`
    case "before-update":
      return `${to} ran in this boot, before the update: ${count}${names}`
    case "changed":
      return `${count} changed${names}`
    case "unknown":
      return `${files.length === 1 ? "unknown file" : `${files.length} unknown files`}: ${namesOf(files)}`
    case "written-in-use":
      return `${count} written while in use${names}`
    case "unreadable":
      return `${count} that the kernel could not hash${names}`
    case "not-comparable":
      return `${count} hashed in another way than the snapshot${names}`
  }
}

function headlineOf(groups: readonly FileGroup[]): string {
  const of = (...states: FileGroup["state"][]) => groups.filter(({ state }) => states.includes(state))
  const files = (some: readonly FileGroup[]) => some.reduce((sum, group) => sum + group.files.length, 0)
  const unknown = files(of("unknown"))
  const other = files(of("written-in-use", "unreadable", "not-comparable"))
  const said = [
    packagesText(of("rolled-back"), "rolled back"),
    packagesText(of("old-version"), "not in the version of the snapshot"),
    unknown === 0 ? "" : `${unknown === 1 ? "1 unknown file" : `${unknown} unknown files`} ran`,
    other === 0 ? "" : `${other === 1 ? "1 file" : `${other} files`} of which it is not known what ran`,
    packagesText(of("changed"), "changed"),
    packagesText(of("before-update"), "updated in this boot"),
  ]
  return said.filter((part) => part !== "").join(", ")
}

/** `3 packages changed (bash, curl, nginx)`; files of no package count one by one. */
function packagesText(groups: readonly FileGroup[], what: string): string {
  const names = [...new Set(groups.flatMap(({ package: owner }) => (owner === null ? [] : [owner.name])))]
  const loose = groups.filter(({ package: owner }) => owner === null).flatMap(({ files }) => files)
  const shown = names.slice(0, NAMED).join(", ")
  const list = names.length > NAMED ? `${shown}, …` : shown
  const packages = `${names.length === 1 ? "1 package" : `${names.length} packages`} ${what} (${list})`
  const files = `${loose.length === 1 ? "1 file" : `${loose.length} files`} ${what}`
  return [...(names.length > 0 ? [packages] : []), ...(loose.length > 0 ? [files] : [])].join(", ")
}

function namesOf(files: readonly Finding[]): string {
  const shown = files
    .slice(0, NAMED)
    .map(({ subject }) => (subject.length > LONGEST ? `${subject.slice(0, LONGEST)}…` : subject))
    .join(", ")
  const rest = files.length - NAMED
  return rest > 0 ? `${shown} and ${rest} more` : shown
}
