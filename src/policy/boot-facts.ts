import {
  EFI_VENDOR,
  type EfiVariable,
  looksLikeUtf16,
  parseEfiVariable,
  utf8Text,
  utf16Text,
} from "../formats/event-log/efi.ts"
import { EVENT_TYPE } from "../formats/event-log/event-log.ts"
import { grubText } from "../formats/event-log/measured-data.ts"
import type { BootEvents, LogKind, MeasuredEvent } from "../verify/event-log.ts"
import type { Verified } from "../verify/verified.ts"

/** Registers that boot rules look at. Source: TCG PFP 1.06, section 3.3; UEFI 2.10, table 38.1 for the RTMRs of a trust domain. */
export const RULE_REGISTERS: Readonly<
  Record<LogKind, { secureBoot: number; commandLine: readonly number[] }>
> = {
  tcg: { secureBoot: 7, commandLine: [8, 12] },
  cc: { secureBoot: 0, commandLine: [2] },
}

/** A UEFI variable whose event's digest covers all of it. */
export interface MeasuredVariable extends EfiVariable {
  /** Measured before the firmware ended its part: what comes later, the operating system may have measured. */
  readonly byFirmware: boolean
  /** Of the event in the log. */
  readonly position: number
}

/**
 * The variables of a type that were measured into the register of Secure Boot; null where the log does not give that register. An
 * event whose data were not measured gives none, and `unproven` counts it.
 */
export function measuredVariables(
  events: Verified<BootEvents>,
  type: number,
): { readonly variables: readonly MeasuredVariable[]; readonly unproven: number } | null {
  const measured = events.registers.get(RULE_REGISTERS[events.kind].secureBoot)
  if (measured === undefined) return null
  const end = measured.findIndex(({ event }) => event.type === EVENT_TYPE.EV_SEPARATOR)
  const variables: MeasuredVariable[] = []
  let unproven = 0
  for (const [index, { event, measured: part, position }] of measured.entries()) {
    if (event.type !== type) continue
    if (part?.part === "data")
      variables.push({ ...parseEfiVariable(event.data), byFirmware: index < end, position })
    else unproven += 1
  }
  return { variables, unproven }
}

/** What the firmware says about Secure Boot; `unknown` where no log proves either. */
export type SecureBootState = "on" | "off" | "unknown"

export function secureBootState(events: Verified<BootEvents>): SecureBootState {
  const found = measuredVariables(events, EVENT_TYPE.EV_EFI_VARIABLE_DRIVER_CONFIG)
  const states = found?.variables.filter(
    ({ vendor, name }) => vendor === EFI_VENDOR.global && name === "SecureBoot",
  )
  if (states === undefined || !states.some(({ byFirmware }) => byFirmware)) return "unknown"
  return states.every(({ value }) => value.length === 1 && value[0] === 1) && !debuggable(events)
    ? "on"
    : "off"
}

/** The firmware says so where a debugger may change what it does. Source: TCG PFP 1.06, section 3.3.4.8 "PCR[7]". */
function debuggable(events: Verified<BootEvents>): boolean {
  const measured = events.registers.get(RULE_REGISTERS[events.kind].secureBoot) ?? []
  return measured.some(
    ({ event }) => event.type === EVENT_TYPE.EV_EFI_ACTION && utf8Text(event.data) === "UEFI Debug Mode",
  )
}

/** Kernel command lines that boot loaders measured. */
export interface CommandLines {
  readonly texts: readonly string[]
  /** Events of the same registers whose text is not proven, so that a command line may be among them. */
  readonly unproven: number
}

/**
 * The command lines in a log; null where the log does not give the registers that they are measured into. What an event is called
 * in the log was not measured, only its text: so everything counts that GRUB could have handed to a kernel.
 */
export function commandLinesOf(events: Verified<BootEvents>): CommandLines | null {
  const texts: string[] = []
  let unproven = 0
  for (const register of RULE_REGISTERS[events.kind].commandLine) {
    const measured = events.registers.get(register)
    if (measured === undefined) return null
    for (const event of measured) {
      const text = textOf(event)
      // In a trust domain's register there are files and settings beside the texts.
      if (text === null) unproven += event.event.type === EVENT_TYPE.EV_IPL && events.kind === "tcg" ? 1 : 0
      else if (text !== "") texts.push(text)
    }
  }
  return { texts: [...new Set(texts)], unproven }
}

/** A command line; empty where the text is none; null where the text was not measured. */
function textOf({ event, measured }: MeasuredEvent): string | null {
  if (event.type !== EVENT_TYPE.EV_IPL || measured === null || measured.part === "value") return null
  if (looksLikeUtf16(measured.bytes)) return utf16Text(measured.bytes)
  const text = utf8Text(measured.bytes)
  const command = /^(?:linux|linux16|linuxefi)\s+(.*)$/s.exec(text)?.[1]
  if (command !== undefined) return command
  return /^[/(]/.test(text) || grubText(event)?.label === "kernel command line" ? text : ""
}
