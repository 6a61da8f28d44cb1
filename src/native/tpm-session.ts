import {
  createCipheriv,
  createDecipheriv,
  createECDH,
  createHash,
  createHmac,
  type ECDH,
  randomBytes,
  timingSafeEqual,
} from "node:crypto"
import { NativeError } from "../errors.ts"
import { ALG, CURVE } from "../formats/tpm/algorithms.ts"
import type { EccPublic, TpmPublic } from "../formats/tpm/public.ts"
import { encodeWire, sized, struct, u8, u16, u32, WireReader, WireWriter } from "../formats/tpm/wire.ts"

/**
 * Sessions whose key only this process and the TPM know: commands and responses are authenticated by it, and their first
 * parameter is encrypted. All with SHA-256 and AES-128-CFB.
 * Source: TPM 2.0 Part 1, rev. 1.59, sections "Session-Based Authorizations", "Session-Based Encryption", "Key Derivation
 * Function", "ECC Secret Sharing".
 */

/** Bits of TPMA_SESSION. Source: TPM 2.0 Part 2, rev. 1.59, table "TPMA_SESSION". */
const SESSION = { continueSession: 1, decrypt: 1 << 5, encrypt: 1 << 6 } as const
const DIGEST_SIZE = 32
const AES_KEY_SIZE = 16
const NONE = new Uint8Array(0)

/** What TPM2_StartAuthSession needs, and what only this side may know of it. */
export interface SessionSecret {
  readonly nonceCaller: Uint8Array
  /** TPM2B_ENCRYPTED_SECRET's content: the salt, for the key's owner to decrypt. */
  readonly encryptedSalt: Uint8Array
  readonly salt: Uint8Array
}

/** Makes a salt that only the TPM that holds `key` can read. @throws NativeError ERR_UNSUPPORTED for other kinds of keys */
export function newSessionSecret(key: TpmPublic): SessionSecret {
  if (key.type !== "ecc" || key.curveId !== CURVE.p256 || key.nameAlg !== ALG.sha256)
    throw new NativeError("ERR_UNSUPPORTED", {
      at: "TPM storage root key",
      expected: "an ECC P-256 key with SHA-256",
      found: `an ${key.type} key`,
    })
  return { nonceCaller: new Uint8Array(randomBytes(DIGEST_SIZE)), ...agreeSalt(key) }
}

/** One session, from its start on. */
export class TpmSession {
  readonly handle: number
  readonly #key: Uint8Array
  #nonceCaller: Uint8Array
  #nonceTpm: Uint8Array

  constructor(handle: number, nonceTpm: Uint8Array, { salt, nonceCaller }: SessionSecret) {
    this.handle = handle
    this.#nonceCaller = nonceCaller
    this.#nonceTpm = nonceTpm
    this.#key = kdfA(salt, "ATH", nonceTpm, nonceCaller, DIGEST_SIZE)
    salt.fill(0)
  }

  /**
   * Authorizes a command. Returns the authorization area and the parameters, the first of which (a TPM2B) is encrypted
   * where `encrypts` asks for it.
   */
  protect(command: ProtectedCommand): { area: Uint8Array; parameters: Uint8Array } {
    this.#nonceCaller = new Uint8Array(randomBytes(DIGEST_SIZE))
    const attributes = attributesOf(command)
    const parameters = command.parameters.slice()
    if (command.encrypts.command) this.#crypt("command", parameters, command.authValue)
    const cpHash = sha256(encodeWire(u32, command.code), ...command.names, parameters)
    const hmac = this.#hmac(command, cpHash, this.#nonceCaller, this.#nonceTpm, attributes)
    const area = new WireWriter()
    area.uint(4, this.handle)
    AUTH.write({ nonce: this.#nonceCaller, attributes, hmac }, area)
    return { area: area.bytes(), parameters }
  }

  /**
   * Checks a successful response and returns its parameters, decrypted where they were encrypted.
   * @throws NativeError ERR_TPM_SESSION where the response was not made by the TPM that holds the session's key
   */
  open(command: ProtectedCommand, parameters: Uint8Array, area: Uint8Array): Uint8Array {
    const { nonce, attributes, hmac } = readArea(area)
    const rpHash = sha256(encodeWire(u32, 0), encodeWire(u32, command.code), parameters)
    const expected = this.#hmac(command, rpHash, nonce, this.#nonceCaller, attributes)
    if (hmac.length !== expected.length || !timingSafeEqual(hmac, expected)) throw changed(command.name)
    this.#nonceTpm = nonce
    const opened = parameters.slice()
    if (!command.encrypts.response) return opened
    if ((attributes & SESSION.encrypt) === 0) throw changed(command.name)
    this.#crypt("response", opened, command.authValue)
    return opened
  }

  /** The session's key is of no further use. */
  wipe(): void {
    this.#key.fill(0)
  }

  #hmac(
    command: ProtectedCommand,
    hash: Uint8Array,
    newer: Uint8Array,
    older: Uint8Array,
    attributes: number,
  ): Uint8Array {
    const key = concat(this.#key, command.proves === "authValue" ? command.authValue : NONE)
    const mac = createHmac("sha256", key)
      .update(hash)
      .update(newer)
      .update(older)
      .update(Uint8Array.of(attributes))
    key.fill(0)
    return new Uint8Array(mac.digest())
  }

  /** Encrypts or decrypts, in place, the content of the TPM2B that `parameters` begins with. */
  #crypt(direction: "command" | "response", parameters: Uint8Array, authValue: Uint8Array): void {
    const content = sized(0xffff).read(new WireReader("first parameter", parameters))
    const [newer, older] =
      direction === "command" ? [this.#nonceCaller, this.#nonceTpm] : [this.#nonceTpm, this.#nonceCaller]
    const secret = concat(this.#key, authValue)
    const keys = kdfA(secret, "CFB", newer, older, 2 * AES_KEY_SIZE)
    const make = direction === "command" ? createCipheriv : createDecipheriv
    const cipher = make("aes-128-cfb", keys.subarray(0, AES_KEY_SIZE), keys.subarray(AES_KEY_SIZE))
    const out = cipher.update(content)
    content.set(out)
    for (const each of [out, keys, secret]) each.fill(0)
  }
}

/** A command as a session has to know it. */
export interface ProtectedCommand {
  readonly code: number
  /** For messages. */
  readonly name: string
  /** TPM Names of its handles. */
  readonly names: readonly Uint8Array[]
  readonly parameters: Uint8Array
  /** Authorization value of the object that the session authorizes; empty where it has none. */
  readonly authValue: Uint8Array
  /** `authValue`: the object's value has to be known. `policy`: meeting the object's policy is enough. */
  readonly proves: "authValue" | "policy"
  /** Whether the first parameter, of the command or its response, is a secret. */
  readonly encrypts: { readonly command: boolean; readonly response: boolean }
}

/** TPMS_AUTH_COMMAND after its handle, and TPMS_AUTH_RESPONSE. Source: TPM 2.0 Part 2, rev. 1.59, tables of these names. */
const AUTH = struct({ nonce: sized(64), attributes: u8, hmac: sized(64) })

function readArea(area: Uint8Array) {
  const from = new WireReader("response authorization", area)
  const read = AUTH.read(from)
  from.end()
  return read
}

function attributesOf({ encrypts }: ProtectedCommand): number {
  return (
    SESSION.continueSession |
    (encrypts.command ? SESSION.decrypt : 0) |
    (encrypts.response ? SESSION.encrypt : 0)
  )
}

/** The salt is derived from a Diffie-Hellman secret: only a point is sent. */
function agreeSalt(key: EccPublic): { salt: Uint8Array; encryptedSalt: Uint8Array } {
  const ephemeral = createECDH("prime256v1")
  const own = ephemeral.generateKeys()
  const [x, y] = [own.subarray(1, 33), own.subarray(33)]
  const secret = shareSecret(ephemeral, key)
  const salt = sha256(encodeWire(u32, 1), secret, labelled("SECRET"), x, padded(key.x))
  secret.fill(0)
  return { salt, encryptedSalt: encodeWire(POINT, { x, y }) }
}

/** TPMS_ECC_POINT. Source: TPM 2.0 Part 2, rev. 1.59, table of this name. */
const POINT = struct({ x: sized(66), y: sized(66) })

function shareSecret(ephemeral: ECDH, key: EccPublic): Uint8Array {
  try {
    return ephemeral.computeSecret(concat(Uint8Array.of(4), padded(key.x), padded(key.y)))
  } catch (cause) {
    throw new NativeError("ERR_TPM_RESPONSE", {
      at: "TPM storage root key",
      expected: "a point of the curve P-256",
      found: "none",
      cause,
    })
  }
}

/** KDFa. `size`: bytes, 32 at most. */
function kdfA(key: Uint8Array, label: string, u: Uint8Array, v: Uint8Array, size: number): Uint8Array {
  const mac = createHmac("sha256", key)
  for (const part of [encodeWire(u32, 1), labelled(label), u, v, encodeWire(u32, size * 8)]) mac.update(part)
  return new Uint8Array(mac.digest().subarray(0, size))
}

/** A label with the zero that ends it, which is hashed with it. */
function labelled(label: string): Uint8Array {
  return new Uint8Array(Buffer.from(`${label}\0`, "latin1"))
}

function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash("sha256")
  for (const part of parts) hash.update(part)
  return new Uint8Array(hash.digest())
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

/** A coordinate of P-256 in its full 32 bytes; one that is longer is none, and stays as it is. */
function padded(coordinate: Uint8Array): Uint8Array {
  if (coordinate.length >= 32) return coordinate
  const out = new Uint8Array(32)
  out.set(coordinate, 32 - coordinate.length)
  return out
}

function changed(command: string): NativeError {
  return new NativeError("ERR_TPM_SESSION", {
    at: `response to TPM2_${command}`,
    expected: "one that the session's key authenticates",
    found: "another",
    hint: "something between this program and the TPM changes what it says",
  })
}

/** TPMT_SYM_DEF and hash of our sessions, as TPM2_StartAuthSession takes them. */
export function writeSessionAlgorithms(to: WireWriter): void {
  u16.write(ALG.aes, to)
  u16.write(AES_KEY_SIZE * 8, to)
  u16.write(ALG.cfb, to)
  u16.write(ALG.sha256, to)
}
