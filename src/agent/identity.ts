import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto"
import { existsSync, readFileSync, statSync } from "node:fs"
import { isIP } from "node:net"
import { dirname } from "node:path"
import { AgentError } from "../errors.ts"
import { makePrivateDirectory, writeFileAtomically } from "./atomic-file.ts"
import { makeSelfSignedCertificate } from "./certificate.ts"

/** The TLS key of one server instance. Evidence made by that instance is bound to it. */
export interface TlsIdentity {
  /** Certificate chain, leaf first. */
  readonly certificatePem: string
  readonly privateKeyPem: string
  readonly leafDer: Uint8Array
  /** DER SubjectPublicKeyInfo of the leaf. */
  readonly spki: Uint8Array
  readonly notAfter: Date
}

export interface IdentityFiles {
  readonly certificate: string
  readonly privateKey: string
}

const DAY = 24 * 3600 * 1000
/** The self-signed certificate proves nothing by itself and must not run out under a machine that nobody logs in to. */
const VALIDITY = 10 * 365 * DAY

/**
 * Reads certificate and key; where there is no certificate yet, makes a self-signed one. The key is written before the
 * certificate, so that a start that was cut short is completed by the next one, with the same key. An existing file is
 * never overwritten.
 * @param names host names and addresses for a new certificate. @param now clock.
 * @returns the identity, and whether a certificate was made.
 * @throws AgentError ERR_IDENTITY where the files do not fit together or cannot be read.
 */
export async function loadOrMakeIdentity(
  files: IdentityFiles,
  names: readonly string[],
  now: Date,
): Promise<{ identity: TlsIdentity; made: boolean }> {
  const made = !existsSync(files.certificate)
  if (made) await makeIdentity(files, names, now)
  return { identity: readIdentity(files), made }
}

/**
 * Reads certificate and key.
 * @throws AgentError ERR_IDENTITY where a file is missing or not PEM, or the key is not the certificate's.
 */
export function readIdentity(files: IdentityFiles): TlsIdentity {
  const certificatePem = readPem(files.certificate)
  const privateKeyPem = readPem(files.privateKey)
  const leaf = attempt(files.certificate, "a PEM certificate", () => new X509Certificate(certificatePem))
  const key = privateKeyOf(files.privateKey, privateKeyPem)
  if (!leaf.checkPrivateKey(key))
    throw new AgentError("ERR_IDENTITY", {
      at: files.privateKey,
      expected: `the private key of ${files.certificate}`,
      found: "another key",
      hint: "install certificate and key together; the agent takes both when both fit",
    })
  return {
    certificatePem,
    privateKeyPem,
    leafDer: new Uint8Array(leaf.raw),
    spki: new Uint8Array(leaf.publicKey.export({ format: "der", type: "spki" })),
    notAfter: new Date(leaf.validTo),
  }
}

/** Whether others than the owner may read the private key. */
export function isKeyExposed(files: IdentityFiles): boolean {
  return (statSync(files.privateKey).mode & 0o077) !== 0
}

/**
 * Names for the agent's own certificate: this machine's name, localhost, the loopback addresses and the configured host,
 * unless that one only means "every address".
 */
export function certificateNames(hostname: string, configuredHost: string): string[] {
  const usable = /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(hostname)
  const names = [...(usable ? [hostname] : []), "localhost", "127.0.0.1", "::1"]
  const everywhere = isIP(configuredHost) !== 0 && /^[0:.]+$/.test(configuredHost)
  return [...new Set(everywhere ? names : [...names, configuredHost])]
}

/**
 * Makes a self-signed certificate for a TLS server.
 * @param options hosts: names and addresses; now: clock; privateKeyPem: P-256 key to certify, absent: a new one.
 */
export async function createSelfSigned(options: {
  readonly hosts: readonly string[]
  readonly now: Date
  readonly privateKeyPem?: string | null
}): Promise<{ keyPem: string; certificatePem: string }> {
  const { certificate, privateKey } = await makeSelfSignedCertificate({
    names: options.hosts,
    // A machine whose clock is set after its first start should still accept its own certificate.
    notBefore: new Date(options.now.getTime() - DAY),
    notAfter: new Date(options.now.getTime() + VALIDITY),
    privateKey: options.privateKeyPem ?? null,
  })
  return { keyPem: privateKey, certificatePem: certificate }
}

async function makeIdentity(files: IdentityFiles, names: readonly string[], now: Date): Promise<void> {
  const existing = existsSync(files.privateKey) ? readPem(files.privateKey) : null
  if (existing !== null) {
    const { asymmetricKeyDetails } = privateKeyOf(files.privateKey, existing)
    if (asymmetricKeyDetails?.namedCurve !== "prime256v1")
      throw new AgentError("ERR_IDENTITY", {
        at: files.certificate,
        expected: `the certificate of ${files.privateKey}`,
        found: "no such file",
        hint: "install the certificate, or move the key away to have a new self-signed certificate made",
      })
  }
  const { certificatePem, keyPem } = await createSelfSigned({ hosts: names, now, privateKeyPem: existing })
  attempt(files.privateKey, "a place to write to", () => {
    makePrivateDirectory(dirname(files.privateKey))
    makePrivateDirectory(dirname(files.certificate))
    if (existing === null) writeFileAtomically(files.privateKey, keyPem, 0o600)
    writeFileAtomically(files.certificate, certificatePem, 0o644)
  })
}

function privateKeyOf(path: string, pem: string): KeyObject {
  return attempt(path, "a PEM private key without passphrase", () => createPrivateKey(pem))
}

function readPem(path: string): string {
  return attempt(path, "a readable PEM file", () => readFileSync(path, "utf8"))
}

/** Runs a step on a file; any failure becomes ERR_IDENTITY that names the file. The content is not repeated. */
function attempt<T>(path: string, expected: string, step: () => T): T {
  try {
    return step()
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "something else"
    throw new AgentError("ERR_IDENTITY", { at: path, expected, found: code, cause: error })
  }
}
