import { CodedError } from "../../errors.ts"
import { parseEfiVariable } from "./efi.ts"
import { EVENT_TYPE, type LogEvent } from "./event-log.ts"

/** What of an event's data was hashed. */
export interface MeasuredPart {
  /**
   * `data`: all of it, so that nothing in it can be altered. `text`, `value`: only what stands behind a label or a name; the
   * label itself is a claim.
   */
  readonly part: "data" | "text" | "value"
  readonly bytes: Uint8Array
}

/** Words before the text that GRUB measures, in the versions that are in use, and what they stand for. */
const LABELS = [
  ["kernel_cmdline: ", "kernel command line"],
  ["grub_kernel_cmdline ", "kernel command line"],
  ["module_cmdline: ", "module command line"],
  ["grub_cmd: ", "GRUB command"],
  ["grub_cmd ", "GRUB command"],
] as const

/** What GRUB says that it measured; null where it is no text of GRUB's. */
export interface GrubText {
  readonly label: (typeof LABELS)[number][1]
  /** Without label and NUL. */
  readonly text: Uint8Array
}

export function grubText({ type, data }: LogEvent): GrubText | null {
  if (type !== EVENT_TYPE.EV_IPL) return null
  const head = Buffer.from(data.subarray(0, 24)).toString("latin1")
  for (const [prefix, label] of LABELS)
    if (head.startsWith(prefix)) return { label, text: withoutNul(data.subarray(prefix.length)) }
  return null
}

/**
 * What an event's digest may be the digest of, as far as it is in the log; most likely first. Where none fits, the event stands for
 * something that the log only describes: a file's content, a table in memory.
 */
export function measurableParts(event: LogEvent): MeasuredPart[] {
  const { type, data } = event
  const all: MeasuredPart = { part: "data", bytes: data }
  switch (type) {
    case EVENT_TYPE.EV_IPL: {
      const grub = grubText(event)
      if (grub === null) return [all, { part: "data", bytes: withoutNul(data) }]
      // Older versions hash the NUL as well.
      const start = data.length - grub.text.length
      const withNul = data.at(-1) === 0 ? data.subarray(start - 1) : data.subarray(start)
      return [{ part: "text", bytes: grub.text }, { part: "text", bytes: withNul }, all]
    }
    case EVENT_TYPE.EV_EFI_VARIABLE_BOOT:
      return [all, ...variableValue(data)]
    case EVENT_TYPE.EV_SEPARATOR:
      // After an error the digest is that of the number 1, and the data say what happened.
      return [all, { part: "value", bytes: Uint8Array.of(1, 0, 0, 0) }]
    default:
      return [all]
  }
}

/**
 * Types whose digest is that of the data, always: where it is not, the log was altered. Others measure something that the log only
 * describes, or are written differently by different firmware.
 * Source: TCG PC Client Platform Firmware Profile 1.06, table "Event Types", column "Digest".
 */
const DATA_IS_MEASURED: ReadonlySet<number> = new Set([
  EVENT_TYPE.EV_SEPARATOR,
  EVENT_TYPE.EV_ACTION,
  EVENT_TYPE.EV_EFI_ACTION,
  EVENT_TYPE.EV_EFI_VARIABLE_DRIVER_CONFIG,
  EVENT_TYPE.EV_EFI_GPT_EVENT,
])

/** Whether an event's digest has to be that of a part of its data. */
export function definesDigest({ type, data }: LogEvent): boolean {
  if (type === EVENT_TYPE.EV_EFI_VARIABLE_AUTHORITY) return !isByOldShim(data)
  return DATA_IS_MEASURED.has(type)
}

/** Shim before version 15 put a bare certificate into the log, and hashed something else. */
function isByOldShim(data: Uint8Array): boolean {
  return variableValue(data).some(({ bytes }) => bytes[0] === 0x30 && bytes[1] === 0x82)
}

function variableValue(data: Uint8Array): MeasuredPart[] {
  try {
    return [{ part: "value", bytes: parseEfiVariable(data).value }]
  } catch (error) {
    if (error instanceof CodedError) return []
    throw error
  }
}

function withoutNul(data: Uint8Array): Uint8Array {
  return data.at(-1) === 0 ? data.subarray(0, -1) : data
}
