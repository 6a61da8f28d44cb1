/**
 * ATTACKS B1, B4, I1–I8 on the executable: evidence of a machine without TEE, saved by honest code, with one thing changed that
 * its TPM vouches for. Judged by code and exit code. The unchanged twin verifies.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { EVIDENCE_PCRS, evidenceQualifyingData } from "../../src/formats/evidence.ts"
import type { NewEntry } from "../../src/formats/ima/encode.ts"
import { encodeSavedEvidence } from "../../src/formats/saved-evidence.ts"
import { imaReferenceOf } from "../../src/policy/ima.ts"
import { SHIPPED_IMA_POLICY } from "../../src/policy/shipped-ima-policy.ts"
import { encodeSnapshot } from "../../src/policy/snapshot.ts"
import { tpmReferenceOf } from "../../src/policy/tpm.ts"
import { verifyQuote } from "../../src/verify/tpm.ts"
import { run } from "../executable.ts"
import {
  bootAggregate,
  extendedPcr,
  file,
  listOf,
  PCRS,
  quoted,
  violation,
} from "../fakes/measurement-list.ts"
import { makeSoftwareAk, quoteAttest, softwareQuote } from "../fakes/software-ak.ts"

const NONCE = new Uint8Array(32).fill(1)
const SPKI = new Uint8Array(91).fill(2)
const AK = makeSoftwareAk("ecdsa-p256")
const NO_TEE = ["tee", "revocation", "tcb", "binding"].flatMap((check) => ["--skip", check])

const BOOT = bootAggregate()
const POLICY = file("/etc/ima/ima-policy", SHIPPED_IMA_POLICY)
const SHELL = file("/usr/bin/sh", "shell 2")
const TOOL = file("/usr/bin/tool", "tool")
const HONEST = [BOOT, POLICY, SHELL, TOOL]

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "scenario-ima-"))
  writeFileSync(join(dir, "vm.snapshot"), snapshotOf(HONEST))
})
afterAll(() => rmSync(dir, { recursive: true }))

function put(name: string, content: string | Uint8Array): string {
  const path = join(dir, name)
  writeFileSync(path, content)
  return path
}

/** A quote of a TPM that measured these entries. */
function tpmOf(entries: readonly NewEntry[]) {
  const pcrs = PCRS.map((value, pcr) => (pcr === 10 ? extendedPcr(...entries) : value))
  const extraData = evidenceQualifyingData(NONCE, SPKI, null)
  const digest = Uint8Array.from(createHash("sha256").update(Buffer.concat(pcrs)).digest())
  const { quote, signature } = softwareQuote(AK, quoteAttest(EVIDENCE_PCRS, digest, { extraData }))
  return { quote, signature, akPublic: AK.akPublic, pcrs, akCertificate: null, ekCertificate: null }
}

function snapshotOf(entries: readonly NewEntry[]): string {
  const qualifyingData = evidenceQualifyingData(NONCE, SPKI, null)
  const statement = verifyQuote(tpmOf(entries), { qualifyingData, pcrSelection: EVIDENCE_PCRS })
  const { ima_reference, hash_algorithm, filehashes } = imaReferenceOf(quoted(...entries))
  const { tpm_policy, tpm_reference } = tpmReferenceOf(statement)
  return encodeSnapshot({
    format: 2,
    cloud_type: null,
    tee_policy: null,
    tpm_policy,
    filehashes,
    taken_at: null,
    agent_version: null,
    host: null,
    hash_algorithm,
    tee_reference: null,
    tpm_reference,
    ima_reference,
    unreadable: [],
  })
}

/** `verify` of a machine that measured these entries, and showed `list` for them. */
async function verified(
  entries: readonly NewEntry[],
  options: readonly string[] = [],
  list: Uint8Array = listOf(...entries),
) {
  const evidence = put(
    "vm.evidence",
    encodeSavedEvidence({
      target: "vm:5555",
      collectedAt: new Date(0),
      nonce: NONCE,
      channel: { spki: SPKI, authorized: true, reason: null },
      evidence: { tee: null, tpm: tpmOf(entries), ima: { from: 0, list } },
      documents: { certificates: [], crl: null, intel: null },
      applications: [],
    }),
  )
  const snapshot = join(dir, "vm.snapshot")
  const args = ["verify", "--evidence", evidence, "-s", snapshot, ...NO_TEE, "--json", ...options]
  const { code, stdout } = await run(args)
  const answer = JSON.parse(stdout)
  const claims: { check: string; status: string; findings: { code: string }[] }[] = answer.claims ?? []
  const ima = claims.find(({ check }) => check === "ima")
  const codes = ima?.findings.map((finding) => finding.code) ?? []
  return { exit: code, status: ima?.status ?? answer.error?.code, codes: [...new Set(codes)].toSorted() }
}

const PASSED = { exit: EXIT.ok, status: "passed", codes: [] }
const failing = (...codes: string[]) => ({ exit: EXIT.ima, status: "failed", codes: codes.toSorted() })

test("the unchanged twin verifies", async () => {
  expect(await verified(HONEST)).toEqual(PASSED)
})

describe("what the kernel measures", () => {
  test("B1: IMA is off, and PCR 10 agrees with a list of one line", async () => {
    expect((await verified([BOOT])).codes).toContain("ERR_IMA_OFF")
    expect((await verified([BOOT])).exit).toBe(EXIT.ima)
    expect((await verified([])).exit).toBe(EXIT.ima)
  })

  test("B4: a weaker policy is loaded, instead of or after the snapshot's, or none", async () => {
    const weaker = file(POLICY.path, "measure func=BPRM_CHECK\n")
    const both = failing("ERR_IMA_CHANGED_FILE", "ERR_IMA_COVERAGE")
    expect(await verified([BOOT, weaker, SHELL])).toEqual(both)
    expect(await verified([BOOT, POLICY, SHELL, weaker])).toEqual(both)
    expect(await verified([BOOT, SHELL])).toEqual(failing("ERR_IMA_COVERAGE"))
  })

  test("B4: what a policy requires is not measured", async () => {
    const policy = (points: string) => [
      "--policy",
      put("p.toml", `version = 1\n[ima]\nrequired = ${points}\n`),
    ]
    expect(await verified(HONEST, policy('["programs", "modules"]'))).toEqual(PASSED)
    expect(await verified(HONEST, policy('["root-reads"]'))).toEqual(failing("ERR_IMA_COVERAGE"))
  })
})

describe("what ran", () => {
  test("I1: an unknown program, a known path with another digest, an old digest after an update", async () => {
    expect(await verified([...HONEST, file("/tmp/evil")])).toEqual(failing("ERR_IMA_UNKNOWN_FILE"))
    expect(await verified([...HONEST, file(TOOL.path, "other")])).toEqual(failing("ERR_IMA_CHANGED_FILE"))
    expect(await verified([BOOT, POLICY, file(SHELL.path, "shell 1")])).toEqual(
      failing("ERR_IMA_CHANGED_FILE"),
    )
  })

  test("I2: an entry left out, added, swapped, and data changed under an honest digest", async () => {
    const replay = failing("ERR_IMA_REPLAY")
    expect(await verified(HONEST, [], listOf(BOOT, POLICY, TOOL))).toEqual(replay)
    expect(await verified(HONEST, [], listOf(BOOT, POLICY, POLICY, SHELL, TOOL))).toEqual(replay)
    expect(await verified(HONEST, [], listOf(BOOT, POLICY, TOOL, SHELL))).toEqual(replay)
    const changed = Buffer.from(listOf(...HONEST))
    changed[changed.indexOf(TOOL.path)] = 0x2e
    expect(await verified(HONEST, [], changed)).toEqual(failing("ERR_IMA_TEMPLATE_DIGEST"))
  })

  test("I3: violations fail; by policy they are reported, or left out up to a number", async () => {
    const once = [...HONEST, violation("/var/log/syslog")]
    const broken = failing("ERR_IMA_VIOLATION")
    const warned = { exit: EXIT.ok, status: "warning", codes: ["ERR_IMA_VIOLATION"] }
    expect(await verified(once)).toEqual(broken)
    expect(await verified(once, ["--violations", "report"])).toEqual(warned)
    const rule = 'violations = "ignore-paths"\nignore_violations = "/var/log/*"\nmax_violations = 1\n'
    const policy = ["--policy", put("p.toml", `version = 1\n[ima]\n${rule}`)]
    expect(await verified(once, policy)).toEqual(warned)
    expect(await verified([...once, violation("/var/log/auth")], policy)).toEqual(broken)
    expect(await verified([...HONEST, violation("/usr/bin/tool")], policy)).toEqual(broken)
    expect(await verified(once, [...policy, "--violations", "fail"])).toEqual(broken)
  })

  test("I3: the name in a violation can be any, and changes nothing", async () => {
    const entries = [...HONEST, violation("/usr/bin/evil")]
    const renamed = listOf(...HONEST, violation("/usr/bin/tool"))
    expect(await verified(entries, [], renamed)).toEqual(failing("ERR_IMA_VIOLATION"))
  })

  test("I4: templates mixed in one list, and one that is unknown", async () => {
    const mixed = [
      ...HONEST,
      { ...TOOL, template: "ima-sig" },
      { ...TOOL, template: "ima-ngv2" },
      { ...TOOL, template: "ima-modsig" },
      { ...TOOL, template: "evm-sig" },
      { ...TOOL, template: "ima-buf" },
    ]
    expect(await verified(mixed)).toEqual(PASSED)
    const unknown = Buffer.from(listOf(...HONEST))
    unknown.write("ima-xx", unknown.indexOf("ima-ng"))
    expect(await verified(HONEST, [], unknown)).toEqual(failing("ERR_IMA_TEMPLATE"))
  })

  test("I5: no escape sequence of a name reaches the terminal", async () => {
    const names = ["/tmp/\u001b[2J", "/tmp/a\nb", "/tmp/\udcff", `/${"x".repeat(4000)}`, "/tmp/\u202egnp.exe"]
    const entries = [...HONEST, ...names.map((name) => file(name))]
    expect(await verified(entries)).toEqual(failing("ERR_IMA_UNKNOWN_FILE"))
    const args = ["verify", "--evidence", join(dir, "vm.evidence"), "-s", join(dir, "vm.snapshot"), ...NO_TEE]
    const { code, stdout, stderr } = await run(args)
    expect(code).toBe(EXIT.ima)
    expect(`${stdout}${stderr}`).not.toMatch(/[\u001b\u202e\u0080-\u009f]/)
  })

  test("I6: an empty file, one name with two digests, another name for a known program", async () => {
    expect(await verified([...HONEST, file(TOOL.path, "")])).toEqual(failing("ERR_IMA_CHANGED_FILE"))
    expect(await verified([...HONEST, TOOL, file(TOOL.path, "tool 2")])).toEqual(
      failing("ERR_IMA_CHANGED_FILE"),
    )
    expect(await verified([...HONEST, file("/mnt/bind/tool", "tool")])).toEqual(
      failing("ERR_IMA_UNKNOWN_FILE"),
    )
    expect(await verified([...HONEST, file(TOOL.path, "shell 2")])).toEqual(failing("ERR_IMA_CHANGED_FILE"))
    expect(await verified([...HONEST, file("usr/bin/tool", "tool")])).toEqual(failing("ERR_IMA_UNKNOWN_FILE"))
  })

  test("I7: sizes that cannot be", async () => {
    const list = listOf(...HONEST)
    for (const size of [0, 2 ** 31, 2 ** 32 - 1]) {
      const changed = Uint8Array.from(list)
      new DataView(changed.buffer).setUint32(24, size, true)
      expect((await verified(HONEST, [], changed)).exit).toBe(EXIT.ima)
    }
    expect((await verified(HONEST, [], list.subarray(0, -1))).codes).toEqual(["ERR_TRUNCATED"])
  })

  test("I8: a line of the whitelist that does not parse is an error; one that has run out does not count", async () => {
    const entries = [...HONEST, file("/opt/app/new", "new")]
    const digest = createHash("sha256").update("new").digest("hex")
    const listed = (line: string) => ["-w", put("white", line), "--at", "2027-01-31T12:00:00Z"]
    expect(await verified(entries, listed(`/opt/app/* sha256:${digest} until=2027-01-31`))).toEqual(PASSED)
    expect(await verified(entries, listed(`/opt/app/new ${digest}`))).toEqual(PASSED)
    expect(await verified(entries, listed(`/opt/app/* sha256:${digest} until=2027-01-30`))).toEqual(
      failing("ERR_IMA_UNKNOWN_FILE"),
    )
    const open = await verified(entries, listed('/opt/app/* any reason="builds"'))
    expect([open.exit, open.status]).toEqual([EXIT.ok, "warning"])
    const broken = await verified(entries, listed(`/opt/app/* sha256:${digest} until=soon`))
    expect([broken.exit, broken.status]).toEqual([EXIT.usage, "ERR_WHITELIST_LINE"])
  })
})

test("ima replay and ima appraise of the same list agree with verify", async () => {
  const list = put("list", listOf(...HONEST))
  const pcrs = put(
    "pcrs.json",
    JSON.stringify({ sha256: { "10": Buffer.from(extendedPcr(...HONEST)).toString("hex") } }),
  )
  const snapshot = join(dir, "vm.snapshot")
  expect((await run(["ima", "replay", list, "--pcrs", pcrs])).code).toBe(EXIT.ok)
  expect((await run(["ima", "appraise", list, "--snapshot", snapshot, "--pcrs", pcrs])).code).toBe(EXIT.ok)
  const stdin = readFileSync(put("text", ""), "utf8")
  expect(JSON.parse((await run(["ima", "replay", "-", "--json"], { stdin })).stdout).entries).toBe(0)
  const other = put("other", listOf(...HONEST, file("/tmp/evil")))
  expect((await run(["ima", "appraise", other, "--snapshot", snapshot])).code).toBe(EXIT.ima)
})
