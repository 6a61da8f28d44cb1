import { bytesEqual } from "../formats/hex.ts"
import type { BootEvents, LogKind, MeasuredEvent } from "../verify/event-log.ts"
import type { Verified } from "../verify/verified.ts"
import { isOneOf, SEPARATORS } from "./boot-facts.ts"

/** What the VM says that its kernel was started with, and what may stand beside it. */
export interface ClaimedCommandLine {
  /** `/proc/cmdline` by the VM's own account; null: it says nothing. */
  readonly text: Uint8Array | null
  /** Digests of initial RAM disks that the policy knows, in any bank. */
  readonly initrds: readonly Uint8Array[]
}

/** Longest command line of a kernel that takes all of it, in bytes: 2048 with NUL and "BOOT_IMAGE=", which GRUB does not measure. */
export const MAX_COMMAND_LINE = 2036

/**
 * Registers of the kernel's EFI stub, which measures its command line and then its initial RAM disk, and of the firmware for the
 * programs that it loads. Source: Linux 6.12, drivers/firmware/efi/libstub/efi-stub-helper.c; TCG PFP 1.06, section 3.3.4.5 "PCR[4]";
 * UEFI 2.10, table 38.1.
 */
const STUB_REGISTERS: Readonly<Record<LogKind, { stub: number; programs: number }>> = {
  tcg: { stub: 9, programs: 4 },
  cc: { stub: 2, programs: 1 },
}

/** What firmware measures beside programs. Source: TCG PFP 1.06, table "EV_EFI_ACTION event strings". */
const ACTIONS = [
  "Calling EFI Application from Boot Option",
  "Returning from EFI Application from Boot Option",
  "Exit Boot Services Invocation",
  "Exit Boot Services Returned with Success",
  "Exit Boot Services Returned with Failure",
].map((text) => Uint8Array.from(Buffer.from(text)))

/**
 * The command line that the VM claims, a character for each byte, where the EFI stub of its kernel measured that very text; null where
 * that is not proven. The log has no text of it, only a digest, and types and labels are not measured. Whoever is root later can
 * measure any digest, but only behind what was measured at the boot. So it has to be the first event of its register. What follows may
 * be the command line of another kernel, started when the first one gave up: it has to be known, or the firmware has to
 * have loaded no program but one.
 * That there is a kernel which measures is for the boot chain to prove: the snapshot's PCRs, or who signed what was started. A kernel
 * that is given nothing measures nothing, so that an initial RAM disk which is the text, and no archive, would be taken for it: such a
 * kernel finds no root file system.
 */
export function stubCommandLine(events: Verified<BootEvents>, claimed: ClaimedCommandLine): string | null {
  const line = claimed.text === null ? null : lineOf(claimed.text)
  const [first, ...later] = events.registers.get(STUB_REGISTERS[events.kind].stub) ?? []
  if (line === null || first === undefined) return null
  const isLine = isOneOf(events, encodings(line))
  if (!isLine(first)) return null
  const isInitrd = ({ digest }: MeasuredEvent) => claimed.initrds.some((known) => bytesEqual(known, digest))
  const known = later.every((event) => isLine(event) || isInitrd(event))
  return known || isOnlyProgram(events) ? Buffer.from(line, "utf8").toString("latin1") : null
}

/** As the kernel shows it, with a line break at its end. The stub takes nothing behind a NUL or another line break, nor all of a long one. */
function lineOf(shown: Uint8Array): string | null {
  const bytes = shown.at(-1) === 0x0a ? shown.subarray(0, -1) : shown
  if (bytes.length === 0 || bytes.length > MAX_COMMAND_LINE) return null
  if (bytes.includes(0) || bytes.includes(0x0a)) return null
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes)
  return bytesEqual(new TextEncoder().encode(text), bytes) ? text : null
}

/** The options of a loaded image are UTF-16 of any length; loaders end them with a NUL, boot entries of the firmware may not. */
function encodings(line: string): Uint8Array[] {
  return [`${line}\0`, line].map((text) => Uint8Array.from(Buffer.from(text, "utf16le")))
}

/** Each program that firmware loads is an event of its own, and one of its digests is not known beforehand. */
function isOnlyProgram(events: Verified<BootEvents>): boolean {
  const isOther = isOneOf(events, [...SEPARATORS, ...ACTIONS])
  const measured = events.registers.get(STUB_REGISTERS[events.kind].programs) ?? []
  return measured.filter((event) => !isOther(event)).length === 1
}
