import { ParseError } from "../errors.ts"
import { HASH_ALGORITHMS, hashAlgorithm, hashAlgorithmOfSize } from "../formats/hash-algorithms.ts"
import { isArray, JsonCursor, type JsonRecord } from "../formats/strict-json.ts"
import { type BootReference, encodeBootReference, parseBootReference } from "./boot-reference.ts"
import { type FileHashes, FileHashIndex, type FileHashIndexBuilder, indexFileHashes } from "./file-hashes.ts"
import { readFileHashes, writeFileHashes } from "./snapshot-files.ts"
import { type NitroReference, parseNitroReference } from "./snapshot-nitro.ts"
import { encodePackages, type Package, PackagesReader } from "./snapshot-packages.ts"
import {
  hex,
  hexOrNull,
  parseTeePolicy,
  parseTeeReference,
  type TdxReference,
  type TeePolicy,
  type TeeReference,
} from "./snapshot-tee.ts"

export type { Package } from "./snapshot-packages.ts"
export type { SevPolicy, TdxPolicy, TdxReference, TeePolicy, TeeReference } from "./snapshot-tee.ts"

/**
 * The reference values of one VM, taken once by the administrator: the JSON file `cosmian_vm.snapshot`.
 * Member names are those of the file. Format 1 is the predecessor's: the first four members only.
 * Format 2 adds members beside these and changes none.
 */
export interface Snapshot {
  /** 1 where the file names no format. */
  readonly format: 1 | 2
  readonly cloud_type: "AWS" | "Azure" | "GCP" | null
  /** Null where the VM has no TEE. */
  readonly tee_policy: TeePolicy | null
  /** Null where the VM has no TPM. */
  readonly tpm_policy: TpmPolicy | null
  /** Reference values of files. Null where there are none: then no file is known. */
  readonly filehashes: FileHashes | null
  /** ISO 8601. Null in format 1, like all that follow. */
  readonly taken_at: string | null
  readonly agent_version: string | null
  readonly host: string | null
  /** Algorithm of every digest in `filehashes`: `sha256`, `sha1`, … In format 1 the digest's length tells. */
  readonly hash_algorithm: string | null
  readonly tee_reference: TeeReference | TdxReference | null
  readonly tpm_reference: TpmReference | null
  readonly ima_reference: ImaReference | null
  /** Files that could not be hashed, each with the reason (`EACCES`). Empty in format 1. */
  readonly unreadable: readonly (readonly [path: string, reason: string])[]
  /** Installed packages; `filehashes` and `superseded` know to which a file belongs. Absent: not known. Format 2 only, like what follows. */
  readonly packages?: readonly Package[]
  /** Digests that were accepted until an update replaced them. They are never accepted, and only known by name. Absent: none. */
  readonly superseded?: FileHashes
  /** What was measured at the boot. Absent: no event log explained it. */
  readonly boot_reference?: BootReference
  /** The evidence that the VM was verified by when the snapshot was taken. */
  readonly taken_under?: TakenUnder
}

/** Ties a snapshot to the evidence of its moment, which may have been saved. Hex. */
export interface TakenUnder {
  /** 32 bytes, drawn by whoever took the snapshot. */
  readonly nonce: string
  /** SHA-256 of the TEE's report or quote, as signed by the hardware; null: the VM has no TEE. */
  readonly tee_report: string | null
  /** SHA-256 of the TPM's quote (TPMS_ATTEST); null: the VM has no TPM. */
  readonly tpm_quote: string | null
}

export interface TpmPolicy {
  readonly reset_count: number
  readonly restart_count: number
}

export interface TpmReference {
  /** TPM Name of the AK, hex. */
  readonly ak_name: string
  /** SHA-256 bank, by PCR number: "0" to "9" and "11" to "15"; hex. PCR 10 moves and is not here. */
  readonly pcrs: Readonly<Record<string, string>>
  /** The TPM's clock in milliseconds. Null in snapshots that an agent alone described. */
  readonly clock: number | null
  /** How the AK was proven to be in a TPM; absent: it was not, it is only the key that the VM showed. */
  readonly ak_enrolment?: AkEnrolment
  /** What a NitroTPM document said; absent: there was none. */
  readonly nitro_tpm?: NitroReference
}

/** A proof that an attestation key is in a TPM. It holds for the key's Name from then on, as such a key never leaves its TPM. */
export type AkEnrolment =
  | {
      /** A certificate for the key itself; or one for the TPM's endorsement key, and a challenge that only this TPM could answer. */
      readonly kind: "ak-certificate" | "ek-certificate"
      /** SHA-256 of that certificate, hex. */
      readonly certificate: string
      /** SHA-256 of the root's certificate, hex. */
      readonly root: string
      /** ISO 8601. */
      readonly at: string
    }
  | {
      /** An endorsement key that the administrator knew, and a challenge that only its TPM could answer. */
      readonly kind: "ek-key"
      /** SHA-256 of its DER SubjectPublicKeyInfo, hex. */
      readonly endorsement_key: string
      /** ISO 8601. */
      readonly at: string
    }

export interface ImaReference {
  /** Template of the measurement list: `ima-ng`. */
  readonly template: string
  /** `algorithm:hex` of the list's first entry. */
  readonly boot_aggregate: string
  /** `algorithm:hex` of each IMA policy file that the list showed; absent or null in snapshots that do not tell. */
  readonly policy?: readonly string[] | null
}

/** Cap of a snapshot file, to be checked before it is read. Three hundred thousand files are about 45 MB. */
export const MAX_SNAPSHOT_BYTES = 512 * 1024 * 1024
const MAX_UNREADABLE = 1_000_000
/** Members and elements beside the files and their packages: most are of `unreadable`, three each. */
const MAX_VALUES = 4_000_000
const U32 = 2 ** 32 - 1
const CLOUDS = ["AWS", "Azure", "GCP"] as const
const RETAKE = "take a new snapshot of the VM"

/**
 * Reads a snapshot file, strictly: what is not understood is refused. An absent member counts as null.
 * @throws ParseError ERR_SNAPSHOT_FORMAT, ERR_DUPLICATE_KEY, ERR_MALFORMED, ERR_TOO_LARGE, ERR_TRUNCATED,
 * ERR_TRAILING_BYTES.
 */
export function parseSnapshot(bytes: Uint8Array, maxBytes = MAX_SNAPSHOT_BYTES): Snapshot {
  const cursor = new JsonCursor("snapshot", bytes, maxBytes, { maxValues: MAX_VALUES })
  const large: LargeMembers = { filehashes: null, superseded: null, packages: null }
  const root = cursor.record("", (name) => {
    if (cursor.peek() !== 0x5b) return undefined
    // Nearly all of the file: read straight into the index, without a string for each path and digest.
    if (name === "filehashes" || name === "superseded") large[name] = readFileHashes(cursor)
    else if (name === "packages") {
      large.packages = new PackagesReader()
      large.packages.read(cursor)
    } else return undefined
    return true
  })
  cursor.end()
  const format = formatOf(root)
  const snapshot: Snapshot = {
    format,
    ...parseCommon(root, large),
    ...parseAdded(root, format),
    ...(format === 1 ? {} : parseBoot(root)),
    ...(format === 1 ? {} : parsePackages(root, large)),
  }
  root.finish()
  checkDigestSizes(snapshot.hash_algorithm, large.filehashes, root)
  checkDigestSizes(snapshot.hash_algorithm, large.superseded, root)
  return snapshot
}

/** Members that are read as they come; null: null or absent. */
interface LargeMembers {
  filehashes: FileHashIndexBuilder | null
  superseded: FileHashIndexBuilder | null
  packages: PackagesReader | null
}

/**
 * The JSON text of a snapshot: fixed order of members, a line for each file, files in order of path. Equal snapshots
 * give equal text.
 */
export function encodeSnapshot(snapshot: Snapshot): string {
  const files = snapshot.filehashes === null ? "null" : lines(indexFileHashes(snapshot.filehashes))
  return `${textBeforeFiles(snapshot)}${files}${AFTER_FILES}`
}

/** The same as UTF-8, without a string for each path and digest. */
export function encodeSnapshotBytes(snapshot: Snapshot): Uint8Array {
  const before = textBeforeFiles(snapshot)
  return snapshot.filehashes === null
    ? Buffer.from(`${before}null${AFTER_FILES}`)
    : writeFileHashes(Buffer.from(before), indexFileHashes(snapshot.filehashes), Buffer.from(AFTER_FILES))
}

const AFTER_FILES = "\n}\n"

/** All members but the last one, `filehashes`, whose value follows. */
function textBeforeFiles(snapshot: Snapshot): string {
  const members: [string, string][] = [
    ["cloud_type", JSON.stringify(snapshot.cloud_type)],
    ["tee_policy", JSON.stringify(snapshot.tee_policy)],
    ["tpm_policy", JSON.stringify(snapshot.tpm_policy)],
  ]
  if (snapshot.format === 2) {
    members.unshift(["format", "2"])
    const { taken_at, agent_version, host, hash_algorithm, tee_reference, tpm_reference, ima_reference } =
      snapshot
    const added = {
      taken_at,
      agent_version,
      host,
      hash_algorithm,
      tee_reference,
      tpm_reference,
      ima_reference,
    }
    for (const [name, value] of Object.entries(added)) members.push([name, JSON.stringify(value)])
    if (snapshot.boot_reference !== undefined)
      members.push(["boot_reference", encodeBootReference(snapshot.boot_reference)])
    members.push(["unreadable", lines(snapshot.unreadable)], ...packageMembers(snapshot))
  }
  members.push(["filehashes", ""])
  return `{\n${members.map(([name, value]) => `"${name}": ${value}`).join(",\n")}`
}

/** Those that are not there are left out, so that a file without them stays as it is. */
function packageMembers(snapshot: Snapshot): [string, string][] {
  const { packages, superseded, taken_under } = snapshot
  const old = supersededIndex(snapshot)
  return [
    ...(taken_under === undefined ? [] : [["taken_under", JSON.stringify(taken_under)] as [string, string]]),
    ...(packages === undefined
      ? []
      : [["packages", encodePackages(packages, fileHashIndex(snapshot), old)] as [string, string]]),
    ...(superseded === undefined ? [] : [["superseded", lines(old)] as [string, string]]),
  ]
}

/** Index of the digests that were replaced. Empty where there are none. */
export function supersededIndex({ superseded }: Snapshot): FileHashIndex {
  return superseded === undefined ? FileHashIndex.EMPTY : indexFileHashes(superseded)
}

/** Index of the snapshot's reference values, for appraisal. Empty where it has none. */
export function fileHashIndex(snapshot: Snapshot): FileHashIndex {
  return snapshot.filehashes === null ? FileHashIndex.EMPTY : indexFileHashes(snapshot.filehashes)
}

function lines(pairs: Iterable<readonly [string, string]>): string {
  const out: string[] = []
  for (const pair of pairs) out.push(JSON.stringify(pair))
  return out.length === 0 ? "[]" : `[\n${out.join(",\n")}\n]`
}

function formatOf(root: JsonRecord): 1 | 2 {
  const format = root.take("format")
  if (format === null) return 1
  if (format === 2) return 2
  throw new ParseError("ERR_SNAPSHOT_FORMAT", {
    at: root.place("format"),
    expected: "2, or no such member (the predecessor's format)",
    found: JSON.stringify(format).slice(0, 40),
    hint: `use the program version that wrote it, or ${RETAKE}`,
  })
}

type Common = Pick<Snapshot, "cloud_type" | "tee_policy" | "tpm_policy" | "filehashes">

function parseCommon(root: JsonRecord, { filehashes: files, packages }: LargeMembers): Common {
  const cloud = root.stringOrNull("cloud_type")
  const cloud_type = cloud === null ? null : (CLOUDS.find((known) => known === cloud) ?? undefined)
  if (cloud_type === undefined) throw root.wrong("cloud_type", `${CLOUDS.join(", ")} or null`, cloud)
  const filehashes = root.take("filehashes")
  if (filehashes !== null && files === null) throw root.wrong("filehashes", "an array or null", filehashes)
  const tpm = root.recordOrNull("tpm_policy")
  const tee = root.recordOrNull("tee_policy")
  return {
    cloud_type,
    tee_policy: tee && parseTeePolicy(tee),
    tpm_policy: tpm && parseTpmPolicy(tpm),
    filehashes: files === null ? null : packages === null ? files.build() : packages.index("files", files),
  }
}

type WithPackages = Pick<Snapshot, "packages" | "superseded" | "taken_under">

function parsePackages(root: JsonRecord, { packages, superseded }: LargeMembers): WithPackages {
  const list = root.take("packages")
  if (list !== null && packages === null) throw root.wrong("packages", "an array or null", list)
  const old = root.take("superseded")
  if (old !== null && superseded === null) throw root.wrong("superseded", "an array or null", old)
  const under = root.recordOrNull("taken_under")
  return {
    ...(packages === null ? {} : { packages: packages.packages }),
    ...(superseded === null
      ? {}
      : {
          superseded: packages === null ? superseded.build() : packages.index("superseded", superseded),
        }),
    ...(under === null ? {} : { taken_under: parseTakenUnder(under) }),
  }
}

function parseBoot(root: JsonRecord): Pick<Snapshot, "boot_reference"> {
  const boot = root.recordOrNull("boot_reference")
  return boot === null ? {} : { boot_reference: parseBootReference(boot) }
}

function parseTakenUnder(record: JsonRecord): TakenUnder {
  const under = {
    nonce: hex(record, "nonce", 32),
    tee_report: hexOrNull(record, "tee_report", 32),
    tpm_quote: hexOrNull(record, "tpm_quote", 32),
  }
  record.finish()
  return under
}

type Added = Omit<Snapshot, keyof Common | "format" | keyof WithPackages>

function parseAdded(root: JsonRecord, format: 1 | 2): Added {
  // The predecessor's file has none of these names: there they are unknown members, and refused as such.
  if (format === 1)
    return {
      taken_at: null,
      agent_version: null,
      host: null,
      hash_algorithm: null,
      tee_reference: null,
      tpm_reference: null,
      ima_reference: null,
      unreadable: [],
    }
  const tee = root.recordOrNull("tee_reference")
  const tpm = root.recordOrNull("tpm_reference")
  const ima = root.recordOrNull("ima_reference")
  return {
    taken_at: root.stringOrNull("taken_at"),
    agent_version: root.stringOrNull("agent_version"),
    host: root.stringOrNull("host"),
    hash_algorithm: root.stringOrNull("hash_algorithm"),
    tee_reference: tee && parseTeeReference(tee),
    tpm_reference: tpm && parseTpmReference(tpm),
    ima_reference: ima && parseImaReference(ima),
    unreadable: root.take("unreadable") === null ? [] : parseUnreadable(root),
  }
}

function parseTpmPolicy(record: JsonRecord): TpmPolicy {
  const policy = {
    reset_count: record.count("reset_count", U32),
    restart_count: record.count("restart_count", U32),
  }
  record.finish()
  return policy
}

function parseTpmReference(record: JsonRecord): TpmReference {
  const ak_name = record.string("ak_name")
  if (!/^(?:[0-9a-f]{2}){2,66}$/.test(ak_name)) throw record.wrong("ak_name", "a TPM Name in hex", ak_name)
  const values = record.record("pcrs")
  const clock = record.countOrNull("clock", Number.MAX_SAFE_INTEGER)
  const enrolment = record.recordOrNull("ak_enrolment")
  const nitro = record.recordOrNull("nitro_tpm")
  const pcrs: [string, string][] = values.names().map((name) => {
    if (!/^(?:[0-9]|1[0-9]|2[0-3])$/.test(name)) throw values.wrong(name.slice(0, 20), "a PCR number", name)
    return [name, hex(values, name, 32)]
  })
  record.finish()
  const ak_enrolment = enrolment && parseAkEnrolment(enrolment)
  return {
    ak_name,
    pcrs: Object.fromEntries(pcrs),
    clock,
    ...(ak_enrolment === null ? {} : { ak_enrolment }),
    ...(nitro === null ? {} : { nitro_tpm: parseNitroReference(nitro) }),
  }
}

const AK_ENROLMENTS = ["ak-certificate", "ek-certificate", "ek-key"] as const

function parseAkEnrolment(record: JsonRecord): AkEnrolment {
  const text = record.string("kind")
  const kind = AK_ENROLMENTS.find((known) => known === text)
  if (kind === undefined) throw record.wrong("kind", AK_ENROLMENTS.join(" or "), text)
  const at = record.string("at")
  const enrolment: AkEnrolment =
    kind === "ek-key"
      ? { kind, endorsement_key: hex(record, "endorsement_key", 32), at }
      : { kind, certificate: hex(record, "certificate", 32), root: hex(record, "root", 32), at }
  record.finish()
  return enrolment
}

function parseImaReference(record: JsonRecord): ImaReference {
  const reference = {
    template: record.string("template"),
    boot_aggregate: record.string("boot_aggregate"),
  }
  if (!DIGEST.test(reference.boot_aggregate))
    throw record.wrong("boot_aggregate", "algorithm:hex", reference.boot_aggregate)
  const policy =
    record.take("policy") === null ? null : record.array("policy").map((value) => policyDigest(record, value))
  record.finish()
  return policy === null ? reference : { ...reference, policy }
}

const DIGEST = /^[a-z0-9-]{1,16}:[0-9a-f]{32,128}$/

function policyDigest(record: JsonRecord, value: unknown): string {
  if (typeof value === "string" && DIGEST.test(value.replace(/^verity:/, ""))) return value
  throw record.wrong("policy", "algorithm:hex", "another value")
}

function parseUnreadable(root: JsonRecord): [string, string][] {
  const values = root.array("unreadable")
  if (values.length > MAX_UNREADABLE)
    throw new ParseError("ERR_TOO_LARGE", {
      at: root.place("unreadable"),
      expected: `at most ${MAX_UNREADABLE}`,
      found: `${values.length}`,
    })
  return values.map((value) => {
    const [path, reason, ...rest] = isArray(value) ? value : []
    if (typeof path !== "string" || typeof reason !== "string" || rest.length > 0)
      throw root.wrong("unreadable", "pairs of path and reason", value)
    return [path, reason]
  })
}

/** Every digest must be one of the algorithm that the file names; without a name, SHA-1 or SHA-2 by its length. */
function checkDigestSizes(
  algorithm: string | null,
  files: FileHashIndexBuilder | null,
  root: JsonRecord,
): void {
  if (files === null) return
  const named = algorithm === null ? null : hashAlgorithm(algorithm)
  if (algorithm !== null && named === null)
    throw new ParseError("ERR_MALFORMED", {
      at: root.place("hash_algorithm"),
      expected: HASH_ALGORITHMS.map(({ name }) => name).join(", "),
      found: JSON.stringify(algorithm.slice(0, 40)),
    })
  for (const size of files.digestSizes)
    if (named === null ? hashAlgorithmOfSize(size) === null : named.size !== size)
      throw new ParseError("ERR_MALFORMED", {
        at: root.place("filehashes"),
        expected:
          named === null ? "SHA-1 or SHA-2 digests" : `digests of ${named.size} bytes (${named.name})`,
        found: `one of ${size} bytes`,
      })
}
