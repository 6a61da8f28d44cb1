import { ParseError } from "../../errors.ts"
import { fromBase64 } from "../hex.ts"
import { isArray, type JsonRecord, parseJsonRecord } from "../strict-json.ts"

/**
 * The JSON area of a LUKS2 header: structure only, every member known by name, no member twice. Whether a header with
 * this content may be used is for the policy.
 * Source: LUKS2 On-Disk Format Specification, version 1.1.4, section "LUKS2 JSON Metadata Format".
 */
export interface LuksMetadata {
  readonly keyslots: readonly (LuksKeyslot | UnknownObject)[]
  readonly tokens: readonly LuksToken[]
  readonly segments: readonly (LuksCryptSegment | UnknownObject)[]
  readonly digests: readonly (LuksDigest | UnknownObject)[]
  readonly config: LuksConfig
}

/** A keyslot, segment or digest of a type that this reader does not know, such as `reencrypt` or `linear`. */
export interface UnknownObject {
  readonly known: false
  readonly id: number
  readonly type: string
}

/** A copy of the volume key, encrypted by a key that a passphrase gives. */
export interface LuksKeyslot {
  readonly known: true
  readonly id: number
  /** Bytes of the volume key. */
  readonly keySize: number
  readonly af: { readonly type: string; readonly stripes: number; readonly hash: string }
  readonly area: LuksArea
  readonly kdf: LuksKdf
  /** 0: used only when named; 1: as others; 2: tried first. Null where not said, which means 1. */
  readonly priority: number | null
}

/** Where a keyslot's encrypted key material lies, in bytes from the start of the header, and how it is encrypted. */
export interface LuksArea {
  readonly type: string
  readonly offset: bigint
  readonly size: bigint
  readonly encryption: string
  /** Bytes of the key that encrypts the area. */
  readonly keySize: number
}

export type LuksKdf =
  | { readonly type: "pbkdf2"; readonly hash: string; readonly iterations: number; readonly salt: Uint8Array }
  | {
      readonly type: "argon2i" | "argon2id"
      readonly time: number
      /** KiB. */
      readonly memory: number
      readonly cpus: number
      readonly salt: Uint8Array
    }
  | { readonly type: "other"; readonly name: string }

/** An encrypted range of the data device. */
export interface LuksCryptSegment {
  readonly known: true
  readonly id: number
  /** Bytes from the start of the data device. */
  readonly offset: bigint
  /** Bytes; `dynamic`: to the end of the device. */
  readonly size: bigint | "dynamic"
  readonly ivTweak: bigint
  /** Cipher as dm-crypt names it: `aes-xts-plain64`. */
  readonly encryption: string
  /** Bytes per sector: 512, 1024, 2048 or 4096. */
  readonly sectorSize: number
  /** Null: tampering with the data is not noticed. */
  readonly integrity: {
    readonly type: string
    readonly journalEncryption: string
    readonly journalIntegrity: string
  } | null
  readonly flags: readonly string[]
}

/** Ties keyslots to the segments whose key they hold, by a digest of the key. */
export interface LuksDigest {
  readonly known: true
  readonly id: number
  readonly keyslots: readonly number[]
  readonly segments: readonly number[]
  readonly hash: string
  readonly iterations: number
  readonly salt: Uint8Array
  readonly digest: Uint8Array
}

/** How a keyslot's passphrase is found otherwise than by asking a person. */
export interface LuksToken {
  readonly id: number
  readonly type: string
  readonly keyslots: readonly number[]
  /** All members, among them those above. Strings and numbers as they stand; nested values as plain objects. */
  readonly members: Readonly<Record<string, unknown>>
}

export interface LuksConfig {
  /** Bytes of the JSON area. */
  readonly jsonSize: bigint
  /** Bytes of all keyslot areas together. */
  readonly keyslotsSize: bigint
  /** Flags for activation, such as `allow-discards`. */
  readonly flags: readonly string[]
  /** What a reader has to know to use the device, such as `online-reencrypt`. */
  readonly requirements: readonly string[]
}

/** Largest JSON area: 4 MiB less the binary header. */
export const MAX_METADATA_SIZE = 0x400000 - 0x1000
/** Objects of one kind: libcryptsetup has 32 keyslots and 32 tokens at most. */
const MAX_OBJECTS = 32
const MAX_COUNT = 2 ** 32 - 1

/**
 * Reads the JSON metadata alone, as the header holds it and `cryptsetup luksDump --dump-json-metadata` prints it.
 * @throws ParseError ERR_TOO_LARGE, ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_DUPLICATE_KEY
 */
export function parseLuksMetadata(bytes: Uint8Array): LuksMetadata {
  const top = parseJsonRecord("LUKS metadata", bytes, MAX_METADATA_SIZE)
  const metadata = {
    keyslots: objects(top, "keyslots", keyslot),
    tokens: objects(top, "tokens", token),
    segments: objects(top, "segments", segment),
    digests: objects(top, "digests", digest),
    config: config(top.record("config")),
  }
  top.finish()
  return metadata
}

/** The members of an object whose names are numbers, in the order of the numbers. */
function objects<T>(top: JsonRecord, name: string, read: (id: number, from: JsonRecord) => T): T[] {
  const from = top.record(name)
  const ids = from.names().map((text) => identifier(text, from.place(text.slice(0, 20))))
  if (ids.length > MAX_OBJECTS)
    throw new ParseError("ERR_TOO_LARGE", {
      at: `LUKS metadata: ${name}`,
      expected: `at most ${MAX_OBJECTS}`,
      found: `${ids.length}`,
    })
  return ids.sort((a, b) => a - b).map((id) => read(id, from.record(`${id}`)))
}

function keyslot(id: number, from: JsonRecord): LuksKeyslot | UnknownObject {
  const type = from.string("type")
  if (type !== "luks2") return { known: false, id, type }
  const af = from.record("af")
  const read = {
    known: true as const,
    id,
    keySize: from.count("key_size", MAX_COUNT),
    af: { type: af.string("type"), stripes: af.count("stripes", MAX_COUNT), hash: af.string("hash") },
    area: area(from.record("area")),
    kdf: kdf(from.record("kdf")),
    priority: from.countOrNull("priority", 2),
  }
  af.finish()
  from.finish()
  return read
}

function area(from: JsonRecord): LuksArea {
  const read = {
    type: from.string("type"),
    offset: decimal(from, "offset"),
    size: decimal(from, "size"),
    encryption: from.string("encryption"),
    keySize: from.count("key_size", MAX_COUNT),
  }
  from.finish()
  return read
}

function kdf(from: JsonRecord): LuksKdf {
  const type = from.string("type")
  if (type !== "pbkdf2" && type !== "argon2i" && type !== "argon2id") return { type: "other", name: type }
  const read = type === "pbkdf2" ? pbkdf2(from) : argon2(from, type)
  from.finish()
  return read
}

function pbkdf2(from: JsonRecord): LuksKdf {
  return {
    type: "pbkdf2",
    hash: from.string("hash"),
    iterations: from.count("iterations", MAX_COUNT),
    salt: base64(from, "salt"),
  }
}

function argon2(from: JsonRecord, type: "argon2i" | "argon2id"): LuksKdf {
  return {
    type,
    time: from.count("time", MAX_COUNT),
    memory: from.count("memory", MAX_COUNT),
    cpus: from.count("cpus", MAX_COUNT),
    salt: base64(from, "salt"),
  }
}

function segment(id: number, from: JsonRecord): LuksCryptSegment | UnknownObject {
  const type = from.string("type")
  if (type !== "crypt") return { known: false, id, type }
  const read = {
    known: true as const,
    id,
    offset: decimal(from, "offset"),
    size: from.string("size") === "dynamic" ? ("dynamic" as const) : decimal(from, "size"),
    ivTweak: decimal(from, "iv_tweak"),
    encryption: from.string("encryption"),
    sectorSize: from.count("sector_size", MAX_COUNT),
    integrity: integrity(from.recordOrNull("integrity")),
    flags: texts(from, "flags"),
  }
  from.finish()
  return read
}

function integrity(from: JsonRecord | null): LuksCryptSegment["integrity"] {
  if (from === null) return null
  const read = {
    type: from.string("type"),
    journalEncryption: from.string("journal_encryption"),
    journalIntegrity: from.string("journal_integrity"),
  }
  from.finish()
  return read
}

function digest(id: number, from: JsonRecord): LuksDigest | UnknownObject {
  const type = from.string("type")
  if (type !== "pbkdf2") return { known: false, id, type }
  const read = {
    known: true as const,
    id,
    keyslots: identifiers(from, "keyslots"),
    segments: identifiers(from, "segments"),
    hash: from.string("hash"),
    iterations: from.count("iterations", MAX_COUNT),
    salt: base64(from, "salt"),
    digest: base64(from, "digest"),
  }
  from.finish()
  return read
}

function token(id: number, from: JsonRecord): LuksToken {
  return {
    id,
    type: from.string("type"),
    keyslots: identifiers(from, "keyslots"),
    members: from.toPlain(),
  }
}

function config(from: JsonRecord): LuksConfig {
  const requirements = from.recordOrNull("requirements")
  const read = {
    jsonSize: decimal(from, "json_size"),
    keyslotsSize: decimal(from, "keyslots_size"),
    flags: texts(from, "flags"),
    requirements: requirements === null ? [] : texts(requirements, "mandatory"),
  }
  requirements?.finish()
  from.finish()
  return read
}

/** Object names are decimal numbers without leading zeros, so that one object has one name. */
function identifier(text: string, place: string): number {
  if (/^(0|[1-9][0-9]{0,3})$/.test(text)) return Number(text)
  throw new ParseError("ERR_MALFORMED", {
    at: place,
    expected: "a decimal number",
    found: JSON.stringify(text.slice(0, 20)),
  })
}

function identifiers(from: JsonRecord, name: string): number[] {
  return texts(from, name).map((text) => identifier(text, from.place(name)))
}

/** An array of strings; none where it is absent. */
function texts(from: JsonRecord, name: string): string[] {
  const value = from.take(name)
  if (value === null) return []
  const all = isArray(value) ? value : null
  if (all?.every((item) => typeof item === "string")) return [...all]
  throw from.wrong(name, "an array of strings", value)
}

/** 64-bit numbers are written as strings of decimal digits. */
function decimal(from: JsonRecord, name: string): bigint {
  const text = from.string(name)
  const value = /^(0|[1-9][0-9]{0,19})$/.test(text) ? BigInt(text) : null
  if (value !== null && value < 1n << 64n) return value
  throw from.wrong(name, "a decimal number below 2^64, as a string", text.slice(0, 30))
}

function base64(from: JsonRecord, name: string): Uint8Array {
  const text = from.string(name)
  const bytes = fromBase64(text)
  if (bytes !== null) return bytes
  throw from.wrong(name, "base64", text)
}
