import { printable } from "../formats/path-text.ts"
import type { Claim, Finding, Verdict } from "../policy/verdict.ts"
import { type FindingGroup, groupedFindings, reasonOf } from "./report-parts.ts"
import type { Style } from "./terminal.ts"
import { CHECK_NAMES, classOf, POINTS_MEAN } from "./verdict-words.ts"
import { wrapLine } from "./wrap.ts"

/** Shown per check, and of the files of one package; all of them are in `--json`. */
const SHOWN_GROUPS = 20
const SHOWN_FINDINGS = 20
const SHOWN_PACKAGE_FILES = 5
const SIMULATED = "SIMULATED: nothing here proves anything about hardware; for trying the product out"
/** Lines of the explanation that are shown. */
const SHOWN_POINTS = 12

/** Where the lines that follow a broken one begin: below the claim's name, and below the text of a part. */
const CLAIM_INDENT = 9
const PART_INDENT = 23

export interface RenderOptions {
  readonly style: Style
  /** Width to wrap at; null where the text is not for a terminal. */
  readonly columns: number | null
  /** Only what is wrong. */
  readonly quiet: boolean
  /** What a passed verdict means here, to follow "PASSED: ". */
  readonly passedMeans: string
}

/** A verdict as text, made from the object that `--json` prints. Whatever comes from outside is neutralised. */
export function renderVerdict(verdict: Verdict, options: RenderOptions): string {
  const { style, quiet, columns } = options
  const lines: string[] = []
  if (!verdict.passed) lines.push(...explained(verdict, style))
  if (verdict.simulated) lines.push(style.yellow(style.bold(SIMULATED)))
  for (const claim of verdict.claims)
    if (!quiet || claim.status === "failed") lines.push(...claimLines(claim, style))
  if (!quiet || !verdict.passed) lines.push(...conclusion(verdict, options))
  const wrapped = lines.flatMap((line) =>
    wrapLine(line, columns, line.startsWith("           ") ? PART_INDENT : CLAIM_INDENT),
  )
  return wrapped.length === 0 ? "" : `${wrapped.join("\n")}\n`
}

/** `[ OK ] TPM: …`, and below it what is wrong, if anything is. */
function claimLines(claim: Claim, style: Style): string[] {
  const name = style.bold(CHECK_NAMES[claim.check])
  const head = `${mark(claim.status, style)} ${name}: ${printable(claim.summary)}`
  return [head, ...findingLines(claim, style)]
}

/** The predecessor's marks: scripts look for them. */
function mark(status: Claim["status"], style: Style): string {
  switch (status) {
    case "passed":
      return style.green("[ OK ]")
    case "failed":
      return style.red("[ FAIL ]")
    case "skipped":
      return style.yellow("[ SKIP ]")
    case "warning":
      return style.yellow("[ WARNING ]")
  }
}

/** What matters first: whoever reads no further knows it. */
function explained(verdict: Verdict, style: Style): string[] {
  const points = verdict.explanation?.points ?? []
  const lines = [
    `${style.red(style.bold("FAILED"))}: ${printable(verdict.target)}`,
    `  ${style.bold(printable(reasonOf(verdict)))}`,
  ]
  const shown = points.slice(0, SHOWN_POINTS)
  const width = Math.min(36, Math.max(...shown.map(({ subject }) => printable(subject).length)))
  for (const kind of ["alarm", "change"] as const) {
    const some = shown.filter((point) => point.kind === kind)
    if (some.length === 0) continue
    lines.push("", `  ${(kind === "alarm" ? style.red : style.yellow)(POINTS_MEAN[kind])}`)
    for (const { subject, text } of some)
      lines.push(`    ${printable(subject).padEnd(width)}  ${printable(text)}`)
  }
  const rest = points.length - shown.length
  if (rest > 0) lines.push(`    … and ${rest} more, below`)
  return [...lines, ""]
}

function findingLines(claim: Claim, style: Style): string[] {
  // What only rests on another check is said in the claim's own line.
  const groups = groupedFindings(claim).filter(
    ({ code }) => code !== "ERR_NOT_JUDGED" || claim.findings.length > 1,
  )
  const shown = groups.slice(0, SHOWN_GROUPS)
  const lines = shown.flatMap((group, index) => [
    ...groupLines(group, style),
    ...(sameAdvice(group, shown[index + 1]) ? [] : advice(group, claim)),
  ])
  const rest = groups.slice(SHOWN_GROUPS).reduce((sum, { members }) => sum + members.length, 0)
  if (rest > 0) lines.push(`         … and ${rest} more; --json lists them all`)
  return lines
}

/** Meaning and remedy, once for neighbours that share them. */
function advice({ meaning, remedy }: FindingGroup, claim: Claim): string[] {
  return [...(meaning === claim.summary ? [] : [part("meaning", meaning)]), part("what to do", remedy)]
}

function sameAdvice(group: FindingGroup, next: FindingGroup | undefined): boolean {
  return next?.code === group.code && next.meaning === group.meaning && next.remedy === group.remedy
}

/** Findings that mean the same. */
function groupLines(group: FindingGroup, style: Style): string[] {
  const { members } = group
  const ofPackage = group.package !== null
  const shown = members.slice(0, ofPackage ? SHOWN_PACKAGE_FILES : SHOWN_FINDINGS)
  const rest = members.length - shown.length
  const count = members.length === 1 ? "" : ` (${members.length} files)`
  return [
    ...(ofPackage
      ? [`         ${style.bold(printable(`${group.package}`))}${count}  ${style.dim(group.code)}`]
      : []),
    ...shown.flatMap((finding) => (ofPackage ? fileLines(finding) : oneFinding(finding, style))),
    ...(rest > 0 ? [`           … and ${rest} more; --json lists them all`] : []),
  ]
}

/** In its package a file is named; what its digest was and is matters to programs, which have `--json`. */
function fileLines({ subject, file }: Finding): string[] {
  return [part("file", `${subject}  (entry ${file?.position ?? 0})`)]
}

function oneFinding(finding: Finding, style: Style): string[] {
  const lines = [`         ${style.bold(printable(finding.subject))}  ${style.dim(finding.code)}`]
  if (finding.expected !== undefined) lines.push(part("expected", finding.expected))
  if (finding.found !== undefined) lines.push(part("found", finding.found))
  if (finding.file !== undefined) lines.push(part("measured", `first as entry ${finding.file.position}`))
  return lines
}

function part(name: string, text: string): string {
  return `           ${`${name}:`.padEnd(12)}${printable(text)}`
}

function conclusion(verdict: Verdict, { style, passedMeans }: RenderOptions): string[] {
  const lines = [""]
  const target = printable(verdict.target)
  // With a check left out the whole is not proven, so it is not claimed.
  const proven = verdict.skipped.length === 0 ? passedMeans : "passes every check that was not left out"
  if (verdict.passed) lines.push(`${style.green(style.bold("PASSED"))}: ${target} ${proven}`)
  else
    lines.push(
      `${style.red(style.bold("FAILED"))}: ${target} (exit code ${verdict.exitCode}, ${classOf(verdict.exitCode)})`,
    )
  if (verdict.skipped.length > 0) lines.push(`Left out by --skip: ${verdict.skipped.join(", ")}`)
  lines.push(`Rests on: ${printable(verdict.assurance.meaning)}`)
  return lines
}
