import { expect, test } from "bun:test"
import { encodePem, parsePem } from "./pem.ts"

const DER = new Uint8Array(100).map((_, index) => index)
const PEM = encodePem("CERTIFICATE", DER)

test("blocks survive encoding and parsing, with text around them and other line ends", () => {
  const text = `a comment\n${PEM}\nanother\n${encodePem("PUBLIC KEY", DER.subarray(1))}`
  const blocks = [
    { label: "CERTIFICATE", der: DER },
    { label: "PUBLIC KEY", der: DER.subarray(1) },
  ]
  expect(parsePem(text)).toEqual(blocks)
  expect(parsePem(text.replaceAll("\n", "\r\n"))).toEqual(blocks)
})

test("a file without blocks has none", () => {
  expect(parsePem("")).toEqual([])
})

test("a block without end is refused", () => {
  expect(() => parsePem(PEM.slice(0, -30))).toThrowCode("ERR_TRUNCATED")
})

test("blocks that do not match, are empty or are no base64 are refused", () => {
  expect(() => parsePem(PEM.replace("END CERTIFICATE", "END KEY"))).toThrowCode("ERR_MALFORMED")
  expect(() => parsePem(`-----BEGIN A-----\n${PEM}`)).toThrowCode("ERR_MALFORMED")
  expect(() => parsePem("-----END A-----")).toThrowCode("ERR_MALFORMED")
  expect(() => parsePem("-----BEGIN A-----\n-----END A-----")).toThrowCode("ERR_MALFORMED")
  expect(() => parsePem("-----BEGIN A-----\nAA*A\n-----END A-----")).toThrowCode("ERR_MALFORMED")
  expect(() => parsePem("-----BEGIN A-----\nAAA\n-----END A-----")).toThrowCode("ERR_MALFORMED")
})

test("a huge file is refused", () => {
  expect(() => parsePem("x".repeat(1024 * 1024 + 1))).toThrowCode("ERR_TOO_LARGE")
})
