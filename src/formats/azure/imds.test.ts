import { describe, expect, test } from "bun:test"
import { fakeChip } from "../../../test/fakes/snp.ts"
import { vector } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { encodePem } from "../pem.ts"
import { encodeTdQuoteRequest, parseTdQuoteAnswer, parseThimCertificates } from "./imds.ts"

const { certificates } = await fakeChip()
const [vcek = "", ask = "", ark = ""] = certificates.map((der) => encodePem("CERTIFICATE", der))
const answer = (change: Readonly<Record<string, unknown>> = {}) =>
  Buffer.from(
    JSON.stringify({
      vcekCert: vcek,
      tcbm: "DB18000000000004",
      certificateChain: ask + ark,
      cacheControl: "86400",
      ...change,
    }),
  )

describe("certificates of the metadata service", () => {
  test("are the VCEK, its authorities and the TCB they are for", () => {
    const read = parseThimCertificates(answer())
    expect([read.vcek, ...read.chain]).toEqual([...certificates])
    expect(read.tcb).toEqual(Uint8Array.of(4, 0, 0, 0, 0, 0, 0x18, 0xdb))
    expect(parseThimCertificates(answer({ tcbm: undefined })).tcb).toBeNull()
  })

  test.skipIf(!HAVE_VECTORS)("real ones come back as they are", () => {
    const der = vector("azure-snp/trustee-v1-milan/vcek.der")
    const chain = Buffer.from(vector("trust/amd/cert_chain-vcek-milan.pem")).toString()
    const read = parseThimCertificates(
      answer({ vcekCert: encodePem("CERTIFICATE", der), certificateChain: chain }),
    )
    expect(read.vcek).toEqual(der)
    expect(read.chain).toEqual([vector("trust/amd/ask-milan.der"), vector("trust/amd/ark-milan.der")])
  })

  test.each<[string, Readonly<Record<string, unknown>>, string]>([
    ["no VCEK", { vcekCert: "" }, "ERR_MALFORMED"],
    ["two VCEKs", { vcekCert: vcek + vcek }, "ERR_MALFORMED"],
    ["a VCEK that is no text", { vcekCert: [1, 2] }, "ERR_MALFORMED"],
    ["no chain", { certificateChain: undefined }, "ERR_MALFORMED"],
    ["nine certificates", { certificateChain: ask.repeat(9) }, "ERR_TOO_LARGE"],
    ["a key among them", { certificateChain: ask.replaceAll("CERTIFICATE", "PRIVATE KEY") }, "ERR_MALFORMED"],
    ["half a chain", { certificateChain: ask.slice(0, 500) }, "ERR_TRUNCATED"],
    ["a TCB of 4 bytes", { tcbm: "DB180000" }, "ERR_MALFORMED"],
  ])("%s", (_, change, code) => {
    expect(() => parseThimCertificates(answer(change))).toThrowCode(code)
  })

  test("something that is no JSON, or too much of it", () => {
    expect(() => parseThimCertificates(Buffer.from("<html>"))).toThrowCode("ERR_MALFORMED")
    expect(() => parseThimCertificates(new Uint8Array(0))).toThrowCode("ERR_TRUNCATED")
    expect(() => parseThimCertificates(answer({ more: "x".repeat(300_000) }))).toThrowCode("ERR_TOO_LARGE")
  })
})

describe("a TD quote of the metadata service", () => {
  const read = (text: string) => parseTdQuoteAnswer(Buffer.from(text))

  test("is asked for by the TDREPORT and nothing else", () => {
    const body: unknown = JSON.parse(encodeTdQuoteRequest(new Uint8Array(1024).fill(0xfb)))
    expect(body).toEqual({ report: Buffer.alloc(1024, 0xfb).toString("base64url") })
    expect(() => encodeTdQuoteRequest(new Uint8Array(1184))).toThrowCode("ERR_MALFORMED")
  })

  test("comes in base64url, padded or not", () => {
    expect(read('{"quote":"-_8="}')).toEqual(Uint8Array.of(0xfb, 0xff))
    expect(read('{"quote":"-_8"}')).toEqual(Uint8Array.of(0xfb, 0xff))
  })

  test.each([
    ["nothing", '{"quote":""}'],
    ["base64 of the other alphabet", '{"quote":"+/8"}'],
    ["bits left over", '{"quote":"-_9"}'],
    ["a number", '{"quote":1}'],
    ["no quote", "{}"],
    ["too much", `{"quote":"${"A".repeat(100_000)}"}`],
  ])("%s", (_, text) => {
    expect(() => read(text)).toThrowCode("ERR_MALFORMED")
  })
})
