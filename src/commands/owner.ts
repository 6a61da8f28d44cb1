import { createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto"
import { existsSync } from "node:fs"
import { UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import { keyIdOf } from "../verify/ed25519-key.ts"
import type { AppOptions } from "./agent-options.ts"
import { afterAttestation } from "./app.ts"
import { readOwnerKey } from "./credentials.ts"
import { jsonText } from "./json-text.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

/** `owner key`: makes an Ed25519 key where there is none yet, and prints what the agent has to know of it. */
export function makeOwnerKey(
  { output, json }: { readonly output: string; readonly json: boolean },
  terminal: Terminal = openTerminal(),
): number {
  const made = !existsSync(output)
  if (made) writeKey(output)
  const publicKey = createPublicKey(readOwnerKey(output))
  const spki = spkiOf(publicKey).toString("base64")
  if (json) {
    terminal.out(jsonText({ file: output, made, owner_key: spki, key_id: keyIdOf(publicKey) }))
    return 0
  }
  terminal.talk(`${made ? "made" : "there already:"} ${printable(output)}, key ${keyIdOf(publicKey)}\n`)
  terminal.talk("in the VM, for /etc/cosmian_vm/agent.toml:\n")
  terminal.out(`[auth]\nowner_keys = ["${spki}"]\n`)
  return 0
}

/** `owner claim`: makes the holder of the key the owner of a VM that has attested. */
export async function claimVm(options: AppOptions, terminal: Terminal = openTerminal()): Promise<number> {
  const { ownerKey } = options.credentials
  if (ownerKey === null)
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: "owner claim",
      expected: "--owner-key FILE",
      hint: "cosmian_vm owner key -o owner.pem makes one",
    })
  const publicKey = createPublicKey(readOwnerKey(ownerKey))
  return afterAttestation(options, terminal, async (client) => {
    const key = await client.claim(spkiOf(publicKey))
    return { summary: `owned by key ${printable(key)} from now on`, owner: key }
  })
}

function writeKey(path: string): void {
  const { privateKey } = generateKeyPairSync("ed25519")
  const pending = beginFile(path, 0o600)
  try {
    pending.commit(Buffer.from(privateKey.export({ type: "pkcs8", format: "pem" })))
  } finally {
    pending.abandon()
  }
}

function spkiOf(key: KeyObject): Buffer {
  return key.export({ type: "spki", format: "der" })
}
