import { ParseError } from "../../errors.ts"
import { CborReader, cbor } from "../cbor.ts"

const NULL = Uint8Array.of(0xf6)

/**
 * What a NitroTPM is asked for an attestation document with: `{"Attestation": {user_data, nonce, public_key}}`, of which only the nonce
 * is used here. CBOR.
 * Source: aws/NitroTPM-Tools, nitro-tpm-attest; aws-nitro-enclaves-nsm-api 0.4, enum Request.
 * @param nonce up to 1024 bytes, which the document repeats.
 */
export function encodeNitroRequest(nonce: Uint8Array): Uint8Array {
  const members = cbor.map(
    ...[cbor.text("user_data"), NULL],
    ...[cbor.text("nonce"), cbor.bytes(nonce)],
    ...[cbor.text("public_key"), NULL],
  )
  return cbor.map(cbor.text("Attestation"), members)
}

/**
 * The document in a NitroTPM's answer: `{"Attestation": {"document": bytes}}`. Filling may follow, as the answer stands in a buffer of
 * fixed size.
 * Source: as above, enum Response.
 * @throws ParseError ERR_MALFORMED (an answer `{"Error": name}` among them), ERR_TRUNCATED, ERR_TOO_LARGE
 */
export function parseNitroResponse(bytes: Uint8Array): Uint8Array {
  const reader = new CborReader(bytes, "NitroTPM response")
  let document = new Uint8Array(0)
  reader.pairs("response", 1, () => {
    const kind = reader.text("kind")
    if (kind === "Error")
      throw malformed("a document", `error ${JSON.stringify(reader.text("Error").slice(0, 40))}`)
    if (kind !== "Attestation") throw malformed("Attestation", JSON.stringify(kind.slice(0, 40)))
    reader.pairs(kind, 1, () => {
      const member = reader.text("member")
      if (member !== "document") throw malformed("document", JSON.stringify(member.slice(0, 40)))
      document = Uint8Array.from(reader.bytes(member))
    })
  })
  if (document.length === 0) throw malformed("a document", "none")
  return document
}

function malformed(expected: string, found: string): ParseError {
  return new ParseError("ERR_MALFORMED", { at: "NitroTPM response", expected, found })
}
