import { ParseError } from "../../errors.ts"
import { LogReader } from "./log-reader.ts"

/**
 * The log of what firmware and boot loader measured: in the crypto-agile form that TPMs and confidential VMs share, or in the
 * older form that knows SHA-1 only. In a confidential VM it stands in the area that the ACPI table CCEL points to, and
 * registers are measurement registers.
 * Source: TCG PC Client Platform Firmware Profile, level 00 version 1.06, section 10 "Event Logging";
 * UEFI 2.10, section 38 "Confidential Computing"; ACPI 6.5, section 5.2.34 "CC Event Log ACPI Table".
 */
export interface EventLog {
  readonly form: "crypto-agile" | "sha1"
  /** Digest algorithms that the log declares. */
  readonly algorithms: readonly LogAlgorithm[]
  /** All events, the one that declares the format included. */
  readonly events: readonly LogEvent[]
  /** Bytes of the log itself. */
  readonly size: number
  /** Bytes of filling behind it. */
  readonly padding: number
}

export interface LogAlgorithm {
  /** TCG algorithm identifier. */
  readonly id: number
  /** Bytes of a digest. */
  readonly size: number
}

/** One event. Byte strings are views. Nothing in it is verified, and data may be hostile text. */
export interface LogEvent {
  /** Position in the log, from 0. */
  readonly position: number
  /** PCR number, or for CCEL: 0 MRTD, n RTMR n-1. */
  readonly register: number
  readonly type: number
  /** By algorithm identifier. Empty for the event that declares the crypto-agile form. */
  readonly digests: ReadonlyMap<number, Uint8Array>
  readonly data: Uint8Array
}

/** Identifiers of hash algorithms. Source: TCG Algorithm Registry, rev. 1.34, table "TPM_ALG_ID". */
export const LOG_ALGORITHM = { sha1: 0x04, sha256: 0x0b, sha384: 0x0c, sha512: 0x0d, sm3: 0x12 } as const

/** Event types. Source: TCG PC Client Platform Firmware Profile 1.06, table "Event Types". */
export const EVENT_TYPE = {
  EV_PREBOOT_CERT: 0x0,
  EV_POST_CODE: 0x1,
  EV_NO_ACTION: 0x3,
  EV_SEPARATOR: 0x4,
  EV_ACTION: 0x5,
  EV_EVENT_TAG: 0x6,
  EV_S_CRTM_CONTENTS: 0x7,
  EV_S_CRTM_VERSION: 0x8,
  EV_CPU_MICROCODE: 0x9,
  EV_PLATFORM_CONFIG_FLAGS: 0xa,
  EV_TABLE_OF_DEVICES: 0xb,
  EV_COMPACT_HASH: 0xc,
  EV_IPL: 0xd,
  EV_IPL_PARTITION_DATA: 0xe,
  EV_NONHOST_CODE: 0xf,
  EV_NONHOST_CONFIG: 0x10,
  EV_NONHOST_INFO: 0x11,
  EV_OMIT_BOOT_DEVICE_EVENTS: 0x12,
  EV_EFI_VARIABLE_DRIVER_CONFIG: 0x80000001,
  EV_EFI_VARIABLE_BOOT: 0x80000002,
  EV_EFI_BOOT_SERVICES_APPLICATION: 0x80000003,
  EV_EFI_BOOT_SERVICES_DRIVER: 0x80000004,
  EV_EFI_RUNTIME_SERVICES_DRIVER: 0x80000005,
  EV_EFI_GPT_EVENT: 0x80000006,
  EV_EFI_ACTION: 0x80000007,
  EV_EFI_PLATFORM_FIRMWARE_BLOB: 0x80000008,
  EV_EFI_HANDOFF_TABLES: 0x80000009,
  EV_EFI_PLATFORM_FIRMWARE_BLOB2: 0x8000000a,
  EV_EFI_HANDOFF_TABLES2: 0x8000000b,
  EV_EFI_VARIABLE_BOOT2: 0x8000000c,
  EV_EFI_GPT_EVENT2: 0x8000000d,
  EV_EFI_HCRTM_EVENT: 0x80000010,
  EV_EFI_VARIABLE_AUTHORITY: 0x800000e0,
  EV_EFI_SPDM_FIRMWARE_BLOB: 0x800000e1,
  EV_EFI_SPDM_FIRMWARE_CONFIG: 0x800000e2,
} as const

/** Larger logs are refused. Areas that firmware sets aside are 64 KiB to 1 MiB. */
export const MAX_EVENT_LOG_BYTES = 4 * 1024 * 1024
const MAX_ALGORITHMS = 8
const DIGEST_SIZES: ReadonlyMap<number, number> = new Map([
  [LOG_ALGORITHM.sha1, 20],
  [LOG_ALGORITHM.sha256, 32],
  [LOG_ALGORITHM.sha384, 48],
  [LOG_ALGORITHM.sha512, 64],
  [LOG_ALGORITHM.sm3, 32],
])
const SIGNATURE = "Spec ID Event03\0"
const SHA1_ONLY: readonly LogAlgorithm[] = [{ id: LOG_ALGORITHM.sha1, size: 20 }]

/** The name of an event type, or its number in hex. */
export function eventTypeName(type: number): string {
  const known = Object.entries(EVENT_TYPE).find(([, number]) => number === type)
  return known?.[0] ?? `0x${type.toString(16).padStart(8, "0")}`
}

/**
 * Reads a log. Behind the last event, up to the end, the area is filled with zeros or with 0xff.
 * @throws ParseError ERR_TRUNCATED, ERR_MALFORMED, ERR_TOO_LARGE, ERR_UNSUPPORTED (unknown algorithm)
 */
export function parseEventLog(bytes: Uint8Array): EventLog {
  if (bytes.length > MAX_EVENT_LOG_BYTES)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "event log",
      expected: `at most ${MAX_EVENT_LOG_BYTES} bytes`,
      found: `${bytes.length}`,
    })
  const reader = new LogReader(bytes)
  const first = parseSha1Event(reader, 0)
  const agile = first.type === EVENT_TYPE.EV_NO_ACTION && startsWith(first.data, SIGNATURE)
  const algorithms = agile ? parseSpecId(first.data) : SHA1_ONLY
  const events = [agile ? { ...first, digests: new Map() } : first]
  const end = endOfLog(bytes)
  while (reader.at < end)
    events.push(agile ? parseEvent(reader, events.length, algorithms) : parseSha1Event(reader, events.length))
  return {
    form: agile ? "crypto-agile" : "sha1",
    algorithms,
    events,
    size: reader.at,
    padding: bytes.length - reader.at,
  }
}

/**
 * Where the filling may begin, at the earliest: a shorter log that ends in such bytes of its own is read to its end, as an
 * event is always read whole.
 */
function endOfLog(bytes: Uint8Array): number {
  const filling = bytes.at(-1)
  if (filling !== 0 && filling !== 0xff) return bytes.length
  return bytes.findLastIndex((byte) => byte !== filling) + 1
}

/**
 * An event of the older form. In a crypto-agile log the first one has it too, so that the forms can be told apart.
 * Source: as above, section 10.2.1 "TCG_PCClientPCREvent Structure".
 */
function parseSha1Event(reader: LogReader, position: number): LogEvent {
  const place = `event ${position}`
  const register = reader.u32(place)
  const type = reader.u32(place)
  const digests = new Map([[LOG_ALGORITHM.sha1, reader.take(20, place)]])
  return { position, register, type, digests, data: reader.take(reader.u32(place), place) }
}

function startsWith(data: Uint8Array, text: string): boolean {
  return Buffer.from(data.subarray(0, text.length)).toString("latin1") === text
}

/** Source: as above, section 10.4.5.1 "Specification ID Version Event", structure TCG_EfiSpecIdEvent. */
function parseSpecId(data: Uint8Array): LogAlgorithm[] {
  const place = "Spec ID event"
  const reader = new LogReader(data, place)
  reader.take(SIGNATURE.length, place)
  reader.take(8, "platform class, version, errata and size of an integer")
  const count = reader.u32("number of algorithms")
  if (count === 0 || count > MAX_ALGORITHMS)
    throw new ParseError("ERR_MALFORMED", {
      at: `${place}, number of algorithms`,
      expected: `1 to ${MAX_ALGORITHMS}`,
      found: `${count}`,
    })
  const algorithms = Array.from({ length: count }, () => parseAlgorithm(reader))
  if (new Set(algorithms.map(({ id }) => id)).size !== count)
    throw new ParseError("ERR_MALFORMED", { at: place, expected: "each algorithm once", found: "one twice" })
  reader.take(reader.take(1, "vendor information")[0] ?? 0, "vendor information")
  if (reader.at !== data.length)
    throw new ParseError("ERR_TRAILING_BYTES", {
      at: place,
      expected: `${reader.at} bytes`,
      found: `${data.length}`,
    })
  return algorithms
}

function parseAlgorithm(reader: LogReader): LogAlgorithm {
  const id = reader.u16("algorithm")
  const size = reader.u16("digest size")
  const known = DIGEST_SIZES.get(id)
  if (known === undefined || known !== size)
    throw new ParseError(known === undefined ? "ERR_UNSUPPORTED" : "ERR_MALFORMED", {
      at: "Spec ID event, algorithm",
      expected: known === undefined ? "SHA-1, SHA-2 or SM3" : `${known} bytes`,
      found: known === undefined ? `0x${id.toString(16)}` : `${size}`,
    })
  return { id, size }
}

/** An event has a digest for each algorithm of the log. Source: as above, structure TCG_PCR_EVENT2. */
function parseEvent(reader: LogReader, position: number, algorithms: readonly LogAlgorithm[]): LogEvent {
  const place = `event ${position}`
  const register = reader.u32(place)
  const type = reader.u32(place)
  const count = reader.u32(place)
  if (count !== algorithms.length)
    throw new ParseError("ERR_MALFORMED", {
      at: `event log, ${place}`,
      expected: `${algorithms.length} digests`,
      found: `${count}`,
    })
  const digests = new Map<number, Uint8Array>()
  for (let index = 0; index < count; index++) {
    const id = reader.u16(place)
    const size = algorithms.find((algorithm) => algorithm.id === id)?.size
    if (size === undefined || digests.has(id))
      throw new ParseError("ERR_MALFORMED", {
        at: `event log, ${place}`,
        expected: "one digest for each algorithm that the log declares",
        found: `algorithm 0x${id.toString(16)}${size === undefined ? "" : " twice"}`,
      })
    digests.set(id, reader.take(size, place))
  }
  return { position, register, type, digests, data: reader.take(reader.u32(place), place) }
}
