import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { harden } from "./harden.ts"

const REQUIRED = "\0BUN_BE_BUN\0BUN_OPTIONS\0BUN_INSPECT\0BUN_INSPECT_PRELOAD\0BUN_INSPECT_CONNECT_TO\0"

/** A minimal ELF file with the sections that hardening reads. */
function elf(machine: number, rodata: Buffer, text: Buffer): Buffer {
  const names = Buffer.from("\0.rodata\0.text\0.shstrtab\0")
  const header = Buffer.alloc(64)
  header.writeUInt32BE(0x7f454c46)
  header[4] = 2
  header.writeUInt16LE(machine, 18)
  header.writeUInt16LE(64, 58)
  header.writeUInt16LE(4, 60)
  header.writeUInt16LE(3, 62)
  const parts = [header, rodata, text, names]
  const table = Buffer.alloc(4 * 64)
  let offset = 64
  for (const [index, [name, part]] of (
    [
      [1, rodata],
      [9, text],
      [15, names],
    ] as const
  ).entries()) {
    table.writeUInt32LE(name, (index + 1) * 64)
    table.writeBigUInt64LE(BigInt(offset), (index + 1) * 64 + 24)
    table.writeBigUInt64LE(BigInt(part.length), (index + 1) * 64 + 32)
    offset += part.length
  }
  header.writeBigUInt64LE(BigInt(offset), 40)
  return Buffer.concat([...parts, table])
}

/** The comparison with BUN_JSC_ as compilers write it for x86-64; the first letter needs no displacement. */
function x64Comparison(prefix = "BUN_JSC_"): Buffer {
  const groups = [...Buffer.from(prefix)].map((letter, i) =>
    i === 0 ? [0x41, 0x80, 0x3e, letter, 0x75, 0xe5] : [0x41, 0x80, 0x7e, i, letter, 0x75, 0xde],
  )
  return Buffer.from([0x90, ...groups.flat(), 0x90])
}

/** The same for AArch64: ldrb w10, [x9, #i]; cmp w10, #letter; b.ne. */
function arm64Comparison(): Buffer {
  const words = [...Buffer.from("BUN_JSC_")].flatMap((letter, i) => [
    0x3940012a + i * 1024,
    0x7100015f + letter * 1024,
    0x54fffc61,
  ])
  const code = Buffer.alloc(words.length * 4 + 8)
  for (const [i, word] of words.entries()) code.writeUInt32LE(word, 4 + i * 4)
  return code
}

describe("names", () => {
  test("become empty, and nothing else moves", () => {
    const rodata = Buffer.from(`${REQUIRED}linkBUN_TRACEBUN_OPTIONS\0RES_OPTIONS\0`, "latin1")
    const image = elf(62, rodata, x64Comparison())
    const before = Buffer.from(image)
    const { names, replaced } = harden(image)
    expect(names).toContain("BUN_TRACE")
    expect(replaced).toBe(7)
    expect(image.length).toBe(before.length)
    expect(image.includes("BUN_")).toBe(false)
    expect(image.includes("\0\0\0\0OPTIONS\0")).toBe(true)
    expect(image.includes("RES_OPTIONS")).toBe(true)
  })

  test("in prose, source text and longer words stay", () => {
    const kept = 'set $BUN_INSTALL or "BUN_CREATE" \0IS_BUN_AUTO\0process.env.BUN_TRACE\0BUN_\0BUN_x\0'
    const image = elf(62, Buffer.from(REQUIRED + kept, "latin1"), x64Comparison())
    harden(image)
    expect(image.includes(kept)).toBe(true)
  })

  test("that must be there and are not stop the build", () => {
    const rodata = Buffer.from(REQUIRED.replace("BUN_BE_BUN", "BUN_BE_BEE"), "latin1")
    expect(() => harden(elf(62, rodata, x64Comparison()))).toThrow("BUN_BE_BUN")
  })
})

describe("prefix comparison", () => {
  const rodata = () => Buffer.from(REQUIRED, "latin1")

  test("on x86-64 asks one byte to be two letters", () => {
    const image = elf(62, rodata(), x64Comparison())
    expect(harden(image).comparisons).toBe(1)
    expect(image.includes(Buffer.from([0x80, 0x7e, 6, 0x43]))).toBe(true)
    expect(image.includes(Buffer.from([0x80, 0x7e, 6, 0x5f]))).toBe(true)
  })

  test("on AArch64 asks one byte to be two letters", () => {
    const image = elf(183, rodata(), arm64Comparison())
    const before = Buffer.from(image)
    expect(harden(image).comparisons).toBe(1)
    const changed = [...image.keys()].filter((at) => at >= 64 + rodata().length && image[at] !== before[at])
    expect(changed).toHaveLength(1)
    const word = image.readUInt32LE((changed[0] ?? 0) - 1)
    expect(word).toBe(0x3940012a + 6 * 1024)
  })

  test("that is missing, doubled or of another prefix stops the build", () => {
    for (const code of [
      Buffer.alloc(64),
      x64Comparison("BUN_JSX_"),
      Buffer.concat([x64Comparison(), x64Comparison()]),
    ])
      expect(() => harden(elf(62, rodata(), code))).toThrow("comparison with BUN_JSC_")
  })
})

describe("files", () => {
  test("the runtime of this build is understood, once", () => {
    const image = readFileSync(process.execPath)
    expect(harden(image).replaced).toBeGreaterThan(100)
    expect(() => harden(image)).toThrow("not found")
  })

  test("of another kind are refused", () => {
    expect(() => harden(Buffer.from("MZ".padEnd(64, "\0")))).toThrow("ELF")
    expect(() => harden(elf(8, Buffer.from(REQUIRED, "latin1"), x64Comparison()))).toThrow("machine 8")
  })
})
