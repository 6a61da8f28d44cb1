import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import fc from "fast-check"
import { CodedError } from "../../errors.ts"
import { toHex } from "../hex.ts"
import {
  encodeSystemdTpm2Token,
  parseSystemdTpm2Token,
  pinAuthValue,
  type SealedSecret,
  sealedPassphrase,
} from "./systemd-tpm2-token.ts"

const SEALED: SealedSecret = {
  blob: Uint8Array.of(1, 2, 3, 4),
  pcrs: [4, 7],
  pcrBank: "sha256",
  primaryAlg: "ecc",
  policyHash: new Uint8Array(32).fill(9),
  pin: true,
  salt: new Uint8Array(32).fill(1),
  srk: Uint8Array.of(0x81, 0, 0, 1),
}

/** As systemd-cryptenroll 252 writes it, for PCR 7 of a software TPM. */
const OF_SYSTEMD = {
  type: "systemd-tpm2",
  keyslots: ["1"],
  "tpm2-blob":
    "AJ4AIKYegSLfjHBF5FWXNkqB5fgt8Fze4k+xXeQPdewCEqBYABAbnEtcyAc/MGyhF0oVJE1+yCy3MFsQ+El8wRCmX10lfFpGgOn4sGApjMMIwwCFu2mk666SoRSV7u2tvm1wJh1if2BG1BIdmrV6J/lOwxHRh39jEWrBRvSYcRYooAED3vChgHCFA7spB8Kzv2YoxmFDvIvdkI3Mcw86gQBOAAgACwAAABIAIItWgtgbKUNdCNeSeBUGEdx+WSOy/vzOaEoJV3tAEwqLABAAIPq67fBqePSGZDyJqi9LT6VclVHfsw0h03s3N1vrm/gw",
  "tpm2-pcrs": [7],
  "tpm2-pcr-bank": "sha256",
  "tpm2-primary-alg": "ecc",
  "tpm2-policy-hash": "8b5682d81b29435d08d79278150611dc7e5923b2fefcce684a09577b40130a8b",
  "tpm2-pin": false,
}

/** As systemd-cryptenroll 257 writes it, for PCRs 0 and 7 and a PIN. */
const OF_NEWER_SYSTEMD = {
  type: "systemd-tpm2",
  keyslots: ["1"],
  "tpm2-blob":
    "AJ4AIPellCNv7aj0Los3ODDYMH5oMhPyJoCO1YLXYFMsjqgoABC6rf60loC10lBcD8skRF+sn+qz1t9G2y0wRyPG3WUd9wwN4kRRPDRmkoQPb55ZpYntmEed82Ya8Fjh7RvWCQTfvZEnTtjnf9xumANqqgT555KL1gO/O50qN2/MfiuDTmDWSt137cn7CNTJ9IPiXQSzsIBxFkVo6XCHRwBOAAgACwAAABIAIKRZ8zUdSHBtQrapIJOPVuKLc1ZgKgJ4TPDze29a6waMABAAIAnYrdnBC4OOrpsbX17IyzF6WlrejwkNdTZZTp1Y25JD",
  "tpm2-pcrs": [0, 7],
  "tpm2-pcr-bank": "sha256",
  "tpm2-primary-alg": "ecc",
  "tpm2-policy-hash": "a459f3351d48706d42b6a920938f56e28b7356602a02784cf0f37b6f5aeb068c",
  "tpm2-pin": true,
  tpm2_salt: "68BRULgzdzADyF+p30dn9JMR/9tbJyZtk1+fe5CSn68=",
  tpm2_srk:
    "gQAAAQAiAAuVO9D/I6WPGwWRJIL+Cr609IwEjpCyNC77xXWgMkrccwAAAAEAWgAjAAsAAwRyAAAABgCAAEMAEAADABAAILrBfcxINlyAeu1NZHYQwF5JvfCwP6dvi2HByITaXtk+ACB+QFFGit5w/gUGj6J/w89UuC/JolvEWW36yoYXGJbdFA==",
}

describe("a systemd-tpm2 token", () => {
  test("of systemd's is read", () => {
    const { blob, policyHash, ...rest } = parseSystemdTpm2Token(OF_SYSTEMD)
    expect([blob.length, toHex(policyHash)]).toEqual([240, OF_SYSTEMD["tpm2-policy-hash"]])
    expect(rest).toEqual({
      pcrs: [7],
      pcrBank: "sha256",
      primaryAlg: "ecc",
      pin: false,
      salt: null,
      srk: null,
    })
  })

  test("of a later systemd is read, and written as it writes it", () => {
    const sealed = parseSystemdTpm2Token(OF_NEWER_SYSTEMD)
    expect(sealed).toMatchObject({ pcrs: [0, 7], pin: true })
    expect([sealed.salt?.length, sealed.srk?.length]).toEqual([32, 136])
    expect(JSON.parse(Buffer.from(encodeSystemdTpm2Token(sealed, 1)).toString())).toEqual(OF_NEWER_SYSTEMD)
  })

  test("is written as it is read", () => {
    for (const sealed of [SEALED, { ...SEALED, salt: null, srk: null, pcrs: [], pin: false }])
      expect(parseSystemdTpm2Token(encodeSystemdTpm2Token(sealed, 3))).toEqual(sealed)
    expect(JSON.parse(Buffer.from(encodeSystemdTpm2Token(SEALED, 3)).toString()).keyslots).toEqual(["3"])
  })

  test("without the members that the first versions of systemd left out means what they did", () => {
    const { "tpm2-pcr-bank": _, "tpm2-primary-alg": __, "tpm2-pin": ___, ...old } = OF_SYSTEMD
    expect(parseSystemdTpm2Token(old)).toMatchObject({ pcrBank: "sha256", primaryAlg: "ecc", pin: false })
  })

  test("with a policy that is not made here is refused by name", () => {
    for (const member of [
      { tpm2_pubkey: "AAAA" },
      { tpm2_pubkey_pcrs: [11] },
      { tpm2_pcrlock: true },
      { tpm2_pcrlock_nv: "AAAA" },
      { "tpm2-blob": ["AAAA", "AAAA"] },
    ])
      expect(() => parseSystemdTpm2Token({ ...OF_SYSTEMD, ...member })).toThrowCode("ERR_UNSUPPORTED")
    expect(parseSystemdTpm2Token({ ...OF_SYSTEMD, tpm2_pcrlock: false }).pcrs).toEqual([7])
  })

  test("that is malformed is refused", () => {
    for (const member of [
      { extra: 1 },
      { type: "other" },
      { "tpm2-pcrs": [24] },
      { "tpm2-pcrs": [7, 7] },
      { "tpm2-pcrs": ["7"] },
      { "tpm2-pcrs": [1.5] },
      { "tpm2-policy-hash": "00" },
      { "tpm2-pin": "yes" },
      { "tpm2-pcr-bank": "md5" },
      { "tpm2-primary-alg": "constructor" },
      { "tpm2-blob": "" },
      { "tpm2-blob": "?" },
    ])
      expect(() => parseSystemdTpm2Token({ ...OF_SYSTEMD, ...member })).toThrowCode("ERR_MALFORMED")
  })

  test("of any content only ends in coded errors", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom(...Object.keys(OF_SYSTEMD), "tpm2_srk"), fc.jsonValue()),
        (members) => {
          try {
            parseSystemdTpm2Token({ ...OF_SYSTEMD, ...members })
          } catch (error) {
            expect(error).toBeInstanceOf(CodedError)
          }
        },
      ),
    )
  })
})

test("the passphrase is the secret in base64, padded", () => {
  expect(Buffer.from(sealedPassphrase(new Uint8Array(32))).toString()).toBe(`${"A".repeat(43)}=`)
})

describe("a PIN's authorization value", () => {
  const pin = Buffer.from("1234")
  test("is its SHA-256 without a salt", () => {
    expect(toHex(pinAuthValue(pin, null))).toBe(createHash("sha256").update("1234").digest("hex"))
  })
  test("is another with a salt", () => {
    expect(toHex(pinAuthValue(pin, new Uint8Array(32)))).toBe(
      "00ee30669c9ee4ccd7d57f9056484eca2397ad1964375e98804350e847ee2c5b",
    )
  })
  test("has no zeros at its end", () => {
    const ends = Array.from({ length: 1000 }, (_, n) => pinAuthValue(Buffer.from(`${n}`), null))
    expect(ends.some(({ length }) => length === 31)).toBeTrue()
    expect(ends.every((value) => value.at(-1) !== 0)).toBeTrue()
  })
})
