import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { bootAggregate, file, hexOf, PCRS, quoted } from "../../test/fakes/measurement-list.ts"
import "../../test/setup.ts"
import { parseImaPolicy } from "../formats/ima/policy.ts"
import { appraiseIma, imaReferenceOf } from "./ima.ts"
import { knownImaPolicy, SHIPPED_POLICY } from "./ima-coverage.ts"
import { COVERAGE_POINTS, type CoveragePoint, coverageOf, describeCoverage } from "./ima-points.ts"
import { SHIPPED_IMA_POLICY } from "./shipped-ima-policy.ts"
import type { Snapshot } from "./snapshot.ts"
import { EMPTY_WHITELIST } from "./whitelist.ts"

const BOOT = bootAggregate()
const A = file("/usr/bin/a", "a")
const PATH = "/etc/ima/ima-policy"

describe("what a policy measures", () => {
  const measured = (text: string, point: CoveragePoint) => coverageOf(parseImaPolicy(text)).get(point)

  test("the packages' policy measures all that anything unknown could run by, everywhere", () => {
    const gaps = describeCoverage(SHIPPED_POLICY.coverage).filter(({ measured: how }) => how !== "yes")
    expect(gaps.map(({ point, needed }) => [point, needed])).toEqual([
      ["keys", false],
      ["root-reads", false],
    ])
  })

  test("the text that is built in is the packages' file", () => {
    const path = join(import.meta.dir, "../../deb/root/usr/share/cosmian_vm/ima-policy")
    expect(SHIPPED_IMA_POLICY).toBe(readFileSync(path, "utf8"))
  })

  test("no rule measures nothing", () => {
    for (const point of COVERAGE_POINTS) expect(measured("# nothing\n", point)?.measured).toBe("no")
  })

  test("a rule without hook is about files, and about no data", () => {
    expect(measured("measure", "programs")?.measured).toBe("yes")
    for (const point of ["keys", "critical-data"] as const)
      expect(measured("measure", point)?.measured).toBe("no")
  })

  test("a command line for kexec is left out by rules without hook, and measured by them since Linux 5.9", () => {
    const line = "measure func=KEXEC_CMDLINE"
    const kexec = (text: string) => measured(text, "kexec-command-line")
    expect(kexec(`dont_measure\n${line}`)?.measured).toBe("no")
    expect(kexec(`${line}\ndont_measure`)?.measured).toBe("yes")
    expect(kexec(`dont_measure obj_type=boot_t\n${line}`)).toEqual({
      measured: "partly",
      except: ["not where obj_type=boot_t"],
    })
    expect(kexec("measure")).toEqual({
      measured: "partly",
      except: ["only where the kernel is Linux 5.9 or later"],
    })
    // It is opened for nothing, so that no mask fits; and no hook but its own.
    for (const other of [
      "dont_measure mask=MAY_READ",
      "dont_measure mask=^MAY_EXEC",
      "dont_measure func=FILE_CHECK",
    ])
      expect(kexec(`${other}\n${line}`)?.measured).toBe("yes")
    expect(kexec("measure mask=^MAY_READ")?.measured).toBe("no")
  })

  test("keys and critical data are asked about by rules of their own alone", () => {
    for (const [point, hook] of [
      ["keys", "KEY_CHECK"],
      ["critical-data", "CRITICAL_DATA"],
    ] as const) {
      expect(measured(`dont_measure\nmeasure func=${hook}`, point)?.measured).toBe("yes")
      expect(measured(`dont_measure func=${hook} uid=0\nmeasure func=${hook}`, point)?.measured).toBe(
        "partly",
      )
    }
  })

  test("a rule without hook leaves out every file before a rule with one", () => {
    for (const { point, rule } of describeCoverage(SHIPPED_POLICY.coverage)) {
      const own = ["keys", "critical-data"].includes(point)
      expect([point, measured(`dont_measure\n${rule}`, point)?.measured]).toEqual([point, own ? "yes" : "no"])
    }
    expect(measured("dont_measure mask=MAY_EXEC\nmeasure func=BPRM_CHECK", "programs")?.measured).toBe("no")
    expect(measured("dont_measure mask=MAY_EXEC\nmeasure func=MODULE_CHECK", "modules")?.measured).toBe("yes")
  })

  test("a rule for another PCR measures nothing that is in the replay, and none behind it does", () => {
    const rule = "measure func=BPRM_CHECK"
    expect(measured(`${rule} pcr=11\n${rule}`, "programs")?.measured).toBe("no")
    expect(measured(`${rule} pcr=10`, "programs")?.measured).toBe("yes")
    expect(measured(`${rule} pcr=11 uid=33\n${rule}`, "programs")?.except).toEqual(["not where uid=33"])
  })

  test("a rule for digests of fs-verity measures what has one, and none behind it the rest", () => {
    const rule = "measure func=BPRM_CHECK"
    expect(measured(`${rule} digest_type=verity\n${rule}`, "programs")).toEqual({
      measured: "partly",
      except: ["only where under fs-verity"],
    })
    expect(measured(`${rule} digest_type=verity fsname=ext4\n${rule}`, "programs")).toEqual({
      measured: "partly",
      except: ["not where fsname=ext4 and not under fs-verity"],
    })
  })

  test("the first rule that fits decides", () => {
    const exec = "measure func=BPRM_CHECK"
    expect(measured(`dont_measure func=BPRM_CHECK\n${exec}`, "programs")?.measured).toBe("no")
    expect(measured(`${exec}\ndont_measure func=BPRM_CHECK`, "programs")?.measured).toBe("yes")
  })

  test("file systems that are left out are named, but for those that hold no programs", () => {
    const rule = (magic: string) =>
      measured(`dont_measure fsmagic=${magic}\nmeasure func=BPRM_CHECK`, "programs")
    expect(rule("0x9fa0")).toEqual({ measured: "yes", except: [] })
    expect(rule("0x01021994")?.measured).toBe("partly")
    expect(rule("0x01021994")?.except[0]).toContain("tmpfs")
    expect(rule("0x794c7630")?.except[0]).toContain("overlayfs")
    expect(rule("0xef53")?.measured).toBe("partly")
  })

  test("a rule for some users, owners or labels measures a part", () => {
    for (const limit of [
      "uid=0",
      "euid>999",
      "fowner=0",
      "obj_type=bin_t",
      "fsuuid=8bcbe394-4f13-4144-be8e-5aa9ea2ce2f6",
    ])
      expect(measured(`measure func=BPRM_CHECK ${limit}`, "programs")?.measured).toBe("partly")
  })

  test("a mask that is never asked for measures nothing", () => {
    expect(measured("measure func=BPRM_CHECK mask=MAY_READ", "programs")?.measured).toBe("no")
    expect(measured("measure func=FILE_MMAP mask=MAY_EXEC", "libraries")?.measured).toBe("yes")
  })

  test("what root reads needs a rule for root, of any reading", () => {
    expect(measured("measure func=FILE_CHECK mask=^MAY_READ euid=0", "root-reads")?.measured).toBe("yes")
    expect(measured("measure func=FILE_CHECK mask=MAY_READ uid=0", "root-reads")?.measured).toBe("partly")
    expect(measured("measure func=FILE_CHECK mask=^MAY_READ uid=33", "root-reads")?.measured).toBe("partly")
    expect(measured("measure mask=MAY_READ", "root-reads")?.measured).toBe("partly")
    const all = "measure func=FILE_CHECK mask=^MAY_READ"
    expect(measured(`dont_measure func=FILE_CHECK mask=^MAY_WRITE\n${all}`, "root-reads")?.except).toEqual([
      "not where mask=^MAY_WRITE",
    ])
    expect(measured(`dont_measure func=FILE_CHECK mask=MAY_WRITE\n${all}`, "root-reads")?.measured).toBe(
      "yes",
    )
  })
})

describe("coverage in the verdict", () => {
  const policy = (content: string) => file(PATH, content)
  const OTHER = "measure func=BPRM_CHECK\n"
  const snapshotOf = (...entries: Parameters<typeof quoted>): Snapshot => ({
    ...EMPTY,
    ima_reference: imaReferenceOf(quoted(...entries)).ima_reference,
    filehashes: [
      ["/usr/bin/a", hexOf("a")],
      [PATH, hexOf(SHIPPED_IMA_POLICY)],
      [PATH, hexOf(OTHER)],
    ],
  })
  const judged = (
    entries: Parameters<typeof quoted>,
    reference: Snapshot | null,
    { required = [] as CoveragePoint[], texts = [] as string[] } = {},
  ) =>
    appraiseIma(quoted(...entries), reference, {
      whitelist: EMPTY_WHITELIST,
      pcrs: PCRS,
      at: new Date(0),
      expectations: { violations: null, required },
      knownPolicies: texts.map((text) => knownImaPolicy("given", new TextEncoder().encode(text))),
    })
  const codes = ({ findings }: ReturnType<typeof judged>) =>
    findings.map(({ code, subject }) => [code, subject])

  test("the packages' policy is known by its digest", () => {
    const claim = judged([BOOT, policy(SHIPPED_IMA_POLICY), A], null)
    expect(claim.status).toBe("passed")
    expect(claim.facts["measured"]).toContain("programs, libraries, modules")
    expect(claim.facts["notMeasured"]).toBe("keys, root-reads")
  })

  test("at snapshot time, what is missing is a warning", () => {
    expect(codes(judged([BOOT, A], null))).toEqual([["ERR_IMA_COVERAGE", "IMA policy"]])
    expect(judged([BOOT, A], null).status).toBe("warning")
    const gaps = judged([BOOT, policy(OTHER), A], null, { texts: [OTHER] })
    expect(gaps.status).toBe("warning")
    expect(codes(gaps)).toContainEqual(["ERR_IMA_COVERAGE", "libraries"])
    expect(codes(gaps)).not.toContainEqual(["ERR_IMA_COVERAGE", "programs"])
  })

  test("afterwards the snapshot's policy passes", () => {
    const entries = [BOOT, policy(SHIPPED_IMA_POLICY), A] as const
    expect(judged([...entries], snapshotOf(...entries)).status).toBe("passed")
    expect(judged([BOOT, A], snapshotOf(BOOT, A)).status).toBe("passed")
  })

  test("B4: another policy, or none, fails", () => {
    const reference = snapshotOf(BOOT, policy(SHIPPED_IMA_POLICY), A)
    for (const entries of [
      [BOOT, policy(OTHER), A],
      [BOOT, A],
      [BOOT, policy(SHIPPED_IMA_POLICY), policy(OTHER), A],
    ])
      for (const texts of [[], [OTHER]])
        expect(codes(judged(entries, reference, { texts }))).toEqual([["ERR_IMA_COVERAGE", "IMA policy"]])
    expect(judged([BOOT, policy(OTHER), A], snapshotOf(BOOT, A)).status).toBe("failed")
  })

  test("one that measures no less passes, where both texts are known", () => {
    const reference = snapshotOf(BOOT, policy(OTHER), A)
    const entries = [BOOT, policy(SHIPPED_IMA_POLICY), A]
    expect(judged(entries, reference, { texts: [OTHER] }).status).toBe("passed")
    expect(judged(entries, reference).status).toBe("failed")
  })

  test("the same policy below the root of an initial RAM disk is one, and a similar name is none", () => {
    const file2 = file(`/sysroot${PATH}`, SHIPPED_IMA_POLICY)
    expect(judged([BOOT, file2, A], null).facts["imaPolicy"]).toBe("the package's policy")
    expect(judged([BOOT, file("/etc/ima/ima-policy.old", SHIPPED_IMA_POLICY)], null).facts["imaPolicy"]).toBe(
      "not in the list",
    )
  })

  test("what a policy requires fails where it is not measured, or not known", () => {
    const entries = [BOOT, policy(SHIPPED_IMA_POLICY), A]
    const reference = snapshotOf(...entries)
    expect(judged(entries, reference, { required: ["programs", "modules"] }).status).toBe("passed")
    expect(codes(judged(entries, reference, { required: ["root-reads"] }))).toEqual([
      ["ERR_IMA_COVERAGE", "root-reads"],
    ])
    expect(codes(judged([BOOT, A], snapshotOf(BOOT, A), { required: ["programs"] }))).toEqual([
      ["ERR_IMA_COVERAGE", "programs"],
    ])
  })

  test("a snapshot that does not tell its policy is not compared", () => {
    const { policy: _, ...ima_reference } = snapshotOf(BOOT, A).ima_reference ?? {
      template: "",
      boot_aggregate: "",
    }
    expect(judged([BOOT, policy(OTHER), A], { ...snapshotOf(BOOT, A), ima_reference }).status).toBe("passed")
  })
})

const EMPTY: Snapshot = {
  format: 2,
  cloud_type: null,
  tee_policy: null,
  tpm_policy: null,
  filehashes: [],
  taken_at: null,
  agent_version: null,
  host: null,
  hash_algorithm: "sha256",
  tee_reference: null,
  tpm_reference: null,
  ima_reference: null,
  unreadable: [],
}
