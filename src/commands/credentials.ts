import type { KeyObject } from "node:crypto"
import type { ClientCertificate } from "../client/tls-channel.ts"
import { UsageError } from "../errors.ts"
import { parseSigningKey } from "../verify/ed25519-key.ts"
import type { CredentialFiles } from "./agent-options.ts"
import { parseFile, readInput, readToken } from "./input-files.ts"

const MAX_BYTES = 256 * 1024

/** What a client shows the agent of itself. */
export interface Credentials {
  readonly token: string | null
  readonly ownerKey?: KeyObject
  readonly clientCertificate?: ClientCertificate
}

export const NO_CREDENTIALS: CredentialFiles = {
  token: null,
  ownerKey: null,
  certificate: null,
  certificateKey: null,
}

/** Reads the files that the options name. @throws UsageError, ParseError, CodedError ERR_IO; none holds any of a secret. */
export function readCredentials(files: CredentialFiles): Credentials {
  const { token, ownerKey, certificate, certificateKey } = files
  if (ownerKey !== null && token !== null)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--owner-key",
      expected: "one kind of credentials",
      found: "--token-file as well",
      hint: "a request carries either a token or a signature: leave one out",
    })
  if ((certificate === null) !== (certificateKey === null))
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: certificate === null ? "--client-certificate" : "--client-key",
      expected: "certificate and key together",
      hint: "give both",
    })
  return {
    token: token === null ? null : readToken(token),
    ...(ownerKey === null ? {} : { ownerKey: readOwnerKey(ownerKey) }),
    ...(certificate === null || certificateKey === null
      ? {}
      : { clientCertificate: { certificate: text(certificate), key: text(certificateKey) } }),
  }
}

/** An Ed25519 private key in PEM. */
export function readOwnerKey(path: string): KeyObject {
  return parseFile(path, MAX_BYTES, (pem) => parseSigningKey(new TextDecoder().decode(pem)))
}

function text(path: string): string {
  return new TextDecoder().decode(readInput(path, MAX_BYTES))
}
