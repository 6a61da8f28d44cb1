import { expect, test } from "bun:test"
import fc from "fast-check"
import { encodeProvision, isProvisionName, ORDER_CHALLENGES, parseProvision } from "./provision.ts"

const MAX = 1024 * 1024
const parse = (text: string) => parseProvision(Buffer.from(text), MAX)

const orders = fc.record({
  names: fc.array(fc.string(), { minLength: 1, maxLength: 5 }),
  directory: fc.string(),
  authorities: fc.option(fc.string()),
  email: fc.option(fc.string()),
  challenge: fc.constantFrom(...ORDER_CHALLENGES),
  port: fc.integer({ min: 1, max: 65_535 }),
})
const names = fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_.-]{0,10}$/).filter(isProvisionName)
const contents = fc.uint8Array({ maxLength: 40 })

test("what is written is read back, with and without a certificate", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(names, contents)), fc.option(orders), (members, certificate) => {
      const provision = { values: new Map(members), certificate }
      const read = parse(encodeProvision(provision))
      expect([...read.values].sort()).toEqual([...provision.values].sort())
      expect(read.certificate).toEqual(certificate)
    }),
  )
})

const ORDER = {
  names: ["vm.example"],
  directory: "https://ca.test/dir",
  authorities: null,
  email: null,
  challenge: "http-01",
  port: 80,
}

test.each([
  ["a challenge that a VM does not answer by itself", { challenge: "dns-01" }],
  ["no names", { names: [] }],
  ["too many names", { names: Array(101).fill("vm.example") }],
  ["port 0", { port: 0 }],
  ["a port that is none", { port: 65_536 }],
  ["a port as text", { port: "80" }],
  ["a member that nobody knows", { hook: ["sh"] }],
])("an order with %s is refused", (_, changes) => {
  const text = JSON.stringify({ values: {}, certificate: { ...ORDER, ...changes } })
  expect(() => parse(text)).toThrow(expect.objectContaining({ name: "ParseError" }))
})

test.each([
  ["names that lead elsewhere", '{"values":{"../x":""}}'],
  ["a content that is no base64", '{"values":{"a":"secret!"}}'],
  ["a content that is no text", '{"values":{"a":1}}'],
  ["no values", '{"certificate":null}'],
])("values: %s are refused, and the content is not repeated", (_, text) => {
  expect(() => parse(text)).toThrow(expect.objectContaining({ name: "ParseError" }))
  expect(() => parse(text)).not.toThrow("secret")
})
