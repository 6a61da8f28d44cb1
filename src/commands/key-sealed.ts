import { createHash, randomBytes } from "node:crypto"
import { existsSync, mkdirSync } from "node:fs"
import { dirname, resolve } from "node:path"
import { NativeError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { encodeSystemdTpm2Token, parseSystemdTpm2Token } from "../formats/luks/systemd-tpm2-token.ts"
import type { TpmStorage } from "../native/ports.ts"
import { parseFile, readInput } from "./input-files.ts"
import { beginFile } from "./write-file.ts"

const SECRET_SIZE = 32
const MAX_FILE = 16 * 1024

/** Where a sealed secret is kept, and what has to be the same for it to be given out. */
export interface SealedPlace {
  readonly file: string
  /** PCRs of the SHA-256 bank. */
  readonly pcrs: readonly number[]
}

/**
 * The secret in a file that only this TPM opens, 32 bytes; made at random where there is no such file yet.
 *
 * Who writes the disk could put a file there that they had sealed by the same TPM, in another system booted for the purpose,
 * and would then know the secret. So the TPM remembers the file's digest where no other system can write.
 * @throws NativeError ERR_SEALED_KEY, ERR_SEALED_ELSEWHERE, ERR_SEALED_PCRS, ERR_HEADER_REFERENCE and those of the TPM; ParseError
 */
export async function sealedSecret(tpm: TpmStorage, place: SealedPlace): Promise<Uint8Array> {
  return existsSync(place.file) ? unsealed(tpm, place) : newlySealed(tpm, place)
}

async function newlySealed(tpm: TpmStorage, { file, pcrs }: SealedPlace): Promise<Uint8Array> {
  const secret = new Uint8Array(randomBytes(SECRET_SIZE))
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  const pending = beginFile(file, 0o600)
  try {
    // The token's form is systemd's, in which a key slot is named; there is none here.
    const content = encodeSystemdTpm2Token(await tpm.seal({ secret, pcrs, pin: null }), 0)
    // Before the file: what is cut short in between is begun again next time.
    await tpm.headers.write({ volume: nameOf(file), pcrs }, { current: digest(content), next: null })
    pending.commit(content)
    return secret
  } finally {
    pending.abandon()
  }
}

async function unsealed(tpm: TpmStorage, { file, pcrs }: SealedPlace): Promise<Uint8Array> {
  const content = readInput(file, MAX_FILE)
  const remembered = await tpm.headers.read({ volume: nameOf(file), pcrs })
  if (remembered === null || !bytesEqual(remembered.current, digest(content)))
    throw new NativeError("ERR_SEALED_KEY", {
      at: file,
      expected: remembered === null ? "a file that the TPM remembers" : shortHex(remembered.current),
      found: shortHex(digest(content)),
      hint: "somebody put another file there, or it is of another VM; to begin anew with another key, remove it",
    })
  const sealed = parseFile(file, MAX_FILE, parseSystemdTpm2Token)
  const asWanted = sealed.pcrs.join() === [...pcrs].sort((a, b) => a - b).join()
  if (!asWanted || sealed.pcrBank !== "sha256" || sealed.pin)
    throw new NativeError("ERR_SEALED_KEY", {
      at: file,
      expected: `a secret bound to PCRs ${pcrs.join(", ")}`,
      found: `one bound to ${sealed.pcrs.join(", ") || "none"} of bank ${sealed.pcrBank}`,
      hint: "give the same --pcrs as when it was made",
    })
  const secret = await tpm.unseal(sealed, null)
  if (secret.length === SECRET_SIZE) return secret
  throw new NativeError("ERR_SEALED_KEY", {
    at: file,
    expected: `${SECRET_SIZE} bytes`,
    found: `${secret.length}`,
  })
}

function nameOf(file: string): string {
  return `certtool key ${resolve(file)}`
}

function digest(content: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(content).digest())
}
