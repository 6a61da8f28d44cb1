import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto"
import { existsSync, readFileSync, rmSync } from "node:fs"
import { dirname } from "node:path"
import { AgentError } from "../errors.ts"
import type { DerivedKeyField } from "../native/ports.ts"
import { makePrivateDirectory, writeFileAtomically } from "./atomic-file.ts"
import type { IdentityFiles } from "./identity.ts"

/**
 * What a derived TLS key depends on. The policy has to be in: a VM of the same measurement that the host may debug would derive the same
 * key, and give it away.
 */
export const TLS_KEY_BINDING: readonly DerivedKeyField[] = ["measurement", "policy"]
export const TLS_KEY_PURPOSE = "agent-tls"

/**
 * Puts the key where the agent reads its TLS key from. A certificate of the agent's own for another key goes, and so does that key: it
 * was random, or derived by another system. One that an authority issued is never touched.
 * @param privatePem P-256, PKCS #8. @returns whether the key in the file was another, or none.
 * @throws AgentError ERR_IDENTITY where an authority's certificate is for another key, or the file holds something else.
 */
export function placeDerivedKey(files: IdentityFiles, privatePem: string): boolean {
  const key = createPrivateKey(privatePem)
  if (existsSync(files.certificate)) {
    const leaf = certificateIn(files.certificate)
    if (!leaf.checkPrivateKey(key)) {
      if (!leaf.verify(leaf.publicKey))
        throw new AgentError("ERR_IDENTITY", {
          at: files.certificate,
          expected: "a certificate for the derived key",
          found: "one that an authority issued for another key",
          hint: 'move certificate and key away, or leave tls_key = "derived" out',
        })
      // First, so that a start that is cut short is completed by the next one.
      rmSync(files.certificate)
    }
  }
  if (existsSync(files.privateKey) && isKey(files.privateKey, privatePem)) return false
  makePrivateDirectory(dirname(files.privateKey))
  writeFileAtomically(files.privateKey, privatePem, 0o600)
  return true
}

/** @throws AgentError ERR_IDENTITY */
function certificateIn(path: string): X509Certificate {
  try {
    return new X509Certificate(readFileSync(path))
  } catch (cause) {
    throw new AgentError("ERR_IDENTITY", { at: path, expected: "a PEM certificate", cause })
  }
}

/** Whether a file holds this key. What is none is overwritten by nobody: it was not the agent who put it there. */
function isKey(path: string, privatePem: string): boolean {
  const spkiOf = (pem: string) =>
    createPublicKey(createPrivateKey(pem)).export({ type: "spki", format: "pem" }).toString()
  try {
    return spkiOf(readFileSync(path, "utf8")) === spkiOf(privatePem)
  } catch (cause) {
    throw new AgentError("ERR_IDENTITY", {
      at: path,
      expected: "a PEM private key without passphrase",
      hint: "move the file away",
      cause,
    })
  }
}
