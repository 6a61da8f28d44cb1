import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs"
import { dirname, join } from "node:path"
import { AgentError } from "../errors.ts"
import type { CertificateOrder, Provision } from "../formats/provision.ts"
import type { Applications } from "./applications.ts"
import { flushDirectory, makePrivateDirectory, writeFileAtomically } from "./atomic-file.ts"
import type { BootstrapConfig } from "./config.ts"
import { errorFields, type Log } from "./log.ts"

/** How far it is. Names are no secrets; contents never leave the process but to the application. */
export interface BootstrapStatus {
  readonly state: "waiting" | "starting" | "done"
  /** Names without which the application is not started. */
  readonly wanted: readonly string[]
  readonly received: readonly string[]
  /** The certificate that was asked for; null: none. */
  readonly certificate: BootstrapCertificate | null
}

export interface BootstrapCertificate {
  readonly names: readonly string[]
  /** Files where the application finds it; null: it was not issued yet. */
  readonly issued: IssuedFiles | null
}

/** Paths of a chain and its key, PEM; RFC 3339. */
export interface IssuedFiles {
  readonly certificate: string
  readonly key: string
  readonly not_after: string
}

/** Gets a certificate for the VM's TLS key from an authority, or finds the one that is there. @throws AcmeError, UsageError */
export type ObtainCertificate = (order: CertificateOrder, signal: AbortSignal) => Promise<IssuedFiles>

export interface BootstrapOptions {
  readonly config: BootstrapConfig
  readonly apps: Applications
  readonly log: Log
  /** Most bytes that are held of all values together. */
  readonly maxBytes: number
  readonly obtainCertificate: ObtainCertificate
  /** As AgentOptions has it. */
  readonly guard: ((path: string) => void) | null
}

/**
 * An application that gets its secrets from outside before it runs. They are held in memory until it is started; then each becomes a
 * file of its own (mode 0600) in one directory, which is there whole or not at all.
 */
export class Bootstrap {
  readonly #options: BootstrapOptions
  readonly #values = new Map<string, Uint8Array>()
  readonly #done = Promise.withResolvers<void>()
  readonly #ending = new AbortController()
  #order: CertificateOrder | null = null
  #issued: IssuedFiles | null = null
  #state: BootstrapStatus["state"]

  constructor(options: BootstrapOptions) {
    this.#options = options
    this.#state = isProvisioned(options.config) ? "done" : "waiting"
    if (this.#state === "done") this.#done.resolve()
  }

  /** Fulfilled when the application has been started with its secrets: nothing is to be had here any more. */
  get done(): Promise<void> {
    return this.#done.promise
  }

  status(): BootstrapStatus {
    return {
      state: this.#state,
      wanted: this.#options.config.values,
      received: [...this.#values.keys()].sort(),
      certificate: this.#order && { names: this.#order.names, issued: this.#issued },
    }
  }

  /** What is under way ends soon. */
  stop(): void {
    this.#ending.abort()
  }

  /**
   * Takes secrets in; one that was there already is replaced, and so is the order of a certificate.
   * @throws AgentError ERR_BOOTSTRAP, ERR_TOO_LARGE.
   */
  receive({ values, certificate }: Provision): void {
    this.#requireWaiting()
    const { config, log, maxBytes } = this.#options
    const unknown = [...values.keys()].filter((name) => !config.values.includes(name))
    if (config.values.length > 0 && unknown.length > 0)
      throw new AgentError("ERR_BOOTSTRAP", {
        at: unknown.join(", "),
        expected: `values of ${config.values.join(", ")}`,
        found: "another name",
        hint: "correct the name, or add it to [bootstrap] values of the agent's configuration",
      })
    const loader = config.environment ? [...values.keys()].find((name) => STEERING.test(name)) : undefined
    if (loader !== undefined)
      throw new AgentError("ERR_BOOTSTRAP", {
        at: loader,
        expected: "a name that means nothing to loader, shell and interpreters",
        found: "one that decides which code a program runs",
        hint: "choose another name: with environment = true each value is an environment variable",
      })
    const held = [...new Map([...this.#values, ...values]).values()].reduce(
      (sum, { length }) => sum + length,
      0,
    )
    if (held > maxBytes)
      throw new AgentError("ERR_TOO_LARGE", {
        at: "values",
        expected: `at most ${maxBytes} bytes of all together`,
        found: `${held}`,
        hint: "raise body_bytes in [limits] of the agent's configuration",
      })
    for (const [name, content] of values) {
      this.#values.get(name)?.fill(0)
      this.#values.set(name, content)
    }
    if (values.size > 0)
      log.info("values received for the application", { names: [...values.keys()].join(", ") })
    if (certificate === null) return
    this.#order = certificate
    this.#issued = null
    log.info("a certificate is asked for", { names: certificate.names.join(", ") })
  }

  /**
   * Gets the certificate that was asked for, writes the secrets where the application finds them, and starts it. Where it does not
   * come up they are removed again and stay in memory, to be corrected; the certificate is there for the next attempt.
   * @throws AgentError ERR_BOOTSTRAP where one is missing; those of {@link ObtainCertificate} and {@link Applications.restart}.
   */
  async start(): Promise<void> {
    this.#requireWaiting()
    const { config, apps, log } = this.#options
    const missing = config.values.filter((name) => !this.#values.has(name))
    if (missing.length > 0)
      throw new AgentError("ERR_BOOTSTRAP", {
        at: missing.join(", "),
        expected: "all values that the application needs",
        found: "none",
        hint: "send them first",
      })
    this.#state = "starting"
    let written = false
    try {
      await this.#certify()
      this.#write()
      written = true
      await apps.restart()
    } catch (error) {
      if (written) rmSync(config.directory, { recursive: true, force: true })
      this.#state = "waiting"
      throw error
    }
    for (const content of this.#values.values()) content.fill(0)
    this.#values.clear()
    this.#state = "done"
    log.info("the application has its values and runs", { directory: config.directory })
    this.#done.resolve()
  }

  /** After a restart of agent or machine: an application whose secrets are still there is started where it does not run. */
  async resume(): Promise<void> {
    const { apps, log } = this.#options
    if (this.#state !== "done") return
    try {
      if ((await apps.status()).state === "down") await apps.restart()
    } catch (error) {
      log.error("the application does not start with the values it was given", errorFields(error))
    }
  }

  async #certify(): Promise<void> {
    const { config, guard, obtainCertificate } = this.#options
    if (this.#order === null) return
    guard?.(config.acmeWorkspace)
    guard?.(config.certificateDirectory)
    this.#issued = await obtainCertificate(this.#order, this.#ending.signal)
  }

  #write(): void {
    const { directory } = this.#options.config
    this.#options.guard?.(directory)
    const partial = `${directory}.new`
    makePrivateDirectory(dirname(directory))
    rmSync(partial, { recursive: true, force: true })
    mkdirSync(partial, { mode: 0o700 })
    for (const [name, content] of this.#values) writeFileAtomically(join(partial, name), content, 0o600)
    flushDirectory(partial)
    renameSync(partial, directory)
    flushDirectory(dirname(directory))
  }

  #requireWaiting(): void {
    if (this.#state === "waiting") return
    throw new AgentError("ERR_BOOTSTRAP", {
      expected: "an application that waits for its values",
      found: this.#state === "done" ? "one that was started with them" : "one that is being started",
      hint: "to give it others, stop it, remove the directory of [bootstrap], and restart the agent",
    })
  }
}

/** Whether the application was given its secrets. Something else in the directory's place does not count as that. */
function isProvisioned({ directory }: BootstrapConfig): boolean {
  return lstatSync(directory, { throwIfNoEntry: false })?.isDirectory() === true
}

/** Names that an environment variable may have. */
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/

/** Variables by which the environment decides what code a program runs: who brings values does not choose the software. */
const STEERING =
  /^(LD_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|PATH|IFS|ENV|BASH_ENV|SHELLOPTS|BASHOPTS|PYTHON.*|PERL.*|RUBY(LIB|OPT)|NODE_(OPTIONS|PATH)|BUN_.*|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|OPENSSL_.*|COSMIAN_VM_VALUES)$/

/**
 * The secrets as environment variables, for a `standalone` application that wants them so; empty where there are none. Those whose
 * name or content cannot be one are left out: the application finds them as files.
 */
export function provisionedEnvironment({ directory, environment }: BootstrapConfig): Record<string, string> {
  if (!environment || !existsSync(directory)) return {}
  const variables: Record<string, string> = { COSMIAN_VM_VALUES: directory }
  for (const name of readdirSync(directory)) {
    const content = readFileSync(join(directory, name))
    if (VARIABLE.test(name) && !STEERING.test(name) && !content.includes(0))
      variables[name] = content.toString("utf8")
  }
  return variables
}
