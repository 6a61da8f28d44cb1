import { CATALOGUE } from "../errors.ts"
import { fileGroups } from "../policy/explain.ts"
import type { Check, Claim, FilePackage, Finding, Verdict } from "../policy/verdict.ts"
import { decidingClaim } from "../policy/verdict.ts"
import { classOf } from "./verdict-words.ts"

/** What the reports of one verdict have in common, whichever format they are in. */

export interface ReportContext {
  /** What a passed verdict means here, to follow the target's name. */
  readonly passedMeans: string
  /** Of the program that judged: `cosmian_vm 2.0.0 (abc1234)`. */
  readonly generator: string
}

/** Findings that share what they mean and what to do: told once, with all that they concern. */
export interface FindingGroup {
  readonly code: Finding["code"]
  readonly title: string
  readonly meaning: string
  readonly remedy: string
  readonly members: readonly Finding[]
  /** `bash 5.2.15-2`, where all are files of one package. */
  readonly package: string | null
}

/** What each check asks, for a reader who knows attestation by name only. */
export const CHECK_QUESTIONS: Readonly<Record<Check, string>> = {
  channel: "Does a certificate authority know the host that answered?",
  tee: "Does genuine hardware protect the VM's memory, and was the VM launched as recorded?",
  revocation: "Has the hardware's vendor withdrawn none of the certificates involved?",
  tcb: "Is the firmware below the VM at least as new as recorded?",
  binding: "Was the proof made for this very request and connection, and not relayed or replayed?",
  tpm: "Did the TPM key of the recorded VM sign these measurements?",
  ak: "Is it proven that this key is held by a TPM, and is not a key in software?",
  reboot: "Has the machine run on since its state was recorded?",
  boot: "Did it boot the recorded firmware, boot loader, kernel and command line?",
  ima: "Is each file that ran one of the recorded or allowed files?",
  application: "Do the named applications answer from inside the same VM?",
}

/** The answer in one sentence: what a passed verdict means, or why it failed. */
export function answerOf(verdict: Verdict, { passedMeans }: ReportContext): string {
  const proven = verdict.skipped.length === 0 ? passedMeans : "passes every check that was not left out"
  return verdict.passed ? `${verdict.target} ${proven}` : `${verdict.target}: ${reasonOf(verdict)}`
}

/** The one thing that matters of a failed verdict. */
export function reasonOf({ claims, exitCode, explanation }: Verdict): string {
  const deciding = decidingClaim(claims)
  if (deciding?.check === "ima" && explanation !== undefined) return explanation.headline
  if (deciding === null) return classOf(exitCode)
  const [first, ...others] = deciding.findings
  if (first === undefined) return deciding.summary
  const more = others.length === 0 ? "" : `, and ${others.length} more`
  return `${CATALOGUE[first.code].title} (${first.subject}${more})`
}

/** Where the evidence comes from, where it is not from the running VM; null where it is. */
export function savedAt({ claims }: Verdict): string | null {
  const facts = claims.find(({ check }) => check === "channel")?.facts
  return facts?.["savedEvidence"] === true ? String(facts["collectedAt"]) : null
}

/** The same for programs. */
export function evidenceOf(verdict: Verdict): string {
  const saved = savedAt(verdict)
  return saved === null ? "live" : `saved ${saved}`
}

/** Findings of a claim by what they mean: files by package and most alarming first, then the others as they came. */
export function groupedFindings(claim: Claim): FindingGroup[] {
  const groups = new Map<string, [Finding, ...Finding[]]>()
  for (const finding of claim.findings) {
    if (finding.file !== undefined) continue
    const key = JSON.stringify([finding.code, finding.meaning, finding.remedy])
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [finding])
    else group.push(finding)
  }
  return [
    ...fileGroups(claim.findings).map((group) => groupOf(group.files, group.package)),
    ...[...groups.values()].map((members) => groupOf(members, null)),
  ]
}

function groupOf(members: readonly [Finding, ...Finding[]], owner: FilePackage | null): FindingGroup {
  const { code, meaning, remedy } = members[0]
  return {
    code,
    title: CATALOGUE[code].title,
    meaning,
    remedy,
    members,
    package: owner === null ? null : `${owner.name} ${owner.version}`,
  }
}

/** What the snapshot and the list say about a finding's file, in words; none for a finding that is about no file. */
export function filePartsOf({ file }: Finding): (readonly [name: string, value: string])[] {
  if (file === undefined) return []
  const { package: owner, older, position } = file
  const text = ({ name, version, architecture }: FilePackage) =>
    `${name} ${version}${architecture === null ? "" : ` (${architecture})`}`
  return [
    ...(owner === null ? [] : [["package", text(owner)] as const]),
    ...(older === undefined ? [] : [["older version", text(older)] as const]),
    ["first measured", `entry ${position}`],
  ]
}
