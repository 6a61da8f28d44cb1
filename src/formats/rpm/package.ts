import { ParseError } from "../../errors.ts"
import { fromBase64 } from "../hex.ts"
import { pathToText } from "../path-text.ts"
import { RpmHeader } from "./header.ts"

/**
 * An RPM package: lead, header with signatures, header, payload. The header holds the digest of each file, and a signature over the
 * header covers them: the payload need not be unpacked.
 * Source: RPM 4.18, docs/manual/format_v4.md, signatures_digests.md; include/rpm/rpmtag.h, rpmfiles.h, rpmpgp.h.
 */
export interface RpmPackage {
  readonly name: string
  /** `epoch:version-release`, the epoch where there is one. */
  readonly version: string
  readonly architecture: string
  readonly digestAlgorithm: string
  /** Regular files that come with the package. */
  readonly files: readonly RpmFile[]
  /** Whether programs run when it is installed. */
  readonly hasScripts: boolean
  /** The bytes that signatures are over. */
  readonly header: Uint8Array
  /** OpenPGP signatures over the header, binary. */
  readonly signatures: readonly Uint8Array[]
}

export interface RpmFile {
  readonly path: string
  /** Hex. */
  readonly digest: string
  /** A file that its owner may change and that an update may leave as it is. */
  readonly isConfiguration: boolean
}

const LEAD_BYTES = 96
const LEAD_MAGIC = [0xed, 0xab, 0xee, 0xdb] as const
const BINARY = 0

const TAG = {
  name: 1000,
  version: 1001,
  release: 1002,
  epoch: 1003,
  architecture: 1022,
  preInstall: 1023,
  postInstall: 1024,
  fileModes: 1030,
  fileDigests: 1035,
  fileFlags: 1037,
  directoryIndexes: 1116,
  baseNames: 1117,
  directoryNames: 1118,
  fileDigestAlgorithm: 5011,
} as const
/** In the header with signatures: DSA and RSA over the header, and any number since RPM 6. */
const SIGNATURE_TAGS = [267, 268] as const
const OPENPGP_TAG = 278
/** RPMFILE_CONFIG and RPMFILE_GHOST, whose content is not in the package. */
const CONFIGURATION = 1
const GHOST = 64
const FILE_TYPE = 0o170000
const REGULAR = 0o100000
const MAX_SIGNATURES = 16
/** OpenPGP's numbers. Source: RFC 9580, section 9.5. */
const ALGORITHMS: Readonly<Record<number, string>> = {
  1: "md5",
  2: "sha1",
  8: "sha256",
  9: "sha384",
  10: "sha512",
  11: "sha224",
}

/** @throws ParseError ERR_MALFORMED, ERR_UNSUPPORTED, ERR_TRUNCATED, ERR_TOO_LARGE, ERR_DUPLICATE_KEY */
export function parseRpm(file: Uint8Array): RpmPackage {
  if (LEAD_MAGIC.some((byte, index) => file[index] !== byte))
    throw new ParseError("ERR_MALFORMED", { at: "rpm", expected: "an RPM package" })
  if (file.length < LEAD_BYTES)
    throw new ParseError("ERR_TRUNCATED", { at: "rpm", expected: "a lead of 96 bytes" })
  if ((file[6] ?? 0) * 256 + (file[7] ?? 0) !== BINARY)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "rpm",
      expected: "a binary package",
      found: "a source package",
    })
  const signatures = new RpmHeader("signatures", file, LEAD_BYTES)
  const size = signatures.bytes.length
  const header = new RpmHeader("header", file, LEAD_BYTES + size + ((8 - (size % 8)) % 8))
  return {
    ...identityOf(header),
    ...filesOf(header),
    hasScripts: header.has(TAG.preInstall) || header.has(TAG.postInstall),
    header: header.bytes,
    signatures: signaturesOf(signatures),
  }
}

function identityOf(header: RpmHeader): Pick<RpmPackage, "name" | "version" | "architecture"> {
  const text = (tag: number, what: string) => {
    const value = new TextDecoder().decode(header.string(tag) ?? new Uint8Array(0))
    if (/^[\x21-\x7e]{1,256}$/.test(value)) return value
    throw new ParseError("ERR_MALFORMED", { at: `rpm header: ${what}`, expected: "printable text" })
  }
  const [epoch] = header.numbers(TAG.epoch)
  const version = `${text(TAG.version, "version")}-${text(TAG.release, "release")}`
  return {
    name: text(TAG.name, "name"),
    version: epoch === undefined ? version : `${epoch}:${version}`,
    architecture: text(TAG.architecture, "architecture"),
  }
}

function filesOf(header: RpmHeader): Pick<RpmPackage, "digestAlgorithm" | "files"> {
  const names = header.strings(TAG.baseNames)
  const directories = header.strings(TAG.directoryNames).map(pathToText)
  const indexes = header.numbers(TAG.directoryIndexes)
  const digests = header.strings(TAG.fileDigests).map((digest) => new TextDecoder("latin1").decode(digest))
  const modes = header.numbers(TAG.fileModes)
  const flags = header.numbers(TAG.fileFlags)
  for (const list of [indexes, digests, modes, flags])
    if (list.length !== names.length)
      throw new ParseError("ERR_MALFORMED", {
        at: "rpm header",
        expected: `lists about ${names.length} files`,
        found: `one of ${list.length}`,
      })
  const files: RpmFile[] = []
  names.forEach((name, at) => {
    const flag = flags[at] ?? 0
    if (((modes[at] ?? 0) & FILE_TYPE) !== REGULAR || (flag & GHOST) !== 0) return
    const directory = directories[indexes[at] ?? -1]
    if (directory === undefined)
      throw new ParseError("ERR_MALFORMED", { at: "rpm header", expected: "a known directory" })
    files.push({
      path: checkedPath(directory + pathToText(name)),
      digest: digests[at] ?? "",
      isConfiguration: (flag & CONFIGURATION) !== 0,
    })
  })
  const number = header.numbers(TAG.fileDigestAlgorithm)[0] ?? 1
  const digestAlgorithm = ALGORITHMS[number]
  if (digestAlgorithm === undefined)
    throw new ParseError("ERR_UNSUPPORTED", { at: "rpm header", found: `digest algorithm ${number}` })
  return { digestAlgorithm, files }
}

function checkedPath(path: string): string {
  const segments = path.split("/").slice(1)
  const plain = segments.every((part) => part !== "" && part !== "." && part !== "..")
  if (path.startsWith("/") && path.length <= 4096 && plain) return path
  throw new ParseError("ERR_MALFORMED", {
    at: "rpm header",
    expected: "absolute paths without ..",
    found: JSON.stringify(path.slice(0, 80)),
  })
}

function signaturesOf(header: RpmHeader): Uint8Array[] {
  const single = SIGNATURE_TAGS.flatMap((tag) => header.binary(tag) ?? [])
  const listed = header.strings(OPENPGP_TAG).map((text) => {
    const bytes = fromBase64(new TextDecoder("latin1").decode(text))
    if (bytes !== null) return bytes
    throw new ParseError("ERR_MALFORMED", { at: "rpm signatures", expected: "base64" })
  })
  return [...single, ...listed].slice(0, MAX_SIGNATURES)
}
