import { ParseError } from "../errors.ts"
import { shortHex } from "../formats/hex.ts"
import { isArray, type JsonRecord, type JsonValue } from "../formats/strict-json.ts"

/** One event of a snapshot's boot: name of its type, digest in hex, what it was about. */
export type ReferenceEvent = readonly [type: string, digest: string, description: string]

/**
 * What was measured at the boot of the snapshot, by register and in order. It explains differences and decides nothing: the values
 * of the registers do. Registers that no event log explained are left out.
 */
export interface BootReference {
  /** By number of the PCR; SHA-256 bank. */
  readonly pcrs: Readonly<Record<string, readonly ReferenceEvent[]>>
  /** By number of the RTMR; SHA-384. Empty where the VM is no trust domain. */
  readonly rtmrs: Readonly<Record<string, readonly ReferenceEvent[]>>
}

/** Of all registers together. Real logs have fewer than 300. */
export const MAX_REFERENCE_EVENTS = 20_000
/** Longest description, in characters: a kernel command line has up to 2048. */
export const MAX_REFERENCE_TEXT = 2100

/** The first difference between two boots in one register. */
export interface EventDifference {
  /** Among the events of the register, from 0. */
  readonly index: number
  readonly expected: string
  readonly found: string
  readonly meaning: string
}

/** Null where there is none. Events are the same where type and digest are: what is said about them was not measured. */
export function firstDifference(
  before: readonly ReferenceEvent[],
  after: readonly ReferenceEvent[],
): EventDifference | null {
  const length = Math.max(before.length, after.length)
  for (let index = 0; index < length; index++)
    if (!sameEvent(before[index], after[index]))
      return { index, ...differenceAt(before.slice(index, index + 2), after.slice(index, index + 2)) }
  return null
}

function sameEvent(a: ReferenceEvent | undefined, b: ReferenceEvent | undefined): boolean {
  return a !== undefined && b !== undefined && a[0] === b[0] && a[1] === b[1]
}

/** Of the first events that differ; the next ones tell an event that was put in or left out from one that changed. */
function differenceAt(
  [before, nextBefore]: readonly ReferenceEvent[],
  [after, nextAfter]: readonly ReferenceEvent[],
): Omit<EventDifference, "index"> {
  const texts = { expected: shownEvent(before), found: shownEvent(after) }
  if (after !== undefined && (before === undefined || sameEvent(before, nextAfter)))
    return { ...texts, meaning: `measured in addition: ${after[2]}` }
  if (before !== undefined && (after === undefined || sameEvent(after, nextBefore)))
    return { ...texts, meaning: `no longer measured: ${before[2]}` }
  const [then, now] = [before?.[2] ?? "", after?.[2] ?? ""]
  return { ...texts, meaning: then === now ? `${then}: other content` : `${then} → ${now}` }
}

function shownEvent(event: ReferenceEvent | undefined): string {
  if (event === undefined) return "nothing more"
  const [, digest, description] = event
  return digest === "" ? description : `${description} (${shortHex(Buffer.from(digest, "hex"))})`
}

/** Reads the snapshot's member `boot_reference`. @throws ParseError ERR_MALFORMED, ERR_TOO_LARGE */
export function parseBootReference(record: JsonRecord): BootReference {
  const reference = {
    pcrs: parseRegisters(record.record("pcrs"), /^(?:[0-9]|1[0-9]|2[0-3])$/),
    rtmrs: parseRegisters(record.record("rtmrs"), /^[0-3]$/),
  }
  record.finish()
  return reference
}

/** The member's JSON text: a line for each event. */
export function encodeBootReference(reference: BootReference): string {
  const registers = (events: BootReference["pcrs"]) => {
    const members = Object.entries(events).map(([register, list]) => {
      const items = list.map((event) => JSON.stringify(event)).join(",\n")
      return `"${register}": [${items === "" ? "" : `\n${items}\n`}]`
    })
    return `{${members.join(",\n")}}`
  }
  return `{"pcrs": ${registers(reference.pcrs)},\n"rtmrs": ${registers(reference.rtmrs)}}`
}

function parseRegisters(registers: JsonRecord, number: RegExp): BootReference["pcrs"] {
  let total = 0
  const parsed = registers.names().map((name) => {
    if (!number.test(name)) throw registers.wrong(name.slice(0, 20), "the number of a register", name)
    const events = registers.array(name)
    total += events.length
    if (total > MAX_REFERENCE_EVENTS)
      throw new ParseError("ERR_TOO_LARGE", {
        at: registers.place(name),
        expected: `at most ${MAX_REFERENCE_EVENTS} events`,
      })
    return [name, events.map((event) => parseEvent(registers, name, event))] as const
  })
  registers.finish()
  return Object.fromEntries(parsed)
}

function parseEvent(registers: JsonRecord, name: string, value: JsonValue): ReferenceEvent {
  const [type, digest, description, ...rest] = isArray(value) ? value : []
  if (
    typeof type === "string" &&
    typeof digest === "string" &&
    typeof description === "string" &&
    rest.length === 0 &&
    type.length <= 64 &&
    /^(?:[0-9a-f]{64}|[0-9a-f]{96})?$/.test(digest) &&
    description.length <= MAX_REFERENCE_TEXT
  )
    return [type, digest, description]
  throw registers.wrong(name, "events of type, digest in hex and description", value)
}
