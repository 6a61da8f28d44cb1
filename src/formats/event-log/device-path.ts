import { guidText, utf16Text } from "./efi.ts"
import { LogReader } from "./log-reader.ts"

/** Nodes of a path; real ones have fewer than ten. */
const MAX_NODES = 64
const END = 0x7f

/**
 * The text of a UEFI device path, as `PciRoot(0x0)/Pci(0x1,0x0)/…/EFI/BOOT/BOOTX64.EFI`. Nodes that are not known here are shown by
 * their numbers. May be hostile text.
 * Source: UEFI 2.10, section 10.3 "Device Path Nodes", and section 10.6.1.6 "Text Device Node Reference".
 * @throws ParseError ERR_TRUNCATED
 */
export function devicePathText(path: Uint8Array): string {
  const reader = new LogReader(path, "device path")
  const nodes: string[] = []
  while (reader.left > 0 && nodes.length < MAX_NODES) {
    const [type = END, subtype = 0xff] = reader.take(2, "node")
    const body = reader.take(Math.max(0, reader.u16("node") - 4), "node")
    if (type === END && subtype === 0xff) break
    if (type !== END) nodes.push(nodeText(type, subtype, body))
  }
  return nodes.join("/")
}

function nodeText(type: number, subtype: number, body: Uint8Array): string {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
  const u16 = (at: number) => (at + 2 <= body.length ? view.getUint16(at, true) : 0)
  const u32 = (at: number) => (at + 4 <= body.length ? view.getUint32(at, true) : 0)
  const hex = (value: number) => `0x${value.toString(16)}`
  switch (type * 256 + subtype) {
    case 0x0101:
      return `Pci(${hex(body[1] ?? 0)},${hex(body[0] ?? 0)})`
    case 0x0104:
      return `VenHw(${guidText(body)})`
    case 0x0201:
      return u32(0) === 0x0a0341d0 ? `PciRoot(${hex(u32(4))})` : `Acpi(${hex(u32(0))},${hex(u32(4))})`
    case 0x0302:
      return `Scsi(${hex(u16(0))},${hex(u16(2))})`
    case 0x0305:
      return `USB(${hex(body[0] ?? 0)},${hex(body[1] ?? 0)})`
    case 0x030b:
      return `MAC(${Buffer.from(body.subarray(0, 6)).toString("hex")})`
    case 0x0312:
      return `Sata(${hex(u16(0))},${hex(u16(2))},${hex(u16(4))})`
    case 0x0317:
      return `NVMe(${hex(u32(0))})`
    case 0x0318:
      return `Uri(${Buffer.from(body).toString("latin1")})`
    case 0x0401:
      return body[37] === 2 ? `HD(${u32(0)},GPT,${guidText(body.subarray(20, 36))})` : `HD(${u32(0)})`
    case 0x0403:
      return `VenMedia(${guidText(body)})`
    case 0x0404:
      // As on Linux: backslashes would have to be escaped wherever this is shown.
      return utf16Text(body).replaceAll("\\", "/")
    case 0x0406:
      return `FvFile(${guidText(body)})`
    case 0x0407:
      return `Fv(${guidText(body)})`
    default:
      return `Path(${type},${subtype},${Buffer.from(body.subarray(0, 16)).toString("hex")})`
  }
}
