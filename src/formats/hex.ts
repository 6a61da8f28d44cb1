/** Value of a hex digit by its character code; 255 for other bytes. */
export const HEX_VALUE = Uint8Array.from({ length: 256 }, (_, code) => {
  const digit = "0123456789abcdef".indexOf(String.fromCharCode(code).toLowerCase())
  return digit < 0 ? 255 : digit
})

/** Lower-case hex of bytes. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")
}

/** The first bytes of a digest, for people. */
export function shortHex(bytes: Uint8Array, count = 8): string {
  return bytes.length <= count ? toHex(bytes) : `${toHex(bytes.subarray(0, count))}…`
}

/** Bytes of a hex string, or null where it is not one (odd length, other characters). */
export function fromHex(text: string): Uint8Array | null {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) return null
  return Uint8Array.from(Buffer.from(text, "hex"))
}

/** Base64 without padding, the coding of the agent's interface. */
export function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64").replace(/=+$/, "")
}

/** Bytes of base64 (standard alphabet, padding optional), or null where it is not canonical. */
export function fromBase64(text: string): Uint8Array | null {
  const bare = text.replace(/={1,2}$/, "")
  if (!/^[A-Za-z0-9+/]*$/.test(bare)) return null
  const buffer = Buffer.from(bare, "base64")
  const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)
  return toBase64(bytes) === bare ? bytes : null
}

/** Whether two byte strings are equal. Not constant-time: for public data. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0
}
