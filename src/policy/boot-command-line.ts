import { utf16Text } from "../formats/event-log/efi.ts"
import { grubText } from "../formats/event-log/measured-data.ts"
import type { BootEvents, MeasuredEvent } from "../verify/event-log.ts"
import type { Verified } from "../verify/verified.ts"
import { RULE_REGISTERS } from "./boot-facts.ts"
import { type ClaimedCommandLine, MAX_COMMAND_LINE, stubCommandLine } from "./stub-command-line.ts"

/** Kernel command lines that were measured. */
export interface CommandLines {
  readonly texts: readonly string[]
  /** Events of the same registers whose text is not proven, so that a command line may be among them. */
  readonly unproven: number
  /** A unified kernel image was started, or may have been: it holds a command line, of which the texts may be only a part. */
  readonly inImage: boolean
}

/** What systemd's stub measures of a unified kernel image. Source: UAPI Group, "Linux TPM PCR Registry". */
const IMAGE_PCR = 11

/**
 * The command lines of a boot, a character for each byte that the kernel gets; null where the log does not give the registers that
 * boot loaders measure them into. What an event is called in the log was not measured, only its text: so everything counts that a
 * boot loader could have handed to a kernel, and what is only described may be one. To these comes what the kernel itself measured,
 * where that is proven.
 */
export function commandLinesOf(
  events: Verified<BootEvents>,
  claimed: ClaimedCommandLine,
): CommandLines | null {
  const byKernel = stubCommandLine(events, claimed)
  // All that a trust domain's register holds is accounted for then.
  if (events.kind === "cc" && byKernel !== null) return { texts: [byKernel], unproven: 0, inImage: false }
  const texts = new Set<string>(byKernel === null ? [] : [byKernel])
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
  const inImage = events.kind === "tcg" && byKernel === null && events.registers.get(IMAGE_PCR)?.length !== 0
  return { texts: [...texts], unproven, inImage }
}

/** Whether the texts are all that the kernel may have been started with. */
export function areProven(lines: CommandLines | null): lines is CommandLines {
  return lines !== null && lines.texts.length > 0 && lines.unproven === 0 && !lines.inImage
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
