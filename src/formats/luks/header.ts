import { createHash } from "node:crypto"
import { ParseError } from "../../errors.ts"
import { bytesEqual, shortHex } from "../hex.ts"
import { bytes, layout, zero } from "../layout.ts"
import { type LuksMetadata, parseLuksMetadata } from "./metadata.ts"

/**
 * LUKS2 binary header: 4096 bytes, integers big-endian (so they are read as byte strings here). The primary stands at
 * offset 0, the secondary after the primary's JSON area.
 * Source: LUKS2 On-Disk Format Specification, version 1.1.4, section "Binary Header".
 */
const BINARY = layout("LUKS2 header", 0x1000, {
  magic: bytes(0, 6),
  version: bytes(6, 2),
  /** Binary header and JSON area together. */
  headerSize: bytes(8, 8),
  /** Grows with each write; equal in both copies at rest. */
  sequenceId: bytes(16, 8),
  label: bytes(24, 48),
  checksumAlgorithm: bytes(72, 32),
  salt: bytes(104, 64),
  uuid: bytes(168, 40),
  subsystem: bytes(208, 48),
  /** Offset of this copy. */
  headerOffset: bytes(256, 8),
  _padding: zero(264, 184),
  checksum: bytes(448, 64),
  _rest: zero(512, 3584),
})
const CHECKSUM = { offset: 448, size: 64 }

const PRIMARY_MAGIC = Uint8Array.of(0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe)
const SECONDARY_MAGIC = Uint8Array.of(0x53, 0x4b, 0x55, 0x4c, 0xba, 0xbe)
/** Sizes that the specification allows, and at whose offsets other readers look for the secondary header. */
const HEADER_SIZES = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096].map((kib) => kib * 1024)

/** Most bytes of a header image: 4 MiB twice, and 128 MiB of keyslots, as libcryptsetup allows. 16 MiB is usual. */
export const MAX_LUKS_IMAGE = 136 * 1024 * 1024

/** A LUKS2 header, both copies of which are whole and equal. */
export interface LuksHeader {
  readonly uuid: string
  readonly label: string
  readonly subsystem: string
  readonly sequenceId: bigint
  /** Bytes of one copy: binary header and JSON area. Keyslots start at twice this. */
  readonly headerSize: number
  /** Bytes of the image that was read: where keyslot areas have to end. */
  readonly imageSize: number
  readonly metadata: LuksMetadata
}

/**
 * Reads a LUKS2 header image: a detached header file, or the front of a device. Both copies have to be intact and equal:
 * libcryptsetup would silently repair one from the other, and a header that nobody tore apart has no need of it.
 * @throws ParseError ERR_TOO_LARGE, ERR_TRUNCATED, ERR_UNSUPPORTED (LUKS1, other checksums), ERR_MALFORMED (no LUKS header at all),
 *   ERR_RESERVED_NOT_ZERO, ERR_LUKS_CHECKSUM, ERR_LUKS_COPIES, and as {@link parseLuksMetadata}
 */
export function parseLuksHeader(image: Uint8Array): LuksHeader {
  if (image.length > MAX_LUKS_IMAGE)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "LUKS header",
      expected: `at most ${MAX_LUKS_IMAGE} bytes`,
      found: `${image.length}`,
    })
  const primary = readCopy(image, 0, "primary")
  const secondary = readCopy(image, primary.headerSize, "secondary")
  checkEqual(primary, secondary)
  const { uuid, label, subsystem, sequenceId, headerSize, json } = primary
  return {
    uuid,
    label,
    subsystem,
    sequenceId,
    headerSize,
    imageSize: image.length,
    metadata: parseLuksMetadata(json),
  }
}

interface Copy {
  readonly uuid: string
  readonly label: string
  readonly subsystem: string
  readonly sequenceId: bigint
  readonly headerSize: number
  /** Text of the JSON area, without the zeros after it. */
  readonly json: Uint8Array
}

function readCopy(image: Uint8Array, offset: number, name: "primary" | "secondary"): Copy {
  const at = `${name} LUKS header`
  const raw = take(image, offset, BINARY.size, at)
  checkKind(raw, name, at)
  const binary = BINARY.parse(raw)
  const headerSize = Number(bigEndian(binary.headerSize))
  if (!HEADER_SIZES.includes(headerSize))
    throw new ParseError("ERR_MALFORMED", {
      at,
      expected: "a header size of 16 KiB to 4 MiB",
      found: `${headerSize}`,
    })
  const own = bigEndian(binary.headerOffset)
  if (own !== BigInt(offset))
    throw new ParseError("ERR_MALFORMED", { at, expected: `the header of offset ${offset}`, found: `${own}` })
  const whole = take(image, offset, headerSize, at)
  checkChecksum(whole, text(binary.checksumAlgorithm, at), binary.checksum, at)
  return {
    uuid: text(binary.uuid, at),
    label: text(binary.label, at),
    subsystem: text(binary.subsystem, at),
    sequenceId: bigEndian(binary.sequenceId),
    headerSize,
    json: jsonText(whole.subarray(BINARY.size), at),
  }
}

/** Says what else it may be, before the checks that only make sense for LUKS2. */
function checkKind(raw: Uint8Array, name: "primary" | "secondary", at: string): void {
  const magic = name === "primary" ? PRIMARY_MAGIC : SECONDARY_MAGIC
  if (!bytesEqual(raw.subarray(0, 6), magic))
    throw new ParseError("ERR_MALFORMED", { at, expected: "a LUKS2 header", found: shortHex(raw, 6) })
  const version = bigEndian(raw.subarray(6, 8))
  if (version !== 2n)
    throw new ParseError("ERR_UNSUPPORTED", { at, expected: "LUKS version 2", found: `version ${version}` })
}

/** Over the whole copy, the checksum's own place taken as zeros. */
function checkChecksum(whole: Uint8Array, algorithm: string, checksum: Uint8Array, at: string): void {
  if (algorithm !== "sha256" && algorithm !== "sha512")
    throw new ParseError("ERR_UNSUPPORTED", {
      at: `${at}, checksum`,
      expected: "sha256 or sha512",
      found: JSON.stringify(algorithm.slice(0, 32)),
    })
  const digest = createHash(algorithm)
    .update(whole.subarray(0, CHECKSUM.offset))
    .update(new Uint8Array(CHECKSUM.size))
    .update(whole.subarray(CHECKSUM.offset + CHECKSUM.size))
    .digest()
  const expected = new Uint8Array(CHECKSUM.size)
  expected.set(digest)
  if (bytesEqual(expected, checksum)) return
  throw new ParseError("ERR_LUKS_CHECKSUM", {
    at,
    expected: shortHex(expected),
    found: shortHex(checksum),
    hint: "the header is damaged: restore a backup of it",
  })
}

function checkEqual(primary: Copy, secondary: Copy): void {
  const same =
    primary.uuid === secondary.uuid &&
    primary.label === secondary.label &&
    primary.subsystem === secondary.subsystem &&
    primary.sequenceId === secondary.sequenceId &&
    primary.headerSize === secondary.headerSize &&
    bytesEqual(primary.json, secondary.json)
  if (same) return
  throw new ParseError("ERR_LUKS_COPIES", {
    at: "LUKS header",
    expected: `primary and secondary of sequence ${primary.sequenceId}`,
    found: `a secondary of sequence ${secondary.sequenceId}`,
    hint: "a change of the header was interrupted: cryptsetup repair, or restore a backup of it",
  })
}

function jsonText(area: Uint8Array, at: string): Uint8Array {
  const end = area.indexOf(0)
  if (end < 0) throw new ParseError("ERR_MALFORMED", { at, expected: "a zero after the JSON text" })
  if (area.subarray(end).some((byte) => byte !== 0))
    throw new ParseError("ERR_RESERVED_NOT_ZERO", { at: `${at}, after the JSON text` })
  return area.subarray(0, end)
}

/** A C string in a field: printable ASCII, then zeros to the end. */
function text(field: Uint8Array, at: string): string {
  const end = field.indexOf(0)
  const used = end < 0 ? field : field.subarray(0, end)
  const padding = end < 0 ? new Uint8Array(0) : field.subarray(end)
  if (padding.some((byte) => byte !== 0) || used.some((byte) => byte < 0x20 || byte > 0x7e))
    throw new ParseError("ERR_MALFORMED", { at, expected: "printable text, then zeros" })
  return Buffer.from(used).toString("latin1")
}

function take(image: Uint8Array, offset: number, size: number, at: string): Uint8Array {
  if (image.length - offset < size)
    throw new ParseError("ERR_TRUNCATED", {
      at,
      expected: `${size} bytes at offset ${offset}`,
      found: `${Math.max(0, image.length - offset)}`,
    })
  return image.subarray(offset, offset + size)
}

function bigEndian(field: Uint8Array): bigint {
  let value = 0n
  for (const byte of field) value = value * 256n + BigInt(byte)
  return value
}
