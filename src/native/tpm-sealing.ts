import { NativeError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import { pinAuthValue, type SealedSecret } from "../formats/luks/systemd-tpm2-token.ts"
import { ALG, CURVE } from "../formats/tpm/algorithms.ts"
import {
  type EccPublic,
  encodePublic,
  hasAttribute,
  OBJECT,
  type TpmPublic,
  tpmName,
} from "../formats/tpm/public.ts"
import { parseSealed, type SealedObject } from "../formats/tpm/sealed.ts"
import { sized, u32, WireReader, WireWriter } from "../formats/tpm/wire.ts"
import type { SealRequest } from "./ports.ts"
import * as commands from "./tpm-commands.ts"
import * as sessions from "./tpm-session-commands.ts"
import { isAuthFailure, isForeignObject, isPolicyFailure, RC_LOCKOUT } from "./tss2-rc.ts"

/**
 * Storage root key as systemd 252 makes it, each time anew from the owner's seed: so it is always the same, and takes no
 * persistent handle. Later versions of systemd use it for tokens that name no other key.
 * Source: systemd 252, src/shared/tpm2-util.c, "tpm2_make_primary".
 */
const STORAGE_KEY: EccPublic = {
  type: "ecc",
  nameAlg: ALG.sha256,
  objectAttributes:
    OBJECT.fixedTPM |
    OBJECT.fixedParent |
    OBJECT.sensitiveDataOrigin |
    OBJECT.userWithAuth |
    OBJECT.restricted |
    OBJECT.decrypt,
  authPolicy: new Uint8Array(0),
  symmetric: { algorithm: ALG.aes, keyBits: 128, mode: ALG.cfb },
  scheme: null,
  curveId: CURVE.p256,
  kdf: null,
  x: new Uint8Array(0),
  y: new Uint8Array(0),
}
/** Storage root key of systemd 254 and later, which the TPM's lockout leaves alone. Source: systemd 254, "tpm2_get_srk_template". */
const LASTING_KEY: EccPublic = {
  ...STORAGE_KEY,
  objectAttributes: STORAGE_KEY.objectAttributes | OBJECT.noDA,
}
/** Where it is kept. Source: TCG TPM v2.0 Provisioning Guidance, version 1.0, section "Storage Primary Key". */
const SRK_HANDLE = 0x81000001
/** How the ESYS library writes that a resource is a key. */
const ESYS_KEY = 1
/** Most bytes that every TPM seals. Source: TPM 2.0 Part 2, rev. 1.59, "MAX_SYM_DATA". */
const MAX_SECRET = 128

/** @throws as TpmSealing.seal */
export function seal(transceive: commands.Transceive, request: SealRequest): SealedSecret {
  const { secret, pcrs, pin } = request
  if (secret.length < 1 || secret.length > MAX_SECRET)
    throw new NativeError("ERR_TOO_LARGE", {
      at: "secret to seal",
      expected: `1 to ${MAX_SECRET} bytes`,
      found: `${secret.length}`,
    })
  const policy = { bank: ALG.sha256, pcrs: ascending(pcrs), authValue: pin !== null }
  const authValue = pin === null ? new Uint8Array(0) : pinAuthValue(pin, null)
  const lasting = request.storageKey !== "systemd-252"
  const use = (parent: sessions.LoadedKey): SealedSecret => {
    const authPolicy = sessions.policyDigest(transceive, parent, policy)
    return {
      blob: sessions.createSealed(transceive, parent, { secret, authValue, authPolicy }),
      pcrs: policy.pcrs,
      pcrBank: "sha256",
      primaryAlg: "ecc",
      policyHash: authPolicy,
      pin: policy.authValue,
      salt: null,
      srk: lasting ? encodeNamedKey(parent) : null,
    }
  }
  try {
    return lasting ? use(lastingKey(transceive)) : withStorageKey(transceive, use)
  } finally {
    authValue.fill(0)
  }
}

/** The persistent storage root key, which is made where there is none. @throws NativeError ERR_TPM_HANDLE_TAKEN */
function lastingKey(transceive: commands.Transceive): sessions.LoadedKey {
  const publicArea = commands.readPublic(transceive, SRK_HANDLE) ?? makeLastingKey(transceive)
  if (isStorageKey(publicArea)) return { handle: SRK_HANDLE, publicArea }
  throw new NativeError("ERR_TPM_HANDLE_TAKEN", {
    at: `handle 0x${SRK_HANDLE.toString(16)}`,
    expected: "an ECC P-256 storage root key",
    found: `an ${publicArea.type} key with attributes 0x${publicArea.objectAttributes.toString(16)}`,
    hint: "other software made it; seal as systemd 252 does, which does not use it",
  })
}

function makeLastingKey(transceive: commands.Transceive): TpmPublic {
  const made = commands.createPrimary(transceive, commands.RH.owner, LASTING_KEY)
  try {
    commands.persist(transceive, made.handle, SRK_HANDLE)
    return made.publicArea
  } finally {
    commands.flush(transceive, made.handle)
  }
}

function isStorageKey(key: TpmPublic): boolean {
  const needed = [
    "fixedTPM",
    "fixedParent",
    "sensitiveDataOrigin",
    "userWithAuth",
    "restricted",
    "decrypt",
  ] as const
  const p256 = key.type === "ecc" && key.curveId === CURVE.p256 && key.nameAlg === ALG.sha256
  return p256 && needed.every((attribute) => hasAttribute(key, attribute))
}

/** A secret to be unsealed, and the PIN for it. */
export interface UnsealRequest {
  readonly sealed: SealedSecret
  readonly pin: Uint8Array | null
}

/** @throws as TpmSealing.unseal */
export function unseal(transceive: commands.Transceive, { sealed, pin }: UnsealRequest): Uint8Array {
  const object = parseSealed(sealed.blob)
  if (sealed.pin !== (pin !== null))
    throw new NativeError("ERR_SEALED_PIN", {
      at: "TPM",
      expected: sealed.pin ? "a PIN" : "no PIN",
      found: sealed.pin ? "none" : "one",
    })
  const authValue = pin === null ? null : pinAuthValue(pin, sealed.salt)
  const use = (parent: sessions.LoadedKey) => unsealUnder(transceive, parent, object, sealed, authValue)
  try {
    return sealed.srk === null
      ? withStorageKey(transceive, use, sealed.primaryAlg)
      : use(namedStorageKey(transceive, sealed.srk))
  } finally {
    authValue?.fill(0)
  }
}

function unsealUnder(
  transceive: commands.Transceive,
  parent: sessions.LoadedKey,
  object: SealedObject,
  sealed: SealedSecret,
  authValue: Uint8Array | null,
): Uint8Array {
  const loaded = explaining(sealed, () => sessions.load(transceive, parent, object))
  try {
    return sessions.withSession(transceive, parent, "policy", (session) => {
      const policy = { bank: ALG[sealed.pcrBank], pcrs: sealed.pcrs, authValue: authValue !== null }
      const met = sessions.meetPolicy(transceive, session, policy)
      if (!bytesEqual(met, object.authPolicy)) throw otherBoot(sealed)
      return explaining(sealed, () => sessions.unseal(transceive, loaded, session, authValue))
    })
  } finally {
    commands.flush(transceive, loaded.handle)
  }
}

/** The TPM's refusal, as what it means for a secret. */
function explaining<T>(sealed: SealedSecret, run: () => T): T {
  try {
    return run()
  } catch (error) {
    const rc = commands.responseCode(error)
    throw rc === null ? error : (meaningOf(rc, sealed, error) ?? error)
  }
}

function meaningOf(rc: number, sealed: SealedSecret, cause: unknown): NativeError | null {
  if (isForeignObject(rc)) return elsewhere("a secret of its own", "one that it cannot decrypt", cause)
  // The PCRs moved since the policy was met: something was measured just now.
  if (isPolicyFailure(rc)) return otherBoot(sealed)
  if (isAuthFailure(rc))
    return new NativeError("ERR_SEALED_PIN", {
      at: "TPM",
      expected: "the PIN that the volume was enrolled with",
      found: "another",
      hint: "the TPM counts wrong PINs, and locks itself after some",
      cause,
    })
  if (rc !== RC_LOCKOUT) return null
  return new NativeError("ERR_TPM_LOCKOUT", {
    at: "TPM",
    found: "too many wrong PINs, or power cuts",
    hint: "wait some minutes, or end it now: tpm2_dictionarylockout --clear-lockout; or open the volume by its password",
    cause,
  })
}

/** Runs with the key under which secrets are sealed. */
export function withStorageKey<T>(
  transceive: commands.Transceive,
  use: (key: sessions.LoadedKey) => T,
  kind: SealedSecret["primaryAlg"] = "ecc",
): T {
  if (kind !== "ecc")
    throw new NativeError("ERR_UNSUPPORTED", {
      at: "TPM storage root key",
      expected: "an ECC P-256 key",
      found: `an ${kind} key`,
      hint: "open the volume by its password, and enrol the TPM again",
    })
  const key = commands.createPrimary(transceive, commands.RH.owner, STORAGE_KEY)
  try {
    return use(key)
  } finally {
    commands.flush(transceive, key.handle)
  }
}

/**
 * A persistent key as the ESYS library serializes it: handle, Name, what it is (4 bytes), TPM2B_PUBLIC.
 * Source: tpm2-tss 4.0, src/tss2-esys, "IESYS_RESOURCE" as Esys_TR_Serialize writes it.
 */
function encodeNamedKey({ handle, publicArea }: sessions.LoadedKey): Uint8Array {
  const to = new WireWriter()
  u32.write(handle, to)
  sized(66).write(tpmName(publicArea), to)
  u32.write(ESYS_KEY, to)
  sized(512).write(encodePublic(publicArea), to)
  return to.bytes()
}

/** The persistent key that a token names. It has to have that very Name: another TPM's does not. */
function namedStorageKey(transceive: commands.Transceive, srk: Uint8Array): sessions.LoadedKey {
  const from = new WireReader("tpm2_srk", srk)
  const handle = u32.read(from)
  const name = sized(66).read(from)
  if (handle >>> 24 !== 0x81)
    throw new NativeError("ERR_UNSUPPORTED", {
      at: "tpm2_srk",
      expected: "a persistent key",
      found: `handle 0x${handle.toString(16)}`,
    })
  const publicArea = commands.readPublic(transceive, handle)
  const found = publicArea === null ? null : tpmName(publicArea)
  if (publicArea === null || found === null || !bytesEqual(found, name))
    throw elsewhere(`the storage root key of the token at 0x${handle.toString(16)}`, "another, or none")
  return { handle, publicArea }
}

function elsewhere(expected: string, found: string, cause?: unknown): NativeError {
  return new NativeError("ERR_SEALED_ELSEWHERE", {
    at: "TPM",
    expected,
    found,
    hint: "the volume comes from another machine, or the TPM was cleared: open it by its password, and enrol this TPM",
    cause,
  })
}

function otherBoot({ pcrs, pcrBank }: SealedSecret): NativeError {
  return new NativeError("ERR_SEALED_PCRS", {
    at: pcrs.length === 0 ? "policy of the sealed secret" : `PCRs ${pcrs.join(", ")} of the ${pcrBank} bank`,
    expected: "the values at the time of enrolment",
    found: "others",
    hint: "after an update that you meant: open the volume by its password, and enrol the TPM again",
  })
}

function ascending(pcrs: readonly number[]): number[] {
  return [...new Set(pcrs)].sort((a, b) => a - b)
}
