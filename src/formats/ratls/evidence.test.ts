import { expect, test } from "bun:test"
import { CodedError } from "../../errors.ts"
import { cbor } from "../cbor.ts"
import type { Extension } from "../x509/certificate.ts"
import {
  encodeKeyClaims,
  encodeTaggedQuote,
  encodeWrappedReport,
  parseRatlsEvidence,
  RATLS_OID,
} from "./evidence.ts"

const SPKI = new Uint8Array(91).fill(4)
const QUOTE = Uint8Array.of(4, 0, 2, 0, 0x81, 0, 0, 0, 7, 7)
const CLAIMS = encodeKeyClaims(SPKI)
const TAGGED = encodeTaggedQuote(QUOTE, CLAIMS)
const WRAPPED = encodeWrappedReport(new Uint8Array(1184))

function parse(extensions: Record<string, Uint8Array>) {
  const entries = Object.entries(extensions).map(
    ([oid, value]) => [oid, { critical: false, value }] as [string, Extension],
  )
  return parseRatlsEvidence({ extensions: new Map(entries) })
}
const dice = (value: Uint8Array) => parse({ [RATLS_OID.dice]: value })

test("what is written is read, in each form", () => {
  expect(dice(TAGGED)).toMatchObject([
    { form: "dice", tee: "tdx", content: QUOTE, claims: { bytes: CLAIMS } },
  ])
  expect(dice(WRAPPED)).toMatchObject([{ form: "dice", tee: "snp", claims: null }])
  expect(parse({ [RATLS_OID.sgx]: QUOTE })).toMatchObject([{ form: "predecessor", tee: "sgx" }])
  expect(parse({})).toEqual([])
})

test("the tagged quote is byte by byte what the interoperable form says", () => {
  const hash = new Bun.CryptoHasher("sha256").update(SPKI).digest("hex")
  // {"pubkey-hash": << [1, h'…'] >>}, and 60000([h'…', << claims >>]).
  const claims = `a16b${Buffer.from("pubkey-hash").toString("hex")}5824820158${"20"}${hash}`
  expect(Buffer.from(CLAIMS).toString("hex")).toBe(claims)
  expect(Buffer.from(TAGGED).toString("hex")).toBe(`d9ea60824a04000200810000000707${"5833"}${claims}`)
})

test("every truncation is refused by code, and so are bytes behind the end", () => {
  for (const whole of [TAGGED, WRAPPED]) {
    for (let length = 0; length < whole.length; length++)
      expect(() => dice(whole.subarray(0, length))).toThrowCode("ERR_TRUNCATED")
    expect(() => dice(Uint8Array.of(...whole, 0))).toThrowCode("ERR_TRAILING_BYTES")
  }
})

test("whatever bytes stand there, only coded errors come of it", () => {
  for (let at = 0; at < TAGGED.length; at++)
    for (const flip of [1, 0x20, 0x80, 0xff]) {
      const changed = Uint8Array.from(TAGGED)
      changed[at] = (changed[at] ?? 0) ^ flip
      try {
        dice(changed)
      } catch (error) {
        expect(error).toBeInstanceOf(CodedError)
      }
    }
})

test("other tags, media types, indicators, claims and hashes are refused", () => {
  const hash = (algorithm: number, size: number) =>
    cbor.bytes(cbor.array(cbor.unsigned(algorithm), cbor.bytes(new Uint8Array(size))))
  const claims = (...pairs: Uint8Array[]) => encodeTaggedQuote(QUOTE, cbor.map(...pairs))
  const name = cbor.text("pubkey-hash")
  expect(dice(claims(name, hash(7, 48), cbor.text("nonce"), cbor.bytes(SPKI)))[0]?.claims?.nonce).toEqual(
    SPKI,
  )
  for (const [value, code] of [
    [cbor.tag(60001, cbor.array(cbor.bytes(QUOTE), cbor.bytes(CLAIMS))), "ERR_UNSUPPORTED"],
    [cbor.tag(60000, cbor.array(cbor.bytes(QUOTE))), "ERR_MALFORMED"],
    [cbor.array(cbor.text("application/json"), cbor.bytes(QUOTE)), "ERR_UNSUPPORTED"],
    [cbor.array(cbor.text("application/vnd.amd.sev-snp.attestation-report")), "ERR_MALFORMED"],
    [
      cbor.array(
        cbor.text("application/vnd.amd.sev-snp.attestation-report"),
        cbor.bytes(QUOTE),
        cbor.unsigned(2),
      ),
      "ERR_MALFORMED",
    ],
    [claims(name, hash(2, 16)), "ERR_UNSUPPORTED"],
    [claims(name, hash(1, 48)), "ERR_MALFORMED"],
    [claims(cbor.text("nonce"), cbor.bytes(SPKI)), "ERR_MALFORMED"],
    [claims(name, hash(1, 32), name, hash(1, 32)), "ERR_MALFORMED"],
    [claims(name, hash(1, 32), cbor.text("role"), cbor.bytes(SPKI)), "ERR_MALFORMED"],
    [encodeTaggedQuote(QUOTE, new Uint8Array(5000)), "ERR_TOO_LARGE"],
  ] as const)
    expect(() => dice(value)).toThrowCode(code)
})

test("evidence of two TEEs in one certificate is refused", () => {
  expect(() => parse({ [RATLS_OID.snp]: QUOTE, [RATLS_OID.dice]: TAGGED })).toThrowCode("ERR_MALFORMED")
})
