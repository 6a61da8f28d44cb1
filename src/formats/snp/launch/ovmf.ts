import { ParseError } from "../../../errors.ts"
import { bytesEqual } from "../../hex.ts"
import { efiGuid } from "./guid.ts"
import { PAGE_SIZE } from "./page-digest.ts"

/** Largest firmware image that is looked at, in bytes. Real ones have 1 to 8 MiB. */
export const MAX_OVMF = 64 * 1024 * 1024

/** Entries of the table at the end of the image. Source: EDK II, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm. */
const GUID = {
  footer: efiGuid("96b582de-1fb2-45f7-baea-a366c55a082d"),
  hashTable: efiGuid("7255371f-3a3b-4b04-927b-1da6efa8d454"),
  resetBlock: efiGuid("00f771de-1a7e-4fcb-890e-68c77e2fb44e"),
  sevMetadata: efiGuid("dc886566-984a-4798-a75e-5585a7bf67cc"),
} as const

/** The table ends this many bytes before the end of the image: the reset vector follows. */
const FOOTER_DISTANCE = 32
/** Size (u16) and GUID, which stand at the end of each entry. */
const ENTRY_HEADER = 18
const MAX_SECTIONS = 64

/** Kinds of memory that the firmware asks the host to prepare. Source: EDK II, OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm. */
const SECTION_KINDS: ReadonlyMap<number, SectionKind> = new Map([
  [1, "sec-mem"],
  [2, "secrets"],
  [3, "cpuid"],
  [4, "svsm-caa"],
  [0x10, "kernel-hashes"],
])
export type SectionKind = "sec-mem" | "secrets" | "cpuid" | "svsm-caa" | "kernel-hashes"

/** One stretch of guest memory. */
export interface OvmfSection {
  readonly kind: SectionKind
  readonly gpa: bigint
  /** Bytes, a multiple of a page. */
  readonly size: number
}

/** What a launch digest needs to know of an OVMF image. */
export interface Ovmf {
  readonly image: Uint8Array
  /** Guest-physical address of its first byte: it ends at 4 GiB. */
  readonly gpa: bigint
  /** Memory to prepare, in the order in which hosts add it. Empty where the firmware knows nothing of SEV-SNP. */
  readonly sections: readonly OvmfSection[]
  /** Address at which the hashes of kernel, initrd and command line go; null where the firmware has no place for them. */
  readonly hashTableGpa: number | null
  /** Where processors other than the first begin; null where the firmware does not say. */
  readonly resetEip: number | null
}

/**
 * Reads the tables at the end of an OVMF image.
 * @throws ParseError ERR_TOO_LARGE, ERR_TRUNCATED, ERR_MALFORMED, ERR_UNSUPPORTED (section kind)
 */
export function parseOvmf(image: Uint8Array): Ovmf {
  if (image.length > MAX_OVMF)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "OVMF image",
      expected: `at most ${MAX_OVMF} bytes`,
      found: `${image.length}`,
    })
  if (image.length === 0 || image.length % PAGE_SIZE !== 0)
    throw new ParseError("ERR_MALFORMED", {
      at: "OVMF image",
      expected: `a multiple of ${PAGE_SIZE} bytes`,
      found: `${image.length}`,
      hint: "give the whole image as the host loads it: OVMF.fd, or OVMF_CODE.fd",
    })
  const entry = entryReader(image)
  const metadata = entry(GUID.sevMetadata, 4, "SEV metadata")
  return {
    image,
    gpa: 0x1_0000_0000n - BigInt(image.length),
    sections: metadata === null ? [] : parseSections(image, firstU32(metadata)),
    hashTableGpa: mapNull(entry(GUID.hashTable, 8, "SEV hash table"), firstU32),
    resetEip: mapNull(entry(GUID.resetBlock, 4, "SEV-ES reset block"), firstU32),
  }
}

type EntryReader = (guid: Uint8Array, minimum: number, name: string) => Uint8Array | null

/** The table is read from its end: each entry is data, then size, then GUID; the last one is the table itself. */
function entryReader(image: Uint8Array): EntryReader {
  const end = image.length - FOOTER_DISTANCE
  const footer = image.subarray(end - 16, end)
  if (!bytesEqual(footer, GUID.footer)) return () => null
  const total = entrySize(image, end, image.length - FOOTER_DISTANCE)
  const start = end - total
  const entries: { guid: Uint8Array; data: Uint8Array }[] = []
  for (let at = end - ENTRY_HEADER; at > start; ) {
    const size = entrySize(image, at, at - start)
    entries.push({
      guid: image.subarray(at - 16, at),
      data: image.subarray(at - size, at - ENTRY_HEADER),
    })
    at -= size
  }
  return (guid, minimum, name) => {
    const [found, ...more] = entries.filter((candidate) => bytesEqual(candidate.guid, guid))
    if (found === undefined) return null
    if (more.length > 0 || found.data.length < minimum)
      throw new ParseError("ERR_MALFORMED", {
        at: `OVMF table, ${name}`,
        expected: `one entry of ${minimum} bytes or more`,
        found: more.length > 0 ? `${more.length + 1} entries` : `${found.data.length} bytes`,
      })
    return found.data
  }
}

/** Size of the entry that ends at `end`; it must hold its own header and stay within `room`. */
function entrySize(image: Uint8Array, end: number, room: number): number {
  const size = room < ENTRY_HEADER ? 0 : viewOf(image).getUint16(end - ENTRY_HEADER, true)
  if (size >= ENTRY_HEADER && size <= room) return size
  throw new ParseError("ERR_MALFORMED", {
    at: `OVMF table, entry before byte 0x${end.toString(16)}`,
    expected: `a size from ${ENTRY_HEADER} to ${room}`,
    found: `${size}`,
  })
}

/** @param distance from the end of the image to the metadata, in bytes. */
function parseSections(image: Uint8Array, distance: number): OvmfSection[] {
  const start = image.length - distance
  const place = "OVMF SEV metadata"
  if (start < 0 || start + 16 > image.length)
    throw new ParseError("ERR_TRUNCATED", { at: place, expected: "a header in the image" })
  const view = viewOf(image)
  if (view.getUint32(start, false) !== 0x41534556)
    throw new ParseError("ERR_MALFORMED", { at: place, expected: "the signature ASEV" })
  const [length, version, count] = [4, 8, 12].map((offset) => view.getUint32(start + offset, true))
  if (version !== 1)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: `${place}, version`,
      expected: "1",
      found: `${version}`,
      hint: "use a newer cosmian_vm",
    })
  if (count === undefined || count > MAX_SECTIONS)
    throw new ParseError("ERR_TOO_LARGE", {
      at: place,
      expected: `at most ${MAX_SECTIONS} sections`,
      found: `${count}`,
    })
  if (length !== 16 + 12 * count || start + length > image.length)
    throw new ParseError("ERR_MALFORMED", {
      at: `${place}, length`,
      expected: `${16 + 12 * count} for ${count} sections, within the image`,
      found: `${length}`,
    })
  return Array.from({ length: count }, (_, index) => parseSection(view, start + 16 + 12 * index, index))
}

function parseSection(view: DataView, at: number, index: number): OvmfSection {
  const [gpa = 0, size = 0, type = 0] = [0, 4, 8].map((offset) => view.getUint32(at + offset, true))
  const kind = SECTION_KINDS.get(type)
  const place = `OVMF SEV metadata, section ${index}`
  if (kind === undefined)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: `${place}, type`,
      expected: [...SECTION_KINDS.keys()].join(", "),
      found: `${type}`,
      hint: "use a newer cosmian_vm",
    })
  const pages = size > 0 && size % PAGE_SIZE === 0 && gpa % PAGE_SIZE === 0
  const single = kind === "sec-mem" || size === PAGE_SIZE
  if (!pages || !single || size > MAX_OVMF)
    throw new ParseError("ERR_MALFORMED", {
      at: place,
      expected: kind === "sec-mem" ? "whole pages" : "one page",
      found: `${size} bytes at 0x${gpa.toString(16)}`,
    })
  return { kind, gpa: BigInt(gpa), size }
}

function firstU32(data: Uint8Array): number {
  return viewOf(data).getUint32(0, true)
}

function mapNull<T, U>(value: T | null, change: (value: T) => U): U | null {
  return value === null ? null : change(value)
}

function viewOf(source: Uint8Array): DataView {
  return new DataView(source.buffer, source.byteOffset, source.byteLength)
}
