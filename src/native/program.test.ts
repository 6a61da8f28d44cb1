import { expect, test } from "bun:test"
import "../../test/setup.ts"
import { decompressed } from "./decompress.ts"
import { findInstalled } from "./program.ts"

test("a program is found where systems have it, and named with its package where it is not", () => {
  expect(findInstalled("sh", "dash")).toMatch(/^\/(usr\/)?bin\/sh$/)
  expect(() => findInstalled("no-such-program", "apt-get install it")).toThrowCode("ERR_PROGRAM_ABSENT")
})

const all = async (pieces: AsyncIterable<Uint8Array>) => {
  const parts: Uint8Array[] = []
  for await (const piece of pieces) parts.push(piece.slice())
  return Buffer.concat(parts).toString()
}
const TEXT = "text ".repeat(100_000)
const packed = {
  none: Buffer.from(TEXT),
  gzip: Bun.gzipSync(TEXT),
  zstd: Bun.zstdCompressSync(TEXT),
  xz: Bun.spawnSync(["xz", "-c"], { stdin: Buffer.from(TEXT) }).stdout,
}

for (const compression of ["none", "gzip", "zstd", "xz"] as const)
  test(`${compression} is decompressed up to its limit; what was cut off is refused`, async () => {
    const content = packed[compression]
    const size = TEXT.length
    expect((await all(decompressed("x", compression, content, size))) === TEXT).toBe(true)
    await expect(all(decompressed("x", compression, content, size - 1))).rejects.toMatchObject({
      code: "ERR_TOO_LARGE",
    })
    if (compression === "none") return
    const damaged = Buffer.concat([content.subarray(0, 20), Buffer.from("damage"), content.subarray(26)])
    await expect(all(decompressed("x", compression, damaged, size))).rejects.toMatchObject({
      code: "ERR_COMPRESSION",
    })
  })
