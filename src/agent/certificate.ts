import { isIP } from "node:net"

/** What a self-signed certificate is made from. Clock and host names are arguments, so that tests can fix them. */
export interface CertificateRequest {
  /** DNS names and IP addresses the certificate is for, in this order. The first one is also the subject's common name. */
  readonly names: readonly string[]
  readonly notBefore: Date
  readonly notAfter: Date
  /** PKCS #8 private key (PEM, P-256) to certify; null makes a new key. */
  readonly privateKey: string | null
  /** Subject as RFC 4514 has it; absent: the first name as common name. */
  readonly subject?: string
  readonly extensions?: readonly ExtensionRequest[]
}

/** One more extension, which is not critical. */
export interface ExtensionRequest {
  readonly oid: string
  readonly value: Uint8Array
}

/** A certificate and its key, PEM. */
export interface CertificateAndKey {
  readonly certificate: string
  readonly privateKey: string
}

const P256 = { name: "ECDSA", namedCurve: "P-256" } as const

/**
 * Makes a self-signed ECDSA P-256 certificate for a TLS server: not an authority, for server authentication only,
 * serial number of 16 random bytes. The X.509 library is loaded here and not before: most starts do not need it.
 */
export async function makeSelfSignedCertificate(request: CertificateRequest): Promise<CertificateAndKey> {
  // The library's dependency injection does not load without it.
  await import("reflect-metadata")
  const x509 = await import("@peculiar/x509")
  x509.cryptoProvider.set(crypto)
  const keys = request.privateKey === null ? await makeKeys() : await importKeys(request.privateKey)
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: request.subject ?? [{ CN: [(request.names[0] ?? "cosmian-vm").slice(0, 64)] }],
    notBefore: request.notBefore,
    notAfter: request.notAfter,
    keys,
    signingAlgorithm: { ...P256, hash: "SHA-256" },
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(request.names.map(generalName)),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ...(request.extensions ?? []).map(
        ({ oid, value }) => new x509.Extension(oid, false, new Uint8Array(value)),
      ),
    ],
  })
  const privateKey = request.privateKey ?? (await pemOfKey(keys.privateKey))
  return { certificate: `${certificate.toString("pem")}\n`, privateKey }
}

function generalName(name: string): { type: "ip" | "dns"; value: string } {
  return { type: isIP(name) === 0 ? "dns" : "ip", value: name }
}

/** A new P-256 key, PKCS #8 in PEM. */
export async function makeP256Key(): Promise<string> {
  return pemOfKey((await makeKeys()).privateKey)
}

async function makeKeys(): Promise<CryptoKeyPair> {
  return await crypto.subtle.generateKey(P256, true, ["sign", "verify"])
}

async function importKeys(pem: string): Promise<CryptoKeyPair> {
  const { createPrivateKey, createPublicKey } = await import("node:crypto")
  const key = createPrivateKey(pem)
  const pkcs8 = key.export({ format: "der", type: "pkcs8" })
  const spki = createPublicKey(key).export({ format: "der", type: "spki" })
  return {
    privateKey: await crypto.subtle.importKey("pkcs8", new Uint8Array(pkcs8), P256, true, ["sign"]),
    publicKey: await crypto.subtle.importKey("spki", new Uint8Array(spki), P256, true, ["verify"]),
  }
}

async function pemOfKey(key: CryptoKey): Promise<string> {
  const base64 = Buffer.from(await crypto.subtle.exportKey("pkcs8", key)).toString("base64")
  return `-----BEGIN PRIVATE KEY-----\n${base64.replace(/.{1,64}/g, "$&\n")}-----END PRIVATE KEY-----\n`
}

/** Positive and without a leading zero byte, so that the encoding is the same everywhere. */
function serialNumber(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40
  return Buffer.from(bytes).toString("hex")
}
