import { CATALOGUE, CodedError, type ErrorCode } from "../errors.ts"
import { printable, textToPath } from "../formats/path-text.ts"
import type { Claim, FileFinding, Finding, Verdict } from "../policy/verdict.ts"
import { jsonText } from "./json-text.ts"
import { answerOf, CHECK_QUESTIONS, evidenceOf, filePartsOf, type ReportContext } from "./report-parts.ts"
import { CHECK_NAMES, classOf } from "./verdict-words.ts"

/** Results per check, so that no check crowds out another; what reads SARIF takes few more in all (GitHub: 25 000). */
const MAX_RESULTS = 2000

/**
 * A verdict as a SARIF log: a result per finding, a rule per error code.
 * Source: OASIS, Static Analysis Results Interchange Format (SARIF) 2.1.0 plus Errata 01, sections 3.11 (messages), 3.14 (run), 3.20
 * (invocation), 3.27 (result).
 */
export function sarifReport(verdict: Verdict, context: ReportContext): string {
  const all = verdict.claims.map(resultsOf)
  const results = all.flatMap((some) => some.slice(0, MAX_RESULTS))
  const ids = [...new Set(results.map(({ ruleId }) => ruleId))]
  return jsonText({
    $schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
    version: "2.1.0",
    runs: [
      {
        tool: {
          driver: { name: "cosmian_vm", fullName: printable(context.generator), rules: ids.map(ruleOf) },
        },
        invocations: [
          {
            executionSuccessful: true,
            exitCode: verdict.exitCode,
            exitCodeDescription: classOf(verdict.exitCode),
            endTimeUtc: verdict.at,
          },
        ],
        originalUriBaseIds: { VM: { description: { text: "the root directory of the verified VM" } } },
        results: results.map((result) => ({ ...result, ruleIndex: ids.indexOf(result.ruleId) })),
        properties: {
          passed: verdict.passed,
          answer: printable(answerOf(verdict, context)),
          points: (verdict.explanation?.points ?? []).map(({ subject, text }) =>
            printable(`${subject}: ${text}`),
          ),
          target: printable(verdict.target),
          simulated: verdict.simulated,
          assurance: verdict.assurance.label,
          evidence: evidenceOf(verdict),
          skipped: verdict.skipped,
          checks: Object.fromEntries(verdict.claims.map(({ check, status }) => [check, status])),
          resultsLeftOut: all.flat().length - results.length,
        },
      },
    ],
  })
}

type RuleId = ErrorCode | `CHECK_${string}`

interface Result {
  readonly ruleId: RuleId
  readonly level: "error" | "warning" | "note"
  readonly message: { readonly text: string }
  readonly locations: readonly unknown[]
  readonly suppressions?: readonly unknown[]
  readonly properties: Readonly<Record<string, string>>
}

/** Nothing for a check that passed: what lists SARIF results takes each for something wrong. */
function resultsOf(claim: Claim): Result[] {
  if (claim.status === "passed") return []
  const level = ({ failed: "error", warning: "warning", skipped: "note" } as const)[claim.status]
  const left = claim.status === "skipped" ? [{ kind: "external", justification: claim.summary }] : null
  const common = { level, ...(left === null ? {} : { suppressions: left }) }
  if (claim.findings.length > 0)
    return claim.findings.map((finding) => ({ ...common, ...ofFinding(finding, claim) }))
  return [
    {
      ...common,
      ruleId: `CHECK_${claim.check.toUpperCase()}`,
      message: { text: message(claim.summary) },
      locations: [{ logicalLocations: [{ fullyQualifiedName: claim.check }] }],
      properties: { check: claim.check },
    },
  ]
}

function ofFinding(
  finding: Finding,
  { check }: Claim,
): Pick<Result, "ruleId" | "message" | "locations" | "properties"> {
  const { code, subject, expected, found, meaning, remedy, file } = finding
  const compared = [
    ...(expected === undefined ? [] : [`expected ${expected}`]),
    ...(found === undefined ? [] : [`found ${found}`]),
    ...filePartsOf(finding).map(([name, value]) => `${name} ${value}`),
  ]
  const sentences = [`${subject}: ${meaning}`, ...(compared.length === 0 ? [] : [compared.join(", ")])]
  return {
    ruleId: code,
    message: { text: message(`${sentences.join("; ")}. What to do: ${remedy}`) },
    locations: [locationOf(subject, check)],
    properties: {
      check,
      ...(expected === undefined ? {} : { expected: printable(expected) }),
      ...(found === undefined ? {} : { found: printable(found) }),
      ...(file === undefined ? {} : fileProperties(file)),
    },
  }
}

function fileProperties({ package: owner, older, position, state }: FileFinding): Record<string, string> {
  return {
    state,
    position: `${position}`,
    ...(owner === null ? {} : { package: printable(owner.name), packageVersion: printable(owner.version) }),
    ...(older === undefined ? {} : { olderVersion: printable(older.version) }),
  }
}

function locationOf(subject: string, check: string): unknown {
  const uri = relativeUri(subject)
  return {
    ...(uri === null ? {} : { physicalLocation: { artifactLocation: { uri, uriBaseId: "VM" } } }),
    logicalLocations: [{ name: printable(subject), fullyQualifiedName: `${check}/${printable(subject)}` }],
  }
}

/** An absolute path as a reference below the VM's root; null for what is none, or would lead elsewhere once resolved. */
function relativeUri(subject: string): string | null {
  if (!subject.startsWith("/")) return null
  const segments = subject.slice(1).split("/")
  if (segments.some((segment) => segment === "" || segment === "." || segment === "..")) return null
  try {
    return segments.map((segment) => percentEncoded(textToPath(segment))).join("/")
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

function percentEncoded(bytes: Uint8Array): string {
  const plain = /[A-Za-z0-9._~-]/
  return Array.from(bytes, (byte) => {
    const char = String.fromCharCode(byte)
    return plain.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`
  }).join("")
}

/** Braces would be placeholders, and brackets links: sections 3.11.5 and 3.11.6. */
function message(value: string): string {
  return printable(value)
    .replace(/[\\[\]]/g, "\\$&")
    .replace(/[{}]/g, "$&$&")
}

function ruleOf(id: RuleId): unknown {
  if (isCode(id)) return { id, shortDescription: { text: CATALOGUE[id].title } }
  const check = Object.entries(CHECK_NAMES).find(([name]) => id === `CHECK_${name.toUpperCase()}`)
  const question = Object.entries(CHECK_QUESTIONS).find(([name]) => name === check?.[0])
  return { id, shortDescription: { text: check?.[1] ?? id }, fullDescription: { text: question?.[1] ?? id } }
}

function isCode(id: RuleId): id is ErrorCode {
  return Object.hasOwn(CATALOGUE, id)
}
