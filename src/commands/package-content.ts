import { createHash, getHashes, type Hash } from "node:crypto"
import { CodedError } from "../errors.ts"
import { type DebArchive, parseDeb } from "../formats/deb/deb-file.ts"
import { parseParagraph } from "../formats/deb/paragraphs.ts"
import { listedPackage } from "../formats/deb/repository.ts"
import { parseRpm, type RpmPackage } from "../formats/rpm/package.ts"
import { type TarEntry, TarReader } from "../formats/tar.ts"
import { decompressed } from "../native/decompress.ts"
import type { NewFile } from "../policy/snapshot-update.ts"

/** What a package says about itself and its files; nothing of it is believed before the package was authenticated. */
export interface PackageContent {
  readonly name: string
  readonly version: string
  readonly architecture: string
  readonly files: readonly NewFile[]
  /** Whether programs run when it is installed, which may make files that are in no package. */
  readonly hasScripts: boolean
}

/** Of a package, decompressed. */
const MAX_DATA = 32 * 1024 * 1024 * 1024
const MAX_CONTROL = 64 * 1024 * 1024
/** Of a file that describes the package. */
const MAX_TEXT = 4 * 1024 * 1024

/**
 * Reads a .deb and hashes its files. Memory does not grow with what is in it.
 * @param name of the file, for messages. @param algorithm of the digests.
 * @throws ParseError as the formats; NativeError ERR_PROGRAM_ABSENT, ERR_COMPRESSION, ERR_TOO_LARGE; CodedError ERR_PACKAGE_ALGORITHM
 */
export async function readDeb(name: string, content: Uint8Array, algorithm: string): Promise<PackageContent> {
  if (!getHashes().includes(algorithm))
    throw new CodedError("ERR_PACKAGE_ALGORITHM", {
      at: name,
      expected: algorithm,
      found: "no such algorithm in this program",
      hint: "boot the VM with ima_hash=sha256 and take a new snapshot",
    })
  const { control, data } = parseDeb(content)
  const described = new TextFiles(["/control", "/conffiles", "/preinst", "/postinst", "/triggers"])
  await readArchive(`${name}: control.tar`, control, MAX_CONTROL, described.reader)
  const { files } = described
  const own = new Set((files.get("/conffiles") ?? "").split("\n").map((line) => line.trim()))
  const hashed = new HashedFiles(algorithm)
  await readArchive(`${name}: data.tar`, data, MAX_DATA, hashed.reader)
  return {
    ...listedPackage(`${name}: control`, parseParagraph(`${name}: control`, files.get("/control") ?? "")),
    files: [...hashed.files].map(([path, digest]) => ({ path, digest, isConfiguration: own.has(path) })),
    hasScripts: files.has("/preinst") || files.has("/postinst") || files.has("/triggers"),
  }
}

/**
 * Reads the header of a .rpm, which holds the digests of its files.
 * @throws ParseError as parseRpm; CodedError ERR_PACKAGE_ALGORITHM
 */
export function readRpm(name: string, content: Uint8Array, algorithm: string): PackageContent & RpmPackage {
  const rpm = parseRpm(content)
  if (rpm.digestAlgorithm !== algorithm)
    throw new CodedError("ERR_PACKAGE_ALGORITHM", {
      at: name,
      expected: algorithm,
      found: rpm.digestAlgorithm,
      hint: `boot the VM with ima_hash=${rpm.digestAlgorithm} and take a new snapshot`,
    })
  const size = createHash(algorithm).digest().length
  for (const { path, digest } of rpm.files)
    if (!/^[0-9a-f]*$/.test(digest) || digest.length !== size * 2)
      throw new CodedError("ERR_MALFORMED", { at: `${name}: ${path}`, expected: `a digest of ${size} bytes` })
  return rpm
}

async function readArchive(
  name: string,
  { compression, content }: DebArchive,
  maxBytes: number,
  reader: TarReader,
): Promise<void> {
  for await (const piece of decompressed(name, compression, content, maxBytes)) reader.push(piece)
  reader.finish()
}

/** Digests of all regular files of an archive; hard links have that of the file which they are. */
class HashedFiles {
  readonly files = new Map<string, string>()
  readonly reader: TarReader
  #path = ""
  #hash: Hash

  constructor(algorithm: string) {
    this.#hash = createHash(algorithm)
    this.reader = new TarReader({
      entry: (entry) => this.#entry(entry, algorithm),
      content: (bytes) => this.#hash.update(bytes),
      end: () => this.files.set(this.#path, this.#hash.digest("hex")),
    })
  }

  #entry({ kind, path, target }: TarEntry, algorithm: string): void {
    // What comes later takes the place of what came before, whatever it is.
    const linked = kind === "hard-link" ? this.files.get(target ?? "") : undefined
    this.files.delete(path)
    if (kind === "hard-link" && linked === undefined)
      throw new CodedError("ERR_MALFORMED", { at: path, expected: "a hard link to a file before it" })
    if (linked !== undefined) this.files.set(path, linked)
    if (kind !== "file") return
    this.#path = path
    this.#hash = createHash(algorithm)
  }
}

/** Texts of some files of an archive. */
class TextFiles {
  readonly files = new Map<string, string>()
  readonly reader: TarReader
  #parts: Uint8Array[] | null = null
  #path = ""

  constructor(wanted: readonly string[]) {
    this.reader = new TarReader({
      entry: ({ kind, path, size }) => {
        this.#path = path
        this.#parts = kind === "file" && wanted.includes(path) ? [] : null
        if (this.#parts !== null && size > MAX_TEXT)
          throw new CodedError("ERR_TOO_LARGE", { at: path, expected: `at most ${MAX_TEXT} bytes` })
      },
      content: (bytes) => this.#parts?.push(bytes.slice()),
      end: () => {
        if (this.#parts !== null) this.files.set(this.#path, Buffer.concat(this.#parts).toString("utf8"))
        this.#parts = null
      },
    })
  }
}
