/** A made-up Azure VM: a paravisor that states claims, a chip that signs a report over them, a virtual TPM with an RSA key. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto"
import { encodeHclReport, type HclHash } from "../../src/formats/azure/hcl.ts"
import { ALG } from "../../src/formats/tpm/algorithms.ts"
import { encodeSignature } from "../../src/formats/tpm/signature.ts"
import { type FakeChip, fakeReport } from "./snp.ts"

export interface FakeVtpm {
  readonly key: KeyObject
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array
  /** The key as the claims hold it, apart from its name. */
  readonly jwk: Readonly<Record<string, unknown>>
  /** TPMT_SIGNATURE over a quote. */
  sign(quote: Uint8Array): Uint8Array
}

export function fakeVtpm(): FakeVtpm {
  const { privateKey: key, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })
  const { n, e } = publicKey.export({ format: "jwk" })
  return {
    key,
    spki: Uint8Array.from(publicKey.export({ type: "spki", format: "der" })),
    jwk: { key_ops: ["sign"], kty: "RSA", e, n },
    sign: (quote) =>
      encodeSignature({ scheme: "rsassa", hash: ALG.sha256, signature: sign("sha256", quote, key) }),
  }
}

/** Claims as JSON text. `change` replaces members. */
export function fakeClaims(
  vtpm: Pick<FakeVtpm, "jwk">,
  change: Readonly<Record<string, unknown>> = {},
): string {
  return JSON.stringify({
    keys: [
      { kid: "HCLAkPub", ...vtpm.jwk },
      { kid: "HCLEkPub", ...vtpm.jwk },
    ],
    "vm-configuration": { "console-enabled": true, "secure-boot": true, vmUniqueId: "A-GUID" },
    "user-data": "00".repeat(64),
    ...change,
  })
}

/** An HCL report over these claims, the hardware report inside it signed by a made-up chip. */
export function fakeHclReport(
  chip: FakeChip,
  claims: string,
  change: {
    readonly hash?: HclHash
    readonly vmpl?: number
    readonly reportData?: Uint8Array
    readonly size?: number
  } = {},
): Uint8Array {
  const hash = change.hash ?? "sha256"
  const runtimeData = Uint8Array.from(Buffer.from(claims))
  const reportData = new Uint8Array(64)
  reportData.set(createHash(hash).update(runtimeData).digest())
  const hardwareReport = fakeReport(chip, {
    reportData: change.reportData ?? reportData,
    vmpl: change.vmpl ?? 0,
  })
  return encodeHclReport({ kind: "snp", version: 1, hardwareReport, hash, runtimeData }, change.size ?? 2600)
}
