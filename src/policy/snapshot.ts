import { ParseError } from "../errors.ts"
import { HASH_ALGORITHMS, hashAlgorithm, hashAlgorithmOfSize } from "../formats/hash-algorithms.ts"
import { toHex } from "../formats/hex.ts"
import { isArray, JsonCursor, type JsonRecord, type JsonValue } from "../formats/strict-json.ts"
import { type FileHashes, FileHashIndex, type FileHashIndexBuilder, indexFileHashes } from "./file-hashes.ts"
import { readFileHashes } from "./snapshot-files.ts"

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
}

export type TeePolicy =
  | { readonly Sev: SevPolicy }
  | { readonly Tdx: TdxPolicy }
  | { readonly Sgx: Readonly<Record<string, unknown>> }

/** Fields of the SNP report that stay equal. Digests and identifiers in hex; null: not fixed. */
export interface SevPolicy {
  /** 48 bytes. */
  readonly measurement: string | null
  /** 64 bytes; belongs to one nonce, so it is null in new snapshots and ignored in old ones. */
  readonly report_data: string | null
  /** 16 bytes. */
  readonly family_id: string | null
  /** 16 bytes. */
  readonly image_id: string | null
  readonly guest_svn: number | null
  /** 48 bytes. */
  readonly id_key_digest: string | null
  /** 48 bytes. */
  readonly author_key_digest: string | null
  /** Guest policy as an integer. */
  readonly policy: number | null
  /** 32 bytes; changes with each start of the VM. */
  readonly report_id: string | null
  /** 32 bytes. */
  readonly report_id_ma: string | null
}

/**
 * Fields of a TDX quote that stay equal, and those that may only rise. Byte strings in hex, in the order of the quote; null:
 * not fixed. Types and not interfaces, so that they count as plain records.
 */
export type TdxPolicy = {
  readonly header: TdxHeaderPolicy
  readonly body: TdxBodyPolicy
}

export type TdxHeaderPolicy = {
  readonly minimum_qe_svn: number | null
  readonly minimum_pce_svn: number | null
  /** 16 bytes. */
  readonly qe_vendor_id: string | null
}

export type TdxBodyPolicy = {
  /** 16 components, compared one by one. */
  readonly minimum_tee_tcb_svn: string | null
  /** 48 bytes. */
  readonly mr_seam: string | null
  /** 8 bytes. */
  readonly td_attributes: string | null
  /** 8 bytes. */
  readonly xfam: string | null
  /** 48 bytes, like those that follow. */
  readonly mr_td: string | null
  readonly mr_config_id: string | null
  readonly mr_owner: string | null
  readonly mr_owner_config: string | null
  /** 64 bytes; belongs to one nonce, so it is null in new snapshots and ignored in old ones. */
  readonly report_data: string | null
}

export interface TpmPolicy {
  readonly reset_count: number
  readonly restart_count: number
}

/** What the predecessor's file has no place for. TCBs by component name of the product's layout. */
export interface TeeReference {
  readonly product: string
  readonly vmpl: number
  /** 32 bytes, hex. */
  readonly host_data: string
  readonly platform_info?: number
  readonly reported_tcb: Readonly<Record<string, number>>
  readonly committed_tcb: Readonly<Record<string, number>>
  readonly launch_tcb: Readonly<Record<string, number>>
  /** The evidence came by way of Azure's paravisor; absent: from the VM itself. */
  readonly paravisor?: Paravisor
}

/** The same for a trust domain. RTMR3 is for its software to write to while it runs, and has no reference value. */
export interface TdxReference {
  /** 48 bytes, hex, like the others. */
  readonly rtmr0: string
  readonly rtmr1: string
  readonly rtmr2: string
  readonly paravisor?: Paravisor
}

/** Who stands between hardware and VM, speaks for the VM, and keeps its TPM. */
export type Paravisor = "azure"

export interface TpmReference {
  /** TPM Name of the AK, hex. */
  readonly ak_name: string
  /** SHA-256 bank, by PCR number: "0" to "9" and "11" to "15"; hex. PCR 10 moves and is not here. */
  readonly pcrs: Readonly<Record<string, string>>
  /** The TPM's clock in milliseconds. Null in snapshots that an agent alone described. */
  readonly clock: number | null
}

export interface ImaReference {
  /** Template of the measurement list: `ima-ng`. */
  readonly template: string
  /** `algorithm:hex` of the list's first entry. */
  readonly boot_aggregate: string
}

/** Cap of a snapshot file, to be checked before it is read. Three hundred thousand files are about 45 MB. */
export const MAX_SNAPSHOT_BYTES = 512 * 1024 * 1024
const MAX_UNREADABLE = 1_000_000
const U16 = 2 ** 16 - 1
const U32 = 2 ** 32 - 1
const CLOUDS = ["AWS", "Azure", "GCP"] as const
const RETAKE = "take a new snapshot of the VM"

/**
 * Reads a snapshot file, strictly: what is not understood is refused. An absent member counts as null.
 * @throws ParseError ERR_SNAPSHOT_FORMAT, ERR_DUPLICATE_KEY, ERR_MALFORMED, ERR_TOO_LARGE, ERR_TRUNCATED,
 * ERR_TRAILING_BYTES.
 */
export function parseSnapshot(bytes: Uint8Array, maxBytes = MAX_SNAPSHOT_BYTES): Snapshot {
  const cursor = new JsonCursor("snapshot", bytes, maxBytes)
  let files: FileHashIndexBuilder | null = null
  const root = cursor.record("", (name) => {
    // Nearly all of the file: read straight into the index, without a string for each path and digest.
    if (name !== "filehashes" || cursor.peek() !== 0x5b) return undefined
    files = readFileHashes(cursor)
    return true
  })
  cursor.end()
  const format = formatOf(root)
  const snapshot: Snapshot = { format, ...parseCommon(root, files), ...parseAdded(root, format) }
  root.finish()
  checkDigestSizes(snapshot.hash_algorithm, files, root)
  return snapshot
}

/**
 * The JSON text of a snapshot: fixed order of members, a line for each file, files in order of path. Equal snapshots
 * give equal text.
 */
export function encodeSnapshot(snapshot: Snapshot): string {
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
    members.push(["unreadable", lines(snapshot.unreadable)])
  }
  const files = snapshot.filehashes === null ? "null" : lines(indexFileHashes(snapshot.filehashes))
  members.push(["filehashes", files])
  return `{\n${members.map(([name, value]) => `"${name}": ${value}`).join(",\n")}\n}\n`
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

function parseCommon(root: JsonRecord, files: FileHashIndexBuilder | null): Common {
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
    filehashes: files === null ? null : files.build(),
  }
}

type Added = Omit<Snapshot, keyof Common | "format">

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

function parseTeePolicy(record: JsonRecord): TeePolicy {
  const names = record.names()
  const policy = names.length === 1 ? names[0] : undefined
  switch (policy) {
    case "Sev":
      return { Sev: parseSevPolicy(record.record("Sev")) }
    case "Tdx":
      return { Tdx: parseTdxPolicy(record.record("Tdx")) }
    case "Sgx":
      return { Sgx: record.record("Sgx").toPlain() }
    default:
      throw new ParseError("ERR_MALFORMED", {
        at: "snapshot: tee_policy",
        expected: "one of Sev, Tdx, Sgx",
        found: names.join(", ").slice(0, 80),
      })
  }
}

function parseSevPolicy(record: JsonRecord): SevPolicy {
  const policy: SevPolicy = {
    measurement: hexOrNull(record, "measurement", 48),
    report_data: hexOrNull(record, "report_data", 64),
    family_id: hexOrNull(record, "family_id", 16),
    image_id: hexOrNull(record, "image_id", 16),
    guest_svn: record.countOrNull("guest_svn", U32),
    id_key_digest: hexOrNull(record, "id_key_digest", 48),
    author_key_digest: hexOrNull(record, "author_key_digest", 48),
    policy: record.countOrNull("policy", Number.MAX_SAFE_INTEGER),
    report_id: hexOrNull(record, "report_id", 32),
    report_id_ma: hexOrNull(record, "report_id_ma", 32),
  }
  record.finish()
  return policy
}

/** Each part and each member may be absent, as in files of the predecessor. */
function parseTdxPolicy(record: JsonRecord): TdxPolicy {
  const header = record.recordOrNull("header")
  const body = record.recordOrNull("body")
  const bytes = (from: JsonRecord | null, name: string, size: number) =>
    from === null ? null : bytesOrNull(from, name, size)
  const policy: TdxPolicy = {
    header: {
      minimum_qe_svn: header?.countOrNull("minimum_qe_svn", U16) ?? null,
      minimum_pce_svn: header?.countOrNull("minimum_pce_svn", U16) ?? null,
      qe_vendor_id: bytes(header, "qe_vendor_id", 16),
    },
    body: {
      minimum_tee_tcb_svn: bytes(body, "minimum_tee_tcb_svn", 16),
      mr_seam: bytes(body, "mr_seam", 48),
      td_attributes: bytes(body, "td_attributes", 8),
      xfam: bytes(body, "xfam", 8),
      mr_td: bytes(body, "mr_td", 48),
      mr_config_id: bytes(body, "mr_config_id", 48),
      mr_owner: bytes(body, "mr_owner", 48),
      mr_owner_config: bytes(body, "mr_owner_config", 48),
      report_data: bytes(body, "report_data", 64),
    },
  }
  header?.finish()
  body?.finish()
  record.finish()
  return policy
}

function parseTpmPolicy(record: JsonRecord): TpmPolicy {
  const policy = {
    reset_count: record.count("reset_count", U32),
    restart_count: record.count("restart_count", U32),
  }
  record.finish()
  return policy
}

function parseTeeReference(record: JsonRecord): TeeReference | TdxReference {
  return record.names().includes("rtmr0") ? parseTdxReference(record) : parseSnpReference(record)
}

function parseTdxReference(record: JsonRecord): TdxReference {
  const reference: TdxReference = {
    rtmr0: hex(record, "rtmr0", 48),
    rtmr1: hex(record, "rtmr1", 48),
    rtmr2: hex(record, "rtmr2", 48),
    ...parseParavisor(record),
  }
  record.finish()
  return reference
}

function parseParavisor(record: JsonRecord): { readonly paravisor?: Paravisor } {
  const name = record.stringOrNull("paravisor")
  if (name === null) return {}
  if (name === "azure") return { paravisor: name }
  throw record.wrong("paravisor", "azure, or no such member", name)
}

function parseSnpReference(record: JsonRecord): TeeReference {
  const info = record.countOrNull("platform_info", Number.MAX_SAFE_INTEGER)
  const reference: TeeReference = {
    product: record.string("product"),
    vmpl: record.count("vmpl", 3),
    host_data: hex(record, "host_data", 32),
    ...(info === null ? {} : { platform_info: info }),
    reported_tcb: parseTcb(record.record("reported_tcb")),
    committed_tcb: parseTcb(record.record("committed_tcb")),
    launch_tcb: parseTcb(record.record("launch_tcb")),
    ...parseParavisor(record),
  }
  record.finish()
  return reference
}

function parseTcb(record: JsonRecord): Record<string, number> {
  return Object.fromEntries(record.names().map((name) => [name, record.count(name, 255)]))
}

function parseTpmReference(record: JsonRecord): TpmReference {
  const ak_name = record.string("ak_name")
  if (!/^(?:[0-9a-f]{2}){2,66}$/.test(ak_name)) throw record.wrong("ak_name", "a TPM Name in hex", ak_name)
  const values = record.record("pcrs")
  const clock = record.countOrNull("clock", Number.MAX_SAFE_INTEGER)
  const pcrs: [string, string][] = values.names().map((name) => {
    if (!/^(?:[0-9]|1[0-9]|2[0-3])$/.test(name)) throw values.wrong(name.slice(0, 20), "a PCR number", name)
    return [name, hex(values, name, 32)]
  })
  record.finish()
  return { ak_name, pcrs: Object.fromEntries(pcrs), clock }
}

function parseImaReference(record: JsonRecord): ImaReference {
  const reference = {
    template: record.string("template"),
    boot_aggregate: record.string("boot_aggregate"),
  }
  if (!/^[a-z0-9-]{1,16}:[0-9a-f]{32,128}$/.test(reference.boot_aggregate))
    throw record.wrong("boot_aggregate", "algorithm:hex", reference.boot_aggregate)
  record.finish()
  return reference
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

function hexOrNull(record: JsonRecord, name: string, size: number): string | null {
  const text = record.stringOrNull(name)
  if (text === null || (text.length === size * 2 && /^[0-9a-f]*$/.test(text))) return text
  throw record.wrong(name, `${size} bytes in lower-case hex, or null`, text)
}

/** Hex, or an array of byte values, which the predecessor may have written; hex comes out. */
function bytesOrNull(record: JsonRecord, name: string, size: number): string | null {
  const value = record.take(name)
  if (value === null) return null
  if (typeof value === "string" && value.length === size * 2 && /^[0-9a-f]*$/.test(value)) return value
  const bytes = isArray(value) ? value.filter(isByte) : []
  if (isArray(value) && value.length === size && bytes.length === size) return toHex(Uint8Array.from(bytes))
  throw record.wrong(name, `${size} bytes in lower-case hex, or null`, value)
}

function isByte(value: JsonValue): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 0xff
}

function hex(record: JsonRecord, name: string, size: number): string {
  const text = hexOrNull(record, name, size)
  if (text === null) throw record.wrong(name, `${size} bytes in hex`, null satisfies JsonValue)
  return text
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
