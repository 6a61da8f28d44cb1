import { createHash, pbkdf2Sync } from "node:crypto"
import { ParseError } from "../../errors.ts"
import { fromBase64, fromHex, toHex } from "../hex.ts"
import { isArray, type JsonRecord, parseJsonRecord } from "../strict-json.ts"

/**
 * What a `systemd-tpm2` token holds: a secret sealed under a TPM's storage root key, and how to have it unsealed. Tokens
 * that systemd 252 and later make for PCR policies and PINs, not those for signed PCR policies and pcrlock.
 * Source: systemd 252 and 257, src/shared/tpm2-util.c, "tpm2_make_luks2_json".
 */
export interface SealedSecret {
  /** TPM2B_PRIVATE, then TPM2B_PUBLIC, of the sealed object. */
  readonly blob: Uint8Array
  /** PCRs of the policy, ascending; none: no PCR is looked at. */
  readonly pcrs: readonly number[]
  readonly pcrBank: PcrBank
  /** Kind of the storage root key. */
  readonly primaryAlg: "ecc" | "rsa"
  /** SHA-256 policy digest of the sealed object, 32 bytes. */
  readonly policyHash: Uint8Array
  /** Whether a PIN is asked for. */
  readonly pin: boolean
  /** From systemd 254 on a PIN is hashed with this first; null: not. */
  readonly salt: Uint8Array | null
  /**
   * From systemd 254 on: which persistent storage root key (its handle and public area, as the ESYS library serializes
   * them); null: the key is made anew from the template of systemd 252.
   */
  readonly srk: Uint8Array | null
}

const BANKS = ["sha1", "sha256", "sha384", "sha512"] as const
export type PcrBank = (typeof BANKS)[number]

export const SYSTEMD_TPM2 = "systemd-tpm2"
/** Rounds by which systemd hashes a PIN with its salt. */
const SALTED_PIN_ROUNDS = 10_000
const MAX_TOKEN_SIZE = 16 * 1024
const MAX_BLOB_SIZE = 4096

/** The token as JSON text, for `cryptsetup token import`. @param keyslot which the secret opens. */
export function encodeSystemdTpm2Token(sealed: SealedSecret, keyslot: number): Uint8Array {
  const { salt, srk } = sealed
  return Buffer.from(
    JSON.stringify({
      type: SYSTEMD_TPM2,
      keyslots: [`${keyslot}`],
      "tpm2-blob": padded(sealed.blob),
      "tpm2-pcrs": sealed.pcrs,
      "tpm2-pcr-bank": sealed.pcrBank,
      "tpm2-primary-alg": sealed.primaryAlg,
      "tpm2-policy-hash": toHex(sealed.policyHash),
      "tpm2-pin": sealed.pin,
      ...(salt === null ? {} : { tpm2_salt: padded(salt) }),
      ...(srk === null ? {} : { tpm2_srk: padded(srk) }),
    }),
  )
}

/**
 * Reads a token: JSON text, or the members as `LuksToken` has them.
 * @throws ParseError ERR_UNSUPPORTED for signed PCR policies, pcrlock and sharded secrets; ERR_MALFORMED for unknown members;
 *   ERR_TOO_LARGE; ERR_DUPLICATE_KEY
 */
export function parseSystemdTpm2Token(token: Uint8Array | Readonly<Record<string, unknown>>): SealedSecret {
  const text = token instanceof Uint8Array ? token : Buffer.from(JSON.stringify(token))
  const from = parseJsonRecord("systemd-tpm2 token", text, MAX_TOKEN_SIZE)
  if (from.string("type") !== SYSTEMD_TPM2) throw from.wrong("type", SYSTEMD_TPM2, from.take("type"))
  from.array("keyslots")
  refuseUnsupported(from)
  const read = {
    blob: base64(from, "tpm2-blob", MAX_BLOB_SIZE),
    pcrs: pcrs(from),
    pcrBank: oneOf(from, "tpm2-pcr-bank", BANKS, "sha256"),
    primaryAlg: oneOf(from, "tpm2-primary-alg", ["ecc", "rsa"] as const, "ecc"),
    policyHash: policyHash(from),
    pin: flag(from, "tpm2-pin"),
    salt: from.take("tpm2_salt") === null ? null : base64(from, "tpm2_salt", 64),
    srk: from.take("tpm2_srk") === null ? null : base64(from, "tpm2_srk", MAX_BLOB_SIZE),
  }
  from.finish()
  return read
}

/** The LUKS passphrase that systemd makes of an unsealed secret: its base64, padded. The caller wipes both. */
export function sealedPassphrase(secret: Uint8Array): Uint8Array {
  return new Uint8Array(Buffer.from(padded(secret), "latin1"))
}

/**
 * The authorization value that a sealed object has for a PIN: SHA-256 of it, where it has a salt of its salted hash in
 * base64. Trailing zeros do not count in a TPM, and are not there. The caller wipes it.
 * Source: systemd 257, src/shared/tpm2-util.c, "tpm2_get_pin_auth" and "tpm2_util_pbkdf2_hmac_sha256".
 */
export function pinAuthValue(pin: Uint8Array, salt: Uint8Array | null): Uint8Array {
  const salted =
    salt === null
      ? pin
      : Buffer.from(pbkdf2Sync(pin, salt, SALTED_PIN_ROUNDS, 32, "sha256").toString("base64"), "latin1")
  const value = new Uint8Array(createHash("sha256").update(salted).digest())
  let size = value.length
  while (size > 0 && value[size - 1] === 0) size -= 1
  return value.subarray(0, size)
}

/** Policies that need a signature or the TPM's memory: known, so that they are named, but not made and not met here. */
function refuseUnsupported(from: JsonRecord): void {
  for (const name of ["tpm2_pubkey", "tpm2_pubkey_pcrs", "tpm2_pcrlock_nv"]) {
    if (from.take(name) !== null) throw unsupported(from, name)
  }
  const pcrlock = from.take("tpm2_pcrlock")
  if (pcrlock !== null && pcrlock !== false) throw unsupported(from, "tpm2_pcrlock")
  if (isArray(from.take("tpm2-blob"))) throw unsupported(from, "tpm2-blob")
}

function unsupported(from: JsonRecord, name: string): ParseError {
  return new ParseError("ERR_UNSUPPORTED", {
    at: from.place(name),
    expected: "a token with a PCR policy, a PIN, or both",
    found: `a token with ${name}`,
    hint: "open the volume by its password, and enrol the TPM again",
  })
}

function pcrs(from: JsonRecord): number[] {
  const value = from.array("tpm2-pcrs")
  const numbers = value.filter((pcr) => typeof pcr === "number")
  const valid = numbers.every((pcr) => Number.isInteger(pcr) && pcr >= 0 && pcr <= 23)
  if (numbers.length !== value.length || !valid || new Set(numbers).size !== numbers.length)
    throw from.wrong("tpm2-pcrs", "PCRs 0 to 23, each once", value)
  return numbers.sort((a, b) => a - b)
}

function policyHash(from: JsonRecord): Uint8Array {
  const hash = fromHex(from.string("tpm2-policy-hash"))
  if (hash?.length === 32) return hash
  throw from.wrong("tpm2-policy-hash", "32 bytes in hex", from.take("tpm2-policy-hash"))
}

function flag(from: JsonRecord, name: string): boolean {
  const value = from.take(name)
  if (value === null || typeof value === "boolean") return value ?? false
  throw from.wrong(name, "true or false", value)
}

function oneOf<T extends string>(from: JsonRecord, name: string, known: readonly T[], absent: T): T {
  const text = from.stringOrNull(name)
  if (text === null) return absent
  const found = known.find((each) => each === text)
  if (found !== undefined) return found
  throw from.wrong(name, `one of ${known.join(", ")}`, text.slice(0, 40))
}

function base64(from: JsonRecord, name: string, limit: number): Uint8Array {
  const text = from.string(name)
  const bytes = fromBase64(text)
  if (bytes !== null && bytes.length > 0 && bytes.length <= limit) return bytes
  throw from.wrong(name, `base64 of 1 to ${limit} bytes`, text.slice(0, 40))
}

/** Base64 with its padding, as systemd and LUKS write it. */
function padded(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64")
}
