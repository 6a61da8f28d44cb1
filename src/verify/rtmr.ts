import { createHash } from "node:crypto"
import { VerifyError } from "../errors.ts"
import {
  EVENT_TYPE,
  type EventLog,
  eventTypeName,
  LOG_ALGORITHM,
  type LogEvent,
} from "../formats/ccel/event-log.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { markVerified, type Verified } from "./verified.ts"

/** Runtime measurement registers of a TD. */
export const RTMR_COUNT = 4
const RTMR_SIZE = 48

/** What was measured into RTMRs, in order. */
export interface MeasuredEvents {
  readonly events: readonly MeasuredEvent[]
  /** The registers whose content the log accounts for. */
  readonly registers: readonly number[]
}

export interface MeasuredEvent {
  readonly rtmr: number
  readonly type: number
  /** SHA-384, the value that was measured. */
  readonly digest: Uint8Array
  /** What the log says about it. May be hostile text. */
  readonly data: Uint8Array
  /** Whether the digest is that of the data. Where not, the data is only a claim, and the digest alone counts. */
  readonly dataMeasured: boolean
}

/**
 * Types whose digest is that of the data, always. Others measure something that the log only describes: the content of a
 * file, a table, the value of a variable without its name.
 * Source: TCG PC Client Platform Firmware Profile 1.06, table "Event Types", column "Digest".
 */
const DATA_IS_MEASURED: ReadonlySet<number> = new Set([
  EVENT_TYPE.EV_SEPARATOR,
  EVENT_TYPE.EV_ACTION,
  EVENT_TYPE.EV_EFI_ACTION,
  EVENT_TYPE.EV_EFI_VARIABLE_DRIVER_CONFIG,
  EVENT_TYPE.EV_EFI_VARIABLE_AUTHORITY,
  EVENT_TYPE.EV_EFI_GPT_EVENT,
])

/**
 * Proves that a log is what the RTMRs of a quote hold: each register is the log's digests, one hashed onto the other.
 * @param rtmrs RTMR0 to RTMR3 of a verified quote.
 * @param registers those that the log has to account for. A TD whose operating system goes on measuring into RTMR2 or
 *   RTMR3 has values there that this log does not give.
 * @throws VerifyError ERR_EVENT_REGISTER, ERR_EVENT_DIGEST, ERR_RTMR_REPLAY
 */
export function verifyEventLog(
  log: EventLog,
  rtmrs: readonly Uint8Array[],
  registers: readonly number[] = [0, 1, 2, 3],
): Verified<MeasuredEvents> {
  const events = measuredEvents(log)
  const replayed = replay(events)
  for (const register of registers) {
    const [quoted, own] = [rtmrs[register], replayed[register]]
    if (quoted === undefined || own === undefined)
      throw new VerifyError("ERR_INTERNAL", { at: "RTMR replay", found: `register ${register}` })
    if (!bytesEqual(quoted, own))
      throw new VerifyError("ERR_RTMR_REPLAY", {
        at: `RTMR${register}`,
        expected: `${shortHex(quoted)}, as the quote says`,
        found: shortHex(own),
        hint: "the log was altered or is another boot's, or something was measured that it does not list",
      })
  }
  const proven = events.filter(({ rtmr }) => registers.includes(rtmr))
  return markVerified({ events: proven, registers })
}

/** The registers that a log gives. @throws VerifyError ERR_EVENT_REGISTER, ERR_EVENT_DIGEST */
export function replayEventLog(log: EventLog): Uint8Array[] {
  return replay(measuredEvents(log))
}

function replay(events: readonly MeasuredEvent[]): Uint8Array[] {
  const registers = Array.from({ length: RTMR_COUNT }, () => new Uint8Array(RTMR_SIZE))
  for (const { rtmr, digest } of events) {
    const before = registers[rtmr] ?? new Uint8Array(RTMR_SIZE)
    registers[rtmr] = new Uint8Array(createHash("sha384").update(before).update(digest).digest())
  }
  return registers
}

/** Events of type EV_NO_ACTION only inform; everything else was measured. */
function measuredEvents({ events }: EventLog): MeasuredEvent[] {
  return events.filter(({ type }) => type !== EVENT_TYPE.EV_NO_ACTION).map(measuredEvent)
}

function measuredEvent(event: LogEvent): MeasuredEvent {
  const place = `event ${event.position}, ${eventTypeName(event.type)}`
  const rtmr = event.register - 1
  // Register 0 is MRTD, which is final before anything runs that could write a log.
  if (rtmr < 0 || rtmr >= RTMR_COUNT)
    throw new VerifyError("ERR_EVENT_REGISTER", {
      at: place,
      expected: `1 to ${RTMR_COUNT}, for RTMR0 to RTMR${RTMR_COUNT - 1}`,
      found: `${event.register}`,
    })
  const digest = event.digests.get(LOG_ALGORITHM.sha384)
  if (digest === undefined)
    throw new VerifyError("ERR_EVENT_DIGEST", { at: place, expected: "a SHA-384 digest", found: "none" })
  const dataMeasured = bytesEqual(createHash("sha384").update(event.data).digest(), digest)
  if (!dataMeasured && DATA_IS_MEASURED.has(event.type))
    throw new VerifyError("ERR_EVENT_DIGEST", {
      at: place,
      expected: "the digest of the event's data",
      found: shortHex(digest),
      hint: "the log was altered: what it says about this event is not what was measured",
    })
  return { rtmr, type: event.type, digest, data: event.data, dataMeasured }
}
