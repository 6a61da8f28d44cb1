import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { bootAggregate, extendedPcr, file, listOf, violation } from "../../test/fakes/measurement-list.ts"
import { type VectorEntry, vectorsUnder } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS, VECTORS } from "../../test/setup.ts"
import { CodedError, EXIT } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { BANKS } from "../verify/ima-replay.ts"
import { type ReplayOptions, replayList } from "./ima-replay.ts"
import { showList } from "./ima-show.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "ima-commands-"))
})
afterAll(() => rmSync(dir, { recursive: true }))

const ENTRIES = [bootAggregate(), file("/usr/bin/a"), violation("/usr/bin/b"), file("/usr/bin/\u001b[2J")]
const LIST = listOf(...ENTRIES)

function put(name: string, content: Uint8Array | string): string {
  const path = join(dir, name)
  writeFileSync(path, content)
  return path
}

/** Exit code and standard output; an error's code and exit code where one is thrown. */
async function outcome(work: (terminal: Terminal) => Promise<number>) {
  let out = ""
  const terminal: Terminal = {
    out: (text) => {
      out += text
    },
    talk: () => undefined,
    outStyle: PLAIN,
    talkStyle: PLAIN,
    live: false,
    columns: 80,
    outColumns: null,
  }
  try {
    return { exit: await work(terminal), out, code: null }
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    return { exit: error.exitCode, out, code: error.code }
  }
}

const replay = (path: string, more: Partial<ReplayOptions> = {}) =>
  outcome((terminal) =>
    replayList({ file: path, bank: "sha256", pcrs: null, padded: false, json: true, ...more }, terminal),
  )
const show = (path: string, json = true) => outcome((terminal) => showList(path, json, terminal))

describe("ima replay", () => {
  test("gives entries, violations and the PCR", async () => {
    const { exit, out } = await replay(put("list", LIST))
    expect(exit).toBe(EXIT.ok)
    const value = toHex(extendedPcr(...ENTRIES))
    expect(JSON.parse(out)).toEqual({ entries: 4, violations: 1, pcrs: { sha256: { "10": value } } })
  })

  test("tells after how many entries the given values are reached", async () => {
    const list = put("list", LIST)
    for (const count of [0, 2, 4]) {
      const value = toHex(extendedPcr(...ENTRIES.slice(0, count)))
      const pcrs = put("pcrs.json", JSON.stringify({ sha256: { "10": value } }))
      const { exit, out } = await replay(list, { pcrs })
      expect([exit, JSON.parse(out).matches, JSON.parse(out).prefix]).toEqual([EXIT.ok, true, count])
    }
  })

  test("fails where they are not reached, or not given for the bank", async () => {
    const list = put("list", LIST)
    const other = put("other.json", JSON.stringify({ sha256: { "10": "00".repeat(31).concat("01") } }))
    const { exit, out } = await replay(list, { pcrs: other })
    expect([exit, JSON.parse(out).matches, JSON.parse(out).prefix]).toEqual([EXIT.ima, false, null])
    expect((await replay(list, { pcrs: other, bank: "sha384" })).exit).toBe(EXIT.ima)
  })

  test("replays each PCR that entries name, and compares them all", async () => {
    const list = put("two", listOf(file("/a"), file("/b", "b", { pcr: 11 })))
    const values = JSON.parse((await replay(list)).out).pcrs
    expect(Object.keys(values.sha256)).toEqual(["10", "11"])
    const prefixWith = async () => {
      const pcrs = put("pcrs.json", JSON.stringify(values))
      return JSON.parse((await replay(list, { pcrs })).out).prefix
    }
    expect(await prefixWith()).toBe(2)
    values.sha256["11"] = "00".repeat(32)
    expect(await prefixWith()).toBe(1)
    values.sha256["10"] = "11".repeat(32)
    expect(await prefixWith()).toBeNull()
  })

  test("reads gzip and zstd, and nothing that is cut off or goes on", async () => {
    const plain = await replay(put("list", LIST))
    for (const packed of [gzipSync(LIST), zstdCompressSync(LIST)]) {
      expect(await replay(put("packed", packed))).toEqual(plain)
      for (const broken of [
        packed.subarray(0, -1),
        packed.subarray(0, 20),
        Buffer.concat([packed, Buffer.from("x")]),
      ])
        expect((await replay(put("broken", broken))).code).toBe("ERR_COMPRESSION")
    }
  })

  test("an empty list is one of no entries", async () => {
    const { out } = await replay(put("empty", ""))
    expect(JSON.parse(out)).toEqual({
      entries: 0,
      violations: 0,
      pcrs: { sha256: { "10": "00".repeat(32) } },
    })
  })
})

describe("ima show", () => {
  test("gives each entry, and neutralises names", async () => {
    const { exit, out } = await show(put("list", LIST))
    expect(exit).toBe(EXIT.ok)
    const shown = JSON.parse(out)
    expect(shown).toMatchObject({ count: 4, violations: 1, malformed_signatures: 0 })
    expect(shown.entries[3].path).toBe("/usr/bin/\u001b[2J")
    expect((await show(put("list", LIST), false)).out).not.toContain("\u001b")
  })

  test("says which file signature is malformed, and fails", async () => {
    const signature = Uint8Array.of(3, 2, 4, 1, 2, 3, 4, 0, 9, 1)
    const { exit, out } = await show(
      put("signed", listOf(file("/a"), file("/b", "b", { template: "ima-sig", signature }))),
    )
    expect(exit).toBe(EXIT.ima)
    expect(JSON.parse(out).malformed_signatures).toBe(1)
    expect(JSON.parse(out).entries[1].signature_malformed).toBeString()
  })
})

describe.skipIf(!HAVE_VECTORS)("recorded lists", () => {
  const lists = vectorsUnder("ima").filter(
    ({ kind, file: name }) => kind === "ima" && !name.includes("unknown"),
  )
  const path = (name: string) => join(VECTORS, name)
  const pcr10 = (entry: VectorEntry, bank: string): unknown => {
    const values = entry.facts["pcr10"]
    return typeof values === "object" && values !== null && bank in values ? Object(values)[bank] : null
  }

  test.each(lists.map((entry) => [entry.file, entry] as const))(
    "%s gives the recorded PCRs",
    async (name, entry) => {
      for (const bank of BANKS)
        for (const padded of bank === "sha1" ? [false] : [false, true]) {
          const { exit, out } = await replay(path(name), { bank, padded })
          expect(exit).toBe(EXIT.ok)
          const expected = pcr10(entry, padded ? `${bank}_padded_sha1` : bank)
          expect(JSON.parse(out).pcrs[bank]["10"]).toBe(expected)
          expect(JSON.parse(out).entries).toBe(entry.facts["entries"])
        }
    },
  )

  test("there are enough of them to mean something", () => expect(lists.length).toBeGreaterThanOrEqual(16))

  test("a list of an unknown algorithm is refused as such", async () => {
    expect((await replay(path("ima/keylime-unknown.ascii"))).code).toBe("ERR_IMA_ALGORITHM")
  })

  test.each([
    ["derived-tee-imang-sha1-entries-swapped.bin", EXIT.ima, null],
    ["derived-tee-imang-sha1-entry-removed.bin", EXIT.ima, null],
    ["derived-tee-imang-sha1-entry-hash-mismatch.bin", EXIT.ima, "ERR_IMA_TEMPLATE_DIGEST"],
    ["derived-tee-imang-sha1-extra-entry-after-quote.bin", EXIT.ok, null],
    ["derived-tee-imang-sha1-template-name-length-huge.bin", EXIT.operational, "ERR_TOO_LARGE"],
    ["derived-tee-imang-sha1-truncated.bin", EXIT.operational, "ERR_TRUNCATED"],
    ["keylime-invalid.ascii", EXIT.operational, "ERR_MALFORMED"],
  ])("%s against the quoted values", async (name, exit, code) => {
    const pcrs = path("ima-quote/tee-imang-sha1/pcrs.json")
    const result = await replay(path(`ima-negative/${name}`), { pcrs })
    expect([result.exit, result.code]).toEqual([exit, code])
  })

  test("keylime-bad-signature-size.ascii has a malformed signature", async () => {
    expect((await show(path("ima-negative/keylime-bad-signature-size.ascii"))).exit).toBe(EXIT.ima)
  })

  test.each(["tee-imang-sha1", "tee-imang-violations"])(
    "%s gives what a TPM quoted, in each bank",
    async (name) => {
      for (const bank of ["sha1", "sha256", "sha384"] as const) {
        const { exit, out } = await replay(path(`ima/${name}.bin`), {
          bank,
          pcrs: path(`ima-quote/${name}/pcrs.json`),
        })
        expect([exit, JSON.parse(out).matches]).toEqual([EXIT.ok, true])
      }
    },
  )
})
