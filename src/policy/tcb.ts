import type { Tcb } from "../formats/snp/tcb.ts"
import type { SnpAttestation } from "../verify/snp.ts"
import type { Snapshot, TeeReference } from "./snapshot.ts"
import { snpReferenceIn } from "./snapshot-tee.ts"
import type { Claim, Finding } from "./verdict.ts"

/** TCB versions of a report that are compared. The current one is left out: the host may raise it and fall back at will. */
const COMPARED = [
  ["reported_tcb", "reportedTcb", "the TCB that the host reports and signs with"],
  ["committed_tcb", "committedTcb", "the TCB below which the firmware will not go back"],
  ["launch_tcb", "launchTcb", "the TCB under which the VM was launched"],
] as const satisfies readonly (readonly [keyof TeeReference, keyof SnpAttestation, string])[]

/**
 * Appraises the TCB: no component of the reported, committed or launch TCB may be below the snapshot's. Components are
 * compared one by one: a higher one makes up for nothing.
 * @param reference null only when a snapshot is about to be taken.
 */
export function appraiseTcb(attestation: SnpAttestation, reference: Snapshot | null): Claim {
  const facts = Object.fromEntries(COMPARED.map(([name, field]) => [name, tcbText(attestation[field])]))
  const reported = tcbText(attestation.reportedTcb)
  if (reference === null)
    return { check: "tcb", status: "passed", summary: `reported TCB: ${reported}`, findings: [], facts }
  const ours = snpReferenceIn(reference.tee_reference)
  const findings = ours === null ? [noReference(reference)] : tcbFindings(attestation, ours)
  if (findings.length === 0)
    return {
      check: "tcb",
      status: "passed",
      summary: `no TCB component below the snapshot's (${reported})`,
      findings,
      facts,
    }
  const summary = findings.map(({ subject, meaning }) => `${subject}: ${meaning}`).join("; ")
  return { check: "tcb", status: "failed", failureClass: "tcb", summary, findings, facts }
}

/** A TCB for people: `bootloader 4, tee 0, …`. */
function tcbText(tcb: Tcb): string {
  return Object.entries(tcb)
    .map(([component, level]) => `${component} ${level}`)
    .join(", ")
}

function tcbFindings(attestation: SnpAttestation, reference: TeeReference): Finding[] {
  return COMPARED.flatMap(([name, field, what]) => {
    const found: Readonly<Record<string, number | undefined>> = { ...attestation[field] }
    const expected: Readonly<Record<string, number | undefined>> = reference[name]
    const components = [...new Set([...Object.keys(found), ...Object.keys(expected)])]
    return components.flatMap((component) =>
      componentFindings(`${name} ${component}`, what, expected[component], found[component]),
    )
  })
}

function componentFindings(
  subject: string,
  what: string,
  expected: number | undefined,
  found: number | undefined,
): Finding[] {
  if (expected === undefined || found === undefined)
    return [
      {
        code: "ERR_TCB_REFERENCE",
        subject,
        expected: expected === undefined ? "a value in the snapshot" : `${expected} or higher`,
        found: found === undefined ? "no such component on this processor" : `${found}`,
        meaning: "snapshot and report name different TCB components, so they cannot be compared",
        remedy: "take a new snapshot on this processor family",
      },
    ]
  if (found >= expected) return []
  return [
    {
      code: "ERR_TCB_BELOW",
      subject,
      expected: `${expected} or higher`,
      found: `${found}`,
      meaning: `${what} went back to a version with known weaknesses`,
      remedy: "have the host update its firmware and microcode, or move the VM to one that has",
    },
  ]
}

function noReference(reference: Snapshot): Finding {
  return {
    code: "ERR_TCB_REFERENCE",
    subject: "snapshot",
    expected: "tee_reference",
    found: "none",
    meaning:
      reference.format === 1
        ? "the snapshot was taken by a version before 2.0 and does not say which TCB the VM had"
        : "the snapshot was taken of a VM without SEV-SNP",
    remedy: "take a new snapshot, or leave this check out by --skip tcb",
  }
}
