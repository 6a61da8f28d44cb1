import { printable } from "../formats/path-text.ts"
import type { Claim, Finding, Verdict } from "../policy/verdict.ts"
import { REPORT_STYLE } from "./report-html-style.ts"
import {
  answerOf,
  CHECK_QUESTIONS,
  type FindingGroup,
  groupedFindings,
  type ReportContext,
  savedAt,
} from "./report-parts.ts"
import { CHECK_NAMES, classOf, POINTS_MEAN, sentenceCase } from "./verdict-words.ts"

/** Rows shown per group of findings; a browser takes minutes over hundreds of thousands. */
const SHOWN_ROWS = 2000
/** Lines of the explanation. */
const SHOWN_POINTS = 30
/** Groups shown per check. */
const SHOWN_GROUPS = 200

const WORDS: Readonly<Record<Claim["status"], string>> = {
  passed: "passed",
  failed: "failed",
  skipped: "left out",
  warning: "note",
}

/** Markup that is ready; everything else is text, and {@link text} makes markup of it. */
type Markup = string

/**
 * A verdict as one HTML page for somebody who was not there: no scripts, nothing that is fetched, readable in the dark and on
 * paper. Whatever comes from outside is neutralised, and the page forbids itself everything but its own style.
 */
export function htmlReport(verdict: Verdict, context: ReportContext): string {
  const name = verdict.passed ? "PASSED" : "FAILED"
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${name}: ${text(verdict.target)}</title>
<style>${REPORT_STYLE}</style>
</head>
<body>
<main>
${answer(verdict, context)}
${overview(verdict.claims)}
${failedFirst(verdict.claims).map(section).join("\n")}
${footer(context)}
</main>
</body>
</html>
`
}

function answer(verdict: Verdict, context: ReportContext): Markup {
  const simulated = verdict.simulated
    ? `<p class="simulated"><strong>SIMULATED.</strong> ${text(verdict.assurance.meaning)}.</p>`
    : ""
  const rows: [string, Markup][] = [
    ["Machine", code(verdict.target)],
    ["Evidence", evidenceText(verdict)],
    ["Judged as of", `<time datetime="${text(verdict.at)}">${text(timeText(verdict.at))}</time>`],
    ["Rests on", text(verdict.assurance.meaning)],
    ["Left out", leftOut(verdict)],
    ["Exit code", text(`${verdict.exitCode} (${classOf(verdict.exitCode)})`)],
  ]
  return `<header class="${verdict.passed ? "passed" : "failed"}">
<p class="kind">Attestation of a confidential VM</p>
<h1>${verdict.passed ? "Passed" : "Failed"}</h1>
<p class="answer">${text(answerOf(verdict, context))}</p>
${explained(verdict)}
</header>
${simulated}
<table class="about"><tbody>
${rows.map(([name, value]) => `<tr><th scope="row">${name}</th><td>${value}</td></tr>`).join("\n")}
</tbody></table>`
}

/** What differs, a line for each package, most alarming first. */
function explained({ explanation }: Verdict): Markup {
  if (explanation === undefined) return ""
  const shown = explanation.points.slice(0, SHOWN_POINTS)
  const rest = explanation.points.length - shown.length
  const tables = (["alarm", "change"] as const).map((kind) => {
    const rows = shown
      .filter((point) => point.kind === kind)
      .map(
        ({ subject, text: what }) => `<tr><th scope="row">${text(subject)}</th><td>${text(what)}</td></tr>`,
      )
    if (rows.length === 0) return ""
    return `<table class="points ${kind}"><caption>${text(POINTS_MEAN[kind])}</caption><tbody>
${rows.join("\n")}
</tbody></table>`
  })
  return `${tables.join("\n")}${rest > 0 ? `<p class="rest">… and ${rest} more, below</p>` : ""}`
}

function evidenceText(verdict: Verdict): Markup {
  const saved = savedAt(verdict)
  if (saved === null) return "asked for by this verification, over its own connection"
  return `<strong>saved</strong> ${text(timeText(saved))}, as the file says; whether it was fresh, only the one who saved it could see`
}

function leftOut({ skipped }: Verdict): Markup {
  if (skipped.length === 0) return "nothing"
  return skipped.map((check) => text(CHECK_NAMES[check])).join(", ")
}

function overview(claims: readonly Claim[]): Markup {
  const rows = claims.map(
    (claim) =>
      `<tr><td>${badge(claim)}</td><th scope="row"><a href="#${claim.check}">${nameOf(claim)}</a></th><td>${text(claim.summary)}</td></tr>`,
  )
  return `<section><h2>Checks</h2>
<table class="overview"><thead><tr><th scope="col">Result</th><th scope="col">Check</th><th scope="col">In short</th></tr></thead><tbody>
${rows.join("\n")}
</tbody></table></section>`
}

function section(claim: Claim): Markup {
  const groups = groupedFindings(claim)
  const rest = groups.length - SHOWN_GROUPS
  return `<section id="${claim.check}" class="claim ${claim.status}">
<h2>${badge(claim)} ${nameOf(claim)}</h2>
<p class="question">${text(CHECK_QUESTIONS[claim.check])}</p>
<p class="summary">${text(claim.summary)}</p>
${groups
  .slice(0, SHOWN_GROUPS)
  .map((group) => findings(group, claim))
  .join("\n")}
${rest > 0 ? `<p class="rest">… and ${rest} more kinds of findings; --json lists them all</p>` : ""}
${facts(claim)}
</section>`
}

function findings(group: FindingGroup, claim: Claim): Markup {
  const shown = group.members.slice(0, SHOWN_ROWS)
  const rest = group.members.length - shown.length
  const meaning = group.meaning === claim.summary ? "" : `<dt>Meaning</dt><dd>${text(group.meaning)}</dd>`
  const number = group.members.length > 1 ? ` <span class="count">${group.members.length} times</span>` : ""
  return `<article>
<h3>${group.package === null ? "" : `${text(group.package)}: `}${text(sentenceCase(group.title))}${number} <code class="errcode">${text(group.code)}</code></h3>
<dl>${meaning}<dt>What to do</dt><dd>${text(group.remedy)}</dd></dl>
${findingTable(shown)}
${rest > 0 ? `<p class="rest">… and ${rest} more; --json lists them all</p>` : ""}
</article>`
}

/** Columns that no finding fills are left out. */
function findingTable(shown: readonly Finding[]): Markup {
  const columns = (
    [
      ["What", ({ subject }) => subject],
      ["Entry", ({ file }) => (file === undefined ? undefined : `${file.position}`)],
      ["Older version", ({ file }) => file?.older?.version],
      ["Expected", ({ expected }) => expected],
      ["Found", ({ found }) => found],
    ] as [string, (finding: Finding) => string | undefined][]
  ).filter(([, value]) => shown.some((finding) => value(finding) !== undefined))
  const head = columns.map(([name]) => `<th scope="col">${name}</th>`).join("")
  const rows = shown.map((finding) => {
    const cells = columns.map(([name, value]) => `<td data-name="${name}">${code(value(finding) ?? "")}</td>`)
    return `<tr>${cells.join("")}</tr>`
  })
  return `<table class="findings"><thead><tr>${head}</tr></thead><tbody>
${rows.join("\n")}
</tbody></table>`
}

function facts(claim: Claim): Markup {
  const entries = Object.entries(claim.facts)
  if (entries.length === 0) return ""
  const rows = entries.map(
    ([name, value]) => `<tr><th scope="row">${text(name)}</th><td>${code(String(value))}</td></tr>`,
  )
  return `<h3 class="facts">Facts</h3>
<table class="facts"><tbody>
${rows.join("\n")}
</tbody></table>`
}

function footer({ generator }: ReportContext): Markup {
  return `<footer><p>Made by ${text(generator)} from the verdict alone. A report can be edited like any other file: what counts is the verdict of a verification that you run yourself, on the VM or on evidence saved with <code>verify --save-evidence</code>.</p></footer>`
}

/** What failed is what most readers are here for. */
function failedFirst(claims: readonly Claim[]): Claim[] {
  const failed = (claim: Claim) => claim.status === "failed"
  return [...claims.filter(failed), ...claims.filter((claim) => !failed(claim))]
}

function nameOf({ check }: Claim): Markup {
  return text(sentenceCase(CHECK_NAMES[check]))
}

function badge({ status }: Claim): Markup {
  return `<span class="badge ${status}">${WORDS[status]}</span>`
}

/** In an element of its own, so that text which runs from right to left does not reorder what stands around it. */
function code(value: string): Markup {
  return value === "" ? "" : `<code dir="ltr">${text(value)}</code>`
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
}

/** Text as markup that shows it, also inside a quoted attribute. */
function text(value: string): Markup {
  return printable(value).replace(/[&<>"']/g, (char) => ENTITIES[char] ?? "")
}

function timeText(at: string): string {
  return at.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC")
}
