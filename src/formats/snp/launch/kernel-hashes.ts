import { createHash } from "node:crypto"
import { ParseError } from "../../../errors.ts"
import { efiGuid } from "./guid.ts"
import { PAGE_SIZE } from "./page-digest.ts"

/** What the host loads beside the firmware for a direct boot of Linux. */
export interface DirectBoot {
  readonly kernel: Uint8Array
  /** Empty where there is none. */
  readonly initrd: Uint8Array
  /** Kernel command line, without its terminating NUL. */
  readonly commandLine: string
}

/** GUIDs of the table and its entries. Source: QEMU, target/i386/sev.c; EDK II, OvmfPkg/AmdSev/BlobVerifierLibSevHashes. */
const TABLE = efiGuid("9438d606-4f22-4cc9-b479-a793d411fd21")
const COMMAND_LINE = efiGuid("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
const INITRD = efiGuid("44baf731-3a2f-4bd7-9af1-41e29169781d")
const KERNEL = efiGuid("4de79437-abd2-427f-b835-d5b172d2045b")

/** GUID, size (u16), and a SHA-256. */
const ENTRY_SIZE = 16 + 2 + 32
const TABLE_SIZE = 16 + 2 + 3 * ENTRY_SIZE
/** The host pads the table to 16 bytes. */
const PADDED_SIZE = Math.ceil(TABLE_SIZE / 16) * 16

/** The table of hashes that QEMU puts into the guest's memory, padding included. */
export function encodeKernelHashes({ kernel, initrd, commandLine }: DirectBoot): Uint8Array {
  const table = new Uint8Array(PADDED_SIZE)
  const view = new DataView(table.buffer)
  table.set(TABLE)
  view.setUint16(16, TABLE_SIZE, true)
  const entries = [
    [COMMAND_LINE, new TextEncoder().encode(`${commandLine}\0`)],
    [INITRD, initrd],
    [KERNEL, kernel],
  ] as const
  entries.forEach(([guid, content], index) => {
    const at = 18 + index * ENTRY_SIZE
    table.set(guid, at)
    view.setUint16(at + 16, ENTRY_SIZE, true)
    table.set(createHash("sha256").update(content).digest(), at + 18)
  })
  return table
}

/** The page that holds the table at its place. @throws ParseError ERR_MALFORMED where it would run over the page's end */
export function encodeKernelHashesPage(boot: DirectBoot, gpa: number): Uint8Array {
  const offset = gpa % PAGE_SIZE
  const table = encodeKernelHashes(boot)
  if (offset + table.length > PAGE_SIZE)
    throw new ParseError("ERR_MALFORMED", {
      at: "OVMF table, SEV hash table",
      expected: `an address at least ${table.length} bytes before the end of its page`,
      found: `0x${gpa.toString(16)}`,
    })
  const page = new Uint8Array(PAGE_SIZE)
  page.set(table, offset)
  return page
}
