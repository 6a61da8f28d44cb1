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
  ["x25519", "9828b9eeefc63834e8cf8f1990f4920e54d403792dad9cc60591659340fd7f8e"],
  ["p256", "d76165b3479ee4ed7a24badbd61cb73d90ad4255a8f94cd5191e1d8e9a2348c6"],
  ["ed25519", "dc834c7313d745519561284d4988dfc9ee387068af8b80a54107eaf8fa96bc58"],
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
