import { createHash } from "node:crypto"
import { CodedError } from "../errors.ts"
import {
  EFI_VENDOR,
  type EfiVariable,
  looksLikeUtf16,
  parseEfiVariable,
  utf8Text,
  utf16Text,
} from "../formats/event-log/efi.ts"
import { grubText } from "../formats/event-log/measured-data.ts"
import { bytesEqual } from "../formats/hex.ts"
import type { BootEvents, LogKind, MeasuredEvent } from "../verify/event-log.ts"
import type { Verified } from "../verify/verified.ts"

/** Registers that boot rules look at. Source: TCG PFP 1.06, section 3.3; UEFI 2.10, table 38.1 for the RTMRs of a trust domain. */
export const RULE_REGISTERS: Readonly<
  Record<LogKind, { secureBoot: number; commandLine: readonly number[] }>
> = {
  tcg: { secureBoot: 7, commandLine: [8, 12] },
  cc: { secureBoot: 0, commandLine: [2] },
}

/** A UEFI variable in an event whose digest covers all of its data. */
export interface MeasuredVariable extends EfiVariable {
  /** Measured before the firmware ended its part: what comes later, the operating system may have measured. */
  readonly byFirmware: boolean
  /** Of the event in the log. */
  readonly position: number
}

/** What was measured into the register of Secure Boot. */
export interface SecureBootEvents {
  readonly variables: readonly MeasuredVariable[]
  /** Events whose data were not measured, so that they may be about anything. */
  readonly unproven: number
  /** The firmware says that a debugger may change what it does. */
  readonly debuggable: boolean
}

/**
 * Null where the log does not give the register. Only digests were measured: types and order of a log's events can be written anew
 * by whoever hides one, so an event is what its measured data are, and the firmware's part ends where a separator's digest stands.
 */
export function secureBootEvents(events: Verified<BootEvents>): SecureBootEvents | null {
  const measured = events.registers.get(RULE_REGISTERS[events.kind].secureBoot)
  if (measured === undefined) return null
  const hash = (bytes: Uint8Array) => new Uint8Array(createHash(events.bank).update(bytes).digest())
  const separators = SEPARATORS.map(hash)
  const debug = hash(new TextEncoder().encode("UEFI Debug Mode"))
  const end = measured.findIndex(({ digest }) => separators.some((known) => bytesEqual(known, digest)))
  const variables: MeasuredVariable[] = []
  let unproven = 0
  for (const [index, { digest, measured: part, position }] of measured.entries()) {
    if (separators.some((known) => bytesEqual(known, digest))) continue
    const variable = part?.part === "data" ? variableIn(part.bytes) : null
    if (variable !== null) variables.push({ ...variable, byFirmware: index < end, position })
    // In a trust domain's register there are parts of the firmware beside the variables.
    else if (part === null && events.kind === "tcg") unproven += 1
  }
  return { variables, unproven, debuggable: measured.some(({ digest }) => bytesEqual(digest, debug)) }
}

/** Source: TCG PFP 1.06, section 10.4.1, EV_SEPARATOR: two values for a normal end, one for an error. */
const SEPARATORS = [new Uint8Array(4), new Uint8Array(4).fill(0xff), Uint8Array.of(1, 0, 0, 0)]

function variableIn(data: Uint8Array): EfiVariable | null {
  try {
    const variable = parseEfiVariable(data)
    return variable.trailing === 0 ? variable : null
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

/** What the firmware says about Secure Boot; `unknown` where no log proves either. */
export type SecureBootState = "on" | "off" | "unknown"

export function secureBootState(events: Verified<BootEvents>): SecureBootState {
  const found = secureBootEvents(events)
  const states = found?.variables.filter(
    ({ vendor, name }) => vendor === EFI_VENDOR.global && name === "SecureBoot",
  )
  if (states === undefined || !states.some(({ byFirmware }) => byFirmware)) return "unknown"
  const on = states.every(({ value }) => value.length === 1 && value[0] === 1)
  return on && found?.debuggable === false ? "on" : "off"
}

/** Kernel command lines that boot loaders measured. */
export interface CommandLines {
  readonly texts: readonly string[]
  /** Events of the same registers whose text is not proven, so that a command line may be among them. */
  readonly unproven: number
}

/**
 * The command lines in a log; null where the log does not give the registers that they are measured into. Type and label of an event
 * were not measured, only its text: so everything counts that GRUB could have handed to a kernel.
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
      if (text === null) unproven += events.kind === "tcg" ? 1 : 0
      else if (text !== "") texts.push(text)
    }
  }
  return { texts: [...new Set(texts)], unproven }
}

/** A command line; empty where the text is none; null where the text was not measured. */
function textOf({ event, measured }: MeasuredEvent): string | null {
  if (measured === null || measured.part === "value") return null
  if (looksLikeUtf16(measured.bytes)) return utf16Text(measured.bytes)
  const text = utf8Text(measured.bytes)
  const command = /^(?:linux|linux16|linuxefi)\s+(.*)$/s.exec(text)?.[1]
  if (command !== undefined) return command
  return /^[/(]/.test(text) || grubText(event)?.label === "kernel command line" ? text : ""
}
