import { expect, test } from "bun:test"
import "../../../test/setup.ts"
import type { Extension } from "./certificate.ts"
import { encodeDer, TAG } from "./der.ts"
import { gceInstance, OID_GCE_INSTANCE } from "./gce-instance.ts"

const text = (value: string) => encodeDer(TAG.utf8String, new TextEncoder().encode(value))
const integer = (...octets: number[]) => encodeDer(TAG.integer, Uint8Array.from(octets))

/** A certificate's extensions with Google's, of these two numbers. */
function withNumbers(project: Uint8Array, instance: Uint8Array) {
  const value = encodeDer(TAG.sequence, text("zone"), project, text("project"), instance, text("name"))
  const extension: Extension = { critical: false, value }
  return { extensions: new Map([[OID_GCE_INSTANCE, extension]]) }
}

test("numbers are read as what they are, up to the largest of 64 bits", () => {
  const idOf = (...octets: number[]) => gceInstance(withNumbers(integer(1), integer(...octets)))?.instanceId
  expect(idOf(0)).toBe("0")
  expect(idOf(0x7f)).toBe("127")
  expect(idOf(0, 0x80)).toBe("128")
  expect(idOf(0, ...Array<number>(8).fill(0xff))).toBe("18446744073709551615")
  expect(gceInstance({ extensions: new Map() })).toBeNull()
})

test("no number, a negative one, a larger one and a padded one are coded errors", () => {
  const wrong = [
    [],
    [0x80],
    [0xff, 0x7f],
    [0, 1],
    [1, ...Array<number>(8).fill(0)],
    Array<number>(200).fill(0x7f),
  ]
  for (const octets of wrong) {
    expect(() => gceInstance(withNumbers(integer(1), integer(...octets)))).toThrowCode("ERR_MALFORMED")
    expect(() => gceInstance(withNumbers(integer(...octets), integer(1)))).toThrowCode("ERR_MALFORMED")
  }
})
