import { existsSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { deriveTeeKey, type TeeKey, type TeeKeyRequest } from "../agent/derived-key.ts"
import { AgentError } from "../errors.ts"
import { type DerivedKey, type DerivedKeyInput, expandKey } from "../formats/derived-key.ts"
import { toHex } from "../formats/hex.ts"
import type { AnyReport, KeyDerivation, ReportDevice } from "../native/ports.ts"
import { jsonText } from "./json-text.ts"
import { type SealedPlace, sealedSecret } from "./key-sealed.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

export interface KeyOptions extends Omit<DerivedKeyInput, "secret"> {
  readonly source: KeySource
  /** Directory. */
  readonly output: string
  readonly json: boolean
  readonly quiet: boolean
}

/** Where the secret comes from. */
export type KeySource =
  | ({
      readonly kind: "tee"
      /** Directory of a simulated TEE; null: this machine's. */
      readonly simulate: string | null
    } & Pick<TeeKeyRequest, "fields" | "rootKey">)
  | ({ readonly kind: "tpm"; readonly tcti: string } & SealedPlace)

/** `certtool key`: writes all four files or none. Returns the exit code. */
export async function writeKey(options: KeyOptions, terminal: Terminal = openTerminal()): Promise<number> {
  const { output, type } = options
  mkdirSync(output, { recursive: true })
  const path = (what: string) => join(output, `${type}_${what}`)
  const names = ["sk.pem", "sk.bin", "pk.pem", "pk.bin"] as const
  const files = names.map((name) => beginFile(path(name), name.startsWith("sk") ? 0o600 : 0o644))
  try {
    const { key, facts } = await makeKey(options)
    const { privatePem, privateRaw, publicPem, publicRaw } = key
    const contents = [Buffer.from(privatePem), privateRaw, Buffer.from(publicPem), publicRaw]
    files.forEach((file, index) => void file.commit(contents[index] ?? new Uint8Array(0)))
    privateRaw.fill(0)
    report(toHex(publicRaw), facts, names.map(path), options, terminal)
    return 0
  } finally {
    for (const file of files) file.abandon()
  }
}

interface Made {
  readonly key: DerivedKey
  /** What it depends on, for the output. */
  readonly facts: Readonly<Record<string, unknown>> & { readonly bound_to: readonly (string | number)[] }
}

/** A key from what `source` says. @throws AgentError ERR_NO_TEE; NativeError of the device */
export async function makeKey({
  source,
  type,
  salt,
  purpose,
}: Pick<KeyOptions, "source" | "type" | "salt" | "purpose">): Promise<Made> {
  if (source.kind === "tee") {
    const { fields, rootKey, simulate } = source
    const { key, provider, request } = await deriveKey({ type, salt, purpose, fields, rootKey }, simulate)
    const values = { guest_svn: request.guestSvn, tcb: `0x${request.tcbVersion.toString(16)}` }
    return { key, facts: { provider, root_key: rootKey, bound_to: fields, ...values } }
  }
  const { openTpmStorage } = await import("../native/tpm.ts")
  const tpm = await openTpmStorage(source.tcti)
  try {
    const secret = await sealedSecret(tpm, source)
    const key = expandKey({ secret, type, salt, purpose })
    secret.fill(0)
    return {
      key,
      facts: { provider: "tpm", sealed: source.file, bound_to: source.pcrs.map((pcr) => `PCR ${pcr}`) },
    }
  } finally {
    await tpm.close()
  }
}

function report(
  publicKey: string,
  facts: Made["facts"],
  files: readonly string[],
  { type, json, quiet }: KeyOptions,
  terminal: Terminal,
): void {
  if (json) terminal.out(jsonText({ type, public_key: publicKey, ...facts, files }))
  else if (!quiet)
    terminal.talk(`${files.join("\n")}\npublic key: ${publicKey}\nbound to: ${facts.bound_to.join(", ")}\n`)
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
    hint: "TDX and Azure have no such call: keep a sealed key there, with certtool key --source tpm",
  })
}
