import { EXIT, type FailureClass } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import type { Check, Claim, Finding, Verdict } from "../policy/verdict.ts"
import type { Style } from "./terminal.ts"
import { wrapLine } from "./wrap.ts"

/** Findings shown per check; all of them are in `--json`. */
const SHOWN_FINDINGS = 20

/** What each check is called in front of people. */
export const CHECK_NAMES: Readonly<Record<Check, string>> = {
  channel: "TLS channel",
  tee: "TEE hardware",
  revocation: "revocation of the TEE's certificates",
  tcb: "TCB versions",
  binding: "binding to this connection",
  tpm: "TPM",
  ak: "attestation key",
  reboot: "reboots",
  boot: "boot chain",
  ima: "files that ran (IMA)",
  application: "applications",
}

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
  if (verdict.simulated) lines.push(style.yellow(style.bold(`SIMULATED: ${verdict.assurance.meaning}`)))
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

function findingLines(claim: Claim, style: Style): string[] {
  // What only rests on another check is said in the claim's own line.
  const findings = claim.findings.filter(
    (finding) => finding.code !== "ERR_NOT_JUDGED" || claim.findings.length > 1,
  )
  const lines: string[] = []
  const shown = findings.slice(0, SHOWN_FINDINGS)
  shown.forEach((finding, index) => {
    lines.push(
      ...oneFinding(finding, style),
      ...(sameAdvice(finding, shown[index + 1]) ? [] : advice(finding, claim)),
    )
  })
  const rest = findings.length - shown.length
  if (rest > 0) lines.push(`         … and ${rest} more; --json lists them all`)
  return lines
}

function oneFinding(finding: Finding, style: Style): string[] {
  const lines = [`         ${style.bold(printable(finding.subject))}  ${style.dim(finding.code)}`]
  if (finding.expected !== undefined) lines.push(part("expected", finding.expected))
  if (finding.found !== undefined) lines.push(part("found", finding.found))
  return lines
}

/** Meaning and remedy, once for neighbours that share them. */
function advice(finding: Finding, claim: Claim): string[] {
  const lines = finding.meaning === claim.summary ? [] : [part("meaning", finding.meaning)]
  return [...lines, part("what to do", finding.remedy)]
}

function sameAdvice(finding: Finding, next: Finding | undefined): boolean {
  return next?.code === finding.code && next.meaning === finding.meaning && next.remedy === finding.remedy
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

/** Failure class of an exit code. */
export function classOf(exitCode: number): FailureClass | "ok" {
  for (const [name, code] of Object.entries(EXIT)) if (code === exitCode && isClass(name)) return name
  return "operational"
}

function isClass(name: string): name is FailureClass | "ok" {
  return Object.hasOwn(EXIT, name)
}
