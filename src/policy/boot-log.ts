import { CodedError } from "../errors.ts"
import { describeEvent, descriptionText } from "../formats/event-log/describe.ts"
import { eventTypeName, parseEventLog } from "../formats/event-log/event-log.ts"
import { shortHex, toHex } from "../formats/hex.ts"
import type { HashName } from "../formats/tpm/algorithms.ts"
import {
  type BootEvents,
  banksOf,
  type LogKind,
  type Registers,
  verifyBootEvents,
} from "../verify/event-log.ts"
import type { Verified } from "../verify/verified.ts"
import {
  type BootReference,
  type EventDifference,
  firstDifference,
  MAX_REFERENCE_TEXT,
  type ReferenceEvent,
} from "./boot-reference.ts"
import { mismatch } from "./policy-findings.ts"
import type { Claim, Finding } from "./verdict.ts"

/** What became of an event log. Only one that was read says anything, and that of registers it gives exactly. */
export type BootLog =
  | { readonly state: "absent"; readonly reason: string }
  | { readonly state: "wrong"; readonly error: CodedError }
  | {
      readonly state: "read"
      readonly events: Verified<BootEvents>
      /** `/proc/cmdline` by the VM's own account, which the events may prove; null: it says nothing. */
      readonly claimedCommandLine: Uint8Array | null
    }

/** Nobody looked for a log. */
export const NO_LOG: BootLog = { state: "absent", reason: "no event log" }

/**
 * Reads a log and compares it with quoted registers. One of a form or bank that is not known here says as little as one that is
 * absent; one that contradicts itself was altered.
 * @param quoted registers of a verified quote.
 */
export function readBootLog(
  bytes: Uint8Array | undefined,
  quoted: Registers,
  options: {
    readonly kind: LogKind
    readonly bank: HashName
    /** `/proc/cmdline` by the VM's own account. */
    readonly claimedCommandLine?: Uint8Array | null | undefined
  },
): BootLog {
  if (bytes === undefined) return NO_LOG
  try {
    const log = parseEventLog(bytes)
    if (!banksOf(log).includes(options.bank))
      return { state: "absent", reason: `the event log has no digests of bank ${options.bank}` }
    const { claimedCommandLine = null } = options
    return { state: "read", events: verifyBootEvents(log, quoted, options), claimedCommandLine }
  } catch (error) {
    if (!(error instanceof CodedError) || error.code === "ERR_INTERNAL") throw error
    if (error.code === "ERR_UNSUPPORTED")
      return { state: "absent", reason: "an event log of an unknown form" }
    return { state: "wrong", error }
  }
}

/** Events of a register as snapshots keep them; null where the log does not give its value. */
function referenceEvents(log: BootLog, register: number): ReferenceEvent[] | null {
  if (log.state !== "read") return null
  const events = log.events.registers.get(register)
  if (events === undefined) return null
  const started: ReferenceEvent[] =
    register === 0 && log.events.startupLocality !== 0
      ? [["EV_NO_ACTION", "", `the TPM was started at locality ${log.events.startupLocality}`]]
      : []
  const measured = events.map(
    ({ event, digest }): ReferenceEvent => [
      eventTypeName(event.type),
      toHex(digest),
      clipped(descriptionText(describeEvent(event))),
    ],
  )
  return [...started, ...measured]
}

/** What a snapshot keeps of a log: the registers it gives. @param registers those that are reference values. */
export function referenceRegisters(log: BootLog | null, registers: readonly number[]): BootReference["pcrs"] {
  return Object.fromEntries(
    registers.flatMap((register) => {
      const events = log === null ? null : referenceEvents(log, register)
      return events === null ? [] : [[`${register}`, events] as const]
    }),
  )
}

/** Cut without leaving half a character behind. */
function clipped(text: string): string {
  return text.slice(0, MAX_REFERENCE_TEXT).toWellFormed()
}

/** Why a register has another value than at the snapshot. */
export interface Explanation extends EventDifference {
  /** Position in the present log, for `eventlog show`; null where the event is gone. */
  readonly position: number | null
}

/**
 * The first event that a register's value differs by. Null where one of both has no log that gives its value.
 * @param known the snapshot's events of that register.
 */
export function explainRegister(
  known: readonly ReferenceEvent[] | undefined,
  log: BootLog,
  register: number,
): Explanation | null {
  const now = referenceEvents(log, register)
  if (known === undefined || now === null || log.state !== "read") return null
  const difference = firstDifference(known, now)
  if (difference === null) return null
  const events = log.events.registers.get(register) ?? []
  // What a snapshot keeps may begin with the locality, which is no event of the register.
  const position = events[difference.index - (now.length - events.length)]?.position ?? null
  return { ...difference, position }
}

/**
 * What is wrong with the log itself. A register that has the snapshot's value, and that the snapshot's log explained, is explained
 * by every honest log: one that no longer does was altered.
 * @param unchanged registers with the snapshot's values; empty where there is no snapshot yet.
 * @param known the snapshot's events by register.
 * @param name of a register, for messages.
 */
export function logFindings(
  log: BootLog,
  unchanged: readonly number[],
  known: BootReference["pcrs"],
  name: string,
): Finding[] {
  if (log.state === "absent") return []
  if (log.state === "wrong") {
    const { error } = log
    return [
      {
        code: error.code,
        subject: error.at ?? "event log",
        ...(error.expected === undefined ? {} : { expected: error.expected }),
        ...(error.found === undefined ? {} : { found: error.found }),
        meaning: `the event log was altered, or is damaged: ${error.message}`,
        remedy: error.hint ?? "do not trust what the VM says about its boot until this is explained",
      },
    ]
  }
  const { unexplained } = log.events
  return unchanged
    .filter((register) => known[String(register)] !== undefined && unexplained.has(register))
    .map((register) =>
      mismatch(
        "ERR_EVENT_LOG_REPLAY",
        `${name} ${register}`,
        "the quoted value, as at the snapshot",
        shortHex(unexplained.get(register) ?? new Uint8Array(0)),
        {
          meaning: "events were removed from the log, added, reordered or edited",
          remedy: "do not trust what the VM says about its boot until this is explained",
        },
      ),
    )
}

/** What a log is worth, for the facts of a claim. */
export function logFacts(log: BootLog, name: string): Claim["facts"] {
  if (log.state === "absent") return { eventLog: log.reason }
  if (log.state === "wrong") return { eventLog: "altered or damaged" }
  const { registers, unexplained } = log.events
  const explained = [...registers].filter(([, events]) => events.length > 0).map(([register]) => register)
  const measuredOn = [...unexplained.keys()]
  return {
    eventLog: `explains ${name} ${explained.join(", ") || "none"}${measuredOn.length === 0 ? "" : `; not ${measuredOn.join(", ")}`}`,
  }
}
