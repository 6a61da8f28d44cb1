import { createHash } from "node:crypto"
import { VerifyError } from "../errors.ts"
import {
  EVENT_TYPE,
  type EventLog,
  eventTypeName,
  LOG_ALGORITHM,
  type LogEvent,
} from "../formats/event-log/event-log.ts"
import { definesDigest, type MeasuredPart, measurableParts } from "../formats/event-log/measured-data.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import type { HashName } from "../formats/tpm/algorithms.ts"
import { markVerified, type Verified } from "./verified.ts"

/** Whose registers a log is about: PCRs of a TPM, or the RTMRs of a trust domain. */
export type LogKind = "tcg" | "cc"

/** Runtime measurement registers of a TD, and PCRs of a TPM. */
export const RTMR_COUNT = 4
const PCR_COUNT = 24
export const BANKS = ["sha1", "sha256", "sha384", "sha512"] as const satisfies readonly HashName[]
const DIGEST_SIZE: Readonly<Record<HashName, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 }
/** Digest that the registers of a TD hold. */
const CC_BANK = "sha384"

/** Values of registers, by number of the PCR or RTMR. */
export type Registers = ReadonlyMap<number, Uint8Array>

/** One event that was measured. */
export interface MeasuredEvent {
  /** In the log, from 0. */
  readonly position: number
  /** Number of the PCR or RTMR. */
  readonly register: number
  /** As the log has it. */
  readonly event: LogEvent
  /** The value that was measured, in the bank that was asked for. */
  readonly digest: Uint8Array
  /** What of the data that digest covers; null: nothing, so that the data are only a claim, and the digest alone counts. */
  readonly measured: MeasuredPart | null
}

/** What a log proves about a boot. */
export interface BootEvents {
  readonly kind: LogKind
  readonly bank: HashName
  /** Events of each register that the log accounts for exactly, in order; registers that nothing was measured into have none. */
  readonly registers: ReadonlyMap<number, readonly MeasuredEvent[]>
  /** Registers whose quoted value the log does not give, with what it gives. */
  readonly unexplained: Registers
  /** Locality from which the TPM was started, where the log says so. */
  readonly startupLocality: number
}

/**
 * Compares a log with the registers of a quote: each is the log's digests, one hashed onto the other. An operating system goes on
 * measuring after the log has ended, so registers may hold more than the log says; what is said about those is not proven.
 * @param quoted registers of a verified quote that are to be explained.
 * @throws VerifyError ERR_EVENT_REGISTER, ERR_EVENT_DIGEST (no digest for the bank, or one that is not of the event's data)
 */
export function verifyBootEvents(
  log: EventLog,
  quoted: Registers,
  { kind, bank }: { readonly kind: LogKind; readonly bank: HashName },
): Verified<BootEvents> {
  const events = measuredEvents(log, kind, bank)
  const startupLocality = startupLocalityOf(log, kind)
  const replayed = extendAll(events, kind, bank, startupLocality)
  const registers = new Map<number, readonly MeasuredEvent[]>()
  const unexplained = new Map<number, Uint8Array>()
  for (const [register, value] of quoted) {
    const own = replayed.get(register) ?? initialValue(register, kind, bank, startupLocality)
    if (bytesEqual(own, value))
      registers.set(
        register,
        events.filter((event) => event.register === register),
      )
    else unexplained.set(register, own)
  }
  return markVerified({ kind, bank, registers, unexplained, startupLocality })
}

/**
 * The registers that a log gives, of those that it measures into.
 * @throws VerifyError ERR_EVENT_REGISTER, ERR_EVENT_DIGEST where the log has no digests of the bank
 */
export function replayEventLog(log: EventLog, kind: LogKind, bank: HashName): Map<number, Uint8Array> {
  const events = log.events.filter(isMeasured).map((event) => ({
    register: registerOf(event, kind),
    digest: digestOf(event, bank),
  }))
  return extendAll(events, kind, bank, startupLocalityOf(log, kind))
}

/** Banks that a log has digests for. */
export function banksOf(log: EventLog): HashName[] {
  return BANKS.filter((bank) => log.algorithms.some(({ id }) => id === LOG_ALGORITHM[bank]))
}

/**
 * Whose registers a log is about: logs do not say so themselves. That of a trust domain has SHA-384 alone and nothing but the
 * registers 1 to 4, while a TPM's begins with PCR 0.
 */
export function logKindOf(log: EventLog): LogKind {
  const [only, ...more] = banksOf(log)
  const registers = log.events.filter(isMeasured).map(({ register }) => register)
  const like = registers.every((register) => register >= 1 && register <= RTMR_COUNT)
  return only === CC_BANK && more.length === 0 && log.algorithms.length === 1 && like ? "cc" : "tcg"
}

/** What of an event's data its digests cover, in all banks that are known here; null: nothing. */
export function measuredPartOf(event: LogEvent): MeasuredPart | null {
  const known = BANKS.flatMap((bank) => {
    const digest = event.digests.get(LOG_ALGORITHM[bank])
    return digest === undefined ? [] : [{ bank, digest }]
  })
  if (known.length === 0) return null
  const fits = ({ bytes }: MeasuredPart) =>
    known.every(({ bank, digest }) => bytesEqual(hash(bank, bytes), digest))
  return measurableParts(event).find(fits) ?? null
}

/** Whether the log says something of an event that was not measured: its digest has to be that of its data, and is not. */
export function isAltered(event: LogEvent): boolean {
  return isMeasured(event) && definesDigest(event) && measuredPartOf(event) === null
}

/** Events of type EV_NO_ACTION only inform; everything else was measured. */
export function isMeasured({ type }: LogEvent): boolean {
  return type !== EVENT_TYPE.EV_NO_ACTION
}

/** Source: TCG PC Client Platform Firmware Profile 1.06, section 10.4.5.3 "Startup Locality Event". */
function startupLocalityOf(log: EventLog, kind: LogKind): number {
  if (kind === "cc") return 0
  const signature = "StartupLocality\0"
  const event = log.events.find(
    ({ type, data }) =>
      type === EVENT_TYPE.EV_NO_ACTION &&
      data.length === signature.length + 1 &&
      Buffer.from(data.subarray(0, signature.length)).toString("latin1") === signature,
  )
  return event?.data.at(-1) ?? 0
}

/** PCR 0 begins with the locality from which the TPM was started, everything else that is measured at boot with zeros. */
function initialValue(register: number, kind: LogKind, bank: HashName, locality: number): Uint8Array {
  const value = new Uint8Array(DIGEST_SIZE[bank])
  // PCRs 17 to 22 belong to a dynamic launch, and are all ones until there is one.
  if (kind === "tcg" && register >= 17 && register <= 22) value.fill(0xff)
  if (kind === "tcg" && register === 0) value[value.length - 1] = locality
  return value
}

function extendAll(
  events: readonly Pick<MeasuredEvent, "register" | "digest">[],
  kind: LogKind,
  bank: HashName,
  locality: number,
): Map<number, Uint8Array> {
  const registers = new Map<number, Uint8Array>()
  for (const { register, digest } of events) {
    const before = registers.get(register) ?? initialValue(register, kind, bank, locality)
    registers.set(register, hash(bank, before, digest))
  }
  return registers
}

function measuredEvents(log: EventLog, kind: LogKind, bank: HashName): MeasuredEvent[] {
  return log.events.filter(isMeasured).map((event) => {
    const digest = digestOf(event, bank)
    const measured = measuredPartOf(event)
    if (isAltered(event))
      throw new VerifyError("ERR_EVENT_DIGEST", {
        at: placeOf(event),
        expected: "the digest of the event's data",
        found: shortHex(digest),
        hint: "the log was altered: what it says about this event is not what was measured",
      })
    return { position: event.position, register: registerOf(event, kind), event, digest, measured }
  })
}

/** In the log of a trust domain, register 0 is MRTD, which is final before anything runs that could write a log. */
function registerOf(event: LogEvent, kind: LogKind): number {
  const [register, count] = kind === "cc" ? [event.register - 1, RTMR_COUNT] : [event.register, PCR_COUNT]
  if (register >= 0 && register < count) return register
  throw new VerifyError("ERR_EVENT_REGISTER", {
    at: placeOf(event),
    expected: kind === "cc" ? `1 to ${RTMR_COUNT}, for RTMR0 to RTMR3` : `0 to ${PCR_COUNT - 1}`,
    found: `${event.register}`,
  })
}

function digestOf(event: LogEvent, bank: HashName): Uint8Array {
  const digest = event.digests.get(LOG_ALGORITHM[bank])
  if (digest !== undefined) return digest
  throw new VerifyError("ERR_EVENT_DIGEST", {
    at: placeOf(event),
    expected: `a digest of bank ${bank}`,
    found: "none",
  })
}

function placeOf({ position, type }: LogEvent): string {
  return `event ${position}, ${eventTypeName(type)}`
}

function hash(bank: HashName, ...parts: readonly Uint8Array[]): Uint8Array {
  const state = createHash(bank)
  for (const part of parts) state.update(part)
  return new Uint8Array(state.digest())
}
