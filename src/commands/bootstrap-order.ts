import { certificateNamesOf, isWildcard } from "../acme/names.ts"
import { UsageError } from "../errors.ts"
import type { CertificateOrder, OrderChallenge } from "../formats/provision.ts"
import { acmeDirectoryOf, emailOf, LETS_ENCRYPT } from "./acme-options.ts"
import { readInput } from "./input-files.ts"

/** Bytes of PEM. */
const MAX_AUTHORITIES = 64 * 1024

/** What a client says of the certificate that the application is to have. */
export interface OrderOptions {
  readonly domains: readonly string[]
  readonly email: string | null
  readonly directory: string | null
  readonly caFile: string | null
  readonly challenge: OrderChallenge
  readonly port: string | null
}

/** The order that is sent to the agent; null where none is asked for. @throws UsageError ERR_BAD_VALUE, ERR_MISSING_ARGUMENT */
export function orderOf(options: OrderOptions): CertificateOrder | null {
  const { domains, email, directory, caFile, challenge, port } = options
  if (domains.length === 0) {
    if (email === null && directory === null && caFile === null && port === null) return null
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: "--acme-domain",
      expected: "the name that the certificate is for",
      hint: "add --acme-domain NAME, or leave the other --acme options out",
    })
  }
  return {
    names: orderedNames(domains),
    directory: directory === null ? LETS_ENCRYPT : acmeDirectoryOf(directory, "--acme-directory"),
    authorities: caFile === null ? null : Buffer.from(readInput(caFile, MAX_AUTHORITIES)).toString("utf8"),
    email: email === null ? null : emailOf(email, "--acme-email"),
    challenge,
    port: portOf(port, challenge === "http-01" ? 80 : 443),
  }
}

/** Names that a VM can prove by itself. @throws UsageError ERR_BAD_VALUE */
export function orderedNames(domains: readonly string[]): string[] {
  const names = certificateNamesOf(domains, "--acme-domain")
  const wildcard = names.find(isWildcard)
  if (wildcard === undefined) return names
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--acme-domain",
    expected: "names without *",
    found: wildcard,
    hint: "authorities verify such names in DNS alone: run certtool acme --dns-hook inside the VM",
  })
}

function portOf(text: string | null, usual: number): number {
  if (text === null) return usual
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0
  if (port >= 1 && port <= 65_535) return port
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--acme-port",
    expected: "a port from 1 to 65535",
    found: text,
  })
}
