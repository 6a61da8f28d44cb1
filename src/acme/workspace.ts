import { createHash } from "node:crypto"
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs"
import { basename, dirname, join } from "node:path"
import { AcmeError } from "../errors.ts"
import { type CertificateSettings, type CertificateState, encodeSettings, parseSettings } from "./settings.ts"

/** How files come about that survive a power cut whole. */
export interface DurableFiles {
  /** Old content or new, never a part. */
  write(path: string, content: string, mode: number): void
  /** Makes renames in a directory survive. */
  flush(directory: string): void
  /** Keeps others out of a directory until the returned function is called, or the process ends; null: somebody else is there. */
  lock(directory: string): Promise<(() => void) | null>
}

/** A certificate chain and its key, PEM. */
export interface Pair {
  readonly chainPem: string
  readonly keyPem: string
}

/** An issue that was begun: its key and what it is for, so that a later run goes on with it. */
export interface Pending {
  /** What was asked for, as one text. */
  readonly purpose: string
  readonly keyPem: string
  /** Null: no order was made yet. */
  readonly orderUrl: string | null
}

const CERTIFICATE = "cert.pem"
const KEY = "key.pem"
const SETTINGS = "certificate.json"
const ACCOUNTS = "accounts"

/**
 * Everything about certificates on disk:
 *
 *     accounts/HASH/{key.pem,account.json}     one account per authority
 *     NAME/certificate.json                    how to renew
 *     NAME/current -> versions/N               the pair in use; changed by one rename
 *     NAME/versions/N/{cert.pem,key.pem}
 *     NAME/pending/…                           an issue under way
 *
 * Directories are for their owner alone, keys have mode 0600, and a key is nowhere else.
 */
export class Workspace {
  readonly root: string
  readonly #files: DurableFiles

  constructor(root: string, files: DurableFiles) {
    this.root = root
    this.#files = files
  }

  /** Names of the certificates that were issued, sorted. */
  names(): string[] {
    if (!existsSync(this.root)) return []
    return readdirSync(this.root)
      .filter((name) => existsSync(join(this.root, name, SETTINGS)))
      .sort()
  }

  /** Nothing is made before the folder is locked. */
  folder(name: string): CertificateFolder {
    return new CertificateFolder(join(this.root, name), this.#files)
  }

  /** The account's files for one authority. */
  account(directory: string): AccountFiles {
    const hash = createHash("sha256").update(directory).digest("hex").slice(0, 16)
    return new AccountFiles(join(this.root, ACCOUNTS, hash), directory, this.#files)
  }
}

export class AccountFiles {
  readonly path: string
  readonly #directory: string
  readonly #files: DurableFiles

  constructor(path: string, directory: string, files: DurableFiles) {
    this.path = path
    this.#directory = directory
    this.#files = files
  }

  /** Null: there is none yet. */
  key(): string | null {
    return readOptional(join(this.path, KEY))
  }

  /** Null: not registered. @throws AcmeError ERR_ACME_WORKSPACE */
  url(): string | null {
    const file = join(this.path, "account.json")
    const text = readOptional(file)
    return text === null ? null : memberOf(text, "url", file)
  }

  /** Written before the account is registered, so that a run that was cut short finds its account again. */
  saveKey(keyPem: string): void {
    requireOwn(dirname(this.path))
    requireOwn(this.path)
    this.#files.write(join(this.path, KEY), keyPem, 0o600)
  }

  saveUrl(url: string): void {
    const text = `${JSON.stringify({ directory: this.#directory, url }, null, 2)}\n`
    this.#files.write(join(this.path, "account.json"), text, 0o600)
  }
}

/** One certificate's directory in the workspace. */
export class CertificateFolder {
  readonly path: string
  readonly #files: DurableFiles

  constructor(path: string, files: DurableFiles) {
    this.path = path
    this.#files = files
  }

  get name(): string {
    return basename(this.path)
  }

  get certificateFile(): string {
    return join(this.path, "current", CERTIFICATE)
  }

  get keyFile(): string {
    return join(this.path, "current", KEY)
  }

  /**
   * Keeps other processes away from this certificate until the returned function is called, or the process ends however it does.
   * @throws AcmeError ERR_ACME_BUSY
   */
  async lock(): Promise<() => void> {
    requireTrusted(dirname(this.path))
    requireOwn(this.path)
    const release = await this.#files.lock(this.path)
    if (release !== null) return release
    throw new AcmeError("ERR_ACME_BUSY", {
      at: this.path,
      expected: "nobody else at work",
      found: "another certtool",
      hint: "wait for it to end: systemctl status cosmian_vm_certtool shows the one of the timer",
    })
  }

  /** Null: nothing was issued yet. @throws AcmeError ERR_ACME_WORKSPACE */
  settings(): [CertificateSettings, CertificateState] | null {
    const file = join(this.path, SETTINGS)
    const text = readOptional(file)
    return text === null ? null : parseSettings(Buffer.from(text), file)
  }

  save(settings: CertificateSettings, state: CertificateState): void {
    this.#files.write(join(this.path, SETTINGS), encodeSettings(settings, state), 0o600)
  }

  /** The pair in use; null where there is none. */
  current(): Pair | null {
    const chainPem = readOptional(this.certificateFile)
    const keyPem = readOptional(this.keyFile)
    return chainPem === null || keyPem === null ? null : { chainPem, keyPem }
  }

  /** What a run that did not come to its end left behind. */
  pending(): Pending | null {
    const directory = this.#pending
    const purpose = readOptional(join(directory, "purpose"))
    const keyPem = readOptional(join(directory, KEY))
    if (purpose === null || keyPem === null) return null
    return { purpose, keyPem, orderUrl: readOptional(join(directory, "order")) }
  }

  /** The purpose is written last: a key without one is not gone on with. */
  begin(purpose: string, keyPem: string): void {
    this.abandon()
    mkdirSync(this.#pending, { recursive: true, mode: 0o700 })
    this.#files.write(join(this.#pending, KEY), keyPem, 0o600)
    this.#files.write(join(this.#pending, "purpose"), purpose, 0o600)
  }

  /** Null: the order cannot be gone on with; the key can. */
  saveOrder(url: string | null): void {
    const file = join(this.#pending, "order")
    if (url === null) rmSync(file, { force: true })
    else this.#files.write(file, url, 0o600)
  }

  abandon(): void {
    rmSync(this.#pending, { recursive: true, force: true })
  }

  /**
   * Puts a pair in use: both files are complete and flushed before one rename makes them current. The pair before it stays, older
   * ones go.
   */
  install(pair: Pair): void {
    const versions = join(this.path, "versions")
    mkdirSync(versions, { recursive: true, mode: 0o700 })
    const numbers = readdirSync(versions)
      .filter((entry) => /^[0-9]+$/.test(entry))
      .map(Number)
    const number = Math.max(0, ...numbers) + 1
    const half = join(versions, `${number}.new`)
    rmSync(half, { recursive: true, force: true })
    this.#writePair(half, pair)
    renameSync(half, join(versions, `${number}`))
    this.#files.flush(versions)
    const before = this.#currentNumber()
    this.#point(join(this.path, "current"), `versions/${number}`)
    for (const entry of readdirSync(versions))
      if (entry !== `${number}` && entry !== before) rmSync(join(versions, entry), { recursive: true })
  }

  /**
   * Makes `cert.pem` and `key.pem` in `output` links to the pair in use, so that they change together, and the key stays in the
   * workspace. A pair that is there already is replaced; readers see the old one or the new one at any time.
   */
  link(output: string): void {
    mkdirSync(output, { recursive: true, mode: 0o700 })
    const via = join(output, `.${this.name}`)
    const files = [CERTIFICATE, KEY].map((file) => ({
      path: join(output, file),
      to: `.${this.name}/${file}`,
    }))
    if (!files.every(({ path, to }) => linkAt(path) === to)) {
      const adopted = join(this.path, "adopted")
      const old = readPair(output)
      // First the links lead to copies of what is there; then all of it changes by one rename.
      if (old !== null) {
        rmSync(adopted, { recursive: true, force: true })
        this.#writePair(adopted, old)
      }
      this.#point(via, old === null ? join(this.path, "current") : adopted)
      for (const { path, to } of files) this.#point(path, to)
    }
    this.#point(via, join(this.path, "current"))
    rmSync(join(this.path, "adopted"), { recursive: true, force: true })
  }

  get #pending(): string {
    return join(this.path, "pending")
  }

  #currentNumber(): string | null {
    const target = linkAt(join(this.path, "current"))
    return target === null ? null : basename(target)
  }

  #writePair(directory: string, { chainPem, keyPem }: Pair): void {
    mkdirSync(directory, { mode: 0o700 })
    this.#files.write(join(directory, KEY), keyPem, 0o600)
    this.#files.write(join(directory, CERTIFICATE), chainPem, 0o644)
  }

  /** Makes `path` a link, in place of whatever file or link is there, by one rename. */
  #point(path: string, target: string): void {
    if (linkAt(path) === target) return
    const fresh = `${path}.new`
    rmSync(fresh, { force: true })
    symlinkSync(target, fresh)
    renameSync(fresh, path)
    this.#files.flush(join(path, ".."))
  }
}

/**
 * Makes a directory for keys, or checks one: in a place like /tmp somebody else may have made it first.
 * @throws AcmeError ERR_ACME_WORKSPACE
 */
function requireOwn(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 })
  const found = lstatSync(path)
  if (found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o022) === 0) return
  throw untrusted(path, found)
}

/** Whoever may rename in the directory above can put another one in the place of ours: nobody but root, or a sticky bit. */
function requireTrusted(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 })
  const found = statSync(path)
  const sticky = (found.mode & 0o1000) !== 0
  if ([0, process.getuid?.()].includes(found.uid) && (sticky || (found.mode & 0o022) === 0)) return
  throw untrusted(path, found)
}

function untrusted(path: string, { uid, mode }: { uid: number; mode: number }): AcmeError {
  return new AcmeError("ERR_ACME_WORKSPACE", {
    at: path,
    expected: "a directory of ours that nobody else may write to",
    found: `owner ${uid}, mode ${(mode & 0o7777).toString(8)}`,
    hint: "choose a workspace that is yours alone",
  })
}

/** Both files of a directory, through links; null unless both are there. */
function readPair(directory: string): Pair | null {
  const chainPem = readOptional(join(directory, CERTIFICATE))
  const keyPem = readOptional(join(directory, KEY))
  return chainPem === null || keyPem === null ? null : { chainPem, keyPem }
}

/** Where a symbolic link leads; null where there is none. */
function linkAt(path: string): string | null {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true ? readlinkSync(path) : null
}

/** Files here are small. */
const MAX_BYTES = 1024 * 1024

function readOptional(path: string): string | null {
  const size = statSync(path, { throwIfNoEntry: false })?.size
  if (size === undefined) return null
  if (size <= MAX_BYTES) return readFileSync(path, "utf8")
  throw new AcmeError("ERR_TOO_LARGE", {
    at: path,
    expected: `at most ${MAX_BYTES} bytes`,
    found: `${size}`,
    hint: "move the file away",
  })
}

function memberOf(text: string, name: string, file: string): string {
  try {
    const value: unknown = JSON.parse(text)
    const found: unknown =
      typeof value === "object" && value !== null
        ? Object.entries(value).find(([key]) => key === name)?.[1]
        : undefined
    if (typeof found === "string") return found
  } catch {
    // Told below.
  }
  throw new AcmeError("ERR_ACME_WORKSPACE", {
    at: file,
    expected: `a JSON object with "${name}"`,
    found: "something else",
    hint: "move the file away: the account is then found by its key",
  })
}
