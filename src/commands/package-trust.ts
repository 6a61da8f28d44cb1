import { createHash } from "node:crypto"
import { existsSync } from "node:fs"
import { EndorsementError, UsageError, VerifyError } from "../errors.ts"
import { findInPackages, parseRelease, type Release } from "../formats/deb/repository.ts"
import { isClearSigned, keyringBytes, parseClearSigned } from "../formats/openpgp.ts"
import type { RpmPackage } from "../formats/rpm/package.ts"
import { decompressed } from "../native/decompress.ts"
import { checkDetached } from "../native/gpgv.ts"
import type { PackageSource } from "../policy/snapshot-packages.ts"
import { verifyOpenPgpStatus } from "../verify/openpgp-signature.ts"
import { parseFile, readInput } from "./input-files.ts"

/** What packages are believed by, as the administrator named it. */
export interface TrustChoice {
  /** InRelease, or Release with its signature beside it. */
  readonly release: string | null
  /** Lists of the repository's packages. */
  readonly lists: readonly string[]
  readonly keyrings: readonly string[]
  /** SHA-256 of packages, hex. */
  readonly digests: readonly string[]
  readonly unauthenticated: boolean
}

export interface Authenticity {
  readonly source: PackageSource
  /** In words, to follow a package's name. */
  readonly reason: string
}

const MAX_KEYRING = 16 * 1024 * 1024
const MAX_RELEASE = 64 * 1024 * 1024
const MAX_LIST = 1024 * 1024 * 1024

/** Judges packages by what was named: read and verified once, for all of them. */
export class PackageTrust {
  readonly #choice: TrustChoice
  readonly #keyrings: readonly Uint8Array[]
  readonly #repository: Repository | null

  private constructor(choice: TrustChoice, keyrings: readonly Uint8Array[], repository: Repository | null) {
    this.#choice = choice
    this.#keyrings = keyrings
    this.#repository = repository
  }

  /**
   * @param at time as of which a Release file has to hold.
   * @throws UsageError ERR_MISSING_ARGUMENT, ERR_BAD_VALUE; VerifyError ERR_PACKAGE_SIGNATURE, ERR_PACKAGE_KEY, ERR_REPOSITORY_INDEX;
   * EndorsementError ERR_REPOSITORY_EXPIRED, ERR_REPOSITORY_NOT_YET_VALID; NativeError ERR_PROGRAM_ABSENT; ParseError
   */
  static async open(choice: TrustChoice, at: Date): Promise<PackageTrust> {
    const { release, lists, keyrings, digests } = choice
    const bad = digests.find((digest) => !/^[0-9a-f]{64}$/.test(digest))
    if (bad !== undefined)
      throw new UsageError("ERR_BAD_VALUE", { at: "--sha256", expected: "64 hexadecimal digits", found: bad })
    if (release === null && lists.length > 0) throw missing("--packages", "--release beside it")
    if (release !== null && lists.length === 0) throw missing("--release", "--packages beside it")
    if (release !== null && keyrings.length === 0) throw missing("--release", "--keyring beside it")
    const keys = keyrings.map((path) =>
      parseFile(path, MAX_KEYRING, (bytes) => keyringBytes("keyring", bytes)),
    )
    return new PackageTrust(
      choice,
      keys,
      release === null ? null : await openRepository(release, lists, keys, at),
    )
  }

  /** @throws VerifyError ERR_PACKAGE_UNAUTHENTICATED, ERR_PACKAGE_DIGEST */
  ofDeb(path: string, content: Uint8Array): Authenticity {
    const digest = sha256(content)
    if (this.#choice.digests.includes(digest)) return GIVEN
    if (this.#repository !== null) {
      const { release, lists, key } = this.#repository
      if (lists.some((list) => findInPackages(list, digest) !== null))
        return { source: "repository", reason: `listed by ${release.name}, signed with key ${key}` }
    }
    return this.#otherwise(path, digest, this.#repository !== null)
  }

  /** @throws VerifyError ERR_PACKAGE_UNAUTHENTICATED, ERR_PACKAGE_DIGEST, ERR_PACKAGE_SIGNATURE, ERR_PACKAGE_KEY */
  async ofRpm(path: string, content: Uint8Array, rpm: RpmPackage): Promise<Authenticity> {
    const digest = sha256(content)
    if (this.#choice.digests.includes(digest)) return GIVEN
    if (this.#keyrings.length === 0 || rpm.signatures.length === 0)
      return this.#otherwise(path, digest, false)
    let problem: unknown = null
    for (const signature of rpm.signatures) {
      try {
        const key = await signedBy(path, rpm.header, signature, this.#keyrings)
        return { source: "signature", reason: `signed with key ${key}` }
      } catch (error) {
        if (!(error instanceof VerifyError)) throw error
        problem ??= error
      }
    }
    throw problem
  }

  /** @param named a check that was asked for by name was made, and the package is not among what it vouches for. */
  #otherwise(path: string, digest: string, named: boolean): Authenticity {
    if (named || this.#choice.digests.length > 0)
      throw new VerifyError("ERR_PACKAGE_DIGEST", {
        at: path,
        expected: named ? "a package of the lists" : "a digest of --sha256",
        found: digest,
        hint: "get package and lists again from the repository; an older package is in no list any more",
      })
    if (this.#choice.unauthenticated)
      return { source: "unauthenticated", reason: "NOT AUTHENTICATED, as asked for by --unauthenticated" }
    throw new VerifyError("ERR_PACKAGE_UNAUTHENTICATED", {
      at: path,
      expected:
        "--release, --packages and --keyring (.deb), --keyring and a signature inside (.rpm), or --sha256",
      found: "none that applies",
      hint: "whoever can put a file into the package could have it accepted: name what vouches for it",
    })
  }
}

const GIVEN: Authenticity = { source: "digest", reason: "of the SHA-256 that was given" }

interface Repository {
  readonly release: Release
  readonly key: string
  readonly lists: readonly Uint8Array[]
}

async function openRepository(
  path: string,
  listPaths: readonly string[],
  keyrings: readonly Uint8Array[],
  at: Date,
): Promise<Repository> {
  const { text, key } = await signedText(path, keyrings)
  const release = parseRelease(text)
  checkTime(path, release, at)
  const lists: Uint8Array[] = []
  for (const listPath of listPaths) lists.push(await verifiedList(listPath, path, release))
  return { release, key, lists }
}

/** The text of a Release file, as far as it is signed and nothing else. */
async function signedText(
  path: string,
  keyrings: readonly Uint8Array[],
): Promise<{ readonly text: string; readonly key: string }> {
  const content = readInput(path, MAX_RELEASE)
  const text = new TextDecoder().decode(content)
  if (isClearSigned(text)) {
    const parts = parseClearSigned(path, text)
    const signature = Buffer.from(parts.signature)
    return { text: parts.text, key: await signedBy(path, Buffer.from(parts.text), signature, keyrings) }
  }
  const beside = `${path}.gpg`
  if (path === "-" || !existsSync(beside))
    throw new VerifyError("ERR_PACKAGE_UNAUTHENTICATED", {
      at: path,
      expected: `a signature inside (InRelease), or beside it: ${beside}`,
      found: "none",
      hint: "give the InRelease file of the repository",
    })
  return { text, key: await signedBy(path, content, readInput(beside, MAX_RELEASE), keyrings) }
}

async function signedBy(
  at: string,
  data: Uint8Array,
  signature: Uint8Array,
  keyrings: readonly Uint8Array[],
): Promise<string> {
  return verifyOpenPgpStatus(at, await checkDetached({ data, signature, keyrings }))
}

/** Clocks of repository and verifier may differ by so much. */
const CLOCK_DIFFERENCE_MS = 60 * 60 * 1000

function checkTime(path: string, { date, validUntil }: Release, at: Date): void {
  const time = at.getTime()
  const text = (milliseconds: number) => new Date(milliseconds).toISOString()
  if (date > time + CLOCK_DIFFERENCE_MS)
    throw new EndorsementError("ERR_REPOSITORY_NOT_YET_VALID", {
      at: path,
      expected: `a date before ${text(time)}`,
      found: text(date),
      hint: "check this machine's clock",
    })
  if (validUntil !== null && validUntil < time)
    throw new EndorsementError("ERR_REPOSITORY_EXPIRED", {
      at: path,
      expected: `valid on ${text(time)}`,
      found: `valid until ${text(validUntil)}`,
      hint: "get the newest Release file; an old one hides updates",
    })
}

/** A list whose bytes, or what they decompress to, the Release file names. */
async function verifiedList(path: string, releasePath: string, release: Release): Promise<Uint8Array> {
  const content = readInput(path, MAX_LIST)
  const plain = await plainList(path, content)
  if (release.files.has(sha256(content)) || release.files.has(sha256(plain))) return plain
  throw new VerifyError("ERR_REPOSITORY_INDEX", {
    at: path,
    expected: `a file that ${releasePath} names`,
    found: `one with SHA-256 ${sha256(content)}`,
    hint: "get Release and Packages files together, from one repository",
  })
}

const FORMATS = [
  ["gzip", [0x1f, 0x8b]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
] as const

async function plainList(path: string, content: Uint8Array): Promise<Uint8Array> {
  const format = FORMATS.find(([, magic]) => magic.every((byte, index) => content[index] === byte))
  if (format === undefined) return content
  const pieces: Uint8Array[] = []
  for await (const piece of decompressed(path, format[0], content, MAX_LIST)) pieces.push(piece)
  return Buffer.concat(pieces)
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex")
}

function missing(at: string, expected: string): UsageError {
  return new UsageError("ERR_MISSING_ARGUMENT", {
    at,
    expected,
    hint: `see "cosmian_vm snapshot update --help"`,
  })
}
