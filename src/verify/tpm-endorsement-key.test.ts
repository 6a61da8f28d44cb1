import { expect, test } from "bun:test"
import { generateKeyPairSync } from "node:crypto"
import { makeSoftwareAk } from "../../test/fakes/software-ak.ts"
import "../../test/setup.ts"
import { encodePublic, OBJECT, type TpmPublic } from "../formats/tpm/public.ts"
import { encodeWire, sized } from "../formats/tpm/wire.ts"
import { parseEndorsementKey } from "./tpm-endorsement-key.ts"
import { spkiOf } from "./tpm-signature.ts"

const ak = makeSoftwareAk("ecdsa-p256").publicArea
const ENDORSEMENT = OBJECT.fixedTPM | OBJECT.fixedParent | OBJECT.restricted | OBJECT.decrypt
const ek: TpmPublic = { ...ak, scheme: null, objectAttributes: ENDORSEMENT }
const spki = spkiOf(ek)
const pem = (der: Uint8Array, label: string) =>
  Buffer.from(`-----BEGIN ${label}-----\n${Buffer.from(der).toString("base64")}\n-----END ${label}-----\n`)

test("all forms give the same key", () => {
  for (const file of [
    encodePublic(ek),
    encodeWire(sized(0xffff), encodePublic(ek)),
    spki,
    pem(spki, "PUBLIC KEY"),
  ])
    expect(parseEndorsementKey(file)).toEqual(spki)
})

test("a key that is none is refused: one that signs, one that may leave its TPM, one of another kind", () => {
  for (const attributes of [
    ak.objectAttributes,
    ENDORSEMENT | OBJECT.sign,
    ENDORSEMENT & ~OBJECT.fixedTPM,
    ENDORSEMENT & ~OBJECT.restricted,
    ENDORSEMENT & ~OBJECT.decrypt,
  ])
    expect(() => parseEndorsementKey(encodePublic({ ...ek, objectAttributes: attributes }))).toThrowCode(
      "ERR_TPM_EK_KEY",
    )
  const edwards = generateKeyPairSync("ed25519").publicKey.export({ type: "spki", format: "der" })
  expect(() => parseEndorsementKey(Uint8Array.from(edwards))).toThrowCode("ERR_TPM_EK_KEY")
  expect(() => parseEndorsementKey(Uint8Array.from([...spki, 0]))).toThrowCode("ERR_TPM_EK_KEY")
  expect(() => parseEndorsementKey(pem(spki, "CERTIFICATE"))).toThrowCode("ERR_MALFORMED")
})
