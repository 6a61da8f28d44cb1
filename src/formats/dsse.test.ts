import { describe, expect, test } from "bun:test"
import "../../test/setup.ts"
import { encodeDetachedEnvelope, parseDetachedEnvelope, preAuthEncoding } from "./dsse.ts"

const ENVELOPE = {
  payloadType: "application/example",
  signatures: [{ keyId: "a key", signature: Uint8Array.from({ length: 64 }, (_, at) => 255 - at) }],
}
const TEXT = encodeDetachedEnvelope(ENVELOPE)
const parse = (text: string) => parseDetachedEnvelope(Buffer.from(text))
const edited = (change: Record<string, unknown>) => JSON.stringify({ ...JSON.parse(TEXT), ...change })

describe("detached DSSE envelopes", () => {
  test("the encoding that is signed is that of the specification's example", () => {
    const encoded = preAuthEncoding("http://example.com/HelloWorld", Buffer.from("hello world"))
    expect(Buffer.from(encoded).toString()).toBe("DSSEv1 29 http://example.com/HelloWorld 11 hello world")
  })

  test("lengths are those of bytes and not of characters", () => {
    expect(Buffer.from(preAuthEncoding("é", Buffer.from("ü"))).toString()).toBe("DSSEv1 2 é 2 ü")
  })

  test("an envelope survives its text", () => {
    expect(parse(TEXT)).toEqual(ENVELOPE)
    expect(encodeDetachedEnvelope(parse(TEXT))).toBe(TEXT)
  })

  test("the alphabet of URLs is read too, and the key's name may be left out", () => {
    const sig = Buffer.from(ENVELOPE.signatures[0]?.signature ?? []).toString("base64url")
    expect(parse(edited({ signatures: [{ sig }] })).signatures).toEqual([
      { keyId: "", signature: ENVELOPE.signatures[0]?.signature ?? new Uint8Array(0) },
    ])
  })

  test("what is not understood is refused", () => {
    for (const change of [
      { payload: "aGVsbG8=" },
      { payloadType: null },
      { signatures: [] },
      { signatures: null },
      { signatures: ["x"] },
      { signatures: [{ keyid: "a key" }] },
      { signatures: [{ sig: "" }] },
      { signatures: [{ sig: "not base64!" }] },
      { signatures: [{ sig: "aGVsbG8=", cert: "x" }] },
      { signatures: Array.from({ length: 17 }, () => ({ sig: "aGVsbG8=" })) },
      { more: 1 },
    ])
      expect(() => parse(edited(change))).toThrowCode("ERR_MALFORMED")
    expect(() => parse(TEXT.replace("{", '{"payload":"",'))).toThrowCode("ERR_DUPLICATE_KEY")
    expect(() => parse(TEXT + " ".repeat(70_000))).toThrowCode("ERR_TOO_LARGE")
  })

  test("every truncation is refused", () => {
    for (let length = 0; length < TEXT.trimEnd().length; length++)
      expect(() => parse(TEXT.slice(0, length))).toThrow()
  })
})
