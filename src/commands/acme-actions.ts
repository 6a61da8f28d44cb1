import { existsSync } from "node:fs"
import { resolve } from "node:path"
import type { AccountBinding } from "../acme/connection.ts"
import { keyTypeOf, readKey } from "../acme/keys.ts"
import {
  type ChallengeType,
  DEFAULT_WORKSPACE,
  type KeyType,
  REVOCATION_REASONS,
  type RevocationReason,
} from "../acme/kinds.ts"
import {
  type CertificateTools,
  type Outcome,
  obtainCertificate,
  renewCertificate,
  revokeCertificate,
} from "../acme/manage.ts"
import { certificateNamesOf, directoryOf, isWildcard } from "../acme/names.ts"
import type { CertificateSettings, ChallengeSettings } from "../acme/settings.ts"
import { AcmeError, CATALOGUE, type CodedError, UsageError } from "../errors.ts"
import { fromBase64, toHex } from "../formats/hex.ts"
import { printable } from "../formats/path-text.ts"
import { acmeDirectoryOf, emailOf, LETS_ENCRYPT, LETS_ENCRYPT_STAGING } from "./acme-options.ts"
import { certificateTools, outcomeJson, outcomeText } from "./acme-tools.ts"
import { readToken } from "./input-files.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { ProgressLine } from "./progress.ts"
import { codedFrom } from "./report-error.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

interface Talk {
  readonly json: boolean
  readonly quiet: boolean
}

export interface AcmeOptions extends Talk {
  readonly domain: string
  readonly san: readonly string[]
  readonly email: string | null
  readonly workspace: string
  readonly output: string | null
  readonly name: string | null
  readonly staging: boolean
  readonly directory: string | null
  readonly caFile: string | null
  readonly challenge: ChallengeType | null
  readonly listen: string | null
  readonly webroot: string | null
  readonly dnsHook: string | null
  /** Seconds. */
  readonly dnsWait: string
  readonly keyType: KeyType
  readonly reuseKey: boolean
  /** Salt; null: the key is made at random. */
  readonly derivedFromTee: Uint8Array | null
  /** File with the key to certify; null: the certificate gets a key of its own. */
  readonly keyFile: string | null
  /** Directory of a simulated TEE; null: this machine's. */
  readonly simulate: string | null
  readonly profile: string | null
  readonly eabKid: string | null
  readonly eabKeyFile: string | null
  readonly deployHooks: readonly string[]
  readonly force: boolean
}

/** `certtool acme`. */
export async function acme(options: AcmeOptions, terminal: Terminal = openTerminal()): Promise<number> {
  const settings = settingsOf(options)
  const binding = bindingOf(options)
  const name = options.name === null ? directoryOf(settings.names[0] ?? "") : folderName(options.name)
  const outcome = await withTools(options, options.workspace, terminal, (tools) =>
    obtainCertificate(tools, name, settings, { force: options.force, binding }),
  )
  if (options.json) terminal.out(jsonText(outcomeJson(outcome)))
  else if (!options.quiet)
    terminal.out(`${outcomeText(outcome, terminal)}${filesText(outcome)}${renewalText(options.workspace)}`)
  return 0
}

/** The packages' timer looks after one workspace. */
function renewalText(workspace: string): string {
  const command =
    resolve(workspace) === DEFAULT_WORKSPACE
      ? "systemctl enable --now cosmian_vm_certtool.timer"
      : `a timer of yours for: cosmian_vm certtool renew -w ${resolve(workspace)}`
  return `       renewals: ${printable(command)}\n`
}

export interface RenewOptions extends Talk {
  readonly workspace: string
  /** Empty: all certificates of the workspace. */
  readonly names: readonly string[]
  readonly force: boolean
}

/** `certtool renew`. Each certificate is tried; the first failure decides the exit code. */
export async function renew(options: RenewOptions, terminal: Terminal = openTerminal()): Promise<number> {
  // A misspelt one would pass for one in which nothing is due.
  if (!existsSync(options.workspace))
    throw new AcmeError("ERR_ACME_UNKNOWN", {
      at: "--workspace",
      expected: "a workspace of certtool acme",
      found: `no ${options.workspace}`,
      hint: "give the directory that certtool acme was given",
    })
  const results = await withTools(options, options.workspace, terminal, async (tools, progress) => {
    const names = options.names.length > 0 ? options.names.map(folderName) : tools.workspace.names()
    const found: Result[] = []
    // One after the other: authorities allow few requests at a time.
    for (const name of names) {
      const result = await resultOf(name, () => renewCertificate(tools, name, options))
      progress.clear()
      if (!options.json) tellResult(result, options.quiet, terminal)
      found.push(result)
    }
    return found
  })
  if (options.json)
    terminal.out(
      jsonText({
        certificates: results.map(({ name, outcome, error }) =>
          outcome === null ? { name, action: "failed", error: error?.toJSON() } : outcomeJson(outcome),
        ),
      }),
    )
  else if (results.length === 0 && !options.quiet)
    terminal.out(`no certificates in ${printable(options.workspace)}\n`)
  return results.find(({ error }) => error !== null)?.error?.exitCode ?? 0
}

export interface RevokeOptions extends Talk {
  readonly workspace: string
  readonly name: string
  readonly reason: RevocationReason
}

/** `certtool revoke`. */
export async function revoke(options: RevokeOptions, terminal: Terminal = openTerminal()): Promise<number> {
  const outcome = await withTools(options, options.workspace, terminal, (tools) =>
    revokeCertificate(tools, folderName(options.name), REVOCATION_REASONS[options.reason]),
  )
  if (options.json) terminal.out(jsonText(outcomeJson(outcome)))
  else if (!options.quiet) terminal.out(outcomeText(outcome, terminal))
  return 0
}

interface Result {
  readonly name: string
  readonly outcome: Outcome | null
  readonly error: CodedError | null
}

async function resultOf(name: string, work: () => Promise<Outcome>): Promise<Result> {
  try {
    return { name, outcome: await work(), error: null }
  } catch (cause) {
    const error = codedFrom(cause)
    if (error.code === "ERR_INTERRUPTED") throw error
    return { name, outcome: null, error }
  }
}

function tellResult({ name, outcome, error }: Result, quiet: boolean, terminal: Terminal): void {
  const { outStyle: style } = terminal
  if (outcome !== null) {
    if (!quiet) terminal.out(outcomeText(outcome, terminal))
    return
  }
  if (error === null) return
  const parts = [
    `${style.red("[ FAIL ]")} ${printable(`${name}: ${CATALOGUE[error.code].title}`)}  ${style.dim(error.code)}`,
  ]
  const part = (label: string, value: string | undefined) => {
    if (value !== undefined) parts.push(`           ${label}: ${printable(value)}`)
  }
  part("where", error.at)
  part("found", error.found)
  part("what to do", error.hint)
  terminal.out(`${parts.join("\n")}\n`)
}

function filesText({ certificateFile, keyFile, output }: Outcome): string {
  const files = output === null ? [certificateFile, keyFile] : [`${output}/cert.pem`, `${output}/key.pem`]
  return files.map((file) => `       ${printable(file)}\n`).join("")
}

/** Runs work with a workspace, a progress line, and Ctrl-C. */
async function withTools<T>(
  { json, quiet }: Talk,
  workspace: string,
  terminal: Terminal,
  work: (tools: CertificateTools, progress: ProgressLine) => Promise<T>,
): Promise<T> {
  const root = resolve(workspace)
  const progress = new ProgressLine(terminal, !json && !quiet)
  try {
    return await interruptible((signal) =>
      work(
        certificateTools(root, signal, {
          progress: (step) => progress.step(printable(step)),
          warn: (error) => {
            progress.clear()
            const { code, message } = codedFrom(error)
            terminal.talk(`${terminal.talkStyle.yellow("[ WARNING ]")} ${printable(message)}  ${code}\n`)
          },
        }),
        progress,
      ),
    )
  } finally {
    progress.clear()
  }
}

function settingsOf(options: AcmeOptions): CertificateSettings {
  const names = certificateNamesOf([options.domain, ...options.san], "--domain, --san")
  return {
    names,
    directory: directoryUrlOf(options),
    caFile: options.caFile === null ? null : resolve(options.caFile),
    email: options.email === null ? null : emailOf(options.email, "--email"),
    challenge: challengeOf(options, names),
    key: keyOf(options),
    profile: options.profile,
    output: options.output === null ? null : resolve(options.output),
    deployHooks: options.deployHooks.map((hook) => wordsOf(hook, "--deploy-hook")),
  }
}

function keyOf(options: AcmeOptions): CertificateSettings["key"] {
  const { keyType, reuseKey, derivedFromTee, simulate } = options
  if (options.keyFile !== null) {
    if (derivedFromTee !== null) throw exclusive("--key-file", "--derived-from-tee")
    const file = resolve(options.keyFile)
    return { type: keyTypeOf(readKey(file), file), reuse: true, derived: null, file }
  }
  if (derivedFromTee === null) return { type: keyType, reuse: reuseKey, derived: null, file: null }
  if (keyType !== "p256") throw exclusive("--derived-from-tee", `--key-type ${keyType}`)
  const derived = { salt: toHex(derivedFromTee), simulate: simulate === null ? null : resolve(simulate) }
  return { type: keyType, reuse: true, derived, file: null }
}

function directoryUrlOf({ directory, staging }: AcmeOptions): string {
  if (directory === null) return staging ? LETS_ENCRYPT_STAGING : LETS_ENCRYPT
  if (staging) throw exclusive("--staging", "--directory")
  return acmeDirectoryOf(directory, "--directory")
}

function challengeOf(options: AcmeOptions, names: readonly string[]): ChallengeSettings {
  const { webroot, dnsHook, listen } = options
  if (webroot !== null && dnsHook !== null) throw exclusive("--webroot", "--dns-hook")
  const implied = dnsHook === null ? "http-01" : "dns-01"
  const type = options.challenge ?? implied
  if (webroot !== null && type !== "http-01") throw exclusive("--webroot", `--challenge ${type}`)
  if (dnsHook !== null && type !== "dns-01") throw exclusive("--dns-hook", `--challenge ${type}`)
  if (listen !== null && (webroot !== null || dnsHook !== null))
    throw exclusive("--listen", webroot === null ? "--dns-hook" : "--webroot")
  const wildcard = names.find(isWildcard)
  if (wildcard !== undefined && type !== "dns-01")
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--domain, --san",
      expected: "--dns-hook for a name with *",
      found: wildcard,
      hint: "authorities verify such names in DNS alone: give a program that adds a TXT record",
    })
  if (type === "dns-01") {
    if (dnsHook === null)
      throw new UsageError("ERR_MISSING_ARGUMENT", {
        at: "--challenge dns-01",
        expected: "--dns-hook PROGRAM",
        hint: "give the program that adds and removes TXT records",
      })
    return { type, hook: wordsOf(dnsHook, "--dns-hook"), waitSeconds: secondsOf(options.dnsWait) }
  }
  if (webroot !== null) return { type: "http-01", webroot: resolve(webroot) }
  return { type, ...listenOf(listen, type === "http-01" ? 80 : 443) }
}

/** `PORT`, `HOST:PORT` or `[v6-address]:PORT`. */
function listenOf(text: string | null, usual: number): { host: string | null; port: number } {
  if (text === null) return { host: null, port: usual }
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):)?([0-9]{1,5})$/.exec(text)
  const port = Number(match?.[2])
  if (match !== null && port >= 1 && port <= 65_535)
    return { host: match[1]?.replace(/^\[|\]$/g, "") ?? null, port }
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--listen",
    expected: "[HOST:]PORT",
    found: text,
    hint: "write for example --listen 8080, where port 80 is forwarded to port 8080",
  })
}

/** Words between blanks: a program and its arguments, without the rules of a shell. */
function wordsOf(text: string, option: string): string[] {
  const words = text.split(/[ \t]+/).filter(Boolean)
  const fits = words.length > 0 && words.length <= 64 && !/[\0\n]/.test(text)
  if (fits) return words
  throw new UsageError("ERR_BAD_VALUE", {
    at: option,
    expected: "a program, and its arguments between blanks",
    found: text,
    hint: "for anything else write a script",
  })
}

function secondsOf(text: string): number {
  if (/^[0-9]{1,4}$/.test(text) && Number(text) <= 3600) return Number(text)
  throw new UsageError("ERR_BAD_VALUE", { at: "--dns-wait", expected: "seconds, at most 3600", found: text })
}

/** What a certificate's directory is called. */
function folderName(text: string): string {
  const name = text.startsWith("*.") ? directoryOf(text.toLowerCase()) : text
  if (/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$/.test(name) && name !== "accounts") return name
  throw new UsageError("ERR_BAD_VALUE", {
    at: "the name of a certificate",
    expected: "letters, digits and _.-, not beginning with . or -; not accounts",
    found: text,
  })
}

/** The MAC key is a secret: it comes from a file, and is not repeated. */
function bindingOf({ eabKid, eabKeyFile }: AcmeOptions): AccountBinding | null {
  if (eabKid === null && eabKeyFile === null) return null
  if (eabKid === null || eabKeyFile === null)
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: eabKid === null ? "--eab-key-file" : "--eab-kid",
      expected: `${eabKid === null ? "--eab-kid" : "--eab-key-file"} beside it`,
      hint: "the authority gives both",
    })
  const hmacKey = readToken(eabKeyFile)
  if (fromBase64(hmacKey.replaceAll("-", "+").replaceAll("_", "/")) !== null) return { kid: eabKid, hmacKey }
  throw new UsageError("ERR_BAD_VALUE", {
    at: `--eab-key-file ${eabKeyFile}`,
    expected: "one line with the MAC key in base64url",
    found: "something else",
    hint: "write the key as the authority shows it",
  })
}

function exclusive(one: string, other: string): UsageError<"ERR_BAD_VALUE"> {
  return new UsageError("ERR_BAD_VALUE", {
    at: one,
    expected: `no ${other} beside it`,
    found: "both",
    hint: "leave one of them out",
  })
}
