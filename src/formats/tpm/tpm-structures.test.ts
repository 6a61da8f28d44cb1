import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { makeSoftwareAk, quoteAttest, softwareQuote } from "../../../test/fakes/software-ak.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { tpmVectors } from "../../../test/tpm-vectors.ts"
import { CodedError } from "../../errors.ts"
import { toHex } from "../hex.ts"
import { ALG, algorithmText } from "./algorithms.ts"
import { encodeAttest, parseAttest } from "./attest.ts"
import { selectedPcrs, selectionText, selectPcrs } from "./pcr-selection.ts"
import { encodePublic, parsePublic, parseSizedPublic, tpmName } from "./public.ts"
import { encodeSignature, parseSignature } from "./signature.ts"

interface Case {
  readonly name: string
  readonly bytes: Uint8Array
  readonly again: (bytes: Uint8Array) => Uint8Array
}

const attestAgain = (bytes: Uint8Array) => encodeAttest(parseAttest(bytes))
const signatureAgain = (bytes: Uint8Array) => encodeSignature(parseSignature(bytes))
const publicAgain = (bytes: Uint8Array) => encodePublic(parsePublic(bytes))

function cases(): Case[] {
  const own = (["ecdsa-p256", "ecdsa-p384", "rsassa", "rsapss"] as const).flatMap((kind) => {
    const key = makeSoftwareAk(kind)
    const { quote, signature } = softwareQuote(key, quoteAttest([0, 10, 23], new Uint8Array(32)))
    return [
      { name: `own ${kind}, attest`, bytes: quote, again: attestAgain },
      { name: `own ${kind}, signature`, bytes: signature, again: signatureAgain },
      { name: `own ${kind}, public`, bytes: key.akPublic, again: publicAgain },
    ]
  })
  const vectors = tpmVectors().flatMap(({ name, quote, signature, akPublic }) => [
    { name: `${name}, attest`, bytes: quote, again: attestAgain },
    ...(signature === null ? [] : [{ name: `${name}, signature`, bytes: signature, again: signatureAgain }]),
    ...(akPublic === null ? [] : [{ name: `${name}, public`, bytes: akPublic, again: publicAgain }]),
  ])
  return [...own, ...vectors]
}

test.skipIf(!HAVE_VECTORS)("the vectors hold quotes of both key types", () => {
  const types = tpmVectors().flatMap(({ akPublic }) =>
    akPublic === null ? [] : [parsePublic(akPublic).type],
  )
  expect(new Set(types)).toEqual(new Set(["ecc", "rsa"]))
  expect(types.length).toBeGreaterThan(12)
})

for (const { name, bytes, again } of cases())
  describe(name, () => {
    test("encodes to what was parsed", () => {
      expect(toHex(again(bytes))).toBe(toHex(bytes))
    })

    test("every truncation is refused", () => {
      for (let size = 0; size < bytes.length; size++)
        expect(() => again(bytes.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
    })

    test("a byte more is refused", () => {
      expect(() => again(Uint8Array.of(...bytes, 0))).toThrowCode("ERR_TRAILING_BYTES")
    })

    test("one changed bit gives other bytes or a coded error", () => {
      for (let bit = 0; bit < bytes.length * 8; bit++) {
        const changed = Uint8Array.from(bytes)
        changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        expect(outcome(() => again(changed), changed)).toBe("as expected")
      }
    })
  })

test("any bytes give a value that encodes back, or a coded error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const again of [attestAgain, signatureAgain, publicAgain])
        expect(outcome(() => again(bytes), bytes)).toBe("as expected")
    }),
  )
})

function outcome(run: () => Uint8Array, input: Uint8Array): string {
  try {
    return toHex(run()) === toHex(input) ? "as expected" : "encoded to other bytes"
  } catch (error) {
    return error instanceof CodedError ? "as expected" : `${error}`
  }
}

describe("TPMS_ATTEST", () => {
  const good = encodeAttest(quoteAttest([10], new Uint8Array(32)))
  const changed = (at: number, ...values: number[]) => {
    const bytes = Uint8Array.from(good)
    bytes.set(values, at)
    return bytes
  }
  test("another magic is refused (M3)", () => {
    expect(() => parseAttest(changed(0, 0))).toThrowCode("ERR_TPM_MAGIC")
  })
  test("a certify or time statement is refused (M3)", () => {
    expect(() => parseAttest(changed(4, 0x80, 0x17))).toThrowCode("ERR_TPM_ATTEST_TYPE")
    expect(() => parseAttest(changed(4, 0x80, 0x19))).toThrowCode("ERR_TPM_ATTEST_TYPE")
  })
  test("a size over the limit is refused before it is read", () => {
    expect(() => parseAttest(changed(6, 0xff, 0xff))).toThrowCode("ERR_TOO_LARGE")
  })
  test("a yes-no that is neither is refused", () => {
    const safeAt = 4 + 2 + 36 + 34 + 8 + 4 + 4
    expect(() => parseAttest(changed(safeAt, 2))).toThrowCode("ERR_MALFORMED")
  })
})

describe("PCR selection", () => {
  test("is a bit map, lowest bit first", () => {
    expect(toHex(selectPcrs(ALG.sha256, [0, 10, 16]).pcrSelect)).toBe("010401")
    expect(selectedPcrs({ hash: ALG.sha256, pcrSelect: Uint8Array.of(1, 4, 0x80) })).toEqual([0, 10, 23])
  })
  test("has no PCR 24", () => {
    expect(() => selectPcrs(ALG.sha256, [24])).toThrowCode("ERR_MALFORMED")
  })
  test("reads well", () => {
    expect(selectionText([selectPcrs(ALG.sha256, [0, 10]), selectPcrs(ALG.sha1, [])])).toBe(
      "sha256:0,10+sha1:none",
    )
    expect(selectionText([])).toBe("none")
    expect(algorithmText(0x1234)).toBe("0x1234")
  })
})

describe("TPMT_PUBLIC", () => {
  const key = makeSoftwareAk("ecdsa-p256")
  test("is also read with its size before it", () => {
    const sized = Uint8Array.of(0, key.akPublic.length, ...key.akPublic)
    expect(toHex(encodePublic(parseSizedPublic(sized)))).toBe(toHex(key.akPublic))
    expect(() => parseSizedPublic(key.akPublic)).toThrowCode("ERR_TRAILING_BYTES")
  })
  test("of a symmetric key is refused", () => {
    expect(() => parsePublic(Uint8Array.of(0, 0x25, ...key.akPublic.subarray(2)))).toThrowCode(
      "ERR_UNSUPPORTED",
    )
  })
  test("has a Name that changes with each attribute", () => {
    const free = { ...key.publicArea, objectAttributes: key.publicArea.objectAttributes & ~(1 << 16) }
    expect(toHex(tpmName(key.publicArea)).slice(0, 4)).toBe("000b")
    expect(toHex(tpmName(free))).not.toBe(toHex(tpmName(key.publicArea)))
  })
  test("with a SHA-1 Name has none", () => {
    expect(() => tpmName({ ...key.publicArea, nameAlg: ALG.sha1 })).toThrowCode("ERR_UNSUPPORTED")
  })
})

test("an integer that does not fit its field is not encoded", () => {
  const attest = quoteAttest([10], new Uint8Array(32))
  expect(() => encodeAttest({ ...attest, resetCount: 2 ** 32 })).toThrowCode("ERR_TOO_LARGE")
  expect(() => encodeAttest({ ...attest, clock: -1n })).toThrowCode("ERR_TOO_LARGE")
  expect(() => encodeAttest({ ...attest, extraData: new Uint8Array(67) })).toThrowCode("ERR_TOO_LARGE")
})
