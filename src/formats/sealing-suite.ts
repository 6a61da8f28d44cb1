/** The one suite of RFC 9180 that is used, loaded when it is needed: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. */
export async function loadSealingSuite() {
  const { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } = await import("@hpke/core")
  return new CipherSuite({
    kem: new DhkemX25519HkdfSha256(),
    kdf: new HkdfSha256(),
    aead: new Aes256Gcm(),
  })
}
