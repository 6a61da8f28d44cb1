/** Little-endian integers and other pieces that event logs are put together from. */

export function u16(value: number): Uint8Array {
  return Uint8Array.of(value % 256, Math.floor(value / 256))
}

export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

export function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}
