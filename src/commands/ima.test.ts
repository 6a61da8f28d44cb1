import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import {
  bootAggregate,
  extendedPcr,
  file,
  hexOf,
  listOf,
  violation,
} from "../../test/fakes/measurement-list.ts"
import { type VectorEntry, vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS, VECTORS } from "../../test/setup.ts"
import { CodedError, EXIT } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { measurementEntry, parseMeasurementList } from "../formats/ima/measurement-list.ts"
import { encodeSnapshot, type Snapshot } from "../policy/snapshot.ts"
import { BANKS } from "../verify/ima-replay.ts"
import { type AppraiseOptions, appraiseList } from "./ima-appraise.ts"
import { showImaPolicy } from "./ima-policy.ts"
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

const NOTHING = {
  whitelist: null,
  imaKeys: [],
  evmKeys: [],
  policy: null,
  violations: null,
  imaPolicies: [],
  quote: null,
  signature: null,
  ak: null,
  pcrs: null,
  at: null,
  json: true,
} as const

const appraise = (list: string, snapshot: string, more: Partial<AppraiseOptions> = {}) =>
  outcome((terminal) => appraiseList({ ...NOTHING, file: list, snapshot, ...more }, terminal))

/** Codes of the findings of a verdict that was printed. */
const codesOf = (out: string): string[] =>
  JSON.parse(out).claims.flatMap(({ findings }: { findings: { code: string }[] }) =>
    findings.map(({ code }) => code),
  )

const SNAPSHOT: Snapshot = {
  format: 2,
  cloud_type: null,
  tee_policy: null,
  tpm_policy: null,
  filehashes: [["/usr/bin/a", hexOf("/usr/bin/a")]],
  taken_at: null,
  agent_version: null,
  host: null,
  hash_algorithm: "sha256",
  tee_reference: null,
  tpm_reference: null,
  ima_reference: { template: "ima-ng", boot_aggregate: `sha256:${toHex(bootAggregate().digest)}` },
  unreadable: [],
}

describe("ima appraise", () => {
  const GOOD = [bootAggregate(), file("/usr/bin/a")]
  const snapshot = () => put("vm.snapshot", encodeSnapshot(SNAPSHOT))
  const values = (...entries: typeof GOOD) =>
    put("pcrs.json", JSON.stringify({ sha256: { "10": toHex(extendedPcr(...entries)) } }))

  test("without a quote it judges, and says that nothing vouches for the list", async () => {
    const { exit, out } = await appraise(put("list", listOf(...GOOD)), snapshot())
    const verdict = JSON.parse(out)
    expect(exit).toBe(EXIT.ok)
    expect(verdict.claims[0]).toMatchObject({ check: "ima", status: "warning" })
    expect(verdict.assurance.label).toBe("unproven")
  })

  test("with PCR values the list has to give them, and what came later is not judged", async () => {
    const list = put("list", listOf(...GOOD, file("/tmp/late")))
    const { exit, out } = await appraise(list, snapshot(), { pcrs: values(...GOOD) })
    expect(exit).toBe(EXIT.ok)
    expect(JSON.parse(out).claims[0]).toMatchObject({ status: "passed", facts: { notYetQuoted: 1 } })
    const other = await appraise(list, snapshot(), { pcrs: values(file("/x")) })
    expect([other.exit, codesOf(other.out)]).toEqual([EXIT.ima, ["ERR_IMA_REPLAY"]])
  })

  test("names what is not the snapshot's; a whitelist may allow it", async () => {
    const list = put("list", listOf(...GOOD, file("/opt/new", "new"), file("/usr/bin/a", "changed")))
    const failed = await appraise(list, snapshot())
    expect([failed.exit, codesOf(failed.out)]).toEqual([
      EXIT.ima,
      ["ERR_IMA_UNKNOWN_FILE", "ERR_IMA_CHANGED_FILE"],
    ])
    const lines = `/opt/* sha256:${hexOf("new")} until=2026-06-30\n/usr/bin/a ${hexOf("changed")}\n`
    const whitelist = put("white", lines)
    expect((await appraise(list, snapshot(), { whitelist, at: "2026-06-30T10:00:00Z" })).exit).toBe(EXIT.ok)
    const expired = await appraise(list, snapshot(), { whitelist, at: "2026-07-01T00:00:00Z" })
    expect([expired.exit, codesOf(expired.out)]).toEqual([EXIT.ima, ["ERR_IMA_UNKNOWN_FILE"]])
  })

  test("fails on violations, unless the command line or a policy says otherwise", async () => {
    const list = put("list", listOf(...GOOD, violation("/var/log/x")))
    const policy = put("p.toml", 'version = 1\n[ima]\nviolations = "report"\n')
    expect((await appraise(list, snapshot())).exit).toBe(EXIT.ima)
    expect((await appraise(list, snapshot(), { violations: "report" })).exit).toBe(EXIT.ok)
    expect((await appraise(list, snapshot(), { policy })).exit).toBe(EXIT.ok)
    expect((await appraise(list, snapshot(), { policy, violations: "fail" })).exit).toBe(EXIT.ima)
  })

  test("a list that is cut off, and half a quote, are refused", async () => {
    const list = listOf(...GOOD)
    const cut = await appraise(put("cut", list.subarray(0, -1)), snapshot())
    expect([cut.exit, codesOf(cut.out)]).toEqual([EXIT.ima, ["ERR_TRUNCATED"]])
    const half = await appraise(put("list", list), snapshot(), { quote: put("quote", "") })
    expect([half.exit, half.code]).toEqual([EXIT.usage, "ERR_MISSING_ARGUMENT"])
  })

  test("values of the SHA-1 bank alone are no proof", async () => {
    const pcrs = put("sha1.json", JSON.stringify({ sha1: { "10": "00".repeat(20) } }))
    const { exit, out } = await appraise(put("list", listOf(...GOOD)), snapshot(), { pcrs })
    expect([exit, codesOf(out)]).toEqual([EXIT.tpm, ["ERR_TPM_PCR_SELECTION"]])
  })
})

describe("ima policy", () => {
  const analysed = (text: string) =>
    outcome(async (terminal) => showImaPolicy(put("policy", text), true, terminal))

  test("tells what is not measured", async () => {
    const { exit, out } = await analysed("measure func=BPRM_CHECK\n")
    expect(exit).toBe(EXIT.ima)
    expect(JSON.parse(out).points[0]).toMatchObject({ point: "programs", measured: "yes" })
    expect(JSON.parse(out).points[1]).toMatchObject({ point: "libraries", measured: "no" })
    expect((await analysed("measure everything\n")).code).toBe("ERR_IMA_POLICY")
  })

  test("the packages' policy leaves out nothing that matters", async () => {
    const path = join(import.meta.dir, "../../deb/root/usr/share/cosmian_vm/ima-policy")
    expect((await outcome(async (terminal) => showImaPolicy(path, true, terminal))).exit).toBe(EXIT.ok)
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

  describe("with the quote of a TPM", () => {
    const quoted = (name: string) => {
      const at = (part: string) => path(`ima-quote/${name}/${part}`)
      return { quote: at("quote.msg"), signature: at("quote.sig"), ak: at("ak.tpm2b"), pcrs: at("pcrs.json") }
    }
    /** A snapshot of the files in a list, as the machine was when it was made. */
    const snapshotOf = (name: string) => {
      const list = parseMeasurementList(vector(name))
      const entries = Array.from({ length: list.count }, (_, index) => measurementEntry(list, index))
      const [boot, ...files] = entries
      if (boot === undefined) throw new Error("an empty list")
      return put(
        "of-list.snapshot",
        encodeSnapshot({
          ...SNAPSHOT,
          hash_algorithm: boot.algorithm,
          ima_reference: {
            template: boot.template,
            boot_aggregate: `${boot.algorithm}:${toHex(boot.digest)}`,
          },
          filehashes: files.map((entry) => [entry.path, toHex(entry.digest)]),
        }),
      )
    }

    test("the honest list passes, and with a signature of another quote the TPM fails", async () => {
      const list = "ima/tee-imang-sha1.bin"
      const honest = await appraise(path(list), snapshotOf(list), quoted("tee-imang-sha1"))
      expect(honest.exit).toBe(EXIT.ok)
      expect(JSON.parse(honest.out).claims.map(({ check }: { check: string }) => check)).toEqual([
        "tpm",
        "ima",
      ])
      const signature = path("ima-quote/tee-imang-violations/quote.sig")
      const forged = await appraise(path(list), snapshotOf(list), { ...quoted("tee-imang-sha1"), signature })
      expect([forged.exit, codesOf(forged.out)]).toEqual([EXIT.tpm, ["ERR_TPM_SIGNATURE", "ERR_NOT_JUDGED"]])
    })

    test("a list with violations fails, and passes where they are reported", async () => {
      const list = "ima/tee-imang-violations.bin"
      const files = quoted("tee-imang-violations")
      const failed = await appraise(path(list), snapshotOf(list), files)
      expect(failed.exit).toBe(EXIT.ima)
      expect(new Set(codesOf(failed.out))).toEqual(new Set(["ERR_IMA_VIOLATION"]))
      const reported = await appraise(path(list), snapshotOf(list), { ...files, violations: "report" })
      expect(reported.exit).toBe(EXIT.ok)
    })

    test.each([
      ["entries-swapped", EXIT.ima, ["ERR_IMA_REPLAY"]],
      ["entry-removed", EXIT.ima, ["ERR_IMA_REPLAY"]],
      ["entry-hash-mismatch", EXIT.ima, ["ERR_IMA_TEMPLATE_DIGEST"]],
      ["extra-entry-after-quote", EXIT.ok, []],
      ["template-name-length-huge", EXIT.ima, ["ERR_TOO_LARGE"]],
      ["truncated", EXIT.ima, ["ERR_TRUNCATED"]],
    ])("%s", async (name, exit, codes) => {
      const snapshot = snapshotOf("ima/tee-imang-sha1.bin")
      const list = path(`ima-negative/derived-tee-imang-sha1-${name}.bin`)
      const result = await appraise(list, snapshot, quoted("tee-imang-sha1"))
      expect([result.exit, codesOf(result.out)]).toEqual([exit, codes])
    })
  })
})
