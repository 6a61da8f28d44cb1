import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { DEFAULT_BINDING } from "../agent/derived-key.ts"
import { makeRatlsCertificate } from "../agent/ratls.ts"
import { AgentError, UsageError } from "../errors.ts"
import type { AnyReport, ReportDevice } from "../native/ports.ts"
import { readInput } from "./input-files.ts"
import { jsonText } from "./json-text.ts"
import { deriveKey } from "./key-derive.ts"
import { RATLS_CERTIFICATE_FILE } from "./ratls-fetch.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

const KEY_FILE = "key.ratls.pem"
const MAX_EXTRA_DATA = 32
const MINUTE = 60_000
const DAY = 24 * 60 * MINUTE

export interface RatlsGenerateOptions {
  /** RFC 4514. */
  readonly subject: string
  readonly names: readonly string[]
  readonly days: number
  /** File; null: none. */
  readonly extraData: string | null
  /** The key is derived from the TEE with this salt; null: it is random. */
  readonly salt: Uint8Array | null
  /** Directory. */
  readonly output: string
  /** Directory of a simulated TEE; null: this machine's. */
  readonly simulate: string | null
  readonly json: boolean
  readonly quiet: boolean
}

/** `certtool ratls generate`: writes key and certificate. Both or none. Returns the exit code. */
export async function generateRatls(
  options: RatlsGenerateOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const extraData = options.extraData === null ? new Uint8Array(0) : readExtraData(options.extraData)
  const tee = await teeOf(options.simulate)
  mkdirSync(options.output, { recursive: true })
  const key = join(options.output, KEY_FILE)
  const certificate = join(options.output, RATLS_CERTIFICATE_FILE)
  const keyFile = beginFile(key, 0o600)
  const certificateFile = beginFile(certificate, 0o644)
  try {
    const now = Date.now()
    const made = await makeRatlsCertificate({
      tee,
      extraData,
      names: options.names,
      subject: options.subject,
      // Clocks of those who verify may be a little behind.
      notBefore: new Date(now - 5 * MINUTE),
      notAfter: new Date(now + options.days * DAY),
      privateKey: options.salt === null ? null : await derivedKey(options.salt, options.simulate),
    })
    keyFile.commit(Buffer.from(made.privateKey))
    certificateFile.commit(Buffer.from(made.certificate))
  } finally {
    keyFile.abandon()
    certificateFile.abandon()
  }
  if (options.json) terminal.out(jsonText({ key, certificate, provider: tee.provider }))
  else if (!options.quiet) terminal.talk(`${key}: private key\n${certificate}: certificate with evidence\n`)
  return 0
}

/** @throws AgentError ERR_NO_TEE; NativeError */
export async function teeOf(simulate: string | null): Promise<ReportDevice<AnyReport>> {
  if (simulate !== null) return (await import("../native/simulated-tee.ts")).openSimulatedTee(simulate)
  const tee = await (await import("../native/report-device.ts")).openTeeDevice()
  if (tee !== null) return tee
  throw new AgentError("ERR_NO_TEE", {
    at: "this machine",
    expected: "a SEV-SNP guest or TDX trust domain",
    found: "none that this user may see",
    hint: "run this on the VM, as root",
  })
}

async function derivedKey(salt: Uint8Array, simulate: string | null): Promise<string> {
  const wanted = { type: "p256", salt, purpose: "ratls", rootKey: "vcek", fields: DEFAULT_BINDING } as const
  return (await deriveKey(wanted, simulate)).key.privatePem
}

function readExtraData(path: string): Uint8Array {
  const bytes = readInput(path, MAX_EXTRA_DATA)
  if (bytes.length > 0) return bytes
  throw new UsageError("ERR_BAD_VALUE", { at: path, expected: "1 to 32 bytes", found: "an empty file" })
}
