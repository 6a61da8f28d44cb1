import type { KeyObject } from "node:crypto"
import { isIP } from "node:net"
import { isAbsolute, join, normalize } from "node:path"
import { parse, TomlError } from "smol-toml"
import { CodedError, UsageError } from "../errors.ts"
import { parseDataSize } from "../formats/data-size.ts"
import { fromBase64, fromHex } from "../formats/hex.ts"
import { isProvisionName, PROVISION_NAME_RULE } from "../formats/provision.ts"
import { lineOfKey } from "../formats/toml-place.ts"
import { publicKeyOfDer } from "../verify/ed25519-key.ts"

/** Every signed request is tried with each of them. */
const MAX_OWNERS = 16

/** Where relative paths of the configuration start, and where the agent keeps its own files. */
export const STATE_DIRECTORY = "/var/lib/cosmian_vm"

/** Path prefixes that a snapshot leaves out unless told otherwise: those of Cosmian VM 1.3. */
export const DEFAULT_EXCLUDE: readonly string[] = [
  "/sys/",
  "/run/",
  "/proc/",
  "/lost+found/",
  "/dev/",
  "/media/",
  "/var/",
  "/tmp/",
]

export type ServiceType = "systemd" | "supervisor" | "standalone"

/** The application that the agent configures and restarts: table `[app]`. */
export interface ApplicationConfig {
  readonly serviceType: ServiceType
  /** Name of the service; of the executable for `standalone`. Never looks like an option or a path. */
  readonly serviceName: string
  /** Absolute directory of `app.conf`. */
  readonly storage: string
  /** Whether the agent starts a `standalone` application again that has ended by itself. */
  readonly restart: "always" | "never"
}

/** An application that gets its secrets from outside before it runs: table `[bootstrap]`. */
export interface BootstrapConfig {
  /** Port of the interface that takes them in, closed again when the application runs. */
  readonly port: number
  /** Names of the values that the application needs. Empty: any are taken. */
  readonly values: readonly string[]
  /** Absolute directory of the values, a file each. It exists once the application was given them. */
  readonly directory: string
  /** A `standalone` application gets them as environment variables, too. */
  readonly environment: boolean
  /** Absolute directory of `cert.pem` and `key.pem`, where a certificate is asked for. */
  readonly certificateDirectory: string
  /** Absolute directory of what is kept to renew it: `certtool` calls it a workspace. */
  readonly acmeWorkspace: string
}

/** `agent.toml`, with all paths absolute and all defaults filled in. */
export interface AgentConfig {
  /** File it was read from, for messages. */
  readonly file: string
  readonly host: string
  /** TCP port; 0 takes a free one. */
  readonly port: number
  readonly certificate: string
  readonly privateKey: string
  /** `ratls`: the certificate is the agent's own work, with evidence of the TEE in it. */
  readonly tls: "certificate" | "ratls"
  /** `derived`: the TLS key comes from the TEE's secret and the measurement, and is the same at each start. */
  readonly tlsKey: "random" | "derived"
  /** TCTI of the TPM (`device:/dev/tpmrm0`, `swtpm:host=…`). Null: `tpm_device = "none"`. Undefined: not said, so looked for. */
  readonly tpm: string | null | undefined
  readonly application: ApplicationConfig | null
  /** Null: the application is not bootstrapped. */
  readonly bootstrap: BootstrapConfig | null
  readonly auth: {
    /** SHA-256 of the accepted tokens, 32 bytes each. Empty: no credentials configured. */
    readonly tokens: readonly Uint8Array[]
    /** Ed25519 public keys whose signature makes a request an owner's. */
    readonly ownerKeys: readonly KeyObject[]
    /** The first to ask may become owner while there is none. */
    readonly firstOwner: boolean
    /** File of the key that claimed the VM. */
    readonly ownerFile: string
    /** A port of its own on which clients have to present a certificate of this authority (PEM file). Null: none. */
    readonly clients: { readonly ca: string; readonly port: number } | null
    /** The behaviour of Cosmian VM 1.3: everybody may write. */
    readonly openWrites: boolean
  }
  readonly snapshot: {
    readonly root: string
    /** Path prefixes that are left out, each ending in `/`. */
    readonly exclude: readonly string[]
    /** Whether package managers' databases are read. */
    readonly packages: boolean
  }
  readonly storage: StorageConfig
  readonly limits: Limits
  /** Directory for the agent's own temporary files. */
  readonly temporary: string
  /** Settings that were accepted and have no effect. */
  readonly warnings: readonly string[]
}

/** Table `[storage]`: the encrypted volume that the agent's own files are in. */
export interface StorageConfig {
  /**
   * `required`: the agent does not start without it. `when-possible`: it does on a machine that cannot have one. `off`: none
   * is made, and none is missed.
   */
  readonly encrypted: (typeof ENCRYPTED)[number]
  /** Bytes of the container, when it is made. */
  readonly sizeBytes: number
  /** Whether the password that it is made with is kept inside, readable by root. */
  readonly keepPassword: boolean
  /** PCRs that the TPM opens it under, when it is made; none: any boot. */
  readonly pcrs: readonly number[]
}

const ENCRYPTED = ["required", "when-possible", "off"] as const

/** Table `[limits]`. */
export interface Limits {
  /** Largest request body, in bytes. */
  readonly bodyBytes: number
  /** A connection on which nothing moves is closed after this many seconds. */
  readonly idleSeconds: number
  /** Evidence, quote and list requests answered at the same time. */
  readonly concurrent: number
  /** Such requests that may wait, in all and for one client address. */
  readonly waiting: number
  readonly waitingPerClient: number
  /** Snapshots that may be started in quick succession, and the seconds after which one more is allowed. */
  readonly snapshotBurst: number
  readonly snapshotSeconds: number
  /** How long a stopping agent waits for requests in flight, in seconds. */
  readonly drainSeconds: number
}

const LIMITS: { readonly [K in keyof Limits]: readonly [key: string, fallback: number, max: number] } = {
  bodyBytes: ["body_bytes", 1024 * 1024, 64 * 1024 * 1024],
  idleSeconds: ["idle_seconds", 30, 255],
  concurrent: ["concurrent", 2, 64],
  waiting: ["waiting", 128, 10_000],
  waitingPerClient: ["waiting_per_client", 16, 10_000],
  snapshotBurst: ["snapshot_burst", 4, 1000],
  snapshotSeconds: ["snapshot_seconds", 15, 86_400],
  drainSeconds: ["drain_seconds", 10, 300],
}

/**
 * Reads the text of `agent.toml`.
 * Settings of Cosmian VM 1.3 are understood; unknown ones in its tables are accepted with a warning. In our own tables
 * (`auth`, `snapshot`, `storage`, `limits`) an unknown setting is an error, because a misspelt restriction must not be ignored.
 * @param file name for messages.
 * @param base directory where relative paths start.
 * @throws UsageError ERR_CONFIG with line and key.
 */
export function parseAgentConfig(text: string, file: string, base: string = STATE_DIRECTORY): AgentConfig {
  const root = new Table(readToml(text, file), [], { text, file, warnings: [] })
  const agent = root.table("agent")
  const auth = root.table("auth")
  const snapshot = root.table("snapshot")
  const storage = root.table("storage")
  const limits = root.table("limits")
  const config: AgentConfig = {
    file,
    host: hostOf(agent),
    port: agent.integer("port", 5555, 0, 65_535),
    certificate: pathOf(agent, "ssl_certificate", base) ?? join(base, "data/cert.pem"),
    privateKey: pathOf(agent, "ssl_private_key", base) ?? join(base, "data/key.pem"),
    tls: choiceOf(agent, "tls", ["certificate", "ratls"]),
    tlsKey: choiceOf(agent, "tls_key", ["random", "derived"]),
    tpm: tpmOf(agent),
    application: applicationOf(root, base),
    bootstrap: bootstrapOf(root, base),
    auth: authOf(auth, base),
    snapshot: snapshotOf(snapshot),
    storage: storageOf(storage),
    limits: limitsOf(limits),
    temporary: join(base, "tmp"),
    warnings: root.shared.warnings,
  }
  agent.unknownKeys("warn")
  root.unknownKeys("warn")
  for (const table of [auth, snapshot, storage, limits]) table.unknownKeys("refuse")
  return config
}

/** What an agent without a configuration file runs with. */
export function defaultAgentConfig(base: string = STATE_DIRECTORY): AgentConfig {
  return parseAgentConfig("", "built-in defaults", base)
}

/** What `--bootstrap` means where the file has no table for it. */
export function defaultBootstrap(base: string = STATE_DIRECTORY): BootstrapConfig {
  return {
    port: 5557,
    values: [],
    directory: join(base, "tmp/bootstrap"),
    environment: false,
    certificateDirectory: join(base, "data/certificate"),
    acmeWorkspace: join(base, "data/acme"),
  }
}

function readToml(text: string, file: string): Record<string, unknown> {
  try {
    return parse(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const reason = error.message.split("\n")[0]?.replace("Invalid TOML document: ", "") ?? "not TOML"
    throw new UsageError("ERR_CONFIG", {
      at: `${file}:${error.line}:${error.column}`,
      expected: "TOML",
      found: reason,
    })
  }
}

function hostOf(agent: Table): string {
  const host = agent.string("host") ?? "127.0.0.1"
  if (isIP(host) !== 0 || /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(host)) return host
  throw agent.fault("host", "an IP address or host name", JSON.stringify(host))
}

function pathOf(table: Table, key: string, base: string): string | null {
  const value = table.string(key)
  if (value === undefined) return null
  if (value === "" || value.includes("\0")) throw table.fault(key, "a path", JSON.stringify(value))
  if (value.split("/").includes("..")) throw table.fault(key, "a path without ..", JSON.stringify(value))
  return normalize(isAbsolute(value) ? value : join(base, value))
}

/** One of two words; the first where nothing is said. */
function choiceOf<const T extends string>(table: Table, key: string, words: readonly [T, T]): T {
  const value = table.string(key) ?? words[0]
  const word = words.find((known) => known === value)
  if (word !== undefined) return word
  throw table.fault(key, words.join(" or "), JSON.stringify(value))
}

function tpmOf(agent: Table): string | null | undefined {
  const value = agent.string("tpm_device")
  if (value === undefined) return undefined
  if (value === "none") return null
  if (isAbsolute(value)) return `device:${value}`
  if (/^[a-z]+:/.test(value)) return value
  throw agent.fault(
    "tpm_device",
    'a device such as /dev/tpmrm0, a TCTI such as swtpm:port=2321, or "none"',
    value,
  )
}

function applicationOf(root: Table, base: string): ApplicationConfig | null {
  if (!root.has("app")) return null
  const app = root.table("app")
  const serviceType = app.required("service_type")
  if (serviceType !== "systemd" && serviceType !== "supervisor" && serviceType !== "standalone")
    throw app.fault("service_type", "systemd, supervisor or standalone", JSON.stringify(serviceType))
  const serviceName = app.required("service_name")
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.@:-]*$/.test(serviceName))
    throw app.fault(
      "service_name",
      "a name of letters, digits and _.@:- that begins with a letter, digit or _",
      JSON.stringify(serviceName),
    )
  app.required("app_storage")
  const storage = pathOf(app, "app_storage", base) ?? base
  const restart = app.string("restart") ?? "always"
  if (restart !== "always" && restart !== "never")
    throw app.fault("restart", "always or never", JSON.stringify(restart))
  app.unknownKeys("warn")
  return { serviceType, serviceName, storage, restart }
}

function bootstrapOf(root: Table, base: string): BootstrapConfig | null {
  if (!root.has("bootstrap")) return null
  if (!root.has("app"))
    throw root.fault("bootstrap", "a table [app] that says which application is meant", "none")
  const table = root.table("bootstrap")
  const values = table.strings("values", [])
  const wrong = values.find((name) => !isProvisionName(name))
  if (wrong !== undefined) throw table.fault("values", `names: ${PROVISION_NAME_RULE}`, JSON.stringify(wrong))
  const usual = defaultBootstrap(base)
  const config = {
    port: table.integer("port", usual.port, 0, 65_535),
    values,
    directory: pathOf(table, "directory", base) ?? usual.directory,
    environment: table.boolean("environment", usual.environment),
    certificateDirectory: pathOf(table, "certificate_directory", base) ?? usual.certificateDirectory,
    acmeWorkspace: usual.acmeWorkspace,
  }
  table.unknownKeys("refuse")
  return config
}

function authOf(auth: Table, base: string): AgentConfig["auth"] {
  const ca = pathOf(auth, "client_ca", base)
  if (ca === null && auth.has("client_port"))
    throw auth.fault("client_port", "client_ca beside it", "a port without an authority")
  return {
    tokens: tokensOf(auth),
    ownerKeys: ownerKeysOf(auth),
    firstOwner: auth.boolean("first_owner", false),
    ownerFile: join(base, "data/owner.pem"),
    clients: ca === null ? null : { ca, port: auth.integer("client_port", 5556, 0, 65_535) },
    openWrites: auth.boolean("open_writes", false),
  }
}

function ownerKeysOf(auth: Table): KeyObject[] {
  const texts = auth.strings("owner_keys", [])
  const expected = `at most ${MAX_OWNERS} Ed25519 public keys, each the base64 text of its PEM file (cosmian_vm owner key prints it)`
  if (texts.length > MAX_OWNERS) throw auth.fault("owner_keys", expected, `${texts.length}`)
  return texts.map((text) => {
    const der = fromBase64(text)
    if (der === null) throw auth.fault("owner_keys", expected, JSON.stringify(text.slice(0, 80)))
    try {
      return publicKeyOfDer(der)
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      throw auth.fault("owner_keys", expected, error.found ?? "something else")
    }
  })
}

function tokensOf(auth: Table): Uint8Array[] {
  return auth.strings("tokens", []).map((text) => {
    const bytes = fromHex(text.replace(/^sha256:/, ""))
    if (bytes?.length === 32) return bytes
    // The text is not repeated: it may be a token in clear.
    throw auth.fault("tokens", "SHA-256 of tokens, 64 hexadecimal digits each", "something else", {
      hint: 'printf %s "$TOKEN" | sha256sum; the token itself never belongs in this file',
    })
  })
}

function snapshotOf(snapshot: Table): AgentConfig["snapshot"] {
  const text = snapshot.string("root") ?? "/"
  if (!isAbsolute(text)) throw snapshot.fault("root", "an absolute path", JSON.stringify(text))
  const root = normalize(`${text}/`).replace(/(?<=.)\/$/, "")
  const exclude = snapshot.strings("exclude", DEFAULT_EXCLUDE).map((prefix) => {
    if (!isAbsolute(prefix)) throw snapshot.fault("exclude", "absolute paths", JSON.stringify(prefix))
    return normalize(`${prefix}/`)
  })
  const excluding = exclude.find((prefix) => `${root}/`.startsWith(prefix))
  if (excluding !== undefined)
    throw snapshot.fault(
      "root",
      "a directory that is not left out",
      `${root}, left out by exclude ${excluding}`,
    )
  return { root, exclude, packages: snapshot.boolean("packages", true) }
}

function storageOf(storage: Table): StorageConfig {
  const encrypted = storage.string("encrypted") ?? "required"
  const known = ENCRYPTED.find((each) => each === encrypted)
  if (known === undefined) throw storage.fault("encrypted", ENCRYPTED.join(", "), JSON.stringify(encrypted))
  return {
    encrypted: known,
    sizeBytes: sizeOf(storage, "size", "500MB"),
    keepPassword: storage.boolean("keep_password", true),
    pcrs: storage.integers("pcrs", 0, 23),
  }
}

function sizeOf(table: Table, key: string, fallback: string): number {
  const text = table.string(key) ?? fallback
  try {
    return parseDataSize(text, key)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    throw table.fault(key, error.expected ?? "a size", JSON.stringify(text))
  }
}

function limitsOf(table: Table): Limits {
  const read = (name: keyof Limits) => {
    const [key, fallback, max] = LIMITS[name]
    return table.integer(key, fallback, 1, max)
  }
  return {
    bodyBytes: read("bodyBytes"),
    idleSeconds: read("idleSeconds"),
    concurrent: read("concurrent"),
    waiting: read("waiting"),
    waitingPerClient: read("waitingPerClient"),
    snapshotBurst: read("snapshotBurst"),
    snapshotSeconds: read("snapshotSeconds"),
    drainSeconds: read("drainSeconds"),
  }
}

interface Shared {
  readonly text: string
  readonly file: string
  readonly warnings: string[]
}

/** One table of the file. Remembers which keys were asked for, so that the others can be named. */
class Table {
  readonly shared: Shared
  readonly #values: Record<string, unknown>
  readonly #path: readonly string[]
  readonly #known = new Set<string>()

  constructor(values: Record<string, unknown>, path: readonly string[], shared: Shared) {
    this.#values = values
    this.#path = path
    this.shared = shared
  }

  has(key: string): boolean {
    this.#known.add(key)
    return Object.hasOwn(this.#values, key)
  }

  /** The table of that name; an empty one where it is absent. */
  table(key: string): Table {
    const value = this.has(key) ? this.#values[key] : {}
    if (!isTable(value)) throw this.fault(key, "a table", kindOf(value))
    return new Table(value, [...this.#path, key], this.shared)
  }

  string(key: string): string | undefined {
    if (!this.has(key)) return undefined
    const value = this.#values[key]
    if (typeof value !== "string") throw this.fault(key, "a string", kindOf(value))
    return value
  }

  required(key: string): string {
    const value = this.string(key)
    if (value === undefined || value === "") throw this.fault(key, "a value", "none")
    return value
  }

  strings(key: string, fallback: readonly string[]): readonly string[] {
    if (!this.has(key)) return fallback
    const value = this.#values[key]
    if (!Array.isArray(value)) throw this.fault(key, "an array of strings", kindOf(value))
    return value.map((item: unknown) => {
      if (typeof item !== "string") throw this.fault(key, "an array of strings", `a ${kindOf(item)} in it`)
      return item
    })
  }

  /** Each once, ascending; none where it is absent. */
  integers(key: string, min: number, max: number): number[] {
    const value = this.has(key) ? this.#values[key] : []
    const fits = (item: unknown): item is number =>
      typeof item === "number" && Number.isInteger(item) && item >= min && item <= max
    if (!Array.isArray(value) || !value.every(fits))
      throw this.fault(key, `an array of integers from ${min} to ${max}`, JSON.stringify(value))
    return [...new Set(value)].sort((a, b) => a - b)
  }

  integer(key: string, fallback: number, min: number, max: number): number {
    if (!this.has(key)) return fallback
    const value = this.#values[key]
    if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) return value
    const found = typeof value === "number" ? String(value) : kindOf(value)
    throw this.fault(key, `an integer from ${min} to ${max}`, found)
  }

  boolean(key: string, fallback: boolean): boolean {
    if (!this.has(key)) return fallback
    const value = this.#values[key]
    if (typeof value !== "boolean") throw this.fault(key, "true or false", kindOf(value))
    return value
  }

  unknownKeys(reaction: "warn" | "refuse"): void {
    for (const key of Object.keys(this.#values)) {
      if (this.#known.has(key)) continue
      if (reaction === "refuse")
        throw this.fault(key, `one of ${[...this.#known].join(", ")}`, `the unknown setting ${key}`)
      this.shared.warnings.push(`${this.#place(key)}: unknown setting, ignored`)
    }
  }

  fault(key: string, expected: string, found: string, more: { hint?: string } = {}): UsageError {
    return new UsageError("ERR_CONFIG", { at: this.#place(key), expected, found, ...more })
  }

  #place(key: string): string {
    const { text, file } = this.shared
    const name = [...this.#path, key].join(".")
    const line = lineOfKey(text, this.#path, key)
    return line === null ? `${file}: ${name}` : `${file}:${line}: ${name}`
  }
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

function kindOf(value: unknown): string {
  return Array.isArray(value) ? "array" : value instanceof Date ? "date" : typeof value
}
