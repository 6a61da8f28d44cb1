import { createHash } from "node:crypto"
import { readdirSync, readFileSync, realpathSync, statSync } from "node:fs"
import { join } from "node:path"
import { parentPort, workerData } from "node:worker_threads"
import { parseDiversions, parseDpkgStatus, parseFileList } from "../formats/deb/dpkg-database.ts"
import { pathToText } from "../formats/path-text.ts"
import { CHILD_ENVIRONMENT } from "../programs.ts"
import { hashFile, systemCode } from "./hash-file.ts"
import { findProgram } from "./run-command.ts"
import { systemPath } from "./walk.ts"

/** `workerData` of the worker that reads the package managers' databases. */
export interface PackageWorkerData {
  readonly role: "packages"
  readonly root: string
  /** Path prefixes whose files are in no snapshot, each ending in `/`. */
  readonly exclude: readonly string[]
  /** Name of the hash for node:crypto. */
  readonly algorithm: string
}

export interface PackageAnswer {
  /** JSON objects joined by commas, compressed by zstd; null: this is the end. */
  readonly block: Uint8Array | null
  /** At the end: files that were read and are not part of the tree, with their digests in hex. */
  readonly read: readonly (readonly [path: string, digest: string])[]
  /** At the end: why packages are missing; null where nothing is. */
  readonly fault: string | null
}

/** Text of a block before it is compressed, in characters. */
const BLOCK = 256 * 1024
const RPM_DEADLINE_MS = 150_000
const DPKG = "/var/lib/dpkg"
const RPM = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"] as const
const RPM_DATABASES = ["rpmdb.sqlite", "Packages.db", "Packages"] as const
/** A line for each package, then a line for each of its files. Source: RPM 4.18, rpm-queryformat(7). */
const RPM_FORMAT = "P\\t%{NAME}\\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\n[%{FILENAMES}\\n]"

/** Reads all databases there are, and answers in blocks. */
export async function runPackageWorker(): Promise<void> {
  const data: PackageWorkerData = workerData
  const reader = new PackageDatabases(data, (block) => post({ block, read: [], fault: null }))
  let fault: string | null = null
  try {
    await reader.read()
  } catch (error) {
    fault = error instanceof Error ? error.message : String(error)
  }
  post({ block: null, read: reader.filesRead, fault })
}

function post(answer: PackageAnswer): void {
  parentPort?.postMessage(answer)
}

class PackageDatabases {
  readonly filesRead: [string, string][] = []
  readonly #data: PackageWorkerData
  readonly #onBlock: (block: Uint8Array) => void
  /** What directories are really called: `/bin` is `/usr/bin` on most systems by now. */
  readonly #directories = new Map<string, string>()
  #pending: string[] = []
  #size = 0

  constructor(data: PackageWorkerData, onBlock: (block: Uint8Array) => void) {
    this.#data = data
    this.#onBlock = onBlock
  }

  async read(): Promise<void> {
    const dpkg = this.#place(DPKG, ["status"])
    if (dpkg !== null) this.#readDpkg(dpkg)
    for (const directory of RPM) {
      const rpm = this.#place(directory, RPM_DATABASES)
      if (rpm === null) continue
      await this.#readRpm(rpm)
      break
    }
    this.#flush()
  }

  /** The directory of a database below the root that is hashed; null where there is none. */
  #place(directory: string, files: readonly string[]): string | null {
    const place = join(this.#data.root, directory)
    return files.some((name) => isFile(join(place, name))) ? place : null
  }

  #readDpkg(directory: string): void {
    const diversions = parseDiversions(this.#textOrNothing(join(directory, "diversions")))
    const status = parseDpkgStatus(this.#textOrNothing(join(directory, "status")))
    for (const { name, version, architecture, listName } of status) {
      const list = this.#textOrNothing(join(directory, "info", `${listName}.list`))
      const files = parseFileList(list, name, diversions)
      this.#add({ manager: "dpkg", name, version, architecture }, files)
    }
  }

  async #readRpm(directory: string): Promise<void> {
    this.#remember(directory)
    const child = Bun.spawn([findProgram("rpm"), "--dbpath", directory, "-qa", "--qf", RPM_FORMAT], {
      cwd: "/",
      env: CHILD_ENVIRONMENT,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
      timeout: RPM_DEADLINE_MS,
      killSignal: "SIGKILL",
    })
    let header: readonly string[] | null = null
    let files: string[] = []
    const end = () => {
      const [, name = "", version = "", architecture = ""] = header ?? []
      // Keys of vendors are entered as packages without files.
      if (name !== "" && name !== "gpg-pubkey")
        this.#add({ manager: "rpm", name, version, architecture }, files)
      files = []
    }
    for await (const line of linesOf(child.stdout)) {
      if (line.startsWith("P\t")) {
        end()
        header = line.split("\t")
      } else if (line.startsWith("/")) files.push(line)
    }
    end()
    if ((await child.exited) !== 0) throw new Error(`rpm -qa ended with ${child.exitCode}`)
  }

  /** The files of the database, whose names are those of the manager: a query may have read all of them. */
  #remember(directory: string): void {
    const buffer = new Uint8Array(1024 * 1024)
    const progress = { cancelled: () => false, read: () => undefined }
    for (const name of readdirSync(directory)) {
      const path = join(directory, name)
      const digest = this.#inTree(path) ? null : hashFile(path, this.#data.algorithm, buffer, progress)
      if (digest !== null) this.filesRead.push([path, digest])
    }
  }

  #add(one: Readonly<Record<string, string>>, files: readonly string[]): void {
    const prefix = this.#data.root === "/" ? "" : this.#data.root
    const places = files.map((path) => this.#really(prefix + path)).filter((path) => this.#inTree(path))
    const text = JSON.stringify({ ...one, files: places })
    this.#pending.push(text)
    this.#size += text.length
    if (this.#size >= BLOCK) this.#flush()
  }

  #flush(): void {
    if (this.#pending.length === 0) return
    this.#onBlock(Bun.zstdCompressSync(this.#pending.join(","), { level: 1 }))
    this.#pending = []
    this.#size = 0
  }

  #really(path: string): string {
    const end = path.lastIndexOf("/")
    const directory = path.slice(0, end)
    let real = this.#directories.get(directory)
    if (real === undefined) {
      real = realDirectory(directory === "" ? "/" : directory)
      this.#directories.set(directory, real)
    }
    return real === "/" ? path.slice(end) : real + path.slice(end)
  }

  #inTree(path: string): boolean {
    const { root, exclude } = this.#data
    return (root === "/" || path.startsWith(`${root}/`)) && !exclude.some((prefix) => path.startsWith(prefix))
  }

  #textOrNothing(path: string): string {
    const content = this.#content(path)
    return content === null ? "" : pathToText(content)
  }

  /**
   * Content of a file; null where there is none. What is read here is measured by IMA policies that measure what root reads, and so
   * has to be in the snapshot too.
   */
  #content(path: string): Uint8Array | null {
    try {
      const content = readFileSync(path)
      if (!this.#inTree(path))
        this.filesRead.push([path, createHash(this.#data.algorithm).update(content).digest("hex")])
      return content
    } catch (error) {
      if (systemCode(error) === "ENOENT") return null
      throw error
    }
  }
}

/** A directory that is gone keeps its name. */
function realDirectory(path: string): string {
  try {
    return pathToText(realpathSync(systemPath(path), { encoding: "buffer" }))
  } catch {
    return path
  }
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest: Uint8Array = new Uint8Array(0)
  for await (const chunk of stream) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    const end = bytes.lastIndexOf(0x0a) + 1
    rest = bytes.slice(end)
    yield* pathToText(bytes.subarray(0, end)).split("\n")
  }
  if (rest.length > 0) yield pathToText(rest)
}
