/**
 * Makes a compiled executable deaf to the environment variables of its JavaScript runtime.
 *
 * The runtime reads some 120 variables called `BUN_…`. Several run code or open ports before ours starts:
 * BUN_OPTIONS (`--preload`), BUN_BE_BUN (a general-purpose runtime), BUN_INSPECT (a debugger), and BUN_JSC_…
 * (engine options, of which `functionOverrides` replaces the body of any function). No build option turns
 * them off, so they are taken out of the finished file, without moving a byte:
 *
 * - Names. `BUN_` becomes four NUL bytes. Another name would only be another secret; a name that begins with
 *   NUL cannot be set, and as a C string it is empty, which getenv(3) never finds.
 * - The prefix `BUN_JSC_`. It is compared letter by letter in machine code, not kept as a string. The load of
 *   the last letter is moved to the letter before, which then would have to be `C` and `_` at once.
 *
 * Only ELF files: elsewhere the executable is a client in a user's own hands, and a changed file would need
 * a new code signature.
 */

/** What was changed, for the build's output and its tests. */
export interface Hardening {
  /** Names taken out, sorted, each once; packed strings can make a "name" that joins several. */
  readonly names: readonly string[]
  /** Places where `BUN_` was overwritten. */
  readonly replaced: number
  /** Machine code comparisons with `BUN_JSC_` that were made impossible. */
  readonly comparisons: number
}

/** Names that must have been found: a runtime that stores them otherwise would leave them working. */
const REQUIRED = ["BUN_BE_BUN", "BUN_OPTIONS", "BUN_INSPECT", "BUN_INSPECT_PRELOAD", "BUN_INSPECT_CONNECT_TO"]

/**
 * Overwrites `image` in place. The caller runs the result before trusting it.
 * @throws Error when the file is not what this was written for; the image is then unusable.
 */
export function harden(image: Uint8Array): Hardening {
  const names = clearNames(elfSection(image, ".rodata"))
  const missing = REQUIRED.filter((name) => !names.found.has(name))
  if (missing.length > 0) throw new Error(`hardening: not found in the runtime: ${missing.join(", ")}`)
  const comparisons = breakPrefixComparison(elfSection(image, ".text"), machineOf(image))
  if (comparisons !== 1)
    throw new Error(`hardening: expected 1 comparison with BUN_JSC_, found ${comparisons}`)
  return { names: [...names.found].sort(), replaced: names.replaced, comparisons }
}

/** Overwrites `BUN_` of every name among the runtime's constants. */
function clearNames(rodata: Uint8Array): { found: Set<string>; replaced: number } {
  const text = Buffer.from(rodata.buffer, rodata.byteOffset, rodata.byteLength)
  const found = new Set<string>()
  let replaced = 0
  for (let at = text.indexOf("BUN_"); at >= 0; at = text.indexOf("BUN_", at + 1)) {
    if (!beginsName(text, at)) continue
    found.add(nameAt(text, at))
    text.fill(0, at, at + 4)
    replaced++
  }
  return { found, replaced }
}

/** A capital follows, and what stands before is the end of another constant rather than prose or source code. */
function beginsName(text: Buffer, at: number): boolean {
  const before = text[at - 1] ?? 0
  const after = text[at + 4] ?? 0
  const letterBefore = (before | 0x20) >= 0x61 && (before | 0x20) <= 0x7a
  const digitBefore = before >= 0x30 && before <= 0x39
  return after >= 0x41 && after <= 0x5a && (before === 0 || before >= 0x80 || letterBefore || digitBefore)
}

/** The name at `at`, up to the next character that no name has or to the next packed name. */
function nameAt(text: Buffer, at: number): string {
  let end = at + 4
  while (end < text.length && isNameByte(text[end] ?? 0)) {
    if (text[end] === 0x42 && text.toString("latin1", end, end + 4) === "BUN_" && text[end - 1] !== 0x5f)
      break
    end++
  }
  return text.toString("latin1", at, end)
}

function isNameByte(byte: number): boolean {
  return (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x30 && byte <= 0x39) || byte === 0x5f
}

const PREFIX = Buffer.from("BUN_JSC_")

/** Makes each comparison with `BUN_JSC_` impossible; returns how many there were. */
function breakPrefixComparison(code: Uint8Array, machine: Machine): number {
  const bytes = Buffer.from(code.buffer, code.byteOffset, code.byteLength)
  return machine === "x64" ? breakX64(bytes) : breakArm64(bytes)
}

/** x86-64: `cmp byte [reg + i], letter` and a short conditional jump, eight times. */
function breakX64(code: Buffer): number {
  let count = 0
  for (let at = code.indexOf(0x80); at >= 0; at = code.indexOf(0x80, at + 1)) {
    // First letter: 80 /7 without displacement, then 75 rel8.
    if (((code[at + 1] ?? 0) & 0xf8) !== 0x38 || code[at + 2] !== PREFIX[0] || code[at + 3] !== 0x75) continue
    let next = at + 5
    let letter = 1
    for (; letter < PREFIX.length; letter++) {
      // A REX.B prefix stands before the opcode when the register is one of r8 to r15.
      const op = code[next] === 0x41 ? next + 1 : next
      const shape = code[op] === 0x80 && ((code[op + 1] ?? 0) & 0xf8) === 0x78 && code[op + 4] === 0x75
      if (!shape || code[op + 2] !== letter || code[op + 3] !== PREFIX[letter]) break
      next = op + 6
    }
    if (letter < PREFIX.length) continue
    code[next - 4] = PREFIX.length - 2
    count++
  }
  return count
}

/** AArch64: `ldrb w, [x, #i]`, `cmp w, #letter`, `b.cond`, eight times. */
function breakArm64(code: Buffer): number {
  const isLoad = (word: number, offset: number) => (word & 0xfffffc00) >>> 0 === 0x39400000 + offset * 1024
  const isCompare = (word: number, letter: number) => (word & 0xfffffc1f) >>> 0 === 0x7100001f + letter * 1024
  const isBranch = (word: number) => (word & 0xff000010) >>> 0 === 0x54000000
  let count = 0
  for (let at = 0; at + PREFIX.length * 12 <= code.length; at += 4) {
    let letter = 0
    while (letter < PREFIX.length) {
      const group = at + letter * 12
      if (!isLoad(code.readUInt32LE(group), letter)) break
      if (!isCompare(code.readUInt32LE(group + 4), PREFIX[letter] ?? 0)) break
      if (!isBranch(code.readUInt32LE(group + 8))) break
      letter++
    }
    if (letter < PREFIX.length) continue
    const last = at + (PREFIX.length - 1) * 12
    code.writeUInt32LE(code.readUInt32LE(last) - 1024, last)
    count++
  }
  return count
}

type Machine = "x64" | "arm64"

function machineOf(image: Uint8Array): Machine {
  const machine = new DataView(image.buffer, image.byteOffset).getUint16(18, true)
  if (machine === 62) return "x64"
  if (machine === 183) return "arm64"
  throw new Error(`hardening: unknown ELF machine ${machine}`)
}

/**
 * The bytes of one section, as a view into the image.
 * Source: System V ABI, "ELF-64 Object File Format" 1.5, file header and section header.
 * @throws Error when this is no 64-bit ELF file or has no such section.
 */
export function elfSection(image: Uint8Array, name: string): Uint8Array {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  if (view.getUint32(0) !== 0x7f454c46 || image[4] !== 2) throw new Error("hardening: not a 64-bit ELF file")
  const table = Number(view.getBigUint64(40, true))
  const entrySize = view.getUint16(58, true)
  const count = view.getUint16(60, true)
  const header = (index: number) => {
    const at = table + index * entrySize
    return {
      name: view.getUint32(at, true),
      offset: Number(view.getBigUint64(at + 24, true)),
      size: Number(view.getBigUint64(at + 32, true)),
    }
  }
  const names = header(view.getUint16(62, true))
  for (let index = 0; index < count; index++) {
    const section = header(index)
    const at = names.offset + section.name
    if (Buffer.from(image.subarray(at, at + name.length + 1)).toString("latin1") !== `${name}\0`) continue
    return image.subarray(section.offset, section.offset + section.size)
  }
  throw new Error(`hardening: the executable has no section ${name}`)
}
