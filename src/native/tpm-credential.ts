import { CodedError, NativeError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import { ALG, CURVE } from "../formats/tpm/algorithms.ts"
import { type Credential, MAX_ENCRYPTED_SECRET, MAX_ID_OBJECT } from "../formats/tpm/credential.ts"
import {
  type EccPublic,
  hasAttribute,
  OBJECT,
  type RsaPublic,
  type TpmPublic,
} from "../formats/tpm/public.ts"
import { sized } from "../formats/tpm/wire.ts"
import * as commands from "./tpm-commands.ts"

/** An endorsement key by its key alone, as its certificate has it. */
export type EkKey =
  | { readonly type: "rsa"; readonly modulus: Uint8Array }
  | { readonly type: "ecc"; readonly curveId: number; readonly x: Uint8Array; readonly y: Uint8Array }

export interface ActivateRequest extends Credential {
  readonly ek: EkKey
  /** Persistent handle of the attestation key; absent: ours. */
  readonly keyHandle?: number
}

/**
 * Persistent handles that are kept for endorsement keys.
 * Source: TCG Registry of Reserved TPM 2.0 Handles and Localities, version 1.2, table "Endorsement Primary Keys".
 */
const EK_HANDLES = { first: 0x81010000, last: 0x8101ffff } as const
const POLICY_SESSION = 1
const RH_NULL = 0x40000007

const hex = (text: string) => Uint8Array.from(Buffer.from(text, "hex"))
/** PolicySecret of the endorsement hierarchy. */
const POLICY_A_SHA256 = hex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
/** PolicyOR of that and of a policy in NV. */
const POLICY_B_SHA256 = hex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
const POLICY_B_SHA384 = hex(
  "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12",
)
const EK_ATTRIBUTES =
  OBJECT.fixedTPM |
  OBJECT.fixedParent |
  OBJECT.sensitiveDataOrigin |
  OBJECT.adminWithPolicy |
  OBJECT.restricted |
  OBJECT.decrypt
const AES128 = { algorithm: ALG.aes, keyBits: 128, mode: ALG.cfb }
const AES256 = { algorithm: ALG.aes, keyBits: 256, mode: ALG.cfb }

const LOW = {
  nameAlg: ALG.sha256,
  objectAttributes: EK_ATTRIBUTES,
  authPolicy: POLICY_A_SHA256,
  symmetric: AES128,
  scheme: null,
}
const HIGH = {
  ...LOW,
  objectAttributes: EK_ATTRIBUTES | OBJECT.userWithAuth,
  authPolicy: POLICY_B_SHA256,
}
const HIGH_384 = { ...HIGH, nameAlg: ALG.sha384, authPolicy: POLICY_B_SHA384, symmetric: AES256 }
const NOTHING = new Uint8Array(0)

const rsa = (common: typeof LOW | typeof HIGH_384, keyBits: number, unique: number): RsaPublic => ({
  ...common,
  type: "rsa",
  keyBits,
  exponent: 0,
  modulus: new Uint8Array(unique),
})
const ecc = (common: typeof LOW | typeof HIGH_384, curveId: number, unique: number): EccPublic => ({
  ...common,
  type: "ecc",
  curveId,
  kdf: null,
  x: new Uint8Array(unique),
  y: new Uint8Array(unique),
})

/**
 * Templates that makers certify keys of.
 * Source: TCG EK Credential Profile for TPM Family 2.0, version 2.5, appendix B: L-1, L-2, H-1, H-2, H-3, H-6, H-7.
 */
export const EK_TEMPLATES = {
  rsa2048: rsa(LOW, 2048, 256),
  p256: ecc(LOW, CURVE.p256, 32),
  highRsa2048: rsa(HIGH, 2048, 0),
  highP256: ecc(HIGH, CURVE.p256, 0),
  highP384: ecc(HIGH_384, CURVE.p384, 0),
  highRsa3072: rsa(HIGH_384, 3072, 0),
  highRsa4096: rsa(HIGH_384, 4096, 0),
} as const

/**
 * Opens a credential with the endorsement key, for the attestation key that is loaded: TPM2_ActivateCredential.
 * @returns the secret. @throws NativeError ERR_TPM_NO_EK, ERR_TPM_COMMAND where it was made for another key, or altered
 */
export function activateCredential(
  transceive: commands.Transceive,
  { ek, keyHandle, idObject, encryptedSecret }: ActivateRequest & { readonly keyHandle: number },
  ownEk: number,
): Uint8Array {
  return withEndorsementKey(transceive, ek, ownEk, (handle, publicArea) =>
    withAuthorization(transceive, publicArea, (session) => {
      const answer = commands.send(transceive, "activateCredential", {
        handles: [keyHandle, handle],
        authorized: 2,
        sessions: [commands.RS_PW, session],
        parameters(to) {
          sized(MAX_ID_OBJECT).write(idObject, to)
          sized(MAX_ENCRYPTED_SECRET).write(encryptedSecret, to)
        },
      })
      return sized(64).read(answer)
    }),
  )
}

/** Runs with the endorsement key that is meant: where it is persistent, or made again from its template. */
function withEndorsementKey<T>(
  transceive: commands.Transceive,
  wanted: EkKey,
  ownEk: number,
  use: (handle: number, publicArea: TpmPublic) => T,
): T {
  const inUse = commands.handlesInUse(transceive, EK_HANDLES.first)
  for (const handle of [
    ownEk,
    ...inUse.filter((each) => each >= EK_HANDLES.first && each <= EK_HANDLES.last),
  ]) {
    const present = readKey(transceive, handle)
    if (present !== null && isSameKey(present, wanted)) return use(handle, present)
  }
  for (const template of Object.values(EK_TEMPLATES)) {
    if (!isOfKind(template, wanted)) continue
    const made = createOrNull(transceive, template)
    if (made === null) continue
    try {
      if (isSameKey(made.publicArea, wanted)) return use(made.handle, made.publicArea)
    } finally {
      commands.flush(transceive, made.handle)
    }
  }
  throw new NativeError("ERR_TPM_NO_EK", {
    at: "TPM",
    expected: "the endorsement key of the certificate",
    found: "other keys",
    hint: "the certificate is that of another TPM, or of a key whose template is not the TCG's",
  })
}

/** Null where there is no key, or one of a kind that no endorsement key is. */
function readKey(transceive: commands.Transceive, handle: number): TpmPublic | null {
  try {
    return commands.readPublic(transceive, handle)
  } catch (error) {
    if (error instanceof CodedError && error.code === "ERR_UNSUPPORTED") return null
    throw error
  }
}

/** Null where this TPM makes no such keys. */
function createOrNull(transceive: commands.Transceive, template: TpmPublic) {
  try {
    return commands.createPrimary(transceive, commands.RH.endorsement, template)
  } catch (error) {
    if (commands.isRefusedParameter(error)) return null
    throw error
  }
}

function isOfKind(template: TpmPublic, wanted: EkKey): boolean {
  if (template.type === "rsa") return wanted.type === "rsa" && wanted.modulus.length * 8 === template.keyBits
  return wanted.type === "ecc" && wanted.curveId === template.curveId
}

function isSameKey(key: TpmPublic, wanted: EkKey): boolean {
  if (!hasAttribute(key, "decrypt") || !hasAttribute(key, "restricted")) return false
  if (key.type === "rsa") return wanted.type === "rsa" && bytesEqual(key.modulus, wanted.modulus)
  return (
    wanted.type === "ecc" &&
    wanted.curveId === key.curveId &&
    bytesEqual(unpadded(key.x), unpadded(wanted.x)) &&
    bytesEqual(unpadded(key.y), unpadded(wanted.y))
  )
}

/** Without leading zeros: a TPM may leave them out. */
function unpadded(integer: Uint8Array): Uint8Array {
  const first = integer.findIndex((byte) => byte !== 0)
  return first < 0 ? NOTHING : integer.subarray(first)
}

/** A session that may use the endorsement key: by its empty password where it allows that, else by PolicySecret. */
function withAuthorization<T>(
  transceive: commands.Transceive,
  ek: TpmPublic,
  use: (session: number) => T,
): T {
  if (hasAttribute(ek, "userWithAuth")) return use(commands.RS_PW)
  const session = startPolicySession(transceive, ek.nameAlg)
  let spent = false
  try {
    policySecret(transceive, session)
    const result = use(session)
    // A session that is not continued ends with the command that used it.
    spent = true
    return result
  } finally {
    if (!spent) commands.flush(transceive, session)
  }
}

/** Source: TPM 2.0 Part 3, rev. 1.59, section "TPM2_StartAuthSession". */
function startPolicySession(transceive: commands.Transceive, hash: number): number {
  const answer = commands.send(transceive, "startAuthSession", {
    handles: [RH_NULL, RH_NULL],
    parameters(to) {
      // Neither salt nor HMAC: the nonce protects nothing here, and has a least length.
      sized(64).write(new Uint8Array(16), to)
      sized(0).write(NOTHING, to)
      to.uint(1, POLICY_SESSION)
      to.uint(2, ALG.null)
      to.uint(2, hash)
    },
  })
  return answer.uint(4)
}

/** By the endorsement hierarchy's empty password. Source: TPM 2.0 Part 3, rev. 1.59, section "TPM2_PolicySecret". */
function policySecret(transceive: commands.Transceive, session: number): void {
  commands.send(transceive, "policySecret", {
    handles: [commands.RH.endorsement, session],
    authorized: 1,
    parameters(to) {
      for (let each = 0; each < 3; each++) sized(0).write(NOTHING, to) // nonceTPM, cpHashA, policyRef
      to.uint(4, 0) // expiration: none
    },
  })
}
