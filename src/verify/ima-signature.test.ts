import { describe, expect, test } from "bun:test"
import { createHash, generateKeyPairSync } from "node:crypto"
import fc from "fast-check"
import { EVMCTL_SAMPLES, fileSigner, signFile } from "../../test/fakes/file-signatures.ts"
import { CodedError } from "../errors.ts"
import { encodePem } from "../formats/pem.ts"
import { type MeasuredDigest, parseImaKeys, verifyFileSignature } from "./ima-signature.ts"

const decoded = (base64: string) => new Uint8Array(Buffer.from(base64, "base64"))

function measured(content: string, algorithm = "sha256", kind: MeasuredDigest["content"] = "file") {
  return { algorithm, digest: new Uint8Array(createHash(algorithm).update(content).digest()), content: kind }
}

describe("signatures made by evmctl", () => {
  const samples = Object.entries(EVMCTL_SAMPLES).flatMap(([key, { certificate, ...signatures }]) =>
    Object.entries(signatures).map(([algorithm, signature]) => ({ key, algorithm, certificate, signature })),
  )
  test.each(samples)(
    "$key with $algorithm verifies by the certificate",
    ({ algorithm, certificate, signature }) => {
      const keys = parseImaKeys(decoded(certificate))
      const proven = verifyFileSignature(decoded(signature), measured("hello\n", algorithm), keys)
      expect(keys[0]?.keyIds).toContain(proven.keyId)
    },
  )

  test.each(samples)(
    "$key with $algorithm says nothing of other content",
    ({ algorithm, certificate, signature }) => {
      const keys = parseImaKeys(decoded(certificate))
      expect(() => verifyFileSignature(decoded(signature), measured("hullo\n", algorithm), keys)).toThrowCode(
        "ERR_IMA_SIGNATURE",
      )
    },
  )

  test.each(samples)(
    "$key with $algorithm: no bit of it can change",
    ({ algorithm, certificate, signature }) => {
      const keys = parseImaKeys(decoded(certificate))
      const bytes = decoded(signature)
      fc.assert(
        fc.property(fc.nat(bytes.length * 8 - 1), (bit) => {
          const changed = bytes.with(bit >> 3, (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7)))
          try {
            verifyFileSignature(changed, measured("hello\n", algorithm), keys)
            expect(`bit ${bit} changed`).toBe("noticed")
          } catch (error) {
            expect(error).toBeInstanceOf(CodedError)
          }
        }),
        { numRuns: 200 },
      )
    },
  )
})

describe("signatures by keys made here", () => {
  const signer = fileSigner("P-256")
  const good = signFile(signer, "x")

  test.each(["rsa", "P-256", "P-384", "P-521"] as const)("%s with each hash", (kind) => {
    const other = fileSigner(kind)
    for (const algorithm of ["sha256", "sha384", "sha512"] as const)
      for (let round = 0; round < 5; round++) {
        const content = `content ${round}`
        const signature = signFile(other, content, { algorithm })
        expect(verifyFileSignature(signature, measured(content, algorithm), other.keys).keyId).toBe(
          other.keyId,
        )
        expect(() => verifyFileSignature(signature, measured("else", algorithm), other.keys)).toThrowCode(
          "ERR_IMA_SIGNATURE",
        )
      }
  })

  test("another key with the same identifier proves nothing", () => {
    const [key] = fileSigner("P-256").keys
    const impostor = key === undefined ? [] : [{ ...key, keyIds: [signer.keyId] }]
    expect(() => verifyFileSignature(good, measured("x"), impostor)).toThrowCode("ERR_IMA_SIGNATURE")
    expect(verifyFileSignature(good, measured("x"), [...impostor, ...signer.keys]).keyId).toBe(signer.keyId)
  })

  test("a key that was not given is told from a signature that is wrong", () => {
    expect(() => verifyFileSignature(good, measured("x"), fileSigner("rsa").keys)).toThrowCode(
      "ERR_IMA_SIGNATURE_KEY",
    )
    expect(() => verifyFileSignature(good, measured("x"), [])).toThrowCode("ERR_IMA_SIGNATURE_KEY")
  })

  test("SHA-1 is refused, and so is another algorithm than the digest's", () => {
    const sha1 = signFile(signer, "x", { algorithm: "sha1" })
    expect(() => verifyFileSignature(sha1, measured("x", "sha1"), signer.keys)).toThrowCode(
      "ERR_IMA_SIGNATURE",
    )
    expect(() => verifyFileSignature(good, measured("x", "sha512"), signer.keys)).toThrowCode(
      "ERR_IMA_SIGNATURE",
    )
    expect(() => verifyFileSignature(good.with(2, 0xee), measured("x"), signer.keys)).toThrowCode(
      "ERR_IMA_SIGNATURE",
    )
  })

  test("a signature of fs-verity's digest counts for that digest and for no content", () => {
    const verity = signFile(signer, "x", { verity: true })
    expect(verifyFileSignature(verity, measured("x", "sha256", "verity"), signer.keys).keyId).toBe(
      signer.keyId,
    )
    for (const [signature, kind] of [
      [verity, "file"],
      [good, "verity"],
      [good, "data"],
      [verity, "data"],
      [good.with(1, 3), "file"],
      [verity.with(1, 2), "verity"],
      [good.with(0, 5), "file"],
    ] as const)
      expect(() => verifyFileSignature(signature, measured("x", "sha256", kind), signer.keys)).toThrowCode(
        "ERR_IMA_SIGNATURE",
      )
  })

  test("version 3 of a file's content: what is signed says what it is of", () => {
    for (const algorithm of ["sha256", "sha384", "sha512"] as const) {
      const third = signFile(signer, "x", { algorithm, version: 3 })
      expect(verifyFileSignature(third, measured("x", algorithm), signer.keys).keyId).toBe(signer.keyId)
      for (const [signature, content, kind] of [
        [third, "y", "file"],
        [third, "x", "verity"],
        [third.with(0, 6), "x", "verity"],
        [third.with(0, 6), "x", "file"],
        [third.with(1, 2), "x", "file"],
        [signFile(signer, "x", { algorithm, verity: true }).with(0, 3), "x", "file"],
      ] as const)
        expect(() =>
          verifyFileSignature(signature, measured(content, algorithm, kind), signer.keys),
        ).toThrowCode("ERR_IMA_SIGNATURE")
    }
  })

  test.each([
    ["3006020100020100", "zeros"],
    ["3006020101020100", "s of zero"],
    ["3006020181020101", "a negative r"],
    [
      "3046022100ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632552022100ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632552",
      "numbers over the order",
    ],
  ])("%s: %s is no signature", (hex) => {
    const value = Buffer.from(hex, "hex")
    const bytes = new Uint8Array([...good.subarray(0, 7), 0, value.length, ...value])
    expect(() => verifyFileSignature(bytes, measured("x"), signer.keys)).toThrowCode("ERR_IMA_SIGNATURE")
  })

  test("any bytes for a signature give a coded error", () => {
    const rsa = fileSigner("rsa")
    for (const { keyId, keys } of [signer, rsa])
      fc.assert(
        fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (value) => {
          const header = [3, 2, 4, ...Buffer.from(keyId, "hex"), value.length >> 8, value.length & 0xff]
          try {
            verifyFileSignature(new Uint8Array([...header, ...value]), measured("x"), keys)
            expect("a signature").toBe("noticed")
          } catch (error) {
            expect(error).toBeInstanceOf(CodedError)
          }
        }),
        { numRuns: 500 },
      )
  })
})

describe("keys", () => {
  const { spki } = fileSigner("P-384")
  const certificate = decoded(EVMCTL_SAMPLES.rsa.certificate)

  test("PEM and DER, certificates and public keys, several in one file", () => {
    const pem = encodePem("CERTIFICATE", certificate) + encodePem("PUBLIC KEY", spki)
    expect(parseImaKeys(new TextEncoder().encode(pem)).length).toBe(2)
    expect(parseImaKeys(spki).length).toBe(1)
    expect(parseImaKeys(certificate).length).toBe(1)
  })

  const spkiOf = (key: { publicKey: { export(options: { type: "spki"; format: "der" }): Buffer } }) =>
    new Uint8Array(key.publicKey.export({ type: "spki", format: "der" }))
  test.each([
    ["nothing", new Uint8Array(0)],
    ["noise", new Uint8Array(40).fill(0x30)],
    ["a private key", new TextEncoder().encode(encodePem("PRIVATE KEY", spki))],
    ["a key with bytes behind it", new Uint8Array([...spki, 0])],
    ["a key that is too short", spkiOf(generateKeyPairSync("rsa", { modulusLength: 1024 }))],
    ["a key of another kind", spkiOf(generateKeyPairSync("ed25519"))],
  ])("%s is refused", (_, file) => {
    expect(() => parseImaKeys(file)).toThrowCode("ERR_IMA_KEY")
  })

  test("whatever a file holds, only coded errors escape", () => {
    for (const source of [spki, certificate])
      for (let at = 0; at < source.length; at++)
        try {
          parseImaKeys(source.with(at, (source[at] ?? 0) ^ 0x41))
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
  })
})
