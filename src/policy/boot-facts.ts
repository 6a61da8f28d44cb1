import { createHash } from "node:crypto"
import { CodedError } from "../errors.ts"
import { EFI_VENDOR, type EfiVariable, parseEfiVariable } from "../formats/event-log/efi.ts"
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

/** A UEFI variable whose event's digest covers all of it. */
export interface MeasuredVariable extends EfiVariable {
  /** Measured before the firmware ended its part: what comes later, the operating system may have measured. */
  readonly byFirmware: boolean
  /** Of the event in the log. */
  readonly position: number
}

export interface MeasuredVariables {
  readonly variables: readonly MeasuredVariable[]
  /** Events whose data were not measured, where each should be a variable: one that a rule asks for may be among them. */
  readonly unproven: number
  /** Those of them that the firmware measured. */
  readonly unprovenByFirmware: number
}

/**
 * The variables that were measured into the register of Secure Boot; null where the log does not give that register. What an event
 * is called in the log was not measured, so that an event is what its measured bytes are. In a trust domain's register there are
 * settings of the firmware as well, which logs only describe: there, those from before the firmware's end are not counted.
 */
export function measuredVariables(events: Verified<BootEvents>): MeasuredVariables | null {
  const measured = events.registers.get(RULE_REGISTERS[events.kind].secureBoot)
  if (measured === undefined) return null
  const end = firmwareEnd(events, measured)
  const variables: MeasuredVariable[] = []
  const unproven = { firmware: 0, later: 0 }
  for (const [index, { measured: part, position }] of measured.entries()) {
    const byFirmware = index < end
    const variable = part === null ? null : variableIn(part.bytes)
    if (variable !== null) variables.push({ ...variable, byFirmware, position })
    else if (part === null) unproven[byFirmware ? "firmware" : "later"] += 1
  }
  const unprovenByFirmware = events.kind === "tcg" ? unproven.firmware : 0
  return { variables, unproven: unprovenByFirmware + unproven.later, unprovenByFirmware }
}

/** What separators measure. Source: TCG PFP 1.06, section 3.3.2.2 "Error Conditions", and table "Event Types". */
export const SEPARATORS = [
  Uint8Array.of(0, 0, 0, 0),
  Uint8Array.of(0xff, 0xff, 0xff, 0xff),
  Uint8Array.of(1, 0, 0, 0),
] as const

/** Position of the first separator, by what was measured; 0 where there is none, as nothing is then known to be the firmware's. */
function firmwareEnd(events: Verified<BootEvents>, measured: readonly MeasuredEvent[]): number {
  return Math.max(0, measured.findIndex(isOneOf(events, SEPARATORS)))
}

/** Whether an event measured exactly one of these, whatever the log says of it. */
export function isOneOf(
  { bank }: Verified<BootEvents>,
  contents: readonly Uint8Array[],
): (event: MeasuredEvent) => boolean {
  const digests = contents.map((content) => createHash(bank).update(content).digest())
  return ({ digest }) => digests.some((known) => bytesEqual(known, digest))
}

/** Null where the bytes are none. */
function variableIn(bytes: Uint8Array): EfiVariable | null {
  try {
    return parseEfiVariable(bytes)
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

/** What the firmware says about Secure Boot; `unknown` where no log proves either. */
export type SecureBootState = "on" | "off" | "unknown"

export function secureBootState(events: Verified<BootEvents>): SecureBootState {
  const found = measuredVariables(events)
  const states = found?.variables.filter(
    ({ vendor, name }) => vendor === EFI_VENDOR.global && name === "SecureBoot",
  )
  if (found === null || states?.some(({ byFirmware }) => byFirmware) !== true) return "unknown"
  if (!states.every(({ value }) => value.length === 1 && value[0] === 1) || debuggable(events)) return "off"
  return found.unprovenByFirmware > 0 ? "unknown" : "on"
}

const DEBUG_MODE = ["UEFI Debug Mode", "UEFI Debug Mode\0"].map((text) => Uint8Array.from(Buffer.from(text)))

/** The firmware says so where a debugger may change what it does. Source: TCG PFP 1.06, section 3.3.4.8 "PCR[7]". */
function debuggable(events: Verified<BootEvents>): boolean {
  const measured = events.registers.get(RULE_REGISTERS[events.kind].secureBoot) ?? []
  return measured.some(isOneOf(events, DEBUG_MODE))
}
