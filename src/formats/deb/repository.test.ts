import { describe, expect, test } from "bun:test"
import "../../../test/setup.ts"
import { isClearSigned, keyringBytes, parseClearSigned } from "../openpgp.ts"
import { parseParagraph, parseParagraphs } from "./paragraphs.ts"
import { findInPackages, parseRelease } from "./repository.ts"

const [A, B] = ["0a".repeat(32), "0b".repeat(32)] as const
const RELEASE = `Origin: Example
Codename: stable
Date: Sat, 17 May 2025 09:11:34 UTC
SHA256:
 ${A}  123 main/binary-amd64/Packages
 ${B} 45 main/binary-amd64/Packages.xz
`

describe("a Release file", () => {
  test("names files by digest, and times", () => {
    const release = parseRelease(RELEASE)
    expect(release).toMatchObject({ name: "Example stable", validUntil: null })
    expect(new Date(release.date).toISOString()).toBe("2025-05-17T09:11:34.000Z")
    expect(release.files.get(A)).toEqual({ size: 123, path: "main/binary-amd64/Packages" })
    const until = parseRelease(`${RELEASE}Valid-Until: Sat, 24 May 2025 09:11:34 UTC\n`).validUntil
    expect(until).toBe(Date.UTC(2025, 4, 24, 9, 11, 34))
  })

  for (const [name, from, to] of [
    ["no date", "Date:", "Dates:"],
    ["another time zone", "34 UTC", "34 CEST"],
    ["no SHA-256", "SHA256:", "SHA1:"],
    ["a digest that is none", A, "xyz"],
    ["no field at the beginning", "Origin: ", " "],
  ] as const)
    test(`with ${name} is refused`, () => {
      expect(() => parseRelease(RELEASE.replace(from, to))).toThrowCode("ERR_MALFORMED")
    })

  test("with a field twice is refused", () => {
    expect(() => parseRelease(`${RELEASE}Origin: Other\n`)).toThrowCode("ERR_DUPLICATE_KEY")
  })
})

describe("a list of packages", () => {
  const entry = (name: string, digest: string) =>
    `Package: ${name}\nVersion: 1.0-1\nArchitecture: amd64\nSHA256: ${digest}\nDescription: some\n text\n`
  const list = Buffer.from(`${entry("one", A)}\n${entry("two", B)}`)

  test("has the package of a digest, and no other", () => {
    expect(findInPackages(list, A)).toEqual({ name: "one", version: "1.0-1", architecture: "amd64" })
    expect(findInPackages(list, B)?.name).toBe("two")
    expect(findInPackages(list, "0c".repeat(32))).toBeNull()
  })

  test("does not name a package by a digest inside another field", () => {
    const tricky = Buffer.from(`Package: one\nDescription: x\n SHA256: ${A}\nSHA256: ${B}\n`)
    expect(findInPackages(tricky, A)).toBeNull()
  })
})

test("paragraphs are fields, with further lines joined", () => {
  expect([...parseParagraphs("x", "A: 1\n 2\nB:3\n\n\nC: 4")].map((one) => [...one])).toEqual([
    [
      ["a", "1\n2"],
      ["b", "3"],
    ],
    [["c", "4"]],
  ])
  expect(() => parseParagraph("x", "A: 1\n\nB: 2\n")).toThrowCode("ERR_MALFORMED")
})

describe("a signed message", () => {
  const message = (text: string, before = "", after = "") =>
    `${before}-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n${text}\n-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n${after}`

  test("is split into text and signature; dashes and white space are as they were signed", () => {
    const { text, signature } = parseClearSigned("x", message("one  \n- -----BEGIN\ntwo"))
    expect(text).toBe("one\n-----BEGIN\ntwo")
    expect(signature).toStartWith("-----BEGIN PGP SIGNATURE-----\n")
  })

  for (const [name, text] of [
    ["text before it", message("x", "Origin: Evil\n")],
    ["text behind it", message("x", "", "Origin: Evil\n")],
    ["a second message", message("x", "", message("y"))],
    ["a line of dashes inside", message("x\n-----BEGIN PGP SIGNED MESSAGE-----")],
    ["another header", message("x").replace("Hash: SHA512", "Comment: x")],
  ] as const)
    test(`with ${name} is none`, () => {
      if (isClearSigned(text)) expect(() => parseClearSigned("x", text)).toThrowCode("ERR_MALFORMED")
      else expect(name).toBe("text before it")
    })

  test("without end is refused", () => {
    const text = message("x")
    expect(() => parseClearSigned("x", text.slice(0, text.indexOf("-----END")))).toThrowCode("ERR_TRUNCATED")
  })
})

test("a keyring in armour is what it holds, several blocks one after the other", () => {
  const block = (body: string) =>
    `-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\n${body}\n=AbCd\n-----END PGP PUBLIC KEY BLOCK-----\n`
  expect(
    Buffer.from(keyringBytes("x", Buffer.from(`text\n${block("QUJD")}${block("REVG")}`))).toString(),
  ).toBe("ABCDEF")
  expect(Buffer.from(keyringBytes("x", Buffer.from([0x99, 1, 2]))).toString("hex")).toBe("990102")
  expect(() => keyringBytes("x", Buffer.from(block("!")))).toThrowCode("ERR_MALFORMED")
})
