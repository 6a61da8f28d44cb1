/** The 16 bytes of a GUID as UEFI stores it: the first three groups little-endian. */
export function efiGuid(text: string): Uint8Array {
  const hex = text.replaceAll("-", "")
  const raw = Uint8Array.from(Buffer.from(hex, "hex"))
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
  return Uint8Array.from(order, (index) => raw[index] ?? 0)
}
