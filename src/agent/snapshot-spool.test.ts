import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SnapshotSpool } from "./snapshot-spool.ts"

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "spool-"))
})
afterEach(() => rmSync(directory, { recursive: true }))

const TEXTS = Array.from({ length: 50 }, (_, index) => `${index}:${crypto.randomUUID()}`.repeat(20))

function filled(limit?: number): SnapshotSpool {
  const spool = new SnapshotSpool(directory, limit)
  for (const text of TEXTS) spool.addText(text)
  return spool
}

test("a small text never touches the disk", async () => {
  const spool = new SnapshotSpool("/nonexistent")
  spool.addText("small")
  expect(await new Response(spool.stream()).text()).toBe("small")
})

for (const limit of [0, 1000])
  test(`what does not fit into ${limit} bytes of memory comes back from a file without a name`, async () => {
    const spool = filled(limit)
    expect(readdirSync(directory)).toEqual([])
    const both = await Promise.all([new Response(spool.stream()).text(), new Response(spool.stream()).text()])
    expect(both).toEqual([TEXTS.join(""), TEXTS.join("")])
    spool.close()
  })

test("a reader that leaves early does not keep the text", async () => {
  const spool = filled(1000)
  const reader = spool.stream().getReader()
  await reader.read()
  spool.close()
  await reader.cancel()
  expect(await new Response(spool.stream()).text()).toBe("")
})
