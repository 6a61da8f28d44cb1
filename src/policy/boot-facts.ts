import { createHash } from "node:crypto"
import { CodedError } from "../errors.ts"
import { EFI_VENDOR, type EfiVariable, parseEfiVariable, utf16Text } from "../formats/event-log/efi.ts"
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
const SEPARATORS = [
  Uint8Array.of(0, 0, 0, 0),
  Uint8Array.of(0xff, 0xff, 0xff, 0xff),
  Uint8Array.of(1, 0, 0, 0),
] as const

/** Position of the first separator, by what was measured; 0 where there is none, as nothing is then known to be the firmware's. */
function firmwareEnd(events: Verified<BootEvents>, measured: readonly MeasuredEvent[]): number {
  return Math.max(0, measured.findIndex(isOneOf(events, SEPARATORS)))
}

function isOneOf(
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

/** Kernel command lines that boot loaders measured. */
export interface CommandLines {
  readonly texts: readonly string[]
  /** Events of the same registers whose text is not proven, so that a command line may be among them. */
  readonly unproven: number
}

/** Longest command line of a kernel that takes all of it, in bytes: 2048 with NUL and "BOOT_IMAGE=", which is not measured. */
const MAX_COMMAND_LINE = 2036

/**
 * The command lines in a log, a character for each byte that the kernel gets; null where the log does not give the registers that
 * they are measured into. What an event is called in the log was not measured, only its text: so everything counts that a boot
 * loader could have handed to a kernel, and what is only described may be one.
 */
export function commandLinesOf(events: Verified<BootEvents>): CommandLines | null {
  const texts = new Set<string>()
  let unproven = 0
  for (const register of RULE_REGISTERS[events.kind].commandLine) {
    const measured = events.registers.get(register)
    if (measured === undefined) return null
    for (const event of measured) {
      const text = textOf(event)
      if (text === null || text.length > MAX_COMMAND_LINE) unproven += 1
      else if (text !== "") texts.add(text)
    }
  }
  return { texts: [...texts], unproven }
}

/** A command line; empty where the text is none; null where the text was not measured. */
function textOf({ event, measured }: MeasuredEvent): string | null {
  if (measured === null) return null
  const { bytes } = measured
  const end = bytes.findLastIndex((byte) => byte !== 0) + 1
  // GRUB measures texts without NUL, or with one at the end; systemd-stub UTF-16 with its NUL.
  if (bytes.length - end >= 2 || bytes.subarray(0, end).includes(0)) return stubText(bytes)
  const text = Buffer.from(bytes.subarray(0, end)).toString("latin1")
  const command = /^(?:linux|linux16|linuxefi)\s+(.*)$/s.exec(text)?.[1]
  if (command !== undefined) return command
  // A file by its path, which GRUB may put in quotes, or by the numbers of its blocks.
  const asKernel = /^["'\\]*[/(]|^["'\\]*[0-9]+\+/.test(text)
  return asKernel || grubText(event)?.label === "kernel command line" ? text : ""
}

/** The kernel takes UTF-16 up to the first line break. Source: Linux 6.12, drivers/firmware/efi/libstub, efi_convert_cmdline. */
function stubText(bytes: Uint8Array): string {
  const [line = ""] = utf16Text(bytes).split("\n", 1)
  return Buffer.from(line, "utf8").toString("latin1")
}
