import { AcmeError, CodedError } from "../errors.ts"
import { type IssuedCertificate, readIssued } from "./certificate.ts"
import { type AccountBinding, AcmeConnection, type AcmeDirectory, fetchDirectory } from "./connection.ts"
import { DnsHook, type RunHook } from "./dns-solver.ts"
import { HttpListener, Webroot } from "./http-solver.ts"
import { issue } from "./issue.ts"
import { keyTypeOf, makeKey, readKey } from "./keys.ts"
import type { AcmeNetwork } from "./network.ts"
import { fetchRenewalWindow, renewalTime, timeWithin } from "./renewal-info.ts"
import type {
  CertificateSettings,
  CertificateState,
  ChallengeSettings,
  DerivedKeySettings,
} from "./settings.ts"
import type { Solver } from "./solver.ts"
import { TlsAlpnListener } from "./tls-alpn-solver.ts"
import type { CertificateFolder, Workspace } from "./workspace.ts"

/** What the work on certificates needs of the world. */
export interface CertificateTools {
  readonly workspace: Workspace
  /** @param caFile authorities that the server's certificate is checked by; null: the usual ones. */
  readonly network: (caFile: string | null) => AcmeNetwork
  readonly runHook: RunHook
  /** A P-256 key of the TEE, PKCS #8 in PEM: the same for the same salt. */
  readonly deriveKey: (settings: DerivedKeySettings) => Promise<string>
  readonly progress: (step: string) => void
  readonly warn: (error: unknown) => void
}

export type Action = "issued" | "renewed" | "kept" | "revoked" | "waiting"

/** What became of one certificate. */
export interface Outcome {
  readonly name: string
  readonly action: Action
  readonly names: readonly string[]
  readonly certificateFile: string
  readonly keyFile: string
  readonly output: string | null
  readonly serial: string
  readonly notAfter: Date
  readonly renewAt: Date
  /** Where the action is `waiting`: until when. */
  readonly retryAfter: Date | null
}

/** A certificate that is there, with how it is kept. */
interface Known {
  readonly folder: CertificateFolder
  readonly settings: CertificateSettings
  readonly state: CertificateState
  readonly issued: IssuedCertificate
}

const DAY = 24 * 3600 * 1000

/**
 * `certtool acme`: has a certificate issued, unless the one that is there is of the same kind and not due.
 * @param force issue it in any case. @param binding for an account that is yet to be registered.
 */
export async function obtainCertificate(
  tools: CertificateTools,
  name: string,
  settings: CertificateSettings,
  { force, binding }: { readonly force: boolean; readonly binding: AccountBinding | null },
): Promise<Outcome> {
  const folder = tools.workspace.folder(name)
  const release = await folder.lock()
  try {
    const found = knownOrWarning(tools, folder)
    const now = tools.network(settings.caFile).now()
    if (found !== null && !force && sameKind(found.settings, settings) && !isDue(found, now)) {
      const known = { ...found, settings }
      folder.save(settings, known.state)
      return outcomeOf(await putToUse(tools, known), "kept")
    }
    return outcomeOf(await issueAndInstall(tools, folder, settings, found, binding), "issued")
  } finally {
    release()
  }
}

/**
 * `certtool renew`: renews a certificate that is due, and tells the deploy hooks of one that they were not told of yet.
 * @throws AcmeError ERR_ACME_UNKNOWN, ERR_ACME_WORKSPACE, …
 */
export async function renewCertificate(
  tools: CertificateTools,
  name: string,
  { force }: { readonly force: boolean },
): Promise<Outcome> {
  const folder = tools.workspace.folder(name)
  if (folder.settings() === null) throw unknown(tools, name)
  const release = await folder.lock()
  try {
    const known = knownOf(folder)
    const network = tools.network(known.settings.caFile)
    if (known.state.revokedAt !== null) return outcomeOf(known, "revoked")
    if (!force && (known.state.retryAfter?.getTime() ?? 0) > network.now().getTime())
      return outcomeOf(known, "waiting")
    const current = force || isDue(known, network.now()) ? known : await asked(tools, network, known)
    if (!force && !isDue(current, network.now())) return outcomeOf(await putToUse(tools, current), "kept")
    return outcomeOf(await issueOrWait(tools, current), "renewed")
  } finally {
    release()
  }
}

/** `certtool revoke`. @param reason number of RFC 5280, section 5.3.1. */
export async function revokeCertificate(
  tools: CertificateTools,
  name: string,
  reason: number,
): Promise<Outcome> {
  const folder = tools.workspace.folder(name)
  if (folder.settings() === null) throw unknown(tools, name)
  const release = await folder.lock()
  try {
    const known = knownOf(folder)
    const { settings, state, issued } = known
    if (state.revokedAt === null) {
      const { connection } = await connect(tools, settings, null)
      tools.progress("revoking the certificate")
      await connection.revoke(issued.chainPem, reason)
      folder.save(settings, { ...state, revokedAt: tools.network(settings.caFile).now() })
    }
    return outcomeOf(known, "revoked")
  } finally {
    release()
  }
}

/**
 * Notes when the authority wants the next order, so that no timer comes before; a day at most: one answer, of whoever stands in the
 * authority's place for a moment, does not end renewals for good.
 */
async function issueOrWait(tools: CertificateTools, known: Known): Promise<Known> {
  const { folder, settings, state } = known
  const network = tools.network(settings.caFile)
  try {
    return await issueAndInstall(tools, folder, settings, known, null)
  } catch (error) {
    if (error instanceof AcmeError && error.until !== null)
      folder.save(settings, { ...state, retryAfter: noLaterThan(error.until, network.now().getTime() + DAY) })
    throw error
  }
}

async function issueAndInstall(
  tools: CertificateTools,
  folder: CertificateFolder,
  settings: CertificateSettings,
  former: Known | null,
  binding: AccountBinding | null,
): Promise<Known> {
  const { progress, warn } = tools
  const { connection, directory, network } = await connect(tools, settings, binding)
  requireProfile(settings, directory)
  const replaced = former?.settings.directory === settings.directory && directory.renewalInfo !== null
  const { issued, keyPem } = await issue(
    { connection, network, folder, solver: solverOf(settings.challenge, tools, network), progress, warn },
    {
      names: settings.names,
      profile: settings.profile,
      replaces: replaced ? (former?.issued.renewalId ?? null) : null,
      keyKind: JSON.stringify(settings.key),
      makeKey: () => keyFor(tools, settings, former),
    },
  )
  folder.install({ chainPem: issued.chainPem, keyPem })
  const plan = await planned(tools, network, directory, issued)
  const state: CertificateState = { ...plan, retryAfter: null, deployed: null, revokedAt: null }
  folder.save(settings, state)
  folder.abandon()
  return putToUse(tools, { folder, settings, state, issued })
}

/** Opens the account, registering it where there is none. */
async function connect(
  tools: CertificateTools,
  settings: CertificateSettings,
  binding: AccountBinding | null,
) {
  const { workspace, progress } = tools
  const network = tools.network(settings.caFile)
  const files = workspace.account(settings.directory)
  let keyPem = files.key()
  if (keyPem === null) {
    keyPem = await makeKey("p256")
    files.saveKey(keyPem)
  }
  keyTypeOf(keyPem, files.path)
  const url = files.url()
  const account = { directory: settings.directory, keyPem, url }
  const connection = await AcmeConnection.open(network, account, binding)
  progress(`asking ${new URL(settings.directory).host}`)
  const directory = await fetchDirectory(network, settings.directory)
  if (url === null && directory.bindingRequired && binding === null)
    throw new AcmeError("ERR_ACME_ACCOUNT_BINDING", {
      at: settings.directory,
      expected: "an account that is bound to a customer of the authority's",
      found: "no binding",
      hint: "give --eab-kid and --eab-key-file as the authority's customer pages show them",
    })
  if (url === null && directory.terms !== null) progress(`registering, which accepts ${directory.terms}`)
  const opened = await connection.openAccount(settings.email)
  if (url === null) files.saveUrl(opened)
  return { connection, directory, network }
}

function requireProfile({ profile }: CertificateSettings, { profiles }: AcmeDirectory): void {
  if (profile === null || profiles.has(profile)) return
  const offered = [...profiles].map(([name, about]) => `${name} (${about.slice(0, 100)})`)
  throw new AcmeError("ERR_ACME_PROFILE", {
    at: "--profile",
    expected: offered.length === 0 ? "no profile: the authority offers none" : `one of ${offered.join(", ")}`,
    found: profile,
    hint: "leave --profile out for the authority's default",
  })
}

/** A key that was revoked with its certificate is not used again, unless it was said which one it is: then another has to be named. */
async function keyFor(
  { deriveKey }: CertificateTools,
  { key }: CertificateSettings,
  former: Known | null,
): Promise<string> {
  if (key.file !== null) return readKey(key.file)
  if (key.derived !== null) return deriveKey(key.derived)
  const present = key.reuse && former?.state.revokedAt === null ? former.folder.current() : null
  if (present !== null && keyTypeOf(present.keyPem, "the present key") === key.type) return present.keyPem
  return makeKey(key.type)
}

function solverOf(challenge: ChallengeSettings, tools: CertificateTools, network: AcmeNetwork): Solver {
  if (challenge.type === "dns-01")
    return new DnsHook(challenge.hook, tools.runHook, async () => {
      if (challenge.waitSeconds > 0) tools.progress(`waiting ${challenge.waitSeconds} s for the name servers`)
      await network.sleep(challenge.waitSeconds * 1000, network.signal)
    })
  if ("webroot" in challenge) return new Webroot(challenge.webroot)
  const Listener = challenge.type === "http-01" ? HttpListener : TlsAlpnListener
  return new Listener(challenge.host, challenge.port)
}

/** Links the pair into its output directory and tells the hooks; a hook that fails is told again next time. */
async function putToUse(tools: CertificateTools, known: Known): Promise<Known> {
  const { folder, settings, state, issued } = known
  if (settings.output !== null) folder.link(settings.output)
  if (state.deployed === issued.serial) return known
  for (const hook of settings.deployHooks) {
    tools.progress(`running ${hook[0]}`)
    await tools.runHook(hook, {
      ACME_NAME: folder.name,
      ACME_DOMAINS: settings.names.join(" "),
      ACME_CERTIFICATE: folder.certificateFile,
      ACME_KEY: folder.keyFile,
    })
  }
  const deployed = { ...state, deployed: issued.serial }
  folder.save(settings, deployed)
  return { ...known, state: deployed }
}

/** Asks the authority whether the time for the renewal has changed. */
async function asked(tools: CertificateTools, network: AcmeNetwork, known: Known): Promise<Known> {
  const { folder, settings, state, issued } = known
  if ((state.checkAfter?.getTime() ?? 0) > network.now().getTime()) return known
  try {
    const directory = await fetchDirectory(network, settings.directory)
    const plan = await planned(tools, network, directory, issued, state.renewAt)
    const changed = { ...state, ...plan }
    folder.save(settings, changed)
    return { ...known, state: changed }
  } catch (error) {
    // Without an answer the time that is known already holds.
    if (isInterruption(error)) throw error
    tools.warn(error)
    return known
  }
}

/**
 * When to renew. Inside the window that the authority suggests a time is drawn once, and kept as long as it lies there.
 * @param chosen the time that holds now; null: none.
 */
async function planned(
  tools: CertificateTools,
  network: AcmeNetwork,
  { renewalInfo }: AcmeDirectory,
  { renewalId, notBefore, notAfter }: IssuedCertificate,
  chosen: Date | null = null,
): Promise<Pick<CertificateState, "renewAt" | "checkAfter">> {
  const byDates = renewalTime(notBefore, notAfter)
  const tomorrow = new Date(network.now().getTime() + DAY)
  if (renewalInfo === null || renewalId === null) return { renewAt: byDates, checkAfter: tomorrow }
  try {
    const { window, checkAfter } = await fetchRenewalWindow(network, renewalInfo, renewalId)
    const stays = chosen !== null && chosen >= window.start && chosen <= window.end
    const suggested = stays ? chosen : timeWithin(window, network.random())
    // Whatever the authority suggests, a tenth of the lifetime is left for attempts that fail.
    const latest = notAfter.getTime() - (notAfter.getTime() - notBefore.getTime()) / 10
    return { renewAt: noLaterThan(suggested, latest), checkAfter }
  } catch (error) {
    if (isInterruption(error)) throw error
    tools.warn(error)
    return { renewAt: chosen ?? byDates, checkAfter: null }
  }
}

/** @throws AcmeError ERR_ACME_WORKSPACE, ERR_ACME_CERTIFICATE */
function knownOf(folder: CertificateFolder): Known {
  const known = knownOrNull(folder)
  if (known !== null) return known
  throw new AcmeError("ERR_ACME_WORKSPACE", {
    at: folder.path,
    expected: "a certificate, its key and its settings",
    found: "not all of them",
    hint: "run certtool acme again with the options of this certificate",
  })
}

/** What cannot be read is made anew. */
function knownOrWarning({ warn }: CertificateTools, folder: CertificateFolder): Known | null {
  try {
    return knownOrNull(folder)
  } catch (error) {
    if (!(error instanceof AcmeError)) throw error
    warn(error)
    return null
  }
}

function knownOrNull(folder: CertificateFolder): Known | null {
  const kept = folder.settings()
  const pair = folder.current()
  if (kept === null || pair === null) return null
  return { folder, settings: kept[0], state: kept[1], issued: readIssued(pair.chainPem) }
}

function isDue({ state }: Known, now: Date): boolean {
  return state.revokedAt !== null || state.renewAt.getTime() <= now.getTime()
}

function noLaterThan(date: Date, latest: number): Date {
  return new Date(Math.min(date.getTime(), latest))
}

/** Whether two settings come to the same certificate. */
function sameKind(a: CertificateSettings, b: CertificateSettings): boolean {
  const kind = ({ names, directory, profile, key }: CertificateSettings) =>
    JSON.stringify([[...names].sort(), directory, profile, key.type, key.derived, key.file])
  return kind(a) === kind(b)
}

function outcomeOf({ folder, settings, state, issued }: Known, action: Action): Outcome {
  return {
    name: folder.name,
    action,
    names: settings.names,
    certificateFile: folder.certificateFile,
    keyFile: folder.keyFile,
    output: settings.output,
    serial: issued.serial,
    notAfter: issued.notAfter,
    renewAt: state.renewAt,
    retryAfter: state.retryAfter,
  }
}

function unknown({ workspace }: CertificateTools, name: string): AcmeError<"ERR_ACME_UNKNOWN"> {
  const names = workspace.names()
  return new AcmeError("ERR_ACME_UNKNOWN", {
    at: workspace.root,
    expected: names.length === 0 ? "certificates" : `one of ${names.join(", ")}`,
    found: name,
    hint: "give --workspace where it is another one; certtool acme makes certificates",
  })
}

function isInterruption(error: unknown): boolean {
  return error instanceof CodedError && error.code === "ERR_INTERRUPTED"
}
