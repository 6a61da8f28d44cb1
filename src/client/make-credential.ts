import {
  createCipheriv,
  createHmac,
  createPublicKey,
  constants as cryptoConstants,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  publicEncrypt,
  randomBytes,
} from "node:crypto"
import { VerifyError } from "../errors.ts"
import { CURVE, type HashName } from "../formats/tpm/algorithms.ts"
import { type Credential, type EkParameters, ekParameters } from "../formats/tpm/credential.ts"
import { kdfa, kdfe } from "../formats/tpm/kdf.ts"
import { encodeWire, sized } from "../formats/tpm/wire.ts"

const DIGEST_SIZE: Readonly<Record<HashName, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 }
const NOTHING = new Uint8Array(0)
const CURVES: Readonly<Record<string, number>> = { "P-256": CURVE.p256, "P-384": CURVE.p384 }

/**
 * Encrypts a secret that only the TPM with this endorsement key can open, and only while a key of this Name is loaded in it: the
 * counterpart of TPM2_ActivateCredential, made without a TPM.
 * Source: TPM 2.0 Part 1, rev. 1.59, section "Credential Protection", and annexes "RSA" and "ECC", "Secret Sharing".
 * @param ekSpki DER SubjectPublicKeyInfo. @param akName TPM Name. @param secret at most 32 bytes.
 * @throws VerifyError ERR_TPM_EK_KEY where no template of the TCG's is for such a key
 */
export function makeCredential(ekSpki: Uint8Array, akName: Uint8Array, secret: Uint8Array): Credential {
  const key = createPublicKey({ key: Buffer.from(ekSpki), format: "der", type: "spki" })
  const { parameters, kind } = parametersOf(key)
  const { seed, encryptedSecret } = kind === "rsa" ? seedByRsa(key, parameters) : seedByEcdh(key, parameters)
  return { idObject: protect(seed, akName, secret, parameters), encryptedSecret }
}

function parametersOf(key: KeyObject): { parameters: EkParameters; kind: "rsa" | "ecc" } {
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
  const kind = key.asymmetricKeyType === "rsa" ? ("rsa" as const) : ("ecc" as const)
  const curveId = kind === "ecc" ? (CURVES[curveOf(key)] ?? 0) : 0
  const parameters = ekParameters(kind === "rsa" ? { type: "rsa", keyBits: bits } : { type: "ecc", curveId })
  if (parameters !== null) return { parameters, kind }
  throw new VerifyError("ERR_TPM_EK_KEY", {
    at: "endorsement key",
    expected: "RSA of 2048, 3072 or 4096 bits, P-256 or P-384",
    found: `${key.asymmetricKeyType} ${kind === "rsa" ? bits : curveOf(key)}`,
  })
}

function curveOf(key: KeyObject): string {
  return key.asymmetricKeyType === "ec" ? (key.export({ format: "jwk" }).crv ?? "") : ""
}

interface Seed {
  readonly seed: Uint8Array
  readonly encryptedSecret: Uint8Array
}

function seedByRsa(key: KeyObject, { nameAlg }: EkParameters): Seed {
  const seed = Uint8Array.from(randomBytes(DIGEST_SIZE[nameAlg]))
  const padding = cryptoConstants.RSA_PKCS1_OAEP_PADDING
  const options = { key, padding, oaepHash: nameAlg, oaepLabel: Buffer.from("IDENTITY\0") }
  return { seed, encryptedSecret: Uint8Array.from(publicEncrypt(options, Buffer.from(seed))) }
}

function seedByEcdh(key: KeyObject, { nameAlg }: EkParameters): Seed {
  const ephemeral = generateKeyPairSync("ec", { namedCurve: curveOf(key) })
  const z = Uint8Array.from(diffieHellman({ privateKey: ephemeral.privateKey, publicKey: key }))
  const mine = pointOf(ephemeral.publicKey)
  const seed = kdfe(nameAlg, z, "IDENTITY", mine.x, pointOf(key).x, 8 * DIGEST_SIZE[nameAlg])
  // TPMS_ECC_POINT
  const encryptedSecret = Buffer.concat([encodeWire(sized(66), mine.x), encodeWire(sized(66), mine.y)])
  return { seed, encryptedSecret: Uint8Array.from(encryptedSecret) }
}

function pointOf(key: KeyObject): { x: Uint8Array; y: Uint8Array } {
  const { x = "", y = "" } = key.export({ format: "jwk" })
  return { x: Uint8Array.from(Buffer.from(x, "base64url")), y: Uint8Array.from(Buffer.from(y, "base64url")) }
}

/** TPMS_ID_OBJECT: integrity and the encrypted TPM2B_DIGEST. */
function protect(
  seed: Uint8Array,
  name: Uint8Array,
  secret: Uint8Array,
  { nameAlg, keyBits }: EkParameters,
): Uint8Array {
  const symmetricKey = kdfa(nameAlg, seed, "STORAGE", name, NOTHING, keyBits)
  const cipher = createCipheriv(`aes-${keyBits}-cfb`, symmetricKey, Buffer.alloc(16))
  const plain = encodeWire(sized(32), secret)
  const encrypted = Buffer.concat([cipher.update(plain), cipher.final()])
  const macKey = kdfa(nameAlg, seed, "INTEGRITY", NOTHING, NOTHING, 8 * DIGEST_SIZE[nameAlg])
  const mac = createHmac(nameAlg, macKey).update(encrypted).update(name).digest()
  return new Uint8Array(Buffer.concat([encodeWire(sized(64), mac), encrypted]))
}
