import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Mapping } from "../../native/block-stack.ts"
import { forgetOpened, noteOpened, noteOpening, originOf } from "./opened.ts"

let directory: string
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "opened-")), "opened")
})
afterEach(() => rmSync(join(directory, ".."), { recursive: true }))

const mapping = (instance: string): Mapping => ({
  ...{ name: "vault", uuid: "CRYPT-LUKS2-00-vault", kernelName: "dm-1", device: "254:1" },
  ...{ suspended: false, instance },
})

test("a mapping that nobody noted is another program's", () => {
  expect(originOf(mapping("5"), directory)).toBe("another's")
})

test("L1: one that appears while we open, or after we failed to, is not ours before we say so", () => {
  noteOpening("vault", directory)
  expect(originOf(mapping("5"), directory)).toBe("begun")
  noteOpened(mapping("5"), directory)
  expect(originOf(mapping("5"), directory)).toBe("ours")
})

test("L1: one that took the place of ours, with the same name and number, is another program's", () => {
  noteOpening("vault", directory)
  noteOpened(mapping("5"), directory)
  expect(originOf(mapping("6"), directory)).toBe("another's")
  forgetOpened("vault", directory)
  expect(originOf(mapping("5"), directory)).toBe("another's")
})
