import type { HashName } from "../tpm/algorithms.ts"
import { ascii, concat, u16, u32 } from "./bytes.ts"
import { EVENT_TYPE, LOG_ALGORITHM } from "./event-log.ts"

/** An event to be written into a log. */
export interface EncodedEvent {
  /** PCR, or measurement register of a trust domain. */
  readonly register: number
  readonly type: number
  readonly data: Uint8Array
  /** One for each bank of the log. */
  readonly digests: ReadonlyMap<HashName, Uint8Array>
}

const SIZES: Readonly<Record<HashName, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 }

/** A log in the crypto-agile form, with the event before all others that says so. Source: as `parseEventLog`. */
export function encodeEventLog(banks: readonly HashName[], events: readonly EncodedEvent[]): Uint8Array {
  const algorithms = banks.flatMap((bank) => [u16(LOG_ALGORITHM[bank]), u16(SIZES[bank])])
  // Platform class, version 2.0, errata, size of an integer: 64 bits.
  const versions = [u32(0), Uint8Array.of(0, 2, 0, 2)]
  const specId = concat(
    ascii("Spec ID Event03\0"),
    ...versions,
    u32(banks.length),
    ...algorithms,
    Uint8Array.of(0),
  )
  const first = [u32(0), u32(EVENT_TYPE.EV_NO_ACTION), new Uint8Array(SIZES.sha1), u32(specId.length), specId]
  return concat(...first, ...events.flatMap((event) => encodeEvent(banks, event)))
}

function encodeEvent(
  banks: readonly HashName[],
  { register, type, data, digests }: EncodedEvent,
): Uint8Array[] {
  return [
    u32(register),
    u32(type),
    u32(banks.length),
    ...banks.flatMap((bank) => [u16(LOG_ALGORITHM[bank]), digests.get(bank) ?? new Uint8Array(SIZES[bank])]),
    u32(data.length),
    data,
  ]
}
