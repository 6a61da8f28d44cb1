import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { blockSize, findMapping, liesOver, loopsOf, mappingsOver } from "./block-stack.ts"

/** sysfs of a machine with one volume: dm-1 (crypt) over dm-0 (integrity) over loop0 over a file. */
let sys: string
let container: string
beforeAll(() => {
  sys = mkdtempSync(join(tmpdir(), "fstool-sys-"))
  container = join(sys, "container")
  writeFileSync(container, "")
  device("loop0", "7:0", { "loop/backing_file": container, size: "2048" }, ["dm-0"])
  device("loop1", "7:1", { "loop/backing_file": "/somewhere/else" }, [])
  device("dm-0", "254:0", { "dm/name": "vault_dif", "dm/uuid": "CRYPT-INTEGRITY-vault_dif", size: "2000" }, [
    "dm-1",
  ])
  device("dm-1", "254:1", { "dm/name": "vault", "dm/uuid": "CRYPT-LUKS2-00-vault", size: "1000" }, [])
  device("dm-2", "254:2", { "dm/name": "root", "dm/uuid": "LVM-x" }, [])
  device("nvme0n1", "259:0", { size: "5000" }, ["dm-2"])
})
afterAll(() => rmSync(sys, { recursive: true, force: true }))

function device(name: string, number: string, files: Record<string, string>, holders: string[]): void {
  const at = join(sys, "class/block", name)
  for (const [file, content] of Object.entries({ dev: number, ...files })) {
    mkdirSync(join(at, file, ".."), { recursive: true })
    writeFileSync(join(at, file), `${content}\n`)
  }
  for (const holder of holders) mkdirSync(join(at, "holders", holder), { recursive: true })
}

describe("block devices over a container", () => {
  test("mappings are found through the loop device, the upper one first", () => {
    expect(loopsOf(container, sys)).toEqual(["loop0"])
    expect(mappingsOver(container, sys).map(({ name }) => name)).toEqual(["vault", "vault_dif"])
  })

  test("a container that nothing uses has none", () => {
    expect(mappingsOver(join(sys, "other"), sys)).toEqual([])
  })

  test("a mapping of the right name over something else is noticed", () => {
    const vault = findMapping("vault", sys)
    const root = findMapping("root", sys)
    if (vault === null || root === null) throw new Error("both are there")
    expect(liesOver(vault, container, sys)).toBe(true)
    expect(liesOver(root, container, sys)).toBe(false)
    expect(findMapping("nobody", sys)).toBeNull()
  })

  test("sizes are in bytes", () => {
    expect(blockSize("dm-1", sys)).toBe(512_000)
  })
})
