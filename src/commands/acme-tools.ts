import { existsSync, readFileSync } from "node:fs"
import { isAbsolute } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { rootCertificates } from "node:tls"
import type { RunHook } from "../acme/dns-solver.ts"
import type { CertificateTools, Outcome } from "../acme/manage.ts"
import type { AcmeNetwork } from "../acme/network.ts"
import { Workspace } from "../acme/workspace.ts"
import { flushDirectory, writeFileAtomically } from "../agent/atomic-file.ts"
import { DEFAULT_BINDING } from "../agent/derived-key.ts"
import { findProgram, runWith } from "../agent/run-command.ts"
import { AcmeError, CodedError, UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import { lockDirectory } from "../native/directory-lock.ts"
import { CHILD_ENVIRONMENT } from "../programs.ts"
import { VERSION } from "../version.ts"
import { AGENT_CONFIGURATION, readAgentConfiguration } from "./fstool/open-machine.ts"
import { storageGuard } from "./storage-guard.ts"
import type { Terminal } from "./terminal.ts"

const REQUEST_TIMEOUT_MS = 30_000
const HOOK_SECONDS = 300
const MAX_CA_BYTES = 1024 * 1024
/** Debian's and Red Hat's bundles of the authorities that the administrator trusts. */
const SYSTEM_AUTHORITIES = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]

/** The real network, files and programs for the work on certificates. */
export function certificateTools(
  workspace: string,
  signal: AbortSignal,
  told: Pick<CertificateTools, "progress" | "warn">,
): CertificateTools {
  return {
    workspace: new Workspace(workspace, { write: guardedWrite(), flush: flushDirectory, lock: lockOrNull }),
    network: (caFile) => networkOf(caFile, signal),
    runHook,
    deriveKey: async ({ salt, simulate }) => {
      const { deriveKey } = await import("./key-derive.ts")
      const input = {
        type: "p256",
        salt: Uint8Array.from(Buffer.from(salt, "hex")),
        purpose: "acme",
      } as const
      const { key } = await deriveKey({ ...input, rootKey: "vcek", fields: DEFAULT_BINDING }, simulate)
      key.privateRaw.fill(0)
      return key.privatePem
    },
    ...told,
  }
}

/** Keys and settings of certificates, in the agent's directories, go where `[storage]` of agent.toml wants the agent's own. */
function guardedWrite(): typeof writeFileAtomically {
  if (!existsSync(AGENT_CONFIGURATION)) return writeFileAtomically
  const guard = storageGuard(readAgentConfiguration().storage)
  return (path, content, mode) => {
    guard?.(path)
    writeFileAtomically(path, content, mode)
  }
}

/** The kernel's own lock on the directory, which nobody takes who may not open it. */
export async function lockOrNull(directory: string): Promise<(() => void) | null> {
  try {
    return (await lockDirectory(directory, 0, () => undefined)).release
  } catch (error) {
    if (error instanceof CodedError && error.code === "ERR_VOLUME_BUSY") return null
    throw error
  }
}

function networkOf(caFile: string | null, signal: AbortSignal): AcmeNetwork {
  const ca = authoritiesOf(caFile)
  return {
    fetch: (url, { method, headers, body, signal: abort }) =>
      fetch(url, {
        method,
        headers: { ...headers, "user-agent": `cosmian_vm/${VERSION}` },
        body,
        signal: abort,
        redirect: "manual",
        tls: { ca, rejectUnauthorized: true },
      }),
    sleep: async (ms, until) => void (await sleep(ms, undefined, { signal: until })),
    now: () => new Date(),
    random: () => Math.random(),
    timeoutMs: REQUEST_TIMEOUT_MS,
    signal,
  }
}

/** With a file: the authorities in it and no others. */
function authoritiesOf(file: string | null): string[] {
  if (file !== null) return [readAuthorities(file)]
  return [...rootCertificates, ...SYSTEM_AUTHORITIES.filter(existsSync).slice(0, 1).map(readAuthorities)]
}

function readAuthorities(file: string): string {
  const text = readFileSync(file, "utf8")
  if (text.length <= MAX_CA_BYTES && text.includes("-----BEGIN CERTIFICATE-----")) return text
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--ca-file",
    expected: "a file with PEM certificates",
    found: file,
    hint: "give the root certificate of the ACME server's own TLS certificate",
  })
}

/** Runs a hook: no shell, a fixed environment with what the hook is told, five minutes. */
const runHook: RunHook = async (words, variables) => {
  const [program = "", ...args] = words
  const path = isAbsolute(program) ? program : findHook(program)
  const { exitCode, output } = await runWith(path, args, HOOK_SECONDS, { ...CHILD_ENVIRONMENT, ...variables })
  if (exitCode === 0) return
  throw new AcmeError("ERR_ACME_HOOK", {
    at: words.join(" "),
    expected: `exit code 0 within ${HOOK_SECONDS} s`,
    found: `${exitCode === null ? "ended by a signal" : `exit code ${exitCode}`}${output === "" ? "" : `: ${output.slice(0, 500)}`}`,
    hint: "run the program by hand; docs/certtool.md says what it is given",
  })
}

function findHook(program: string): string {
  try {
    return findProgram(program)
  } catch (cause) {
    throw new AcmeError("ERR_ACME_HOOK", {
      at: program,
      expected: "a program in the usual directories, or an absolute path",
      found: "none",
      hint: "give the program's absolute path",
      cause,
    })
  }
}

/** One line about a certificate. */
export function outcomeText(outcome: Outcome, { outStyle: style }: Terminal): string {
  const until = `until ${day(outcome.notAfter)}`
  const label = outcome.action === "waiting" || outcome.action === "revoked" ? style.yellow : style.green
  const said = {
    issued: `issued, holds ${until}, to be renewed from ${day(outcome.renewAt)}`,
    renewed: `renewed, holds ${until}, to be renewed from ${day(outcome.renewAt)}`,
    kept: `holds ${until}, not due before ${day(outcome.renewAt)}`,
    revoked: "revoked; certtool acme makes a new one",
    waiting: `due, but the authority wants no order before ${outcome.retryAfter?.toISOString()}`,
  }[outcome.action]
  return `${label(outcome.action === "waiting" || outcome.action === "revoked" ? "[ WARNING ]" : "[ OK ]")} ${printable(`${outcome.name}: ${said}`)}\n`
}

export function outcomeJson(outcome: Outcome): Record<string, unknown> {
  return {
    name: outcome.name,
    action: outcome.action,
    names: outcome.names,
    certificate: outcome.certificateFile,
    key: outcome.keyFile,
    output: outcome.output,
    serial: outcome.serial,
    not_after: outcome.notAfter.toISOString(),
    renew_at: outcome.renewAt.toISOString(),
    retry_after: outcome.retryAfter?.toISOString() ?? null,
  }
}

function day(date: Date): string {
  return date.toISOString().slice(0, 10)
}
