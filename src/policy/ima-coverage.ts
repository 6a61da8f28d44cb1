import { createHash } from "node:crypto"
import { parseImaPolicy } from "../formats/ima/policy.ts"
import type { Findings } from "./findings.ts"
import {
  at,
  COVERAGE_POINTS,
  type Coverage,
  type CoveragePoint,
  coverageOf,
  INFO,
  NOT_MEASURED,
  type PointCoverage,
} from "./ima-points.ts"
import { SHIPPED_IMA_POLICY } from "./shipped-ima-policy.ts"
import type { ImaReference } from "./snapshot.ts"

/** The text of a policy that the verifier has at hand, to know one by when its digest is in a list. */
export interface KnownImaPolicy {
  /** For people: where it comes from. */
  readonly name: string
  readonly text: Uint8Array
  readonly coverage: Coverage
}

/** @throws ParseError ERR_IMA_POLICY, ERR_TOO_LARGE */
export function knownImaPolicy(name: string, text: Uint8Array): KnownImaPolicy {
  const rules = parseImaPolicy(Buffer.from(text).toString("latin1"), name)
  return { name, text, coverage: coverageOf(rules) }
}

/** The policy of the packages, as /usr/share/cosmian_vm/ima-policy. */
export const SHIPPED_POLICY = knownImaPolicy(
  "the package's policy",
  new TextEncoder().encode(SHIPPED_IMA_POLICY),
)
/** How the files by which policies are loaded are called: /etc/ima/ima-policy, and the same below a root of an initial RAM disk. */
const POLICY_FILE = new TextEncoder().encode("/etc/ima/ima-policy")
/** A kernel is given one or two; whatever else is called so was read for other reasons. */
const MAX_POLICIES = 16

/** Whether an entry's path is that of a policy to be loaded. */
export function isPolicyFile(bytes: Uint8Array, start: number, end: number): boolean {
  const length = POLICY_FILE.length
  if (end - start < length) return false
  for (let at = 0; at < length; at++) if (bytes[end - length + at] !== POLICY_FILE[at]) return false
  return true
}

/** Policies that a list shows, each once, as `algorithm:hex`. */
export class SeenPolicies {
  readonly #digests = new Set<string>()

  add(digest: string): void {
    if (this.#digests.size < MAX_POLICIES) this.#digests.add(digest)
  }

  get digests(): readonly string[] {
    return [...this.#digests]
  }
}

/** What is known of the policy in force. */
interface KnownCoverage {
  /** Null where nothing shows it, or the text is not at hand. */
  readonly coverage: Coverage | null
  /** For people. */
  readonly policy: string
}

/** What is proven of the kernel's command line about IMA. */
export interface ImaArguments {
  /** The words, for people; empty where there is none. */
  readonly text: string
  /** Rules of the kernel's own that are in force as long as the list shows no load of others; null: there are none that show a load. */
  readonly builtIn: KnownImaPolicy | null
}

export interface CoverageQuestion {
  readonly seen: SeenPolicies
  readonly known: readonly KnownImaPolicy[]
  /** Null: a snapshot is about to be taken. */
  readonly reference: { readonly ima_reference: ImaReference | null } | null
  readonly required: readonly CoveragePoint[]
  /** Null: no text of the kernel's command line is proven. */
  readonly commandLine: ImaArguments | null
}

/** Facts for the verdict. */
export type CoverageFacts = Readonly<Record<string, string>>

/**
 * Judges what the kernel measures, by the policy files that the list shows. An entry proves that a file of that name and content
 * was read, and not by whom: that a policy was loaded from it, and no other before, rests on the programs that ran until
 * then being known, and so on a policy that the kernel had from its start (`ima_policy=`), which the boot check covers. Where the list
 * shows no load, a proven command line tells that policy: it makes known what is left out, and meets no requirement.
 * @param findings for what fails. @param notes for what should be known all the same.
 */
export function appraiseCoverage(
  question: CoverageQuestion,
  findings: Findings,
  notes: Findings,
): CoverageFacts {
  const { seen, known, reference, required, commandLine } = question
  const builtIn = commandLine?.builtIn ?? null
  const { coverage, policy } =
    seen.digests.length === 0 && builtIn !== null
      ? { coverage: inPart(builtIn.coverage), policy: builtIn.name }
      : coverageNow(seen.digests, known)
  requireUnchanged(question, findings)
  for (const point of required) requirePoint(point, coverage, policy, findings)
  if (reference === null) noteGaps(seen.digests, coverage, notes)
  const argumentFacts =
    commandLine === null
      ? { commandLine: "not proven" }
      : { commandLine: "proven", imaArguments: commandLine.text || "none" }
  if (coverage === null) return { ...argumentFacts, imaPolicy: policy }
  const named = (measured: PointCoverage["measured"]) =>
    COVERAGE_POINTS.filter((point) => at(coverage, point).measured === measured)
  const partly = named("partly").map((point) => `${point} (${at(coverage, point).except.join("; ")})`)
  return {
    ...argumentFacts,
    imaPolicy: policy,
    measured: named("yes").join(", ") || "nothing",
    ...(partly.length === 0 ? {} : { partlyMeasured: partly.join(", ") }),
    notMeasured: named("no").join(", ") || "nothing",
  }
}

/**
 * The kernel's own rules leave out tmpfs, and so the load of a policy that lies there, as in an initial RAM disk: that they are still in
 * force is not proven of any point.
 */
function inPart(coverage: Coverage): Coverage {
  const unseen = "not after the load of a policy from tmpfs, which leaves no entry"
  return new Map(
    [...coverage].map(([point, { measured, except }]) => [
      point,
      measured === "no" ? NOT_MEASURED : { measured: "partly", except: [...except, unseen] },
    ]),
  )
}

function coverageNow(digests: readonly string[], known: readonly KnownImaPolicy[]): KnownCoverage {
  const policies = digests.map((digest) => known.find(({ text }) => isDigestOf(digest, text)) ?? null)
  const [first] = policies
  if (first === undefined) return { coverage: null, policy: "not in the list" }
  const unknown = digests.find((_, index) => policies[index] === null)
  if (unknown !== undefined) return { coverage: null, policy: `one whose text is not known (${unknown})` }
  const all = policies.filter((policy) => policy !== null)
  return {
    coverage: all.map(({ coverage }) => coverage).reduce(weaker),
    policy: all.map(({ name }) => name).join(", "),
  }
}

const COMPUTED: ReadonlySet<string> = new Set(["sha1", "sha224", "sha256", "sha384", "sha512"])

function isDigestOf(digest: string, text: Uint8Array): boolean {
  const [algorithm = "", hex] = digest.split(":")
  return COMPUTED.has(algorithm) && createHash(algorithm).update(text).digest("hex") === hex
}

/** Which of two policies is in force is not known, so that of each point the worse counts. */
function weaker(a: Coverage, b: Coverage): Coverage {
  const worse = (one: PointCoverage, other: PointCoverage) =>
    RANK[one.measured] <= RANK[other.measured] ? one : other
  return new Map(COVERAGE_POINTS.map((point) => [point, worse(at(a, point), at(b, point))]))
}

const RANK = { no: 0, partly: 1, yes: 2 } as const

/** A policy other than the snapshot's passes only where both texts are at hand and it measures no less. */
function requireUnchanged({ seen, known, reference }: CoverageQuestion, findings: Findings): void {
  const before = reference?.ima_reference?.policy ?? null
  if (before === null) return
  const now = seen.digests
  if (before.length === now.length && before.every((digest) => now.includes(digest))) return
  const [then, current] = [coverageNow(before, known).coverage, coverageNow(now, known).coverage]
  const less =
    then === null || current === null
      ? null
      : COVERAGE_POINTS.filter((point) => isLess(at(current, point), at(then, point)))
  if (less?.length === 0) return
  findings.add(() => ({
    code: "ERR_IMA_COVERAGE",
    subject: "IMA policy",
    expected: before.join(", ") || "no policy file in the list",
    found: now.join(", ") || "no policy file in the list",
    meaning:
      less === null
        ? "the kernel was given another IMA policy than when the snapshot was taken: what it measures now is not known"
        : `the kernel was given an IMA policy that measures less than the snapshot's: ${less.join(", ")}`,
    remedy:
      "restore the policy and reboot, or take a new snapshot of the VM once you trust it; where you changed it, name the texts of both with --ima-policy",
  }))
}

/** Two partial ones are only known to be equal where they are the same. */
function isLess(now: PointCoverage, then: PointCoverage): boolean {
  if (RANK[now.measured] !== RANK[then.measured]) return RANK[now.measured] < RANK[then.measured]
  return now.except.join("\n") !== then.except.join("\n")
}

function requirePoint(
  point: CoveragePoint,
  coverage: Coverage | null,
  policy: string,
  findings: Findings,
): void {
  const now = coverage === null ? null : at(coverage, point)
  if (now?.measured === "yes") return
  findings.add(() => ({
    code: "ERR_IMA_COVERAGE",
    subject: point,
    expected: "measured, as the policy requires",
    found: now === null ? `not known: the kernel's policy is ${policy}` : gapText(now),
    meaning: `the kernel may not measure ${INFO[point].escapes}`,
    remedy: `add the rule \`${INFO[point].rule}\` to the IMA policy, or name the text of the policy with --ima-policy`,
  }))
}

function gapText({ measured, except }: PointCoverage): string {
  return measured === "no" ? "not measured" : except.join("; ")
}

/** Said when a snapshot is taken, for then it can be mended. */
function noteGaps(digests: readonly string[], coverage: Coverage | null, notes: Findings): void {
  if (coverage === null) {
    notes.add(() => ({
      code: "ERR_IMA_COVERAGE",
      subject: "IMA policy",
      expected: "a policy whose text is known",
      found: digests.join(", ") || "no policy file in the list",
      meaning: "which files the kernel measures is not known: what ran unmeasured is in no list",
      remedy:
        digests.length === 0
          ? "boot with the kernel argument ima_policy=tcb, so that the load of /etc/ima/ima-policy is measured"
          : "name the text of the policy with --ima-policy",
    }))
    return
  }
  for (const point of COVERAGE_POINTS) {
    const { needed, escapes, rule } = INFO[point]
    if (!needed || at(coverage, point).measured === "yes") continue
    notes.add(() => ({
      code: "ERR_IMA_COVERAGE",
      subject: point,
      expected: rule,
      found: gapText(at(coverage, point)),
      meaning: `the kernel does not measure all of these: ${escapes}`,
      remedy: "add the rule to the IMA policy, reboot, and take the snapshot again",
    }))
  }
}
