import { statSync } from "node:fs"
import { UsageError } from "../errors.ts"
import { encodeDetachedEnvelope, MAX_ENVELOPE_BYTES, parseDetachedEnvelope } from "../formats/dsse.ts"
import { printable } from "../formats/path-text.ts"
import { parseSnapshot } from "../policy/snapshot.ts"
import { parseSigningKey, parseVerifyingKey } from "../verify/ed25519-key.ts"
import { SNAPSHOT_PAYLOAD_TYPE, signSnapshot, verifySnapshotSignature } from "../verify/snapshot-signature.ts"
import { parseFile } from "./input-files.ts"
import { jsonText } from "./json-text.ts"
import { readSnapshotJson } from "./snapshot-file.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

const MAX_KEY_BYTES = 64 * 1024
/** Permissions of a group and of everybody else. */
const OTHERS = 0o077

export interface SignOptions {
  readonly file: string
  readonly key: string
  /** Null: beside the file. */
  readonly output: string | null
}

/** `snapshot sign`: writes a signature beside a snapshot. Only what is a snapshot is signed. Returns the exit code. */
export function signSnapshotFile(options: SignOptions, terminal: Terminal = openTerminal()): number {
  const output = options.output ?? besideOf(options.file, "-o")
  const key = parseFile(options.key, MAX_KEY_BYTES, (pem) => parseSigningKey(new TextDecoder().decode(pem)))
  warnIfReadableByOthers(options.key, terminal)
  const content = parsedJson(options.file)
  const envelope = signSnapshot(content, key)
  const pending = beginFile(output, 0o644)
  try {
    pending.commit(new TextEncoder().encode(encodeDetachedEnvelope(envelope)))
  } finally {
    pending.abandon()
  }
  const keyId = envelope.signatures[0]?.keyId ?? ""
  terminal.out(`[ OK ] ${printable(options.file)} signed with key ${keyId}: ${printable(output)}\n`)
  return 0
}

export interface CheckSignatureOptions {
  readonly file: string
  readonly key: string
  /** Null: beside the file. */
  readonly signature: string | null
  readonly json: boolean
}

/** `snapshot check-signature`: returns the exit code, or throws where the signature does not hold. */
export function checkSnapshotSignature(
  options: CheckSignatureOptions,
  terminal: Terminal = openTerminal(),
): number {
  const { file } = options
  const signature = options.signature ?? besideOf(file, "--signature")
  const key = parseFile(options.key, MAX_KEY_BYTES, (pem) => parseVerifyingKey(new TextDecoder().decode(pem)))
  const envelope = parseFile(signature, MAX_ENVELOPE_BYTES, parseDetachedEnvelope)
  const content = readSnapshotJson(file)
  const keyid = verifySnapshotSignature(content, envelope, key)
  // Signed by the right key, and yet no snapshot: that would be found out when it is needed.
  const { taken_at, host } = parseSnapshot(content)
  if (options.json) {
    const result = { verified: true, file, payloadType: SNAPSHOT_PAYLOAD_TYPE, keyid, taken_at, host }
    terminal.out(jsonText(result))
    return 0
  }
  const origin = [host === null ? "" : ` of ${host}`, taken_at === null ? "" : `, taken at ${taken_at}`].join(
    "",
  )
  terminal.out(`[ OK ] ${printable(file)} is signed with key ${keyid}\n       snapshot${printable(origin)}\n`)
  return 0
}

function parsedJson(file: string): Uint8Array {
  const content = readSnapshotJson(file)
  parseSnapshot(content)
  return content
}

function besideOf(file: string, option: string): string {
  if (file !== "-") return `${file}.sig`
  throw new UsageError("ERR_MISSING_ARGUMENT", {
    at: "snapshot",
    expected: `${option} FILE (standard input has no name to put .sig behind)`,
    hint: `give ${option}`,
  })
}

/** Who can read the key can sign in its owner's name. It is the owner's decision, so it is told and not refused. */
function warnIfReadableByOthers(path: string, terminal: Terminal): void {
  if (path === "-") return
  const mode = statSync(path).mode & 0o777
  if ((mode & OTHERS) === 0) return
  const warning = terminal.talkStyle.yellow("[ WARNING ]")
  terminal.talk(
    `${warning} others may use the private key ${printable(path)} (mode ${mode.toString(8)}); chmod 600 keeps it to you\n`,
  )
}
