import { afterEach, beforeEach, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { certificateTools } from "./acme-tools.ts"

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "acme-tools-"))
})
afterEach(() => rmSync(dir, { recursive: true }))

const folder = () => {
  const told = { progress: () => undefined, warn: () => undefined }
  return certificateTools(dir, new AbortController().signal, told).workspace.folder("x")
}

test("two are not at work on one certificate; when the first ends, the second may", async () => {
  const release = await folder().lock()
  await expect(folder().lock()).rejects.toMatchObject({ code: "ERR_ACME_BUSY" })
  release()
  const again = await folder().lock()
  again()
})

test("somebody who may not enter the workspace cannot hold renewals up: the lock has no name to take", async () => {
  mkdirSync(join(dir, "x"), { mode: 0o700 })
  const hash = createHash("sha256")
    .update(realpathSync(join(dir, "x")))
    .digest("hex")
  // Any process may listen at an abstract socket, whoever it belongs to.
  const stranger = Bun.listen({ unix: `\0cosmian_vm/acme/${hash}`, socket: { data: () => undefined } })
  try {
    const release = await folder().lock()
    release()
  } finally {
    stranger.stop(true)
  }
})
