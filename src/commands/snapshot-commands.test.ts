import { afterAll, describe, expect, test } from "bun:test"
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { parseCommandLine } from "./command-line.ts"
import { rootCommand } from "./root.ts"
import { showSnapshotDiff } from "./snapshot-diff.ts"
import { readSnapshotFile } from "./snapshot-file.ts"
import { mergeSnapshotFiles } from "./snapshot-merge.ts"
import { showSnapshot } from "./snapshot-show.ts"
import { checkSnapshotSignature, signSnapshotFile } from "./snapshot-sign.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

const DIR = mkdtempSync(join(tmpdir(), "snapshot-commands-"))
afterAll(() => rmSync(DIR, { recursive: true }))
const [A, B] = ["0a".repeat(32), "0b".repeat(32)] as const

function recorder(): Terminal & { readonly said: string[]; readonly talked: string[] } {
  const [said, talked]: [string[], string[]] = [[], []]
  return {
    said,
    talked,
    out: (text) => void said.push(text),
    talk: (text) => void talked.push(text),
    outStyle: PLAIN,
    talkStyle: PLAIN,
    live: false,
    columns: 80,
    outColumns: 80,
  }
}

function file(name: string, content: Uint8Array | string): string {
  const path = join(DIR, name)
  writeFileSync(path, content)
  return path
}

function snapshotText(files: readonly (readonly [string, string])[], changes: object = {}): string {
  return JSON.stringify({
    format: 2,
    taken_at: "2026-01-02T03:04:05.000Z",
    host: "vm.example:5555",
    agent_version: "2.0.0",
    hash_algorithm: "sha256",
    tpm_reference: { ak_name: "000b0000", pcrs: { "7": A }, clock: 1 },
    unreadable: [["/proc/\u001b[2J", "EACCES"]],
    filehashes: files,
    ...changes,
  })
}

const BEFORE = file("before", snapshotText([["/usr/bin/a", A]]))
const AFTER = file(
  "after",
  snapshotText([
    ["/usr/bin/a", B],
    ["/usr/bin/\u001b[2J", A],
  ]),
)

function thrownCode(error: unknown): string {
  if (error instanceof CodedError) return error.code
  throw error
}

function codeOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (error instanceof CodedError) return error.code
    throw error
  }
  return "nothing was thrown"
}

/** An Ed25519 key pair made by another program. */
function keyPair(name: string): { readonly secret: string; readonly open: string } {
  const [secret, open] = [join(DIR, `${name}.pem`), join(DIR, `${name}.pub`)]
  openssl("genpkey", "-algorithm", "ed25519", "-out", secret)
  openssl("pkey", "-in", secret, "-pubout", "-out", open)
  chmodSync(secret, 0o600)
  return { secret, open }
}

function openssl(...args: string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(["openssl", ...args])
  if (exitCode !== 0) throw new Error(stderr.toString())
  return stdout.toString()
}

describe("the command line", () => {
  const parse = (...argv: string[]) => parseCommandLine(rootCommand, "cosmian_vm", argv)

  test("snapshot alone takes a snapshot, as before", async () => {
    const { kind, path, args } = await parse("--url", "https://vm", "snapshot", "-o", "out", "--json")
    expect([kind, path, args["output"], args["url"]]).toEqual([
      "run",
      ["cosmian_vm", "snapshot"],
      "out",
      "https://vm",
    ])
    expect((await parse("snapshot")).args["output"]).toBe("cosmian_vm.snapshot")
    expect((await parse("cli", "snapshot")).path).toEqual(["cosmian_vm", "cli", "snapshot"])
  })

  test("a word after it names what to do with snapshots", async () => {
    const { path, args } = await parse("snapshot", "merge", "a", "b", "c", "-o", "out")
    expect([path.at(-1), args["file"], args["output"]]).toEqual(["merge", ["a", "b", "c"], "out"])
    const diff = (await parse("snapshot", "diff", "a", "b", "--json")).args
    expect([diff["before"], diff["after"], diff["json"]]).toEqual(["a", "b", true])
  })

  test("a misspelt word takes no snapshot", async () => {
    for (const argv of [
      ["snapshot", "dif", "a", "b"],
      ["snapshot", "-o", "out", "file"],
    ])
      expect(await parse(...argv).catch(thrownCode)).toBe("ERR_UNKNOWN_COMMAND")
    expect(await parse("snapshot", "--", "file").catch(thrownCode)).toBe("ERR_UNEXPECTED_ARGUMENT")
  })

  test("options that ask a VM mean nothing to a file", async () => {
    expect(await parse("--url", "u", "snapshot", "show", "f").catch(thrownCode)).toBe("ERR_UNKNOWN_OPTION")
  })
})

describe("snapshot show", () => {
  test("tells what it holds, without obeying it", () => {
    const terminal = recorder()
    expect(showSnapshot({ file: BEFORE, packages: false, json: false }, terminal)).toBe(0)
    const text = terminal.said.join("")
    for (const part of ["vm.example:5555", "2026-01-02T03:04:05.000Z", "not verified", "EACCES", A])
      expect(text).toContain(part)
    expect(text).toMatch(/files +1\n/)
    expect(text).not.toContain("\u001b")
  })

  test("--json holds the same", () => {
    const terminal = recorder()
    showSnapshot({ file: BEFORE, packages: false, json: true }, terminal)
    expect(JSON.parse(terminal.said.join(""))).toMatchObject({
      host: "vm.example:5555",
      files: 1,
      unreadable: [{ reason: "EACCES" }],
      tpm_reference: { pcrs: { "7": A } },
    })
  })
})

describe("snapshot diff", () => {
  test("shows what differs, without obeying it, and ends with 0", () => {
    const terminal = recorder()
    expect(showSnapshotDiff(BEFORE, AFTER, false, terminal)).toBe(0)
    const text = terminal.said.join("")
    expect(text).toContain("1 added, 0 removed, 1 changed")
    expect(text).toContain("~ a  0a0a0a0a0a0a… -> 0b0b0b0b0b0b…")
    expect(text).not.toContain("\u001b")
  })

  test("--json lists all, and tells whether they are equal", () => {
    const of = (a: string, b: string) => {
      const terminal = recorder()
      showSnapshotDiff(a, b, true, terminal)
      return JSON.parse(terminal.said.join(""))
    }
    expect(of(BEFORE, BEFORE)).toMatchObject({ equal: true, files: { groups: [] } })
    expect(of(BEFORE, AFTER)).toMatchObject({ equal: false, files: { added: 1, changed: 1 } })
  })

  test("what is left out of the text is counted", () => {
    const many = Array.from({ length: 700 }, (_, at) => [`/d${at % 60}/${at}`, A] as const)
    const terminal = recorder()
    showSnapshotDiff(file("none", snapshotText([])), file("many", snapshotText(many)), false, terminal)
    expect(terminal.said.join("")).toContain("… and 2 more")
    expect(terminal.said.join("")).toMatch(/… and \d+ more in 10 places; --json lists them all/)
  })
})

describe("snapshot merge", () => {
  test("writes what allows the files of both", () => {
    const output = join(DIR, "merged")
    expect(mergeSnapshotFiles([BEFORE, AFTER], output, recorder())).toBe(0)
    expect(readSnapshotFile(output).filehashes?.length).toBe(3)
  })

  test("writes nothing where the VM is another", () => {
    const other = file("other", snapshotText([], { cloud_type: "AWS" }))
    const output = join(DIR, "not-merged")
    expect(codeOf(() => mergeSnapshotFiles([BEFORE, other], output, recorder()))).toBe("ERR_SNAPSHOT_MERGE")
    expect(existsSync(output)).toBe(false)
  })

  test("needs two", () => {
    expect(codeOf(() => mergeSnapshotFiles([BEFORE], join(DIR, "x"), recorder()))).toBe(
      "ERR_MISSING_ARGUMENT",
    )
  })
})

describe("compressed snapshots", () => {
  test("are written where the name ends in .zst, and are the same snapshot", () => {
    const [plain, packed] = [join(DIR, "m"), join(DIR, "m.zst")]
    for (const output of [plain, packed]) mergeSnapshotFiles([BEFORE, AFTER], output, recorder())
    expect(zstdDecompressSync(readFileSync(packed)).toString()).toBe(readFileSync(plain, "utf8"))
    const terminal = recorder()
    showSnapshotDiff(plain, packed, true, terminal)
    expect(JSON.parse(terminal.said.join(""))).toMatchObject({ equal: true, files: { unchanged: 2 } })
  })

  test("that are cut off or damaged are refused", () => {
    const whole = zstdCompressSync(readFileSync(AFTER))
    for (const length of [whole.length - 1, whole.length >> 1, 5])
      expect(codeOf(() => readSnapshotFile(file("cut.zst", whole.subarray(0, length))))).toBe(
        "ERR_COMPRESSION",
      )
    expect(codeOf(() => readSnapshotFile(file("more.zst", Buffer.concat([whole, Buffer.from("{}")]))))).toBe(
      "ERR_COMPRESSION",
    )
  })

  test("may be of gzip; cut off, damaged or too large they are refused", () => {
    const whole = gzipSync(readFileSync(AFTER))
    expect(readSnapshotFile(file("whole.gz", whole))).toEqual(readSnapshotFile(AFTER))
    const damaged = Uint8Array.from(whole)
    damaged[whole.length - 5] = (damaged[whole.length - 5] ?? 0) ^ 1
    for (const wrong of [whole.subarray(0, whole.length - 1), whole.subarray(0, 12), damaged])
      expect(codeOf(() => readSnapshotFile(file("wrong.gz", wrong)))).toBe("ERR_COMPRESSION")
    const bomb = gzipSync(new Uint8Array(600 * 1024 * 1024), { level: 1 })
    expect(codeOf(() => readSnapshotFile(file("bomb.gz", bomb)))).toBe("ERR_TOO_LARGE")
  }, 30_000)

  test("that grow beyond the cap are refused, whether they state their size or not", () => {
    for (const stated of [true, false])
      expect(codeOf(() => readSnapshotFile(file("bomb.zst", bomb(600, stated))))).toBe("ERR_TOO_LARGE")
    expect(codeOf(() => readSnapshotFile(file("small-bomb.zst", bomb(2, false))))).toBe("ERR_TRUNCATED")
  })
})

/** So many MiB of spaces in a few bytes: blocks of 128 KiB of one byte repeated. Source: RFC 8878, section 3.1.1.2. */
function bomb(mebibytes: number, stated: boolean): Uint8Array {
  const count = mebibytes * 8
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(count * 128 * 1024))
  const blocks = Array.from({ length: count }, (_, at) => {
    const block = Buffer.alloc(4, " ")
    block.writeUIntLE(128 * 1024 * 8 + 2 + (at === count - 1 ? 1 : 0), 0, 3)
    return block
  })
  const header = Buffer.from(stated ? "28b52ffdc058" : "28b52ffd0058", "hex")
  return Buffer.concat([header, ...(stated ? [size] : []), ...blocks])
}

describe("snapshot sign and check-signature", () => {
  const own = keyPair("own")
  const other = keyPair("other")
  const sign = (path: string, key = own.secret, terminal = recorder()) => {
    signSnapshotFile({ file: path, key, output: null }, terminal)
    return terminal
  }
  const check = (path: string, key = own.open, signature: string | null = null, terminal = recorder()) => {
    const code = checkSnapshotSignature({ file: path, key, signature, json: true }, terminal)
    return { code, said: terminal.said.join("") }
  }

  test("what was signed passes, and tells by whom", () => {
    expect(sign(BEFORE).talked).toEqual([])
    const { code, said } = check(BEFORE)
    expect(code).toBe(0)
    expect(JSON.parse(said)).toMatchObject({ verified: true, host: "vm.example:5555" })
  })

  test("another file, another key or no signature does not", () => {
    sign(BEFORE)
    expect(codeOf(() => check(AFTER, own.open, `${BEFORE}.sig`))).toBe("ERR_SNAPSHOT_SIGNATURE")
    expect(codeOf(() => check(BEFORE, other.open))).toBe("ERR_SNAPSHOT_SIGNATURE")
    expect(codeOf(() => check(AFTER))).toBe("ERR_IO")
    expect(codeOf(() => check(BEFORE, own.secret))).toBe("ERR_SIGNING_KEY")
  })

  test("a signature holds for the compressed file too", () => {
    const packed = file("packed.zst", zstdCompressSync(readFileSync(BEFORE)))
    sign(packed)
    expect(check(packed).code).toBe(0)
    expect(check(BEFORE, own.open, `${packed}.sig`).code).toBe(0)
  })

  test("other programs can check it", () => {
    sign(BEFORE)
    const envelope = JSON.parse(readFileSync(`${BEFORE}.sig`, "utf8"))
    const body = readFileSync(BEFORE)
    const head = `DSSEv1 ${envelope.payloadType.length} ${envelope.payloadType} ${body.length} `
    const signed = file("pae", Buffer.concat([Buffer.from(head), body]))
    const raw = file("raw.sig", Buffer.from(envelope.signatures[0].sig, "base64"))
    const args = ["-verify", "-rawin", "-pubin", "-inkey", own.open, "-in", signed, "-sigfile", raw]
    expect(openssl("pkeyutl", ...args)).toContain("Success")
  })

  test("what is no snapshot is not signed", () => {
    const path = file("no-snapshot", '{"hello":1}')
    expect(codeOf(() => sign(path))).toBe("ERR_MALFORMED")
    expect(existsSync(`${path}.sig`)).toBe(false)
  })

  test("a private key that others can read is told", () => {
    const loose = keyPair("loose")
    chmodSync(loose.secret, 0o640)
    expect(sign(BEFORE, loose.secret).talked.join("")).toContain("chmod 600")
  })

  test("standard input needs a name for the signature", () => {
    expect(codeOf(() => sign("-"))).toBe("ERR_MISSING_ARGUMENT")
    expect(codeOf(() => check("-"))).toBe("ERR_MISSING_ARGUMENT")
  })
})
