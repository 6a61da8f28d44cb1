import { createHash } from "node:crypto"

/** What RFC 9266 takes from a TLS 1.3 connection ("tls-exporter"): no two connections have the same, and both ends of one do. */
export const EXPORTER = { label: "EXPORTER-Channel-Binding", bytes: 32 } as const

/**
 * The nonce that evidence is made for when it is bound to the very TLS connection, and not only to the key that it ends at. It is longer
 * than what anybody may ask evidence for: whoever has a copy of the TLS key could else get it for a connection of their own.
 * @param nonce 32 bytes; 64 where a sealing key is vouched for. @param exporter 32 bytes.
 * @returns 64 bytes: SHA-512("cosmian-vm/tls-exporter/v1\0" ‖ nonce ‖ exporter).
 */
export function exporterNonce(nonce: Uint8Array, exporter: Uint8Array): Uint8Array {
  return new Uint8Array(
    createHash("sha512").update("cosmian-vm/tls-exporter/v1\0").update(nonce).update(exporter).digest(),
  )
}
