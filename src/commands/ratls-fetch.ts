import { createHash } from "node:crypto"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { parseAgentUrl } from "../client/endpoint.ts"
import { openTls } from "../client/tls-channel.ts"
import { CodedError } from "../errors.ts"
import { encodePem } from "../formats/pem.ts"
import { parseRatlsEvidence } from "../formats/ratls/evidence.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { timeoutOf } from "./attest.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

export const RATLS_CERTIFICATE_FILE = "cert.ratls.pem"

export interface RatlsFetchOptions {
  /** https://host[:port] */
  readonly server: string
  readonly timeout: string
  /** Directory. */
  readonly output: string
  readonly json: boolean
  readonly quiet: boolean
}

/** `certtool ratls fetch`: writes the certificate of one connection. Returns the exit code. */
export async function fetchRatls(
  options: RatlsFetchOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const endpoint = parseAgentUrl(options.server)
  const timeoutMs = timeoutOf(options.timeout)
  mkdirSync(options.output, { recursive: true })
  const path = join(options.output, RATLS_CERTIFICATE_FILE)
  const file = beginFile(path, 0o644)
  try {
    const channel = await interruptible((signal) => openTls(endpoint, timeoutMs, { signal }))
    channel.socket.destroy()
    const { leafDer } = channel
    file.commit(Buffer.from(encodePem("CERTIFICATE", leafDer)))
    const sha256 = createHash("sha256").update(leafDer).digest("hex")
    const evidence = evidenceIn(leafDer)
    if (options.json) terminal.out(jsonText({ file: path, sha256, evidence }))
    else if (!options.quiet) {
      terminal.talk(`${path}: SHA-256 ${sha256}\n`)
      if (evidence.length === 0)
        terminal.talk("note: it holds no evidence of a TEE that is understood here\n")
    }
    return 0
  } finally {
    file.abandon()
  }
}

function evidenceIn(der: Uint8Array): { oid: string; tee: string }[] {
  try {
    return parseRatlsEvidence(parseCertificate(der)).map(({ oid, tee }) => ({ oid, tee }))
  } catch (error) {
    // Verifying tells what is wrong with it; here it is only kept.
    if (error instanceof CodedError) return []
    throw error
  }
}
