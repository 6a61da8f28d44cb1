import { constants, generateKeyPairSync, type KeyObject, sign } from "node:crypto"
import { ALG, CURVE, type HashName } from "../../src/formats/tpm/algorithms.ts"
import { encodeAttest, type QuoteAttest } from "../../src/formats/tpm/attest.ts"
import { selectPcrs } from "../../src/formats/tpm/pcr-selection.ts"
import { encodePublic, OBJECT, type TpmPublic } from "../../src/formats/tpm/public.ts"
import { encodeSignature, type TpmSignature } from "../../src/formats/tpm/signature.ts"

/** A key that claims to be a TPM's attestation key and is none: what root on any machine can make (attack M1). */
export interface SoftwareAk {
  readonly publicArea: TpmPublic
  readonly akPublic: Uint8Array
  signature(message: Uint8Array): TpmSignature
}

type Kind = "ecdsa-p256" | "ecdsa-p384" | "rsassa" | "rsapss"

const ATTRIBUTES =
  OBJECT.fixedTPM |
  OBJECT.fixedParent |
  OBJECT.sensitiveDataOrigin |
  OBJECT.userWithAuth |
  OBJECT.noDA |
  OBJECT.restricted |
  OBJECT.sign

export function makeSoftwareAk(
  kind: Kind,
  options: { attributes?: number; hash?: HashName; bits?: number; exponent?: number } = {},
): SoftwareAk {
  const hash = options.hash ?? (kind === "ecdsa-p384" ? "sha384" : "sha256")
  const common = {
    nameAlg: ALG.sha256,
    objectAttributes: options.attributes ?? ATTRIBUTES,
    authPolicy: new Uint8Array(0),
    symmetric: null,
  }
  if (kind === "rsassa" || kind === "rsapss") {
    const bits = options.bits ?? 2048
    const pair = generateKeyPairSync("rsa", {
      modulusLength: bits,
      publicExponent: options.exponent ?? 65537,
    })
    const publicArea: TpmPublic = {
      ...common,
      type: "rsa",
      scheme: { scheme: ALG[kind], hash: ALG[hash] },
      keyBits: bits,
      exponent: options.exponent ?? 0,
      modulus: member(pair.publicKey, "n"),
    }
    const padding = kind === "rsapss" ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING
    return ak(publicArea, (message) => {
      const key = { key: pair.privateKey, padding, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
      return { scheme: kind, hash: ALG[hash], signature: new Uint8Array(sign(hash, message, key)) }
    })
  }
  const pair = generateKeyPairSync("ec", { namedCurve: kind === "ecdsa-p256" ? "P-256" : "P-384" })
  const publicArea: TpmPublic = {
    ...common,
    type: "ecc",
    scheme: { scheme: ALG.ecdsa, hash: ALG[hash] },
    curveId: kind === "ecdsa-p256" ? CURVE.p256 : CURVE.p384,
    kdf: null,
    x: member(pair.publicKey, "x"),
    y: member(pair.publicKey, "y"),
  }
  return ak(publicArea, (message) => {
    const both = new Uint8Array(sign(hash, message, { key: pair.privateKey, dsaEncoding: "ieee-p1363" }))
    const half = both.length / 2
    return { scheme: "ecdsa", hash: ALG[hash], r: both.subarray(0, half), s: both.subarray(half) }
  })
}

/** A quote by a software key. */
export function softwareQuote(
  key: SoftwareAk,
  attest: QuoteAttest,
): { quote: Uint8Array; signature: Uint8Array } {
  const quote = encodeAttest(attest)
  return { quote, signature: encodeSignature(key.signature(quote)) }
}

/** What a TPM would state about PCRs of its SHA-256 bank. */
export function quoteAttest(
  pcrs: readonly number[],
  pcrDigest: Uint8Array,
  changes: Partial<QuoteAttest> = {},
): QuoteAttest {
  return {
    qualifiedSigner: new Uint8Array(34),
    extraData: new Uint8Array(32),
    clock: 1000n,
    resetCount: 7,
    restartCount: 0,
    safe: true,
    firmwareVersion: 0x2020n,
    pcrSelect: [selectPcrs(ALG.sha256, pcrs)],
    pcrDigest,
    ...changes,
  }
}

function ak(publicArea: TpmPublic, signature: SoftwareAk["signature"]): SoftwareAk {
  return { publicArea, akPublic: encodePublic(publicArea), signature }
}

function member(key: KeyObject, name: "x" | "y" | "n"): Uint8Array {
  const value = key.export({ format: "jwk" })[name]
  if (typeof value !== "string") throw new Error(`key has no ${name}`)
  return new Uint8Array(Buffer.from(value, "base64url"))
}
