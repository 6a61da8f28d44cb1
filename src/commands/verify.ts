import { UsageError } from "../errors.ts"
import type { SavedEvidence } from "../formats/saved-evidence.ts"
import type { Verdict } from "../policy/verdict.ts"
import type { ConnectionOptions, TrustOptions } from "./agent-options.ts"
import { type Appraisal, appraisalOf } from "./appraisal.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { ProgressLine } from "./progress.ts"
import { renderVerdict } from "./render.ts"
import { judgeSaved, readSavedEvidence } from "./saved-evidence.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { timeOf } from "./time-option.ts"
import { beginOutputs, type VerdictOutputs } from "./verdict-outputs.ts"

export interface VerifyOptions extends ConnectionOptions, TrustOptions {
  /** File with the reference values. */
  readonly snapshot: string
  readonly whitelist: string | null
  /** Files with keys that files of the VM may be signed with. */
  readonly imaKeys?: readonly string[]
  /** Those for portable signatures of EVM. */
  readonly evmKeys?: readonly string[]
  /** `host[:port]`, as given. */
  readonly applications: readonly string[]
  readonly acceptReboot?: boolean
  /** File with requirements beside the snapshot's; null: none. */
  readonly policy?: string | null
  /** Whether violations of the measurement list fail; null: as the policy says. */
  readonly violations?: "fail" | "report" | null
  /** Files with the texts of IMA policies. */
  readonly imaPolicies?: readonly string[]
  /** File with saved evidence; null: ask the VM. */
  readonly evidence?: string | null
  /** Time to judge saved evidence by, as given; null: now. */
  readonly at?: string | null
  readonly outputs?: VerdictOutputs
}

interface Answer {
  readonly verdict: Verdict
  readonly collected: SavedEvidence
  readonly passedMeans: string
}

/** `verify`: prints the verdict, writes what was asked for, and returns the exit code. */
export async function verifyAgainstSnapshot(
  options: VerifyOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const { evidence = null } = options
  const at = judgedAt(options)
  if (evidence !== null && options.ratls === true)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--ratls",
      expected: "a running VM",
      found: "--evidence beside it",
      hint: "saved evidence holds no TLS certificate: use --allow-insecure-tls",
    })
  if (evidence !== null && (options.outputs?.evidence ?? null) !== null) throw savedAlready()
  const appraisal = appraisalOf(options)
  const outputs = beginOutputs(options.outputs ?? {})
  const progress = new ProgressLine(terminal, !options.quiet && !options.json)
  try {
    const answer =
      evidence === null
        ? await ofVm(options, appraisal, progress)
        : ofSaved(readSavedEvidence(evidence), appraisal, { at, insecureAllowed: options.insecureAllowed })
    const { verdict, passedMeans } = answer
    outputs.write(answer)
    const text = options.json
      ? jsonText(verdict)
      : renderVerdict(verdict, {
          style: terminal.outStyle,
          columns: terminal.outColumns,
          quiet: options.quiet,
          passedMeans,
        })
    terminal.out(text)
    return verdict.exitCode
  } finally {
    progress.clear()
    outputs.abandon()
  }
}

async function ofVm(options: VerifyOptions, appraisal: Appraisal, progress: ProgressLine): Promise<Answer> {
  // Saved evidence needs no network.
  const { attest, withAgent } = await import("./attest.ts")
  const { verdict, collected } = await interruptible((signal) =>
    withAgent(options, signal, (client) => attest(client, options, appraisal, progress, signal)),
  )
  return { verdict, collected, passedMeans: "is the machine of the snapshot, and nothing else ran on it" }
}

function ofSaved(
  collected: SavedEvidence,
  appraisal: Appraisal,
  options: { readonly at: Date; readonly insecureAllowed: boolean },
): Answer {
  const { verdict } = judgeSaved(collected, appraisal, options)
  return {
    verdict,
    collected,
    passedMeans: `was the machine of the snapshot, and nothing else had run on it, when this evidence was made (${collected.collectedAt.toISOString()}, as the file says)`,
  }
}

/** The verifier's clock, unless the user names a time. Live evidence is always judged by the clock. */
function judgedAt({ evidence = null, at = null }: VerifyOptions): Date {
  if (at === null) return new Date()
  if (evidence !== null) return timeOf(at)
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--at",
    expected: "--evidence beside it",
    found: "a running VM",
    hint: "leave --at out: a running VM is judged by this machine's clock",
  })
}

function savedAlready(): UsageError {
  return new UsageError("ERR_BAD_VALUE", {
    at: "--save-evidence",
    expected: "a running VM to take evidence from",
    found: "--evidence beside it",
    hint: "copy the file, if you need it twice",
  })
}
