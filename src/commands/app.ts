import type { AgentClient } from "../client/agent-client.ts"
import { endpointText, parseAgentUrl } from "../client/endpoint.ts"
import { appraisalOf, attest, withAgent } from "./attest.ts"
import type { ConnectionOptions, TrustOptions } from "./cli.ts"
import { readInput } from "./input-files.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { ProgressLine } from "./progress.ts"
import { renderVerdict } from "./render.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

export interface AppOptions extends ConnectionOptions, TrustOptions {
  /** Reference values to verify against before anything is sent; null: the VM only has to attest. */
  readonly snapshot: string | null
  readonly tokenFile: string | null
}

/** Longest configuration that is sent. The agent has a limit of its own. */
const MAX_CONFIGURATION_BYTES = 16 * 1024 * 1024

/** `app init`: hands the configuration over to the VM that has just attested, on the same connection. */
export async function initApp(
  options: AppOptions & { readonly configuration: string },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const content = readInput(options.configuration, MAX_CONFIGURATION_BYTES)
  return afterAttestation(options, terminal, "configuration sent, application started", (client) =>
    client.appInit(content),
  )
}

/** `app restart`. The token, too, is sent only to the VM that has attested. */
export async function restartApp(options: AppOptions, terminal: Terminal = openTerminal()): Promise<number> {
  return afterAttestation(options, terminal, "application restarted", (client) => client.appRestart())
}

async function afterAttestation(
  options: AppOptions,
  terminal: Terminal,
  done: string,
  write: (client: AgentClient) => Promise<void>,
): Promise<number> {
  const appraisal = appraisalOf(options)
  const progress = new ProgressLine(terminal, !options.quiet && !options.json)
  try {
    const verdict = await interruptible((signal) =>
      withAgent(options, signal, async (client) => {
        const judgement = await attest(client, options, appraisal, progress, signal)
        if (judgement.verdict.passed) {
          progress.step("waiting for the agent")
          await write(client)
        }
        progress.clear()
        return judgement.verdict
      }),
    )
    if (options.json) terminal.out(jsonText({ done: verdict.passed, verdict }))
    else {
      const passedMeans =
        options.snapshot === null
          ? "has attested (not compared with a snapshot)"
          : "is the machine of the snapshot"
      terminal.out(
        renderVerdict(verdict, {
          style: terminal.outStyle,
          columns: terminal.outColumns,
          quiet: options.quiet,
          passedMeans,
        }),
      )
      if (!verdict.passed) terminal.talk("nothing was sent\n")
      else if (!options.quiet) terminal.out(`[ OK ] ${endpointText(parseAgentUrl(options.url))}: ${done}\n`)
    }
    return verdict.exitCode
  } finally {
    progress.clear()
  }
}
