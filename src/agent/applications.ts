import { existsSync, linkSync, lstatSync, renameSync, rmSync, type Stats } from "node:fs"
import { dirname, join } from "node:path"
import { AgentError, CodedError } from "../errors.ts"
import { flushDirectory, makePrivateDirectory, writeFileAtomically } from "./atomic-file.ts"
import { errorFields, type Log } from "./log.ts"
import { type Service, type ServiceState, type SettleOptions, settle } from "./services.ts"

/** The configured application. One change at a time. */
export interface Applications {
  /**
   * Gives the application its configuration and restarts it; where it does not come up, the former configuration is put
   * back and the application restarted with that.
   * @throws AgentError ERR_APPLICATION_STORAGE, ERR_APPLICATION_BUSY, ERR_SERVICE, ERR_IO.
   */
  init(content: Uint8Array): Promise<void>
  /** Restarts the application. @throws AgentError ERR_APPLICATION_BUSY, ERR_SERVICE. */
  restart(): Promise<void>
  /** Stops the application. @throws AgentError ERR_APPLICATION_BUSY, ERR_SERVICE. */
  stop(): Promise<void>
  /** What it does now, and whether it has a configuration. @throws AgentError ERR_SERVICE. */
  status(): Promise<ApplicationStatus>
  /** The last lines of its log, oldest first. @throws AgentError ERR_SERVICE. */
  logs(lines: number): Promise<readonly string[]>
  /** Completes what a crash of the agent left: a configuration that was never seen to work is taken back. */
  recover(): Promise<void>
}

export interface ApplicationStatus {
  readonly service: string
  readonly state: ServiceState
  /** Whether `app init` has given it a configuration. */
  readonly configured: boolean
  /** A change is under way. */
  readonly busy: boolean
}

export interface ApplicationOptions {
  readonly storage: string
  readonly service: Service
  readonly log: Log
  readonly settle?: SettleOptions
  /** As AgentOptions has it. */
  readonly guard: ((path: string) => void) | null
}

const SETTLE: SettleOptions = { steadyMs: 2000, deadlineMs: 60_000, pollMs: 250 }

export function createApplications(options: ApplicationOptions): Applications {
  return new ConfiguredApplication(options)
}

class ConfiguredApplication implements Applications {
  readonly #options: ApplicationOptions
  readonly #file: string
  /** The former configuration, for as long as the new one has not been seen to work. */
  readonly #previous: string
  #busy = false

  constructor(options: ApplicationOptions) {
    this.#options = options
    this.#file = join(options.storage, "app.conf")
    this.#previous = join(options.storage, "app.conf.previous")
  }

  init(content: Uint8Array): Promise<void> {
    return this.#alone(async () => {
      const { storage, log, guard } = this.#options
      guard?.(this.#file)
      prepareStorage(storage)
      refuseUnsafeFile(this.#file)
      const replaced = existsSync(this.#file)
      this.#keepPrevious(replaced)
      try {
        writeFileAtomically(this.#file, content, 0o600)
      } catch (error) {
        rmSync(this.#previous, { force: true })
        throw error
      }
      log.info("application configuration written", { file: this.#file, bytes: content.length })
      try {
        await this.#restartService()
      } catch (error) {
        await this.#takeBack(replaced)
        throw error
      }
      rmSync(this.#previous, { force: true })
      flushDirectory(storage)
    })
  }

  restart(): Promise<void> {
    return this.#alone(() => this.#restartService())
  }

  stop(): Promise<void> {
    return this.#alone(async () => {
      const { service, log } = this.#options
      await service.stop()
      log.info("application stopped", { service: service.name })
    })
  }

  async status(): Promise<ApplicationStatus> {
    const { service } = this.#options
    const state = await service.state()
    return { service: service.name, state, configured: existsSync(this.#file), busy: this.#busy }
  }

  logs(lines: number): Promise<readonly string[]> {
    return this.#options.service.logs(lines)
  }

  recover(): Promise<void> {
    return this.#alone(async () => {
      if (!existsSync(this.#previous)) return
      this.#options.log.warn("a change of the application's configuration was cut short and is taken back", {
        file: this.#file,
      })
      prepareStorage(this.#options.storage)
      await this.#takeBack(true)
    })
  }

  async #restartService(): Promise<void> {
    const { service, log } = this.#options
    await service.restart()
    await settle(service, this.#options.settle ?? SETTLE)
    log.info("application restarted", { service: service.name })
  }

  /** A second name for the present file: at no moment is there no configuration. */
  #keepPrevious(replaced: boolean): void {
    rmSync(this.#previous, { force: true })
    if (replaced) linkSync(this.#file, this.#previous)
  }

  /** Puts the former configuration back; without one, the application is stopped. The failure that led here is the one that is reported, so a second one is logged. */
  async #takeBack(replaced: boolean): Promise<void> {
    const { storage, log } = this.#options
    if (replaced) renameSync(this.#previous, this.#file)
    else rmSync(this.#file, { force: true })
    // A rename between two names of one file does nothing, as after a crash before anything was written.
    rmSync(this.#previous, { force: true })
    flushDirectory(storage)
    try {
      if (replaced) await this.#restartService()
      else await this.#options.service.stop()
    } catch (error) {
      const what = replaced ? "come up with its former configuration either" : "stop"
      log.error(`the application does not ${what}`, errorFields(error))
    }
  }

  async #alone(task: () => Promise<void>): Promise<void> {
    if (this.#busy)
      throw new AgentError("ERR_APPLICATION_BUSY", {
        at: this.#options.service.name,
        hint: "ask again when it is done",
      })
    this.#busy = true
    try {
      await task()
    } catch (error) {
      throw error instanceof CodedError ? error : ioError(this.#file, error)
    } finally {
      this.#busy = false
    }
  }
}

/** Makes the storage directory, and refuses one in which somebody else could exchange files. */
function prepareStorage(storage: string): void {
  if (lstatSync(storage, { throwIfNoEntry: false }) === undefined) makePrivateDirectory(storage)
  const own = lstatSync(storage)
  if (own.isSymbolicLink()) throw unsafe(storage, "a directory", "a symbolic link")
  if (!own.isDirectory()) throw unsafe(storage, "a directory", "something else")
  if (isWritableByOthers(own))
    throw unsafe(storage, "a directory that only its owner may write to", modeOf(own))
  if (own.uid !== process.getuid?.())
    throw unsafe(storage, "a directory of the agent's user", `user ${own.uid}`)
  for (let path = dirname(storage); ; path = dirname(path)) {
    const stat = lstatSync(path)
    // In a sticky directory, like /tmp, only the owner can exchange an entry.
    const sticky = (stat.mode & 0o1000) !== 0
    if (isWritableByOthers(stat) && !sticky && !stat.isSymbolicLink())
      throw unsafe(path, "a directory that only its owner may write to", modeOf(stat))
    if (path === "/") return
  }
}

function refuseUnsafeFile(file: string): void {
  const stat = lstatSync(file, { throwIfNoEntry: false })
  if (stat === undefined || stat.isFile()) return
  throw unsafe(file, "a regular file or none", stat.isSymbolicLink() ? "a symbolic link" : "something else")
}

function isWritableByOthers(stat: Stats): boolean {
  return (stat.mode & 0o022) !== 0
}

function modeOf(stat: Stats): string {
  return `mode ${(stat.mode & 0o7777).toString(8)}`
}

function unsafe(at: string, expected: string, found: string): AgentError<"ERR_APPLICATION_STORAGE"> {
  return new AgentError("ERR_APPLICATION_STORAGE", { at, expected, found })
}

/** What the system says about a file that could not be written. The content is not repeated. */
function ioError(at: string, cause: unknown): AgentError<"ERR_IO"> {
  const found = cause instanceof Error && "code" in cause ? String(cause.code) : "an error"
  return new AgentError("ERR_IO", { at, found, cause })
}
