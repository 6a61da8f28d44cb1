import { isIP } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { AttestedTunnel, type TunnelEvent } from "../client/attested-tunnel.ts"
import { type Endpoint, endpointText, parseAgentUrl, parseApplication } from "../client/endpoint.ts"
import { AgentError, CodedError, UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import type { Verdict } from "../policy/verdict.ts"
import type { ConnectionOptions, TrustOptions } from "./agent-options.ts"
import { type Appraisal, appraisalOf } from "./appraisal.ts"
import { attest, timeoutOf, withAgent } from "./attest.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { ProgressLine } from "./progress.ts"
import { renderVerdict } from "./render.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

export interface ConnectOptions extends ConnectionOptions, TrustOptions {
  readonly snapshot: string | null
  readonly whitelist: string | null
  readonly policy: string | null
  readonly acceptReboot: boolean
  /** `host:port` */
  readonly listen: string
  /** `host[:port]`; null: the agent's host, port 443. */
  readonly target: string | null
  readonly alpn: readonly string[]
  /** Seconds. */
  readonly interval: string
  readonly maxConnections: string
}

/** How often a verification that could not be made is tried, and the pause in between. */
const ATTEMPTS = 3
const PAUSE_MS = 5000
/** What one verification may take in all, in the time limit for one answer: a VM that turned does not gain time by slow answers. */
const VERIFICATION_ANSWERS = 3
/** What timers of the runtime count, in seconds. */
const MAX_INTERVAL = 2_000_000

/** `connect`: runs until it is interrupted (exit code 0), or the VM does not verify any more. */
export async function connectThrough(
  options: ConnectOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const listen = listenOf(options.listen)
  const target = targetOf(options)
  const intervalMs = 1000 * countOf(options.interval, "--interval", MAX_INTERVAL)
  const maxConnections = countOf(options.maxConnections, "--max-connections", 10_000)
  const timeoutMs = timeoutOf(options.timeout)
  requireExpectation(options)
  refuseUnproven(options.skip)
  const appraisal = appraisalOf(options)
  const say = (line: string) => (options.quiet ? undefined : terminal.talk(`${printable(line)}\n`))
  return interruptible(async (signal) => {
    const first = await verifyOnce(options, appraisal, terminal, signal)
    if (!first.verdict.passed) return refused(first.verdict, options, terminal)
    const onEvent = (event: TunnelEvent) => tell(event, terminal, say)
    const tunnel = await AttestedTunnel.listen({
      ...{ listen, target, maxConnections, timeoutMs, onEvent },
      alpn: options.alpn,
    })
    try {
      tunnel.trust(first.spki)
      say(verifiedLine(options, first.verdict))
      say(`listening on ${endpointText(tunnel.address)}, for ${endpointText(target)} inside the VM`)
      return await watch(tunnel, { options, appraisal, intervalMs, terminal, say, signal })
    } finally {
      await tunnel.close()
    }
  })
}

interface Watch {
  readonly options: ConnectOptions
  readonly appraisal: Appraisal
  readonly intervalMs: number
  readonly terminal: Terminal
  readonly say: (line: string) => void
  readonly signal: AbortSignal
}

/** Verifies again and again. @returns the exit code, once the verdict turns or the user ends it. */
async function watch(tunnel: AttestedTunnel, work: Watch): Promise<number> {
  const { options, intervalMs, terminal, say, signal } = work
  try {
    for (;;) {
      await pause(intervalMs, signal)
      const { verdict, spki } = await verifyPatiently(tunnel, work)
      if (!verdict.passed) {
        const cut = tunnel.open
        await tunnel.close()
        say(`the VM does not verify any more: ${cut} connections cut`)
        return refused(verdict, options, terminal)
      }
      tunnel.trust(spki)
    }
  } catch (error) {
    if (signal.aborted) {
      say("stopped")
      return 0
    }
    throw error
  }
}

/** What the network does for a moment is no reason to cut; what stays is: a check that cannot be made is no pass. */
async function verifyPatiently(tunnel: AttestedTunnel, work: Watch): Promise<Verified> {
  const { say, signal } = work
  for (let attempt = 1; ; attempt++) {
    try {
      return await verifyInTime(work)
    } catch (error) {
      const passing = error instanceof CodedError && error.failureClass === "operational" && !signal.aborted
      if (!passing || attempt === ATTEMPTS) {
        const cut = tunnel.open
        await tunnel.close()
        if (!signal.aborted) say(`the VM cannot be verified: ${cut} connections cut`)
        throw error
      }
      tunnel.hold()
      say(`[ WARNING ] not verified (${error.message}); trying again; new connections are refused until then`)
      await pause(PAUSE_MS, signal)
    }
  }
}

/** @throws AgentError ERR_TIMEOUT where all of it together takes too long. */
async function verifyInTime({ options, appraisal, terminal, signal }: Watch): Promise<Verified> {
  const limit = VERIFICATION_ANSWERS * timeoutOf(options.timeout)
  const late = AbortSignal.timeout(limit)
  try {
    return await verifyOnce(options, appraisal, terminal, AbortSignal.any([signal, late]))
  } catch (cause) {
    if (!late.aborted || signal.aborted) throw cause
    throw new AgentError("ERR_TIMEOUT", {
      at: options.url,
      expected: `a whole verification within ${limit / 1000} s`,
      hint: "give more time with --timeout where the network is slow",
      cause,
    })
  }
}

interface Verified {
  readonly verdict: Verdict
  /** The key that the verdict is about. */
  readonly spki: Uint8Array
}

async function verifyOnce(
  options: ConnectOptions,
  appraisal: Appraisal,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<Verified> {
  const progress = new ProgressLine(terminal, false)
  return withAgent(options, signal, async (client) => {
    const { verdict } = await attest(client, options, appraisal, progress, signal)
    return { verdict, spki: client.channel.spki }
  })
}

function refused(verdict: Verdict, { json }: ConnectOptions, terminal: Terminal): number {
  if (json) terminal.out(jsonText(verdict))
  else
    terminal.talk(
      renderVerdict(verdict, {
        style: terminal.talkStyle,
        columns: terminal.columns,
        quiet: true,
        passedMeans: "",
      }),
    )
  return verdict.exitCode
}

function verifiedLine({ snapshot, policy }: ConnectOptions, { target, simulated }: Verdict): string {
  return `[ OK ] ${target} is as ${snapshot ?? policy} has it${simulated ? "; SIMULATED" : ""}`
}

function tell(event: TunnelEvent, terminal: Terminal, say: (line: string) => void): void {
  if (event.kind !== "refused") say(`connection ${event.kind}, ${event.open} open`)
  else terminal.talk(`[ FAIL ] connection refused: ${event.error.code}: ${printable(event.error.message)}\n`)
}

/** A genuine VM is not yet yours, and what local programs send would be read by whoever runs it. */
function requireExpectation({ snapshot, policy }: ConnectOptions): void {
  if (snapshot !== null || policy !== null) return
  throw new UsageError("ERR_MISSING_ARGUMENT", {
    at: "--snapshot",
    expected: "--snapshot FILE or --policy FILE, to know your VM from anybody else's",
    found: "neither",
    hint: "cosmian_vm snapshot takes one",
  })
}

/** The binding is what ties the TLS key to the VM: without it there is nothing to connect to. */
function refuseUnproven(skip: readonly string[]): void {
  const left = skip.find((check) => check === "binding" || check === "tee" || check === "channel")
  if (left !== undefined)
    throw new UsageError("ERR_BAD_VALUE", {
      at: `--skip ${left}`,
      expected: "a check without which the TLS key is still proven",
      found: left,
    })
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(milliseconds, undefined, { signal })
  } catch (cause) {
    throw new AgentError("ERR_INTERRUPTED", { cause })
  }
}

function targetOf({ target, url }: ConnectOptions): Endpoint {
  return target === null ? { host: parseAgentUrl(url).host, port: 443 } : parseApplication(target, "--target")
}

/** An address and a port, of which 0 means any free one. */
function listenOf(text: string): Endpoint {
  const match =
    /^(?:\[(?<six>[0-9a-fA-F:.]+)\]|(?<four>[0-9.]+)|(?<name>localhost)):(?<port>[0-9]{1,5})$/.exec(text)
  const { six, four, name, port = "" } = match?.groups ?? {}
  const host = six ?? four ?? (name === undefined ? "" : "127.0.0.1")
  if (isIP(host) !== 0 && Number(port) <= 65_535) return { host, port: Number(port) }
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--listen",
    expected: "address:port, an IPv6 address in brackets",
    found: text,
    hint: "write for example --listen 127.0.0.1:5432",
  })
}

function countOf(text: string, option: string, max: number): number {
  const value = /^[0-9]{1,7}$/.test(text) ? Number(text) : 0
  if (value >= 1 && value <= max) return value
  throw new UsageError("ERR_BAD_VALUE", { at: option, expected: `a number from 1 to ${max}`, found: text })
}
