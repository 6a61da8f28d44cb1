import { EXIT, type FailureClass } from "../errors.ts"
import type { Check, ExplanationPoint } from "../policy/verdict.ts"

/** Words that text and reports have in common. */

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

/** What the points of an explanation have in common. */
export const POINTS_MEAN: Readonly<Record<ExplanationPoint["kind"], string>> = {
  alarm: "No update would explain this. Do not trust the machine until it is explained:",
  change: "An update would explain this. If it was yours, bring the snapshot up to date (snapshot update):",
}

export function sentenceCase(title: string): string {
  return title.slice(0, 1).toUpperCase() + title.slice(1)
}

/** Failure class of an exit code. */
export function classOf(exitCode: number): FailureClass | "ok" {
  for (const [name, code] of Object.entries(EXIT)) if (code === exitCode && isClass(name)) return name
  return "operational"
}

function isClass(name: string): name is FailureClass | "ok" {
  return Object.hasOwn(EXIT, name)
}
