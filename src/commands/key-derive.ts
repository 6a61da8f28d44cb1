import { existsSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { deriveTeeKey, type TeeKey, type TeeKeyRequest } from "../agent/derived-key.ts"
import { AgentError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import type { AnyReport, KeyDerivation, ReportDevice } from "../native/ports.ts"
import { jsonText } from "./json-text.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

export interface KeyOptions extends TeeKeyRequest {
  /** Directory. */
  readonly output: string
  /** Directory of a simulated TEE; null: this machine's. */
  readonly simulate: string | null
  readonly json: boolean
  readonly quiet: boolean
}

/** `certtool key`: writes all four files or none. Returns the exit code. */
export async function writeKey(options: KeyOptions, terminal: Terminal = openTerminal()): Promise<number> {
  const { output, type, simulate } = options
  mkdirSync(output, { recursive: true })
  const path = (what: string) => join(output, `${type}_${what}`)
  const names = ["sk.pem", "sk.bin", "pk.pem", "pk.bin"] as const
  const files = names.map((name) => beginFile(path(name), name.startsWith("sk") ? 0o600 : 0o644))
  try {
    const made = await deriveKey(options, simulate)
    const { privatePem, privateRaw, publicPem, publicRaw } = made.key
    const contents = [Buffer.from(privatePem), privateRaw, Buffer.from(publicPem), publicRaw]
    files.forEach((file, index) => void file.commit(contents[index] ?? new Uint8Array(0)))
    privateRaw.fill(0)
    report(made, names.map(path), options, terminal)
    return 0
  } finally {
    for (const file of files) file.abandon()
  }
}

function report(
  { key, provider, request }: TeeKey,
  files: readonly string[],
  { type, json, quiet }: KeyOptions,
  terminal: Terminal,
): void {
  const { fields, rootKey, guestSvn, tcbVersion } = request
  if (json) {
    const values = { guest_svn: guestSvn, tcb: `0x${tcbVersion.toString(16)}` }
    const bound = { root_key: rootKey, bound_to: fields, ...values }
    terminal.out(jsonText({ type, public_key: toHex(key.publicRaw), provider, ...bound, files }))
    return
  }
  if (quiet) return
  terminal.talk(`${files.join("\n")}\npublic key: ${toHex(key.publicRaw)}\nbound to: ${fields.join(", ")}\n`)
}

/**
 * A key of this VM's TEE, or of a simulated one.
 * @param simulate directory of the simulated TEE; null: this machine's.
 * @throws AgentError ERR_NO_TEE; NativeError of the device
 */
export async function deriveKey(request: TeeKeyRequest, simulate: string | null): Promise<TeeKey> {
  return deriveTeeKey(await derivationOf(simulate), request)
}

/** Reports may come through configfs-tsm as well; keys are derived by this device alone. */
async function derivationOf(simulate: string | null): Promise<ReportDevice<AnyReport> & KeyDerivation> {
  if (simulate !== null) return (await import("../native/simulated-tee.ts")).openSimulatedTee(simulate)
  const { openSevGuest, SEV_GUEST_PATH } = await import("../native/sev-guest.ts")
  if (existsSync(SEV_GUEST_PATH)) return openSevGuest()
  throw new AgentError("ERR_NO_TEE", {
    at: SEV_GUEST_PATH,
    expected: "a SEV-SNP guest, whose firmware derives keys",
    found: "no such device",
    hint: "TDX and Azure have no such call: seal a key to the TPM there",
  })
}
