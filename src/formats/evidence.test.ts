import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { committedBytes, type Evidence, encodeEvidence, parseEvidence, type TeeEvidence } from "./evidence.ts"

const byteString = (maxLength: number) => fc.uint8Array({ maxLength })
const certificates = fc.array(byteString(40), { maxLength: 3 })
const evidences: fc.Arbitrary<Evidence> = fc.record({
  tee: fc.option(
    fc.oneof(
      fc.record({ kind: fc.constant("sev-snp" as const), report: byteString(40), certificates }),
      fc.record({ kind: fc.constant("tdx" as const), quote: byteString(40) }),
      fc.record({ kind: fc.constant("azure-snp" as const), hcl: byteString(40), certificates }),
      fc.record({ kind: fc.constant("azure-tdx" as const), hcl: byteString(40), quote: byteString(40) }),
    ),
  ),
  tpm: fc.option(
    fc.record({
      quote: byteString(40),
      signature: byteString(40),
      akPublic: byteString(40),
      pcrs: fc.array(fc.uint8Array({ minLength: 32, maxLength: 32 }), { minLength: 16, maxLength: 16 }),
      akCertificate: fc.option(byteString(40)),
      ekCertificate: fc.option(byteString(40)),
    }),
  ),
  ima: fc.option(fc.record({ from: fc.nat(), list: byteString(80) })),
})
/** Members that an older agent does not send. */
const logs = fc.record(
  { eventLog: byteString(40), ccEventLog: byteString(40), kernelCommandLine: byteString(40) },
  { requiredKeys: [] },
)

const SAMPLE: Evidence = {
  tee: { kind: "sev-snp", report: new Uint8Array(5).fill(1), certificates: [Uint8Array.of(9)] },
  tpm: {
    quote: Uint8Array.of(1),
    signature: Uint8Array.of(2),
    akPublic: Uint8Array.of(3),
    pcrs: Array.from({ length: 16 }, () => new Uint8Array(32)),
    akCertificate: null,
    ekCertificate: null,
  },
  ima: { from: 0, list: Uint8Array.of(4) },
}

/** The sample's JSON with one thing replaced. */
function edited(from: string, to: string): string {
  const text = encodeEvidence(SAMPLE)
  expect(text).toContain(from)
  return text.replace(from, to)
}

describe("evidence", () => {
  test("survives the way to JSON and back, as text and as bytes", () => {
    fc.assert(
      fc.property(evidences, logs, (parts, beside) => {
        const evidence = { ...parts, ...beside }
        const text = encodeEvidence(evidence)
        expect(parseEvidence(text)).toEqual(evidence)
        expect(parseEvidence(new TextEncoder().encode(text))).toEqual(evidence)
      }),
    )
  })

  test.each([
    ["another version", '"version":1', '"version":2', "ERR_UNSUPPORTED"],
    ["another kind of TEE", "sev-snp", "sgx", "ERR_UNSUPPORTED"],
    ["a kind with the members of another", "sev-snp", "tdx", "ERR_MALFORMED"],
    ["a member of another kind", '"report":', '"quote":"","report":', "ERR_MALFORMED"],
    ["a member named twice", '"ima":', '"tee":null,"ima":', "ERR_DUPLICATE_KEY"],
    ["a list named twice", '"from":0,', '"from":0,"list":"","from":0,', "ERR_DUPLICATE_KEY"],
    ["an unknown member", '"version":1', '"version":1,"x":1', "ERR_MALFORMED"],
    ["base64 with padding", '"list":"BA"', '"list":"BA=="', "ERR_MALFORMED"],
    ["base64 with stray bits", '"list":"BA"', '"list":"BB"', "ERR_MALFORMED"],
    ["base64url", '"list":"BA"', '"list":"_-_-"', "ERR_MALFORMED"],
    ["a negative start", '"from":0', '"from":-1', "ERR_MALFORMED"],
    ["a missing list", '"list":"BA"', '"list":null', "ERR_MALFORMED"],
    ["a missing version", '"version":1,', "", "ERR_MALFORMED"],
    ["15 PCRs", '"pcrs":["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",', '"pcrs":[', "ERR_MALFORMED"],
    ["a short PCR", '"pcrs":["AAAA', '"pcrs":["', "ERR_MALFORMED"],
    ["17 PCRs", '"pcrs":[', '"pcrs":["",', "ERR_TOO_LARGE"],
    ["a huge signature", '"signature":"Ag"', `"signature":"${"A".repeat(8000)}"`, "ERR_TOO_LARGE"],
    [
      "too many certificates",
      '"certificates":["CQ"]',
      `"certificates":[${Array(40).fill('""')}]`,
      "ERR_TOO_LARGE",
    ],
  ])("%s is refused", (_, from, to, code) => {
    expect(() => parseEvidence(edited(from, to))).toThrowCode(code)
  })

  const [report, quote, hcl] = [Uint8Array.of(1), Uint8Array.of(2), Uint8Array.of(3)]
  const KINDS: readonly (readonly [TeeEvidence, string])[] = [
    [
      { kind: "sev-snp", report, certificates: [hcl] },
      '{"kind":"sev-snp","report":"AQ","certificates":["Aw"]}',
    ],
    [{ kind: "tdx", quote }, '{"kind":"tdx","quote":"Ag"}'],
    [{ kind: "azure-snp", hcl, certificates: [] }, '{"kind":"azure-snp","hcl":"Aw","certificates":[]}'],
    [{ kind: "azure-tdx", hcl, quote }, '{"kind":"azure-tdx","hcl":"Aw","quote":"Ag"}'],
  ]
  test.each(KINDS)("%p stands so on the wire", (tee, text) => {
    expect(encodeEvidence({ tee, tpm: null, ima: null })).toBe(
      `{"version":1,"tee":${text},"tpm":null,"ima":null}`,
    )
  })

  test("a quote commits to the report, the TDX quote or the HCL report", () => {
    expect(KINDS.map(([tee]) => committedBytes(tee))).toEqual([report, quote, hcl, hcl])
  })

  test("a text over the cap is refused before it is read", () => {
    expect(() => parseEvidence("x".repeat(101), 100)).toThrowCode("ERR_TOO_LARGE")
  })

  test("members and elements without end are refused before they take memory", () => {
    for (const many of ["[]", "{}", "0"]) {
      const list = `[${Array.from({ length: 20_000 }, () => many).join(",")}]`
      expect(() => parseEvidence(`{"version":1,"x":${list}}`)).toThrowCode("ERR_TOO_LARGE")
    }
    const members = Array.from({ length: 20_000 }, (_, at) => `"${at}":0`).join(",")
    expect(() => parseEvidence(`{"version":1,${members}}`)).toThrowCode("ERR_TOO_LARGE")
  })

  test("every truncation is refused", () => {
    const text = encodeEvidence(SAMPLE)
    for (let length = 0; length < text.length; length++)
      expect(() => parseEvidence(text.slice(0, length))).toThrow(CodedError)
  })
})
