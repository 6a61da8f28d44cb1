import { printable } from "../formats/path-text.ts"
import type { Claim, Finding, Verdict } from "../policy/verdict.ts"
import { answerOf, evidenceOf, filePartsOf, type ReportContext } from "./report-parts.ts"
import { CHECK_NAMES } from "./verdict-words.ts"

/** Findings written per check; build servers keep the file for years. */
const SHOWN_FINDINGS = 2000

/**
 * A verdict as JUnit XML, a test case per check, for build servers.
 * Source: Apache Ant, JUnitReport task, "XML format"; what build servers read of it is its common core.
 */
export function junitReport(verdict: Verdict, context: ReportContext): string {
  const { claims } = verdict
  const errors = claims.filter(isError).length
  const failures = claims.filter((claim) => claim.status === "failed").length - errors
  const skipped = claims.filter((claim) => claim.status === "skipped").length
  const counts = `tests="${claims.length}" failures="${failures}" errors="${errors}" skipped="${skipped}" time="0"`
  const properties = {
    target: verdict.target,
    passed: String(verdict.passed),
    exitCode: String(verdict.exitCode),
    simulated: String(verdict.simulated),
    assurance: verdict.assurance.label,
    evidence: evidenceOf(verdict),
    generator: context.generator,
  }
  const lines = [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="cosmian_vm verify" ${counts}>`,
    `<testsuite name="${xml(`cosmian_vm verify ${verdict.target}`)}" timestamp="${xml(verdict.at.slice(0, 19))}" ${counts}>`,
    "<properties>",
    ...Object.entries(properties).map(([name, value]) => `<property name="${name}" value="${xml(value)}"/>`),
    "</properties>",
    ...claims.flatMap(testCase),
    `<system-out>${[answerOf(verdict, context), ...pointsOf(verdict)].map(xml).join("\n")}\nrests on: ${xml(verdict.assurance.meaning)}</system-out>`,
    "</testsuite>",
    "</testsuites>",
  ]
  return `${lines.join("\n")}\n`
}

/** What differs, a line for each package. */
function pointsOf({ explanation }: Verdict): string[] {
  return (explanation?.points ?? []).map(({ subject, text }) => `${subject}: ${text}`)
}

/** No answer about the VM. */
function isError({ status, failureClass }: Claim): boolean {
  return status === "failed" && (failureClass === undefined || failureClass === "operational")
}

function testCase(claim: Claim): string[] {
  return [
    `<testcase classname="cosmian_vm.verify" name="${xml(`${claim.check}: ${CHECK_NAMES[claim.check]}`)}" time="0">`,
    ...outcome(claim),
    "</testcase>",
  ]
}

function outcome(claim: Claim): string[] {
  const message = xml(claim.summary)
  switch (claim.status) {
    case "passed":
      return [`<system-out>${message}</system-out>`]
    case "warning":
      return [`<system-out>${[`note: ${message}`, ...details(claim)].join("\n")}</system-out>`]
    case "skipped":
      return [`<skipped message="${message}"/>`]
    case "failed": {
      const element = isError(claim) ? "error" : "failure"
      const type = claim.findings[0]?.code ?? claim.failureClass ?? "operational"
      return [`<${element} type="${type}" message="${message}">${details(claim).join("\n")}</${element}>`]
    }
  }
}

function details({ findings }: Claim): string[] {
  const shown = findings.slice(0, SHOWN_FINDINGS).flatMap(findingLines)
  const rest = findings.length - SHOWN_FINDINGS
  return rest > 0 ? [...shown, `and ${rest} more; --json lists them all`] : shown
}

function findingLines(finding: Finding): string[] {
  const { code, subject, expected, found, meaning, remedy } = finding
  const part = (name: string, value: string | undefined) =>
    value === undefined ? [] : [`  ${name}: ${xml(value)}`]
  return [
    `${code} ${xml(subject)}`,
    ...filePartsOf(finding).flatMap(([name, value]) => part(name, value)),
    ...part("expected", expected),
    ...part("found", found),
    ...part("meaning", meaning),
    ...part("what to do", remedy),
  ]
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
}

/** Text for elements and attributes. XML 1.0 has no way to write control characters, nor U+FFFE and U+FFFF: they are shown. */
function xml(value: string): string {
  return printable(value)
    .replace(/[\ufffe\uffff]/g, (char) => `\\u{${char.charCodeAt(0).toString(16)}}`)
    .replace(/[&<>"']/g, (char) => ENTITIES[char] ?? "")
}
