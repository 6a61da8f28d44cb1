import { describe, expect, test } from "bun:test"
import { generateKeyPairSync, type KeyObject } from "node:crypto"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { parseSigningKey, parseVerifyingKey } from "./ed25519-key.ts"
import { signSnapshot, verifySnapshotSignature } from "./snapshot-signature.ts"

const OWN = generateKeyPairSync("ed25519")
const OTHER = generateKeyPairSync("ed25519")
const P256 = generateKeyPairSync("ec", { namedCurve: "P-256" })
const JSON_TEXT = Buffer.from('{"format":2}')
const ENVELOPE = signSnapshot(JSON_TEXT, OWN.privateKey)
const SIGNATURE = ENVELOPE.signatures[0]?.signature ?? new Uint8Array(0)

const pkcs8 = (key: KeyObject) => key.export({ type: "pkcs8", format: "pem" }).toString()
const spki = (key: KeyObject) => key.export({ type: "spki", format: "pem" }).toString()

function signedBy(signature: Uint8Array) {
  return { ...ENVELOPE, signatures: [{ keyId: "", signature }] }
}

describe("a snapshot's signature", () => {
  test("holds for the bytes that were signed, and names the key", () => {
    const keyId = verifySnapshotSignature(JSON_TEXT, ENVELOPE, OWN.publicKey)
    expect(keyId).toMatch(/^[0-9a-f]{64}$/)
    expect(ENVELOPE.signatures[0]?.keyId).toBe(keyId)
  })

  test("does not hold for other bytes, whichever bit it is", () => {
    for (let bit = 0; bit < JSON_TEXT.length * 8; bit++) {
      const changed = Buffer.from(JSON_TEXT)
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(() => verifySnapshotSignature(changed, ENVELOPE, OWN.publicKey)).toThrowCode(
        "ERR_SNAPSHOT_SIGNATURE",
      )
    }
    expect(() => verifySnapshotSignature(Buffer.alloc(0), ENVELOPE, OWN.publicKey)).toThrowCode(
      "ERR_SNAPSHOT_SIGNATURE",
    )
  })

  test("does not hold with any bit of it flipped, or of another length", () => {
    for (let bit = 0; bit < SIGNATURE.length * 8; bit++) {
      const changed = Uint8Array.from(SIGNATURE)
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(() => verifySnapshotSignature(JSON_TEXT, signedBy(changed), OWN.publicKey)).toThrowCode(
        "ERR_SNAPSHOT_SIGNATURE",
      )
    }
    for (const changed of [SIGNATURE.subarray(1), Buffer.concat([SIGNATURE, Buffer.from([0])])])
      expect(() => verifySnapshotSignature(JSON_TEXT, signedBy(changed), OWN.publicKey)).toThrowCode(
        "ERR_SNAPSHOT_SIGNATURE",
      )
  })

  test("does not hold by another key, whatever key it names", () => {
    const forged = signSnapshot(JSON_TEXT, OTHER.privateKey).signatures.map((each) => ({
      ...each,
      keyId: ENVELOPE.signatures[0]?.keyId ?? "",
    }))
    expect(() =>
      verifySnapshotSignature(JSON_TEXT, { ...ENVELOPE, signatures: forged }, OWN.publicKey),
    ).toThrowCode("ERR_SNAPSHOT_SIGNATURE")
  })

  test("is found among those of other keys", () => {
    const both = [...signSnapshot(JSON_TEXT, OTHER.privateKey).signatures, ...ENVELOPE.signatures]
    for (const { publicKey } of [OWN, OTHER])
      expect(verifySnapshotSignature(JSON_TEXT, { ...ENVELOPE, signatures: both }, publicKey)).toHaveLength(
        64,
      )
  })

  test("made for something else than a snapshot does not hold", () => {
    const other = { ...ENVELOPE, payloadType: "application/json" }
    expect(() => verifySnapshotSignature(JSON_TEXT, other, OWN.publicKey)).toThrowCode(
      "ERR_SNAPSHOT_SIGNATURE",
    )
  })
})

describe("keys in PEM", () => {
  test("are read", () => {
    expect(parseSigningKey(pkcs8(OWN.privateKey)).equals(OWN.privateKey)).toBe(true)
    expect(parseVerifyingKey(spki(OWN.publicKey)).equals(OWN.publicKey)).toBe(true)
  })

  test("of another kind, encrypted, in the other's place, several or none are refused", () => {
    const encrypted = OWN.privateKey.export({
      type: "pkcs8",
      format: "pem",
      cipher: "aes-256-cbc",
      passphrase: "secret",
    })
    for (const pem of [
      pkcs8(P256.privateKey),
      spki(OWN.publicKey),
      encrypted.toString(),
      pkcs8(OWN.privateKey).repeat(2),
      "",
      "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ])
      expect(() => parseSigningKey(pem)).toThrowCode("ERR_SIGNING_KEY")
    for (const pem of [spki(P256.publicKey), pkcs8(OWN.privateKey), spki(OWN.publicKey).repeat(2), ""])
      expect(() => parseVerifyingKey(pem)).toThrowCode("ERR_SIGNING_KEY")
  })

  test("are never repeated in an error", () => {
    const pem = pkcs8(P256.privateKey)
    try {
      parseSigningKey(pem)
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      for (const line of pem.split("\n").slice(1, -2)) expect(JSON.stringify(error)).not.toContain(line)
      expect(error.cause).toBeUndefined()
    }
  })
})
