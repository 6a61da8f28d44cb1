import { describe, expect, test } from "bun:test"
import { cbor } from "../cbor.ts"
import { encodeNitroRequest, parseNitroResponse } from "./request.ts"

const DOCUMENT = new Uint8Array(5000).fill(7)
const answer = (content: Uint8Array, name = "document", kind = "Attestation") =>
  cbor.map(cbor.text(kind), cbor.map(cbor.text(name), content))

test("a request holds the nonce and names what is left out", () => {
  const text = Buffer.from(encodeNitroRequest(Uint8Array.of(1, 2))).toString("latin1")
  expect(text).toBe("\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\x42\x01\x02\x6apublic_key\xf6")
})

describe("an answer", () => {
  test("gives its document, whatever fills the buffer after it", () => {
    for (const filling of [[], [0xff, 0xff], [0, 0]])
      expect(parseNitroResponse(Uint8Array.of(...answer(cbor.bytes(DOCUMENT)), ...filling))).toEqual(DOCUMENT)
  })

  test.each([
    ["an error", cbor.map(cbor.text("Error"), cbor.text("InvalidArgument")), "ERR_MALFORMED"],
    ["another kind", answer(cbor.bytes(DOCUMENT), "document", "Other"), "ERR_MALFORMED"],
    ["another member", answer(cbor.bytes(DOCUMENT), "data"), "ERR_MALFORMED"],
    ["text for a document", answer(cbor.text("document")), "ERR_MALFORMED"],
    ["an empty document", answer(cbor.bytes(new Uint8Array(0))), "ERR_MALFORMED"],
    ["no document", cbor.map(), "ERR_MALFORMED"],
    ["a cut one", answer(cbor.bytes(DOCUMENT)).subarray(0, 4000), "ERR_TRUNCATED"],
    ["an index that was never written", new Uint8Array(8192).fill(0xff), "ERR_MALFORMED"],
  ])("is refused where it is %s", (_, bytes, code) => {
    expect(() => parseNitroResponse(bytes)).toThrowCode(code)
  })
})
