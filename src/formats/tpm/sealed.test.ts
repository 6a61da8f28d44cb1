import { expect, test } from "bun:test"
import fc from "fast-check"
import { CodedError } from "../../errors.ts"
import { OBJECT } from "./public.ts"
import { encodeSealed, parseSealed, sealedTemplate } from "./sealed.ts"

const POLICY = new Uint8Array(32).fill(7)
const PRIVATE = new Uint8Array(158).fill(1)
const BLOB = encodeSealed(PRIVATE, sealedTemplate(POLICY, true))
/** Offset of the object attributes in the blob: after the private part, two sizes, type and name algorithm. */
const ATTRIBUTES = 2 + PRIVATE.length + 2 + 4

function withAttributes(attributes: number): Uint8Array {
  const blob = BLOB.slice()
  new DataView(blob.buffer).setUint32(ATTRIBUTES, attributes)
  return blob
}

test("a blob is taken apart as it was put together", () => {
  const { privateArea, publicArea, authPolicy } = parseSealed(BLOB)
  expect(privateArea).toEqual(PRIVATE)
  expect(authPolicy).toEqual(POLICY)
  expect(encodeSealed(privateArea, publicArea)).toEqual(BLOB)
})

test("an object that may leave its TPM, or is unsealed without its policy, is refused", () => {
  const good = OBJECT.fixedTPM | OBJECT.fixedParent
  expect(parseSealed(withAttributes(good)).authPolicy).toEqual(POLICY)
  expect(parseSealed(withAttributes(good | OBJECT.noDA)).authPolicy).toEqual(POLICY)
  for (const attributes of [
    0,
    OBJECT.fixedTPM,
    OBJECT.fixedParent,
    good | OBJECT.userWithAuth,
    good | OBJECT.sign,
    good | OBJECT.decrypt,
    good | OBJECT.encryptedDuplication,
    good | (1 << 30),
  ])
    expect(() => parseSealed(withAttributes(attributes))).toThrowCode("ERR_UNSUPPORTED")
})

test("a policy of another size is refused", () => {
  for (const size of [0, 20, 31, 33, 48])
    expect(() => parseSealed(encodeSealed(PRIVATE, sealedTemplate(new Uint8Array(size), false)))).toThrowCode(
      "ERR_UNSUPPORTED",
    )
})

test("every truncation is refused, and bytes at the end", () => {
  for (let size = 0; size < BLOB.length; size++)
    expect(() => parseSealed(BLOB.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
  expect(() => parseSealed(Uint8Array.from([...BLOB, 0]))).toThrowCode("ERR_TRAILING_BYTES")
})

test("any bytes only end in coded errors", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(BLOB.length), (bytes, at) => {
      for (const blob of [bytes, Uint8Array.from([...BLOB.subarray(0, at), ...bytes])])
        try {
          parseSealed(blob)
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
    }),
  )
})
