import { describe, expect, test } from "bun:test"
import { generateKeyPairSync } from "node:crypto"
import { makeSoftwareAk, type SoftwareAk, softwareQuote } from "../../test/fakes/software-ak.ts"
import { type TpmVector, tpmVectors } from "../../test/tpm-vectors.ts"
import { CodedError } from "../errors.ts"
import { fromHex } from "../formats/hex.ts"
import { encodePem } from "../formats/pem.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { parseAttest, type QuoteAttest } from "../formats/tpm/attest.ts"
import { parseKeyFile } from "../formats/tpm/key-file.ts"
import { selectPcrs } from "../formats/tpm/pcr-selection.ts"
import { parsePcrValues } from "../formats/tpm/pcr-values.ts"
import { encodePublic } from "../formats/tpm/public.ts"
import { encodeSignature } from "../formats/tpm/signature.ts"
import { quoteKeyOf, type StoredQuote, verifyStoredQuote } from "./stored-quote.ts"
import { spkiOf } from "./tpm-signature.ts"

const NONCE = Uint8Array.of(1, 2, 3)

function attest(changes: Partial<QuoteAttest> = {}): QuoteAttest {
  return {
    qualifiedSigner: new Uint8Array(34),
    extraData: NONCE,
    clock: 1n,
    resetCount: 1,
    restartCount: 0,
    safe: true,
    firmwareVersion: 1n,
    pcrSelect: [selectPcrs(ALG.sha256, [0])],
    pcrDigest: new Uint8Array(32),
    ...changes,
  }
}

function stored(ak: SoftwareAk, changes: Partial<StoredQuote> = {}, said = attest()): StoredQuote {
  const { quote, signature } = softwareQuote(ak, said)
  return {
    quote,
    signature,
    key: quoteKeyOf(parseKeyFile(ak.akPublic)),
    nonce: NONCE,
    pcrs: null,
    ...changes,
  }
}

/** r and s as DER has them. */
function der(r: Uint8Array, s: Uint8Array): Uint8Array {
  const integer = (value: Uint8Array) => {
    const start = value.findIndex((byte) => byte !== 0)
    const bare = value.subarray(start)
    const content = (bare[0] ?? 0) >= 0x80 ? [0, ...bare] : [...bare]
    return [0x02, content.length, ...content]
  }
  const body = [...integer(r), ...integer(s)]
  return Uint8Array.of(0x30, body.length, ...body)
}

describe("forms of keys and signatures", () => {
  for (const kind of ["ecdsa-p256", "ecdsa-p384", "rsassa", "rsapss"] as const) {
    const ak = makeSoftwareAk(kind)
    const { key } = quoteKeyOf(parseKeyFile(ak.akPublic))

    test(`${kind}: TPM2B_PUBLIC, TPMT_PUBLIC, PEM and DER are the same key`, () => {
      const area = encodePublic(ak.publicArea)
      const spki = spkiOf(key)
      const sized = Uint8Array.of(area.length >> 8, area.length & 0xff, ...area)
      const pem = new TextEncoder().encode(encodePem("PUBLIC KEY", spki))
      const names = [sized, area, pem, spki].map((file) => {
        const statement = verifyStoredQuote(stored(ak, { key: quoteKeyOf(parseKeyFile(file)) }))
        expect(statement.freshness).toBe("nonce")
        return statement.akName === null
      })
      expect(names).toEqual([false, false, true, true])
    })

    test(`${kind}: bare signatures serve`, () => {
      const given = stored(ak)
      const signature = ak.signature(given.quote)
      const forms =
        signature.scheme === "ecdsa"
          ? [Buffer.concat([signature.r, signature.s]), der(signature.r, signature.s)]
          : [signature.signature]
      for (const form of forms)
        expect(verifyStoredQuote({ ...given, signature: Uint8Array.from(form) }).scheme).toBe(
          signature.scheme,
        )
    })

    test(`${kind}: another key's signature does not`, () => {
      const other = makeSoftwareAk(kind)
      const given = stored(ak)
      const signature = encodeSignature(other.signature(given.quote))
      expect(() => verifyStoredQuote({ ...given, signature })).toThrowCode("ERR_TPM_SIGNATURE")
    })
  }

  test("a key without the attributes of an attestation key is refused where they are known", () => {
    const ak = makeSoftwareAk("ecdsa-p256", { attributes: 0x40072 })
    expect(() => stored(ak)).toThrowCode("ERR_TPM_AK_ATTRIBUTES")
  })

  test("keys that are none are refused with a code", () => {
    const pem = (label: string) => new TextEncoder().encode(encodePem(label, new Uint8Array(9)))
    for (const [file, code] of [
      [new Uint8Array(0), "ERR_TRUNCATED"],
      [Uint8Array.of(0x30, 0), "ERR_TPM_AK_KEY"],
      [pem("PRIVATE KEY"), "ERR_MALFORMED"],
      [Uint8Array.of(...pem("PUBLIC KEY"), ...pem("PUBLIC KEY")), "ERR_MALFORMED"],
      [pem("PUBLIC KEY"), "ERR_TPM_AK_KEY"],
      [Uint8Array.of(0, 8, 1, 2, 3), "ERR_UNSUPPORTED"],
    ] as const)
      expect(() => quoteKeyOf(parseKeyFile(file))).toThrowCode(code)
  })

  test("an Ed25519 key is none of a TPM's", () => {
    const { publicKey } = generateKeyPairSync("ed25519")
    const spki = publicKey.export({ type: "spki", format: "der" })
    expect(() => quoteKeyOf({ kind: "bare", spki: Uint8Array.from(spki) })).toThrowCode("ERR_TPM_AK_KEY")
  })
})

describe("what a quote has to say", () => {
  const ak = makeSoftwareAk("ecdsa-p256")

  test("the nonce, exactly; without one nothing is said of its age", () => {
    expect(() => verifyStoredQuote(stored(ak, { nonce: Uint8Array.of(1, 2) }))).toThrowCode(
      "ERR_TPM_QUALIFYING_DATA",
    )
    expect(() => verifyStoredQuote(stored(ak, { nonce: new Uint8Array(0) }))).toThrowCode(
      "ERR_TPM_QUALIFYING_DATA",
    )
    expect(verifyStoredQuote(stored(ak, { nonce: null })).freshness).toBe("not-checked")
  })

  test("at least one PCR", () => {
    for (const pcrSelect of [[], [selectPcrs(ALG.sha256, [])]])
      expect(() => verifyStoredQuote(stored(ak, {}, attest({ pcrSelect })))).toThrowCode(
        "ERR_TPM_PCR_SELECTION",
      )
  })

  test("values of all quoted PCRs, in banks that are known", () => {
    const none = parsePcrValues(new TextEncoder().encode(`{"sha1": {"0": "${"00".repeat(20)}"}}`))
    expect(() => verifyStoredQuote(stored(ak, { pcrs: none }))).toThrowCode("ERR_TPM_PCR_DIGEST")
    const sm3 = attest({ pcrSelect: [selectPcrs(0x0012, [0])] })
    expect(() => verifyStoredQuote(stored(ak, { pcrs: none }, sm3))).toThrowCode("ERR_TPM_PCR_DIGEST")
  })
})

const vectors = tpmVectors().filter(
  (each): each is TpmVector & { signature: Uint8Array; akPublic: Uint8Array } =>
    each.signature !== null && each.akPublic !== null,
)
describe("real quotes", () => {
  for (const { name, quote, signature, akPublic, pcrs } of vectors) {
    const key = quoteKeyOf(parseKeyFile(akPublic))
    const text = new TextEncoder().encode(JSON.stringify(pcrs))
    const values = Object.keys(pcrs).length === 0 ? null : parsePcrValues(text)
    const given: StoredQuote = { quote, signature, key, nonce: parseAttest(quote).extraData, pcrs: values }

    test(`${name}: verifies; no truncation and no flipped bit of quote or signature does`, () => {
      expect(verifyStoredQuote(given).freshness).toBe("nonce")
      for (const part of ["quote", "signature"] as const) {
        for (let size = 0; size < given[part].length; size++)
          expect(failureOf({ ...given, [part]: given[part].subarray(0, size) })).toStartWith("ERR_")
        for (let at = 0; at < given[part].length; at++) {
          const changed = given[part].slice()
          changed[at] = (changed[at] ?? 0) ^ 1
          expect(failureOf({ ...given, [part]: changed })).toStartWith("ERR_")
        }
      }
    })

    if (values === null) continue
    test(`${name}: each PCR value counts`, () => {
      for (const [bank, values] of Object.entries(pcrs))
        for (const [pcr, hex] of Object.entries(values)) {
          const first = ((fromHex(hex)?.[0] ?? 0) ^ 1).toString(16).padStart(2, "0")
          const changed = { ...pcrs, [bank]: { ...values, [pcr]: `${first}${hex.slice(2)}` } }
          const file = parsePcrValues(new TextEncoder().encode(JSON.stringify(changed)))
          expect(failureOf({ ...given, pcrs: file })).toBe("ERR_TPM_PCR_DIGEST")
        }
    })
  }
})

function failureOf(given: StoredQuote): string {
  try {
    verifyStoredQuote(given)
    return "verified"
  } catch (error) {
    if (error instanceof CodedError) return error.code
    throw error
  }
}
