import { describe, expect, test } from "bun:test"
import { createPrivateKey, createPublicKey, diffieHellman, sign, verify } from "node:crypto"
import { DERIVED_KEY_TYPES, type DerivedKeyType, expandKey } from "./derived-key.ts"
import { toHex } from "./hex.ts"

const INPUT = {
  secret: Uint8Array.from({ length: 32 }, (_, index) => index),
  salt: Uint8Array.of(0xa1, 0xb2),
  purpose: "backup",
}
const derive = (type: DerivedKeyType, change: Partial<typeof INPUT> = {}) =>
  expandKey({ ...INPUT, type, ...change })

/** Computed by another program (Python's hmac and integers): what a key is must never change. */
for (const [type, hex] of [
  ["x25519", "e1d5c4b0317b4cf67894f70910a9586f9b2f62c2a6bead879ec4247cf4eb1b88"],
  ["p256", "6e1cebd228de49732378cd3b993f7c6c2c6c22ba048b189792f2ed12f501fc28"],
  ["ed25519", "18689031f12c1689f50383a04a0f554b366739b928ad60b3d07e4c655322ba8c"],
] as const)
  test(`${type}: the key of a known secret`, () => {
    expect(toHex(derive(type).privateRaw)).toBe(hex)
  })

for (const type of DERIVED_KEY_TYPES)
  describe(type, () => {
    test("PEM and raw forms are of one key", () => {
      const { privatePem, publicPem, publicRaw } = derive(type)
      const key = createPublicKey(createPrivateKey(privatePem))
      expect(key.export({ type: "spki", format: "pem" })).toBe(publicPem)
      const spki = key.export({ type: "spki", format: "der" })
      expect(toHex(spki.subarray(-publicRaw.length))).toBe(toHex(publicRaw))
      expect(publicRaw).toHaveLength(type === "p256" ? 65 : 32)
    })

    test("the same input gives the same key; another secret, salt or purpose another", () => {
      const keys = [
        derive(type),
        derive(type, { secret: new Uint8Array(32).fill(1) }),
        derive(type, { salt: Uint8Array.of(0xa1) }),
        derive(type, { salt: new Uint8Array(0) }),
        // HMAC alone takes these for the one above, and for the first.
        derive(type, { salt: new Uint8Array(1) }),
        derive(type, { salt: Uint8Array.of(0xa1, 0xb2, 0) }),
        derive(type, { purpose: "" }),
        derive(type, { purpose: "backup2" }),
      ].map(({ privateRaw }) => toHex(privateRaw))
      expect(new Set(keys).size).toBe(keys.length)
      expect(toHex(derive(type).privateRaw)).toBe(keys[0] ?? "")
    })

    test("it does what such keys do", () => {
      const { privatePem, publicPem } = derive(type)
      if (type === "x25519") {
        const other = derive(type, { purpose: "other" })
        const secret = (own: string, peer: string) =>
          diffieHellman({ privateKey: createPrivateKey(own), publicKey: createPublicKey(peer) })
        expect(secret(privatePem, other.publicPem)).toEqual(secret(other.privatePem, publicPem))
        return
      }
      const hash = type === "p256" ? "sha256" : null
      const message = Buffer.from("message")
      expect(verify(hash, message, publicPem, sign(hash, message, privatePem))).toBe(true)
    })
  })

test("one secret gives unrelated keys of different types", () => {
  const keys = DERIVED_KEY_TYPES.map((type) => toHex(derive(type).privateRaw))
  expect(new Set(keys).size).toBe(3)
})
