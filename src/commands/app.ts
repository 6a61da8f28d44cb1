import type { AgentClient } from "../client/agent-client.ts"
import { endpointText, parseAgentUrl } from "../client/endpoint.ts"
import { AgentError, UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import type { AppOptions } from "./agent-options.ts"
import { appraisalOf } from "./appraisal.ts"
import { attest, withAgent } from "./attest.ts"
import { readInput } from "./input-files.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { ProgressLine } from "./progress.ts"
import { renderVerdict } from "./render.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { requireExpectation, requireProof } from "./which-vm.ts"

/** What was done: a sentence, and members for `--json`. */
interface Done {
  readonly summary: string
  readonly [member: string]: unknown
}

/** Longest configuration that is sent. The agent has a limit of its own. */
const MAX_CONFIGURATION_BYTES = 16 * 1024 * 1024
/** Lines of its log that are shown of an application that does not come up. */
const LINES_AFTER_FAILURE = 20
const MAX_LINES = 1000

/** `app init`: hands the configuration over to the VM that has just attested, on the same connection, sealed to its key. */
export async function initApp(
  options: AppOptions & { readonly configuration: string },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const content = readInput(options.configuration, MAX_CONFIGURATION_BYTES)
  return afterAttestation(options, terminal, (client, sealingKey) =>
    withLogs(client, terminal, async () => {
      await client.appInit(content, sealingKey)
      return { summary: "configuration sent, application started" }
    }),
  )
}

/** `app restart`, `app stop`, `app status`. Credentials, too, are sent only to the VM that has attested. */
export async function orderApp(
  order: "restart" | "stop" | "status",
  options: AppOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  return afterAttestation(options, terminal, async (client) => {
    switch (order) {
      case "restart":
        return withLogs(client, terminal, async () => {
          await client.appRestart()
          return { summary: "application restarted" }
        })
      case "stop":
        await client.appStop()
        return { summary: "application stopped" }
      case "status": {
        const { service, state, configured, busy } = await client.appStatus()
        const configuration = configured ? "has a configuration" : "has no configuration yet"
        return {
          summary: `${printable(service)} is ${printable(state)}, ${configuration}${busy ? ", is being changed" : ""}`,
          application: { service, state, configured, busy },
        }
      }
    }
  })
}

/** `app logs`: the lines go to standard output, and nothing else does. */
export async function showAppLogs(
  options: AppOptions & { readonly lines: string },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const lines = /^[0-9]{1,4}$/.test(options.lines) ? Number(options.lines) : 0
  if (lines < 1 || lines > MAX_LINES)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--lines",
      expected: `a number from 1 to ${MAX_LINES}`,
      found: options.lines,
    })
  return afterAttestation({ ...options, quiet: true }, terminal, async (client) => {
    const found = await client.appLogs(lines)
    if (!options.json) terminal.out(found.map((line) => `${printable(line)}\n`).join(""))
    return { summary: `${found.length} lines`, lines: found }
  })
}

/**
 * Has the VM attest, and does something with it on the same connection if that went well.
 * @param act gets the client, and the key that the evidence vouches for.
 */
export async function afterAttestation(
  options: AppOptions & { readonly boundToConnection?: boolean },
  terminal: Terminal,
  act: (client: AgentClient, sealingKey: Uint8Array) => Promise<Done>,
): Promise<number> {
  requireExpectation(options, "--snapshot FILE, --policy FILE or --measurement HEX")
  const appraisal = appraisalOf(options)
  if (!options.anyVm) requireProof(appraisal)
  const progress = new ProgressLine(terminal, !options.quiet && !options.json)
  try {
    const { verdict, done } = await interruptible((signal) =>
      withAgent(options, signal, async (client) => {
        const { verdict, sealingKey } = await attest(client, options, appraisal, progress, signal, "sealing")
        if (!verdict.passed || sealingKey === null) return { verdict, done: null }
        progress.step("waiting for the agent")
        return { verdict, done: await act(client, sealingKey) }
      }),
    )
    progress.clear()
    if (options.json) terminal.out(jsonText({ ...done, done: done !== null, verdict }))
    else {
      const passedMeans =
        options.snapshot === null
          ? options.policy === null && options.measurement === null
            ? "has attested, and may be anybody's"
            : "is a machine as the policy or measurement says"
          : "is the machine of the snapshot"
      const text = renderVerdict(verdict, {
        style: terminal.outStyle,
        columns: terminal.outColumns,
        quiet: options.quiet,
        passedMeans,
      })
      if (!options.quiet || !verdict.passed) terminal.out(text)
      if (done === null) terminal.talk("nothing was sent\n")
      else if (!options.quiet)
        terminal.out(`[ OK ] ${endpointText(parseAgentUrl(options.url))}: ${done.summary}\n`)
    }
    return verdict.exitCode
  } finally {
    progress.clear()
  }
}

/** Shows the last lines of the application's log where it does not come up, and passes the error on. */
async function withLogs(client: AgentClient, terminal: Terminal, act: () => Promise<Done>): Promise<Done> {
  try {
    return await act()
  } catch (error) {
    if (!(error instanceof AgentError) || !/\bERR_SERVICE\b/.test(error.found ?? "")) throw error
    for (const line of await logsOrNone(client)) terminal.talk(`  | ${printable(line)}\n`)
    throw error
  }
}

/** The failure is what is told; that its log cannot be had either is no news. */
async function logsOrNone(client: AgentClient): Promise<readonly string[]> {
  try {
    return await client.appLogs(LINES_AFTER_FAILURE)
  } catch (error) {
    if (error instanceof AgentError) return []
    throw error
  }
}
