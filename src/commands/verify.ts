import { appraisalOf, attest, withAgent } from "./attest.ts"
import type { ConnectionOptions, TrustOptions } from "./cli.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { ProgressLine } from "./progress.ts"
import { renderVerdict } from "./render.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

export interface VerifyOptions extends ConnectionOptions, TrustOptions {
  /** File with the reference values. */
  readonly snapshot: string
  readonly whitelist: string | null
  /** `host[:port]`, as given. */
  readonly applications: readonly string[]
}

/** `verify`: prints the verdict and returns its exit code. */
export async function verifyAgainstSnapshot(
  options: VerifyOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const appraisal = appraisalOf(options)
  const progress = new ProgressLine(terminal, !options.quiet && !options.json)
  try {
    const { verdict } = await interruptible((signal) =>
      withAgent(options, signal, (client) => attest(client, options, appraisal, progress, signal)),
    )
    const text = options.json
      ? jsonText(verdict)
      : renderVerdict(verdict, {
          style: terminal.outStyle,
          columns: terminal.outColumns,
          quiet: options.quiet,
          passedMeans: "is the machine of the snapshot, and nothing else ran on it",
        })
    terminal.out(text)
    return verdict.exitCode
  } finally {
    progress.clear()
  }
}
