import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { makeSoftwareAk, quoteAttest, type SoftwareAk, softwareQuote } from "../../test/fakes/software-ak.ts"
import { HAVE_VECTORS, VECTORS } from "../../test/setup.ts"
import { tpmVectors } from "../../test/tpm-vectors.ts"
import { toHex } from "../formats/hex.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { parseAttest, type QuoteAttest } from "../formats/tpm/attest.ts"
import { selectedPcrs, selectPcrs } from "../formats/tpm/pcr-selection.ts"
import { encodePublic, OBJECT, parsePublic, type RsaPublic, tpmName } from "../formats/tpm/public.ts"
import { encodeSignature, parseSignature } from "../formats/tpm/signature.ts"
import { type QuoteEvidence, verifyQuote } from "./tpm.ts"
import { verifyTpmSignature } from "./tpm-signature.ts"

const SELECTION = [0, 4, 10]
const VALUES = SELECTION.map((pcr) => new Uint8Array(32).fill(pcr + 1))
const NONCE = new Uint8Array(32).fill(9)
const EXPECTED = { qualifyingData: NONCE, pcrSelection: SELECTION }

function digest(values: readonly Uint8Array[], hash = "sha256"): Uint8Array {
  return new Uint8Array(createHash(hash).update(Buffer.concat(values)).digest())
}

/** Evidence by a software key: what the real checks run on, with one thing changed. */
function evidence(key: SoftwareAk, changes: Partial<QuoteAttest> = {}): QuoteEvidence {
  const hash = key.publicArea.scheme?.hash === ALG.sha384 ? "sha384" : "sha256"
  const attest = quoteAttest(SELECTION, digest(VALUES, hash), { extraData: NONCE, ...changes })
  return { ...softwareQuote(key, attest), akPublic: key.akPublic, pcrs: VALUES }
}

describe.each(["ecdsa-p256", "ecdsa-p384", "rsassa", "rsapss"] as const)("a quote by %s", (kind) => {
  const key = makeSoftwareAk(kind)
  const good = evidence(key)

  test("verifies and tells what the TPM stated", () => {
    const tpm = verifyQuote(good, EXPECTED)
    expect(toHex(tpm.akName)).toBe(toHex(tpmName(key.publicArea)))
    expect(tpm).toMatchObject({ pcrs: VALUES, resetCount: 7, restartCount: 0, clock: 1000n, safe: true })
  })

  test("fails with any bit of the statement changed", () => {
    for (let bit = 0; bit < good.quote.length * 8; bit += 7) {
      const quote = Uint8Array.from(good.quote)
      quote[bit >> 3] = (quote[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(() => verifyQuote({ ...good, quote }, EXPECTED)).toThrowCode("ERR_TPM_SIGNATURE")
    }
  })

  test("fails under another key", () => {
    const { akPublic } = makeSoftwareAk(kind)
    expect(() => verifyQuote({ ...good, akPublic }, EXPECTED)).toThrowCode("ERR_TPM_SIGNATURE")
  })
})

const ak = makeSoftwareAk("ecdsa-p256")

describe("M2, M5: other PCRs", () => {
  const cases: Record<string, Partial<QuoteAttest>> = {
    "more PCRs": { pcrSelect: [selectPcrs(ALG.sha256, [...SELECTION, 16])] },
    "a resettable PCR instead": { pcrSelect: [selectPcrs(ALG.sha256, [0, 4, 23])] },
    "fewer PCRs": { pcrSelect: [selectPcrs(ALG.sha256, [0, 4])] },
    "the SHA-1 bank": { pcrSelect: [selectPcrs(ALG.sha1, SELECTION)] },
    "two banks": { pcrSelect: [selectPcrs(ALG.sha1, SELECTION), selectPcrs(ALG.sha256, SELECTION)] },
    "the bank twice": { pcrSelect: [selectPcrs(ALG.sha256, [0]), selectPcrs(ALG.sha256, [4, 10])] },
    "no bank": { pcrSelect: [] },
    "no PCR": { pcrSelect: [selectPcrs(ALG.sha256, [])] },
  }
  test.each(Object.entries(cases))("%s", (_, changes) => {
    expect(() => verifyQuote(evidence(ak, changes), EXPECTED)).toThrowCode("ERR_TPM_PCR_SELECTION")
  })

  test("an empty selection is nothing to ask for", () => {
    const none = evidence(ak, { pcrSelect: [selectPcrs(ALG.sha256, [])], pcrDigest: digest([]) })
    const asked = { qualifyingData: NONCE, pcrSelection: [] }
    expect(() => verifyQuote({ ...none, pcrs: [] }, asked)).toThrowCode("ERR_TPM_PCR_SELECTION")
  })

  const [a = NONCE, b = NONCE, c = NONCE] = VALUES
  test.each<[string, readonly Uint8Array[]]>([
    ["another value", [a, b, new Uint8Array(32)]],
    ["values swapped", [b, a, c]],
    ["a value missing", [a, b]],
    ["a value too many", [a, b, c, c]],
    ["none", []],
    ["values cut elsewhere", [new Uint8Array([...a, ...b.subarray(0, 1)]), b.subarray(1), c]],
  ])("%s", (_, pcrs) => {
    expect(() => verifyQuote({ ...evidence(ak), pcrs }, EXPECTED)).toThrowCode("ERR_TPM_PCR_DIGEST")
  })
})

describe("M3: another request", () => {
  test.each<[string, Uint8Array]>([
    ["another nonce", new Uint8Array(32)],
    ["the beginning of the nonce", NONCE.subarray(0, 31)],
    ["the nonce and more", Uint8Array.of(...NONCE, 0)],
    ["no nonce", new Uint8Array(0)],
  ])("%s", (_, extraData) => {
    expect(() => verifyQuote(evidence(ak, { extraData }), EXPECTED)).toThrowCode("ERR_TPM_QUALIFYING_DATA")
  })

  test("a signed statement of another kind", () => {
    const quote = Uint8Array.from(evidence(ak).quote)
    quote[5] = 0x17
    const signature = encodeSignature(ak.signature(quote))
    expect(() => verifyQuote({ ...evidence(ak), quote, signature }, EXPECTED)).toThrowCode(
      "ERR_TPM_ATTEST_TYPE",
    )
  })

  test("a signed statement without the TPM's magic", () => {
    const quote = Uint8Array.from(evidence(ak).quote)
    quote[0] = 0
    const signature = encodeSignature(ak.signature(quote))
    expect(() => verifyQuote({ ...evidence(ak), quote, signature }, EXPECTED)).toThrowCode("ERR_TPM_MAGIC")
  })
})

describe("M4: schemes and keys", () => {
  const good = evidence(ak)

  test("ECDSA r or s of zero, or not below the order", () => {
    const signature = ak.signature(good.quote)
    if (signature.scheme !== "ecdsa") throw new Error("not ECDSA")
    for (const bad of [new Uint8Array(0), new Uint8Array(32), new Uint8Array(32).fill(0xff)])
      for (const changed of [
        { ...signature, r: bad },
        { ...signature, s: bad },
      ])
        expect(() => verifyQuote({ ...good, signature: encodeSignature(changed) }, EXPECTED)).toThrowCode(
          "ERR_TPM_SIGNATURE",
        )
  })

  test("ECDSA r and s without their leading zeros are the same signature", () => {
    const short = Array.from({ length: 2000 }, () => ak.signature(good.quote)).find(
      (each) => each.scheme === "ecdsa" && each.r[0] === 0,
    )
    if (short?.scheme !== "ecdsa") throw new Error("no signature with a leading zero in 2000")
    const signature = encodeSignature({ ...short, r: short.r.subarray(1) })
    expect(verifyQuote({ ...good, signature }, EXPECTED).resetCount).toBe(7)
  })

  test("a signature that names another hash or scheme than the key", () => {
    const signature = ak.signature(good.quote)
    const sha1 = encodeSignature({ ...signature, hash: ALG.sha1 })
    expect(() => verifyQuote({ ...good, signature: sha1 }, EXPECTED)).toThrowCode("ERR_TPM_SCHEME")
    const rsa = makeSoftwareAk("rsassa")
    const quoted = evidence(rsa)
    const pss = encodeSignature({ ...rsaSignature(quoted.signature), scheme: "rsapss" })
    expect(() => verifyQuote({ ...quoted, signature: pss }, EXPECTED)).toThrowCode("ERR_TPM_SCHEME")
    expect(() => verifyQuote({ ...quoted, signature: good.signature }, EXPECTED)).toThrowCode(
      "ERR_TPM_SCHEME",
    )
  })

  test("a key that leaves the scheme open", () => {
    const akPublic = encodePublic({ ...ak.publicArea, scheme: null })
    expect(() => verifyQuote({ ...good, akPublic }, EXPECTED)).toThrowCode("ERR_TPM_SCHEME")
  })

  test("SHA-1 throughout", () => {
    const key = makeSoftwareAk("ecdsa-p256", { hash: "sha1" })
    expect(() => verifyQuote(evidence(key), EXPECTED)).toThrowCode("ERR_TPM_SCHEME")
  })

  test("PKCS1 shown as PSS, by a key that says PSS", () => {
    const rsa = makeSoftwareAk("rsassa")
    const area = rsa.publicArea
    const akPublic = encodePublic({ ...area, scheme: { scheme: ALG.rsapss, hash: ALG.sha256 } })
    const quoted = evidence(rsa)
    const signature = encodeSignature({ ...rsaSignature(quoted.signature), scheme: "rsapss" })
    expect(() => verifyQuote({ ...quoted, signature, akPublic }, EXPECTED)).toThrowCode("ERR_TPM_SIGNATURE")
  })

  const rsaKey = (changes: Partial<RsaPublic>) => {
    const rsa = makeSoftwareAk("rsassa")
    if (rsa.publicArea.type !== "rsa") throw new Error("not RSA")
    return { ...evidence(rsa), akPublic: encodePublic({ ...rsa.publicArea, ...changes }) }
  }
  test.each<[string, Partial<RsaPublic>]>([
    ["exponent 1", { exponent: 1 }],
    ["exponent 3", { exponent: 3 }],
    ["fewer bits declared", { keyBits: 1024 }],
    ["a modulus with zeros before it", { modulus: new Uint8Array(256) }],
    ["no modulus", { modulus: new Uint8Array(0), keyBits: 0 }],
  ])("RSA with %s", (_, changes) => {
    expect(() => verifyQuote(rsaKey(changes), EXPECTED)).toThrowCode("ERR_TPM_AK_KEY")
  })

  test("RSA with 1024 bits", () => {
    const small = evidence(makeSoftwareAk("rsassa", { bits: 1024 }))
    expect(() => verifyQuote(small, EXPECTED)).toThrowCode("ERR_TPM_AK_KEY")
  })

  test("a point that is not on the curve, or of a curve we do not know", () => {
    if (ak.publicArea.type !== "ecc") throw new Error("not ECC")
    const off = encodePublic({ ...ak.publicArea, y: ak.publicArea.x })
    expect(() => verifyQuote({ ...good, akPublic: off }, EXPECTED)).toThrowCode("ERR_TPM_AK_KEY")
    const curve = encodePublic({ ...ak.publicArea, curveId: 5 })
    expect(() => verifyQuote({ ...good, akPublic: curve }, EXPECTED)).toThrowCode("ERR_TPM_AK_KEY")
    const long = encodePublic({ ...ak.publicArea, x: new Uint8Array(40).fill(1) })
    expect(() => verifyQuote({ ...good, akPublic: long }, EXPECTED)).toThrowCode("ERR_TPM_AK_KEY")
  })
})

describe("M7: a key that signs what it is given", () => {
  const { fixedTPM, fixedParent, sensitiveDataOrigin, restricted, sign, decrypt } = OBJECT
  const all = fixedTPM | fixedParent | sensitiveDataOrigin | restricted | sign
  test.each([
    ["not restricted", all & ~restricted],
    ["not bound to its TPM", all & ~fixedTPM],
    ["not bound to its parent", all & ~fixedParent],
    ["imported", all & ~sensitiveDataOrigin],
    ["not for signing", all & ~sign],
    ["for decryption too", all | decrypt],
  ])("%s", (_, attributes) => {
    const key = makeSoftwareAk("ecdsa-p256", { attributes })
    expect(() => verifyQuote(evidence(key), EXPECTED)).toThrowCode("ERR_TPM_AK_ATTRIBUTES")
  })
})

describe.skipIf(!HAVE_VECTORS)("real quotes", () => {
  test.each(tpmVectors().map((vector) => [vector.name, vector] as const))("%s", (_, vector) => {
    const { quote, signature, akPublic, pcrs } = vector
    if (signature === null || akPublic === null) return
    const key = parsePublic(akPublic)
    const attest = parseAttest(quote)
    expect(verifyTpmSignature(key, parseSignature(signature), quote)).toStartWith("sha")

    const [bank] = attest.pcrSelect
    if (bank === undefined) throw new Error("empty selection")
    const pcrSelection = selectedPcrs(bank)
    const run = () =>
      verifyQuote(
        {
          quote,
          signature,
          akPublic,
          pcrs: pcrSelection.map((pcr) => new Uint8Array(Buffer.from(pcrs["sha256"]?.[pcr] ?? "", "hex"))),
        },
        { qualifyingData: attest.extraData, pcrSelection },
      )
    if (bank.hash === ALG.sha256 && attest.pcrSelect.length === 1)
      expect(run().resetCount).toBe(attest.resetCount)
    else expect(run).toThrowCode("ERR_TPM_PCR_SELECTION")
  })
})

describe.skipIf(!HAVE_VECTORS)("altered quotes of the vectors", () => {
  const read = (name: string) => new Uint8Array(readFileSync(join(VECTORS, name)))
  const load = () => {
    const spki = read("tpm-quote/rsassa-trustee-tpm/ak.spki.der")
    return {
      // The key comes as SubjectPublicKeyInfo, whose modulus is the 256 bytes before the exponent (02 03 01 00 01).
      key: {
        type: "rsa",
        nameAlg: ALG.sha256,
        objectAttributes: 0x50072,
        authPolicy: new Uint8Array(0),
        symmetric: null,
        scheme: { scheme: ALG.rsassa, hash: ALG.sha256 },
        keyBits: 2048,
        exponent: 0,
        modulus: spki.subarray(spki.length - 5 - 256, spki.length - 5),
      } satisfies RsaPublic,
      quote: read("tpm-quote/rsassa-trustee-tpm/quote.msg"),
      signature: read("tpm-quote/rsassa-trustee-tpm/quote.sig"),
      values: JSON.parse(Buffer.from(read("tpm-quote/rsassa-trustee-tpm/pcrs.json")).toString("utf8"))[
        "sha256"
      ],
    }
  }
  const verify = (changes: { quote?: string; signature?: string; nonce?: string }) => {
    const { key, quote, signature, values } = load()
    const pcrSelection = Array.from({ length: 24 }, (_, pcr) => pcr)
    const nonce = changes.nonce ?? toHex(parseAttest(quote).extraData)
    return verifyQuote(
      {
        quote: changes.quote === undefined ? quote : read(`tpm-negative/${changes.quote}`),
        signature: changes.signature === undefined ? signature : read(`tpm-negative/${changes.signature}`),
        akPublic: encodePublic(key),
        pcrs: pcrSelection.map((pcr) => new Uint8Array(Buffer.from(values[pcr], "hex"))),
      },
      { qualifyingData: new Uint8Array(Buffer.from(nonce, "hex")), pcrSelection },
    )
  }

  test("the unaltered quote verifies", () => {
    expect(verify({}).pcrs.length).toBe(24)
  })
  test.each(["digest", "extradata", "magic", "truncated", "type-certify"])("%s", (name) => {
    expect(() => verify({ quote: `derived-rsassa-trustee-tpm-${name}.msg` })).toThrowCode("ERR_TPM_SIGNATURE")
  })
  test.each([
    ["hash-sha1", "ERR_TPM_SCHEME"],
    ["sig-flip", "ERR_TPM_SIGNATURE"],
    ["sigalg-null", "ERR_UNSUPPORTED"],
  ])("%s", (name, code) => {
    expect(() => verify({ signature: `derived-rsassa-trustee-tpm-${name}.sig` })).toThrowCode(code)
  })
  test("nonces: only the whole one is accepted", () => {
    const rows = JSON.parse(Buffer.from(read("tpm-negative/nonces-rsassa-trustee-tpm.json")).toString("utf8"))
    for (const { nonce_hex: nonce, expected } of rows)
      if (expected.startsWith("accept")) expect(verify({ nonce }).safe).toBeBoolean()
      else expect(() => verify({ nonce })).toThrowCode("ERR_TPM_QUALIFYING_DATA")
  })
})

function rsaSignature(bytes: Uint8Array) {
  const signature = parseSignature(bytes)
  if (signature.scheme === "ecdsa") throw new Error("not RSA")
  return signature
}
