import { LogReader } from "./log-reader.ts"

/** Texts and identifiers as UEFI writes them. What comes out may be hostile text. */

/** A GUID in the usual notation; the first three groups are stored little-endian. @param bytes 16. */
export function guidText(bytes: Uint8Array): string {
  const hex = (indexes: readonly number[]) =>
    indexes.map((index) => (bytes[index] ?? 0).toString(16).padStart(2, "0")).join("")
  return [
    [3, 2, 1, 0],
    [5, 4],
    [7, 6],
    [8, 9],
    [10, 11, 12, 13, 14, 15],
  ]
    .map(hex)
    .join("-")
}

/** UTF-16, little-endian, up to the first NUL. */
export function utf16Text(bytes: Uint8Array): string {
  const text = new TextDecoder("utf-16le").decode(bytes.subarray(0, bytes.length & ~1))
  const end = text.indexOf("\0")
  return end < 0 ? text : text.slice(0, end)
}

/** UTF-8, without the NULs at its end. */
export function utf8Text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes.subarray(0, bytes.findLastIndex((byte) => byte !== 0) + 1))
}

/** Whether bytes are UTF-16 of printable ASCII, as command lines of boot loaders are. */
export function looksLikeUtf16(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false
  const units = bytes.subarray(0, Math.min(bytes.length & ~1, 16))
  return units.every((byte, index) => (index % 2 === 1 ? byte === 0 : byte === 0 || byte >= 0x20))
}

/** UTF-16 up to its NUL, which is read as well. */
export function takeUtf16(reader: LogReader, what: string): string {
  let text = ""
  for (;;) {
    const unit = reader.u16(what)
    if (unit === 0) return text
    text += String.fromCharCode(unit)
  }
}

/**
 * UEFI_VARIABLE_DATA: 32 bytes, then the name, then the value.
 * Source: TCG PC Client Platform Firmware Profile 1.06, section 10.2.6 "Measuring UEFI Variables and UEFI GPT Data".
 */
export interface EfiVariable {
  /** GUID of the vendor. */
  readonly vendor: string
  readonly name: string
  readonly value: Uint8Array
}

/** GUIDs of vendors whose variables mean something here. */
export const EFI_VENDOR = {
  /** EFI_GLOBAL_VARIABLE: SecureBoot, PK, KEK, BootOrder, … */
  global: "8be4df61-93ca-11d2-aa0d-00e098032b8c",
  /** EFI_IMAGE_SECURITY_DATABASE_GUID: db, dbx, … */
  imageSecurity: "d719b2cb-3d3a-4596-a3bc-dad00e67656f",
  /** Shim's: MokList, SbatLevel, … */
  shim: "605dab50-e046-4300-abb6-3dd810dd8b23",
} as const

/** @throws ParseError ERR_TRUNCATED, ERR_MALFORMED */
export function parseEfiVariable(data: Uint8Array): EfiVariable {
  const reader = new LogReader(data, "UEFI variable")
  const vendor = guidText(reader.take(16, "vendor"))
  const nameUnits = reader.u64("size of the name")
  const size = reader.u64("size of the value")
  const name = utf16Text(reader.take(nameUnits * 2, "name"))
  return { vendor, name, value: reader.take(size, "value") }
}
