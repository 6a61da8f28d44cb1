import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import "../../../test/setup.ts"
import { buildRpm } from "../../../test/fakes/packages.ts"
import { CodedError } from "../../errors.ts"
import { parseRpm } from "./package.ts"

const DIR = mkdtempSync(join(tmpdir(), "rpm-"))
let bytes: Buffer
beforeAll(async () => {
  const files = { "/usr/bin/tool": "tool", "/usr/share/tool/data": "data", "/etc/empty": "" }
  bytes = readFileSync(await buildRpm(DIR, { name: "tool", version: "2.0", files }))
}, 30_000)
afterAll(() => rmSync(DIR, { recursive: true }))

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex")

describe("an RPM package that rpmbuild made", () => {
  test("tells name, version and the digest of each file", () => {
    const { header, ...rpm } = parseRpm(bytes)
    expect(rpm).toEqual({
      name: "tool",
      version: "2.0-1",
      architecture: "noarch",
      digestAlgorithm: "sha256",
      files: [
        { path: "/etc/empty", digest: sha256(""), isConfiguration: false },
        { path: "/usr/bin/tool", digest: sha256("tool"), isConfiguration: false },
        { path: "/usr/share/tool/data", digest: sha256("data"), isConfiguration: false },
      ],
      hasScripts: false,
      signatures: [],
    })
    expect(header.length).toBeGreaterThan(1000)
  })

  test("is refused when its headers are cut off anywhere", () => {
    const end = bytes.indexOf(parseRpm(bytes).header) + parseRpm(bytes).header.length
    for (let length = 0; length < end; length += 13)
      expect(() => parseRpm(bytes.subarray(0, length))).toThrow(CodedError)
  })

  test("gives coded errors only, and no path that leads out, whatever is changed", () => {
    for (let at = 0; at < Math.min(bytes.length, 8000); at += 3)
      for (const byte of [0, 0xff, (bytes[at] ?? 0) ^ 0x01]) {
        const changed = Buffer.from(bytes)
        changed[at] = byte
        try {
          for (const { path } of parseRpm(changed).files) expect(path.split("/")).not.toContain("..")
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }
  })

  test("with sizes beyond all bounds, or as source package, is refused", () => {
    const changed = (at: number, value: number, size: 2 | 4) => {
      const copy = Buffer.from(bytes)
      if (size === 2) copy.writeUInt16BE(value, at)
      else copy.writeUInt32BE(value, at)
      return copy
    }
    expect(() => parseRpm(changed(6, 1, 2))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseRpm(changed(96 + 8, 0xffffffff, 4))).toThrowCode("ERR_TOO_LARGE")
    expect(() => parseRpm(changed(96 + 12, 0xffffffff, 4))).toThrowCode("ERR_TOO_LARGE")
    expect(() => parseRpm(Buffer.from("no package at all, in no way"))).toThrowCode("ERR_MALFORMED")
  })
})
