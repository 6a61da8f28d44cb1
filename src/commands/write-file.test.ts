import { afterAll, beforeAll, expect, test } from "bun:test"
import {
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { beginFile } from "./write-file.ts"

let dir = ""
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "write-file-"))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const NEW = new TextEncoder().encode("new")

test("the old file stays until the new one is whole", () => {
  const path = join(dir, "a")
  writeFileSync(path, "old")
  const file = beginFile(path, 0o644)
  expect(readFileSync(path, "utf8")).toBe("old")
  file.commit(NEW)
  expect(readFileSync(path, "utf8")).toBe("new")
  file.abandon()
  expect(readFileSync(path, "utf8")).toBe("new")
})

test("a place that is not there is told by the name that was asked for", () => {
  const path = join(dir, "absent", "file")
  expect(() => beginFile(path, 0o644)).toThrow(expect.objectContaining({ code: "ENOENT", path }))
})

test("an abandoned file leaves nothing behind", () => {
  const before = readdirSync(dir)
  beginFile(join(dir, "b"), 0o644).abandon()
  expect(readdirSync(dir)).toEqual(before)
})

test("a symbolic link stays, what it points to is replaced", () => {
  writeFileSync(join(dir, "target"), "old")
  symlinkSync("target", join(dir, "link"))
  beginFile(join(dir, "link"), 0o644).commit(NEW)
  expect(lstatSync(join(dir, "link")).isSymbolicLink()).toBe(true)
  expect(readFileSync(join(dir, "target"), "utf8")).toBe("new")
})

test("a device or directory is refused before any work", () => {
  expect(() => beginFile("/dev/null", 0o644)).toThrowCode("ERR_BAD_VALUE")
  expect(() => beginFile(dir, 0o644)).toThrowCode("ERR_BAD_VALUE")
})

test("a directory that is not there is found out at the beginning", () => {
  expect(() => beginFile(join(dir, "none", "c"), 0o644)).toThrow("ENOENT")
})

test("a second commit is refused", () => {
  const file = beginFile(join(dir, "d"), 0o644)
  file.commit(NEW)
  expect(() => file.commit(NEW)).toThrowCode("ERR_INTERNAL")
})
