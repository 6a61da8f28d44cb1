import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileSigner, signFile } from "../../test/fakes/file-signatures.ts"
import {
  bootAggregate,
  file,
  hexOf,
  PCRS,
  quoted,
  sha256,
  violation,
} from "../../test/fakes/measurement-list.ts"
import { HAVE_VECTORS, VECTORS } from "../../test/setup.ts"
import type { NewEntry } from "../formats/ima/encode.ts"
import { parseMeasurementList } from "../formats/ima/measurement-list.ts"
import { verifyMeasurementList } from "../verify/ima.ts"
import { appraiseIma, imaReferenceOf } from "./ima.ts"
import type { ViolationPolicy } from "./ima-expectations.ts"
import { encodeSnapshot, parseSnapshot, type Snapshot } from "./snapshot.ts"
import type { Claim } from "./verdict.ts"
import { EMPTY_WHITELIST, parseWhitelist } from "./whitelist.ts"

const AT = new Date("2026-06-01T12:00:00Z")
const BOOT = bootAggregate()
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")

const REFERENCE: Snapshot = {
  format: 2,
  cloud_type: null,
  tee_policy: null,
  tpm_policy: null,
  filehashes: [
    ["/usr/bin/a", hexOf("a")],
    ["/usr/bin/b", hexOf("b")],
    ["/opt/my app", hexOf("app")],
    ["boot_aggregate", hexOf("anything")],
  ],
  taken_at: null,
  agent_version: null,
  host: null,
  hash_algorithm: "sha256",
  tee_reference: null,
  tpm_reference: null,
  ima_reference: { template: "ima-ng", boot_aggregate: `sha256:${hex(BOOT.digest)}` },
  unreadable: [],
}
const A = file("/usr/bin/a", "a")
const B = file("/usr/bin/b", "b")

function appraise(
  entries: NewEntry[],
  reference: Snapshot | null = REFERENCE,
  whitelist = EMPTY_WHITELIST,
  pcrs: readonly Uint8Array[] = PCRS,
): Claim {
  return appraiseIma(quoted(...entries), reference, { whitelist, pcrs, at: AT })
}

const codes = (claim: Claim) => claim.findings.map(({ code, subject }) => [code, subject])

function listed(...lines: string[]) {
  return parseWhitelist(new TextEncoder().encode(lines.join("\n")))
}

describe("what ran against the snapshot", () => {
  test("files of the snapshot pass, and later entries are counted and not judged", () => {
    const claim = appraise([BOOT, A, B, A])
    expect(claim.status).toBe("passed")
    expect(claim.facts).toMatchObject({ entries: 4, files: 3, bootAggregateRecomputed: true, mismatches: 0 })
    expect(exitOf(claim)).toBeUndefined()
  })

  test("an unknown file is named", () => {
    const claim = appraise([BOOT, A, file("/tmp/evil", "evil")])
    expect(claim.status).toBe("failed")
    expect(exitOf(claim)).toBe("ima")
    expect(codes(claim)).toEqual([["ERR_IMA_UNKNOWN_FILE", "/tmp/evil"]])
    expect(claim.findings[0]?.found).toBe(`sha256:${hexOf("evil")}`)
  })

  test("a known path with another digest is another finding, with what was expected", () => {
    const claim = appraise([BOOT, file("/usr/bin/a", "old a"), B])
    expect(codes(claim)).toEqual([["ERR_IMA_CHANGED_FILE", "/usr/bin/a"]])
    expect(claim.findings[0]?.expected).toBe(hexOf("a"))
  })

  test("a once-good digest does not come back after the snapshot was taken anew", () => {
    const before = { ...REFERENCE, filehashes: [["/usr/bin/a", hexOf("a 1.0")] as const] }
    const after = { ...REFERENCE, filehashes: [["/usr/bin/a", hexOf("a 1.1")] as const] }
    const entries = [BOOT, file("/usr/bin/a", "a 1.0")]
    expect(appraise(entries, before).status).toBe("passed")
    expect(codes(appraise(entries, after))).toEqual([["ERR_IMA_CHANGED_FILE", "/usr/bin/a"]])
  })

  test("the right digest under another name is unknown", () => {
    expect(codes(appraise([BOOT, file("/tmp/a", "a")]))).toEqual([["ERR_IMA_UNKNOWN_FILE", "/tmp/a"]])
  })

  test("all mismatches are collected, each thing once", () => {
    const claim = appraise([BOOT, file("/x", "x"), file("/y", "y"), file("/x", "x"), violation("/z")])
    expect(codes(claim)).toEqual([
      ["ERR_IMA_UNKNOWN_FILE", "/x"],
      ["ERR_IMA_UNKNOWN_FILE", "/y"],
      ["ERR_IMA_VIOLATION", "/z"],
    ])
    expect(claim.facts["mismatches"]).toBe(3)
  })

  test("a thousand findings are kept and the rest counted", () => {
    const entries = Array.from({ length: 1500 }, (_, index) => file(`/tmp/${index}`))
    const claim = appraise([BOOT, ...entries])
    expect(claim.findings.length).toBe(1000)
    expect(claim.facts["mismatches"]).toBe(1500)
  })

  test("a path whose spaces the kernel wrote as underscores is known", () => {
    expect(appraise([BOOT, file("/opt/my_app", "app")]).status).toBe("passed")
  })

  test("hostile names stay what they are, for the renderer to neutralise", () => {
    const name = "/tmp/\u001b[2J\udcff"
    expect(codes(appraise([BOOT, file(name)]))).toEqual([["ERR_IMA_UNKNOWN_FILE", name]])
  })

  test("a violation fails, whatever its name", () => {
    expect(codes(appraise([BOOT, A, violation("/usr/bin/a")]))).toEqual([["ERR_IMA_VIOLATION", "/usr/bin/a"]])
    const trusting = listed(`/usr/bin/a ${"00".repeat(32)}`)
    expect(appraise([BOOT, A, violation("/usr/bin/a")], REFERENCE, trusting).status).toBe("failed")
  })

  test("a file that the kernel could not hash fails, even where zeros are a reference value", () => {
    const zeros = { ...REFERENCE, filehashes: [["/usr/bin/a", "00".repeat(32)] as const] }
    const claim = appraise([BOOT, { ...A, digest: new Uint8Array(32) }], zeros)
    expect(codes(claim)).toEqual([["ERR_IMA_NO_DIGEST", "/usr/bin/a"]])
  })

  test("an empty file is a file", () => {
    const reference = { ...REFERENCE, filehashes: [["/etc/empty", hexOf("")] as const] }
    expect(appraise([BOOT, file("/etc/empty", "")], reference).status).toBe("passed")
  })
})

describe("algorithms", () => {
  const sha1 = (path: string) => file(path, path, { algorithm: "sha1", digest: new Uint8Array(20).fill(5) })

  test("a digest of another algorithm than the snapshot's is told from a changed file", () => {
    expect(codes(appraise([BOOT, sha1("/usr/bin/a")]))).toEqual([["ERR_IMA_ALGORITHM", "/usr/bin/a"]])
  })

  test("a digest of equal size and another algorithm is no match", () => {
    const entry = file("/usr/bin/a", "a", { algorithm: "sm3" })
    expect(codes(appraise([BOOT, entry]))).toEqual([["ERR_IMA_ALGORITHM", "/usr/bin/a"]])
    const white = listed(`/usr/bin/new ${hexOf("new")}`)
    const other = file("/usr/bin/new", "new", { algorithm: "sm3" })
    expect(codes(appraise([BOOT, other], REFERENCE, white))).toEqual([
      ["ERR_IMA_CHANGED_FILE", "/usr/bin/new"],
    ])
  })

  test("a broken algorithm is refused, even where the snapshot has it", () => {
    const entry = file("/usr/bin/a", "a", { algorithm: "md5", digest: new Uint8Array(16).fill(1) })
    const reference = {
      ...REFERENCE,
      hash_algorithm: "md5",
      filehashes: [["/usr/bin/a", "01".repeat(16)] as const],
    }
    expect(codes(appraise([BOOT, entry], reference))).toEqual([["ERR_IMA_ALGORITHM", "/usr/bin/a"]])
    expect(codes(appraise([BOOT, entry], null))).toEqual([["ERR_IMA_ALGORITHM", "/usr/bin/a"]])
  })

  test("in format 1 the digest's length tells the algorithm", () => {
    const reference: Snapshot = {
      ...REFERENCE,
      format: 1,
      hash_algorithm: null,
      ima_reference: null,
      filehashes: [["/usr/bin/a", "05".repeat(20)]],
    }
    expect(appraise([BOOT, sha1("/usr/bin/a")], reference).status).toBe("passed")
    const rmd = file("/usr/bin/a", "a", { algorithm: "rmd160", digest: new Uint8Array(20).fill(5) })
    expect(appraise([BOOT, rmd], reference).status).toBe("failed")
  })
})

describe("whitelist", () => {
  const white = listed(`/usr/bin/new ${hexOf("new")}`, `/usr/bin/a ${hexOf("a 2")}`)

  test("its files pass beside those of the snapshot", () => {
    const claim = appraise(
      [BOOT, A, file("/usr/bin/new", "new"), file("/usr/bin/a", "a 2")],
      REFERENCE,
      white,
    )
    expect(claim.status).toBe("passed")
    expect(claim.facts).toMatchObject({ files: 1, whitelisted: 2 })
  })

  test("it says nothing about other digests and other names", () => {
    const claim = appraise(
      [BOOT, file("/usr/bin/new", "newer"), file("/usr/bin/new2", "new")],
      REFERENCE,
      white,
    )
    expect(codes(claim)).toEqual([
      ["ERR_IMA_CHANGED_FILE", "/usr/bin/new"],
      ["ERR_IMA_UNKNOWN_FILE", "/usr/bin/new2"],
    ])
  })
})

describe("measured data", () => {
  const data = (name: string, content = name) =>
    file(name, content, { template: "ima-buf", fields: { buf: new TextEncoder().encode(content) } })

  test("is counted and named, and neither accepted nor refused", () => {
    const claim = appraise([BOOT, A, data(".ima", "key"), data("kexec-cmdline"), data(".ima", "key 2")])
    expect(claim.status).toBe("passed")
    expect(claim.facts).toMatchObject({ files: 1, measuredData: 3, measuredDataNames: ".ima, kexec-cmdline" })
    expect(claim.summary).toContain("3 of measured data (.ima, kexec-cmdline)")
  })

  test("alone it covers nothing", () => {
    expect(codes(appraise([BOOT, data(".ima", "key")]))).toEqual([["ERR_IMA_OFF", "measurement list"]])
  })

  test("I2: a file's entry of ima-sig, shown under the name ima-buf, is still judged as a file", () => {
    // The template's name is not under the template digest: these are the very bytes that the TPM vouches for.
    const buf = Uint8Array.of(3, 2, 4, 1, 2, 3, 4, 0, 1, 9)
    for (const path of ["/tmp/evil", "evil"]) {
      const relabelled = file(path, "e", { template: "ima-buf", fields: { buf } })
      expect(codes(appraise([BOOT, A, relabelled]))).toEqual([["ERR_IMA_UNKNOWN_FILE", path]])
    }
  })

  test("I2: a file whose signature is its own content is no data either, where its name is a path", () => {
    const claim = appraise([BOOT, A, data("/tmp/evil", "\u0003 evil")])
    expect(codes(claim)).toEqual([["ERR_IMA_UNKNOWN_FILE", "/tmp/evil"]])
  })

  test("named boot_aggregate is not the kernel's own entry", () => {
    const named = data("boot_aggregate")
    expect(codes(appraise([named, A]))).toContainEqual(["ERR_IMA_BOOT_AGGREGATE", "boot_aggregate"])
    expect(appraise([BOOT, A, named]).status).toBe("passed")
  })

  test("a file that a rule has measured with the template of data is a file", () => {
    const claim = appraise([BOOT, A, file("/tmp/evil", "e", { template: "ima-buf" })])
    expect(codes(claim)).toEqual([["ERR_IMA_UNKNOWN_FILE", "/tmp/evil"]])
  })

  test("names are kept up to a number and a length", () => {
    const many = Array.from({ length: 100 }, (_, index) => data(`keyring ${index} ${"x".repeat(500)}`))
    const claim = appraise([BOOT, A, ...many])
    expect(claim.facts["measuredData"]).toBe(100)
    expect(String(claim.facts["measuredDataNames"]).length).toBeLessThan(3000)
  })

  test("is left out of a snapshot's files, as is a digest of fs-verity", () => {
    const tree = file("/usr/bin/tree", "t", { template: "ima-ngv2", content: "verity" })
    const values = imaReferenceOf(quoted(BOOT, data("x"), A, tree))
    expect(values).toMatchObject({ hash_algorithm: "sha256", omitted: 1 })
    expect(values.filehashes).toEqual([["/usr/bin/a", hexOf("a")]])
  })
})

describe("fs-verity", () => {
  const tree = (content: string) => file("/usr/bin/a", content, { template: "ima-ngv2", content: "verity" })

  test("a digest of it is no match for the same bytes as digest of a content", () => {
    expect(codes(appraise([BOOT, B, tree("a")]))).toEqual([["ERR_IMA_ALGORITHM", "/usr/bin/a"]])
    const whitelist = listed(`/usr/bin/new ${hexOf("n")}`)
    const unlisted = file("/usr/bin/new", "n", { template: "ima-ngv2", content: "verity" })
    expect(appraise([BOOT, B, unlisted], REFERENCE, whitelist).status).toBe("failed")
  })

  test("the content's digest in the same template is one", () => {
    expect(appraise([BOOT, file("/usr/bin/a", "a", { template: "ima-ngv2" })]).status).toBe("passed")
  })
})

describe("signed files", () => {
  const vendor = fileSigner("P-256")
  const judged = (entries: NewEntry[], imaKeys = vendor.keys) =>
    appraiseIma(quoted(...entries), REFERENCE, { whitelist: EMPTY_WHITELIST, pcrs: PCRS, at: AT, imaKeys })
  const signed = (path: string, content: string, signature = signFile(vendor, content)) =>
    file(path, content, { template: "ima-sig", signature })

  test("pass by a given key, unknown or changed, and are counted", () => {
    const claim = judged([BOOT, A, signed("/usr/bin/new", "n"), signed("/usr/bin/b", "b 2")])
    expect(claim.status).toBe("passed")
    expect(claim.facts).toMatchObject({ files: 1, signed: 2 })
    expect(claim.summary).toContain("2 signed by a given key")
  })

  test("pass in template ima-sigv2, and with a signed digest of fs-verity", () => {
    const content = file("/usr/bin/n", "n", { template: "ima-sigv2", signature: signFile(vendor, "n") })
    const signature = signFile(vendor, "t", { verity: true })
    const tree = file("/usr/bin/t", "t", { template: "ima-sigv2", content: "verity", signature })
    expect(judged([BOOT, content, tree]).facts).toMatchObject({ signed: 2, mismatches: 0 })
  })

  test("prove nothing where no key is given, or another's", () => {
    const entries = [BOOT, A, signed("/usr/bin/new", "n")]
    expect(codes(judged(entries, []))).toEqual([["ERR_IMA_UNKNOWN_FILE", "/usr/bin/new"]])
    const [finding] = judged(entries, fileSigner("rsa").keys).findings
    expect(finding?.code).toBe("ERR_IMA_UNKNOWN_FILE")
    expect(finding?.found).toContain("signed by a key that was not given")
  })

  test("prove nothing with a signature of other content, or a broken one", () => {
    const other = signed("/usr/bin/new", "n", signFile(vendor, "m"))
    expect(judged([BOOT, A, other]).findings[0]?.found).toContain("does not verify")
    const broken = signed("/usr/bin/new", "n", Uint8Array.of(3, 2))
    expect(codes(judged([BOOT, A, broken]))).toEqual([["ERR_IMA_UNKNOWN_FILE", "/usr/bin/new"]])
  })

  test("do not excuse violations, zeros, or the place of boot_aggregate", () => {
    const zero = { ...signed("/usr/bin/z", "z"), digest: new Uint8Array(32) }
    const second = signed("boot_aggregate", "x")
    const claim = judged([
      BOOT,
      A,
      { ...signed("/v", "v"), templateDigest: new Uint8Array(20) },
      zero,
      second,
    ])
    expect(claim.findings.map(({ code }) => code)).toEqual([
      "ERR_IMA_VIOLATION",
      "ERR_IMA_NO_DIGEST",
      "ERR_IMA_BOOT_AGGREGATE",
    ])
  })
})

describe("coverage", () => {
  test("a list of one line means that IMA is off", () => {
    expect(codes(appraise([BOOT]))).toEqual([["ERR_IMA_OFF", "measurement list"]])
    expect(codes(appraise([BOOT], null))).toEqual([["ERR_IMA_OFF", "measurement list"]])
  })

  test("so does an empty one", () => {
    expect(codes(appraise([]))).toEqual([["ERR_IMA_OFF", "measurement list"]])
    expect(codes(appraise([], null))).toEqual([["ERR_IMA_OFF", "measurement list"]])
  })

  test("a second boot_aggregate does not make a list of it", () => {
    expect(codes(appraise([BOOT, BOOT]))).toContainEqual(["ERR_IMA_OFF", "measurement list"])
  })

  test("a snapshot without files knows no file", () => {
    const claim = appraise([BOOT, A], { ...REFERENCE, filehashes: null })
    expect(codes(claim)).toEqual([["ERR_IMA_REFERENCE", "filehashes"]])
  })
})

describe("boot_aggregate", () => {
  const other = bootAggregate(PCRS.with(4, new Uint8Array(32)))

  test("other boot measurements than the quoted PCRs are noticed", () => {
    expect(codes(appraise([other, A], null))).toEqual([["ERR_IMA_BOOT_AGGREGATE", "boot_aggregate"]])
  })

  test("so are PCR 8 and 9: kernel command line and initrd", () => {
    for (const pcr of [8, 9]) {
      const changed = bootAggregate(PCRS.with(pcr, new Uint8Array(32)))
      expect(appraise([changed, A], null).status).toBe("failed")
    }
  })

  test("other boot measurements than the snapshot's are noticed where the quoted PCRs agree with the list", () => {
    const pcrs = PCRS.with(4, new Uint8Array(32))
    const claim = appraise([other, A], REFERENCE, EMPTY_WHITELIST, pcrs)
    expect(codes(claim)).toEqual([["ERR_IMA_BOOT_AGGREGATE", "boot_aggregate"]])
    expect(claim.findings[0]?.expected).toBe(`sha256:${hex(BOOT.digest)}`)
  })

  test("being among the snapshot's files does not excuse it", () => {
    const trusting = { ...REFERENCE, filehashes: [["boot_aggregate", hex(other.digest)] as const] }
    const claim = appraise([other, B], {
      ...trusting,
      filehashes: [...trusting.filehashes, ["/usr/bin/b", hexOf("b")]],
    })
    expect(claim.status).toBe("failed")
    expect(codes(claim)).toContainEqual(["ERR_IMA_BOOT_AGGREGATE", "boot_aggregate"])
  })

  test("a list that begins with something else is refused", () => {
    expect(codes(appraise([A, B]))).toContainEqual(["ERR_IMA_BOOT_AGGREGATE", "boot_aggregate"])
    expect(codes(appraise([violation("boot_aggregate"), A]))).toContainEqual([
      "ERR_IMA_BOOT_AGGREGATE",
      "boot_aggregate",
    ])
  })

  test("a second one means that another kernel was started", () => {
    expect(codes(appraise([BOOT, A, BOOT]))).toEqual([["ERR_IMA_BOOT_AGGREGATE", "boot_aggregate, entry 2"]])
  })

  const sha1Boot: NewEntry = { ...BOOT, algorithm: "sha1", digest: new Uint8Array(20).fill(3) }

  test("one over a bank that is not quoted is taken at snapshot time and compared afterwards", () => {
    expect(appraise([sha1Boot, A], null).facts["bootAggregateRecomputed"]).toBe(false)
    expect(appraise([sha1Boot, A], null).status).not.toBe("failed")
    const ima_reference = { template: "ima-ng", boot_aggregate: `sha1:${"03".repeat(20)}` }
    expect(appraise([sha1Boot, A], { ...REFERENCE, ima_reference }).status).toBe("passed")
    const otherReference = { template: "ima-ng", boot_aggregate: `sha1:${"04".repeat(20)}` }
    expect(appraise([sha1Boot, A], { ...REFERENCE, ima_reference: otherReference }).status).toBe("failed")
  })

  test("without anything to compare it with, the check fails", () => {
    const old: Snapshot = { ...REFERENCE, format: 1, ima_reference: null }
    expect(appraise([BOOT, A], old).status).toBe("passed")
    expect(codes(appraise([sha1Boot, A], old))).toEqual([["ERR_IMA_REFERENCE", "boot_aggregate"]])
    expect(codes(appraise([BOOT, A], { ...REFERENCE, ima_reference: null }))).toEqual([
      ["ERR_IMA_REFERENCE", "boot_aggregate"],
    ])
    expect(codes(appraise([BOOT, A], null, EMPTY_WHITELIST, []))).toEqual([
      ["ERR_IMA_BOOT_AGGREGATE", "boot_aggregate"],
    ])
  })

  test("another template than the snapshot's is noticed", () => {
    const entries = [BOOT, A].map((entry) => ({ ...entry, template: "ima-sig" as const }))
    expect(codes(appraise(entries))).toEqual([["ERR_IMA_TEMPLATE_CHANGED", "measurement list"]])
  })
})

describe("reference values from a quoted list", () => {
  test("hold boot_aggregate and each file once, and verify the list that they come from", () => {
    const entries = [BOOT, A, B, A, file("/opt/my app", "app")]
    const values = imaReferenceOf(quoted(...entries))
    expect(values.ima_reference).toMatchObject(REFERENCE.ima_reference ?? {})
    expect(values.hash_algorithm).toBe("sha256")
    expect(values.filehashes).toEqual([
      ["/usr/bin/a", hexOf("a")],
      ["/usr/bin/b", hexOf("b")],
      ["/opt/my app", hexOf("app")],
    ])
    const snapshot = parseSnapshot(
      new TextEncoder().encode(
        encodeSnapshot({
          ...REFERENCE,
          filehashes: values.filehashes,
          ima_reference: values.ima_reference,
        }),
      ),
    )
    expect(appraise(entries, snapshot).status).toBe("passed")
  })

  test("leave out what is no file, no content, or of another algorithm", () => {
    const sha1 = file("/x", "x", { algorithm: "sha1", digest: new Uint8Array(20).fill(1) })
    const values = imaReferenceOf(
      quoted(BOOT, A, sha1, violation("/y"), { ...B, digest: new Uint8Array(32) }, BOOT),
    )
    expect(values.filehashes).toEqual([["/usr/bin/a", hexOf("a")]])
    expect(values.omitted).toBe(3)
    expect(imaReferenceOf(quoted(BOOT, A, sha1), "sha1").filehashes).toEqual([["/x", "01".repeat(20)]])
  })

  test("are nothing where the list is empty", () => {
    expect(imaReferenceOf(quoted())).toEqual({
      ima_reference: null,
      hash_algorithm: null,
      filehashes: [],
      omitted: 0,
    })
  })
})

describe.skipIf(!HAVE_VECTORS)("a real machine", () => {
  const pcrs = (name: string) =>
    JSON.parse(readFileSync(join(VECTORS, "ima-quote", name, "pcrs.json"), "utf8")).sha256["10"]
  const machine = (name: string) =>
    verifyMeasurementList(
      parseMeasurementList(new Uint8Array(readFileSync(join(VECTORS, "ima", `${name}.bin`)))),
      Buffer.from(pcrs(name), "hex"),
    )

  test("passes against what was kept of it, and a file less is one finding", () => {
    const quotedList = machine("tee-imang-sha1")
    const { ima_reference, filehashes } = imaReferenceOf(quotedList)
    const reference: Snapshot = { ...REFERENCE, hash_algorithm: "sha1", ima_reference, filehashes }
    const options = { whitelist: EMPTY_WHITELIST, pcrs: PCRS, at: AT }
    expect(appraiseIma(quotedList, reference, options).status).toBe("passed")
    const [gone, ...others] = filehashes
    const claim = appraiseIma(quotedList, { ...reference, filehashes: others }, options)
    expect(codes(claim)).toEqual([["ERR_IMA_UNKNOWN_FILE", gone?.[0] ?? ""]])
  })

  test("with violations fails at snapshot time already", () => {
    const claim = appraiseIma(machine("tee-imang-violations"), null, {
      at: AT,
      whitelist: EMPTY_WHITELIST,
      pcrs: PCRS,
    })
    expect(new Set(claim.findings.map(({ code }) => code))).toEqual(
      // The PCRs of that machine's boot are not known here.
      new Set(["ERR_IMA_BOOT_AGGREGATE", "ERR_IMA_VIOLATION"]),
    )
  })
})

test("boot_aggregate is SHA-256 over PCRs 0 to 9 one after the other", () => {
  expect(BOOT.digest).toEqual(sha256(Buffer.concat(PCRS.slice(0, 10))))
})

function exitOf(claim: Claim): string | undefined {
  return claim.failureClass
}

describe("violations by policy", () => {
  const judged = (entries: NewEntry[], violations: ViolationPolicy) =>
    appraiseIma(quoted(...entries), REFERENCE, {
      whitelist: EMPTY_WHITELIST,
      pcrs: PCRS,
      at: AT,
      expectations: { violations, required: [] },
    })
  const LOGS = { mode: "ignore-paths", paths: ["/var/log/**"], max: 2 } as const

  test("fail, whatever kind they are, unless it says otherwise", () => {
    expect(codes(judged([BOOT, A, violation("/x")], { mode: "fail" }))).toEqual([["ERR_IMA_VIOLATION", "/x"]])
    expect(appraise([BOOT, A, violation("/x")]).status).toBe("failed")
    expect(appraise([BOOT, A]).status).toBe("passed")
  })

  test("are reported with a warning", () => {
    const claim = judged([BOOT, A, violation("/x"), violation("/x")], { mode: "report" })
    expect(claim.status).toBe("warning")
    expect(claim.facts).toMatchObject({ violations: 2, mismatches: 0 })
    expect(codes(claim)).toEqual([
      ["ERR_IMA_VIOLATION", "/x, entry 2"],
      ["ERR_IMA_VIOLATION", "/x, entry 3"],
    ])
  })

  test("are left out by name up to a number, with a warning that the names are not proven", () => {
    const claim = judged([BOOT, A, violation("/var/log/a"), violation("/var/log/b")], LOGS)
    expect(claim.status).toBe("warning")
    expect(codes(claim)).toEqual([["ERR_IMA_VIOLATION", "2 violations"]])
  })

  test("fail beyond that number, and with other names", () => {
    const many = [1, 2, 3].map((number) => violation(`/var/log/${number}`))
    expect(codes(judged([BOOT, A, ...many], LOGS))).toEqual([["ERR_IMA_VIOLATION", "/var/log/3"]])
    expect(codes(judged([BOOT, A, violation("/usr/bin/a")], LOGS))).toEqual([
      ["ERR_IMA_VIOLATION", "/usr/bin/a"],
    ])
  })

  test("excuse nothing else", () => {
    const claim = judged([BOOT, A, file("/var/log/x"), violation("/y")], { mode: "report" })
    expect(codes(claim)).toEqual([["ERR_IMA_UNKNOWN_FILE", "/var/log/x"]])
  })
})

describe("rules of the whitelist", () => {
  const NEW = file("/opt/app/bin/new", "new")
  const rule = (more = "") => listed(`/opt/app/** sha256:${hexOf("new")}${more}`)

  test("accept by pattern and algorithm", () => {
    expect(appraise([BOOT, A, NEW], REFERENCE, rule()).facts).toMatchObject({ whitelisted: 1, mismatches: 0 })
    expect(appraise([BOOT, A, NEW], REFERENCE, rule(" until=2026-06-01")).status).toBe("passed")
    const other = file("/opt/app/bin/new", "newer")
    expect(codes(appraise([BOOT, A, other], REFERENCE, rule()))).toEqual([
      ["ERR_IMA_CHANGED_FILE", other.path],
    ])
    const sm3 = { ...NEW, algorithm: "sm3" }
    expect(appraise([BOOT, A, sm3], REFERENCE, rule()).status).toBe("failed")
  })

  test("that have run out are named by the finding", () => {
    const claim = appraise([BOOT, A, NEW], REFERENCE, rule(' until=2026-05-31 reason="release 7"'))
    expect(codes(claim)).toEqual([["ERR_IMA_UNKNOWN_FILE", NEW.path]])
    expect(claim.findings[0]?.found).toContain(
      "line 1 of the whitelist accepted it until 2026-05-31 (release 7)",
    )
  })

  test("for any content are a promise given up: a warning that names them", () => {
    const open = listed('/opt/app/** any reason="builds"')
    const claim = appraise([BOOT, A, NEW], REFERENCE, open)
    expect(claim.status).toBe("warning")
    expect(claim.summary).toContain("/opt/app/**")
    expect(claim.facts).toMatchObject({ whitelisted: 1, anyContent: 1 })
    expect(appraise([BOOT, A], REFERENCE, open).status).toBe("warning")
    expect(appraise([BOOT, A, file("/opt/other")], REFERENCE, open).status).toBe("failed")
    const zero = { ...NEW, digest: new Uint8Array(32) }
    expect(codes(appraise([BOOT, A, zero], REFERENCE, open))).toEqual([["ERR_IMA_NO_DIGEST", NEW.path]])
    expect(appraise([BOOT, A, violation(NEW.path)], REFERENCE, open).status).toBe("failed")
  })
})

describe("names that are not what they seem (I6)", () => {
  const known = {
    ...REFERENCE,
    filehashes: [...(REFERENCE.filehashes ?? []), ["/bin/shell", hexOf("shell")] as const],
  }

  test("an empty file where the snapshot has content is a changed one", () => {
    expect(codes(appraise([BOOT, file("/usr/bin/a", "")]))).toEqual([["ERR_IMA_CHANGED_FILE", "/usr/bin/a"]])
  })

  test("the same name with two digests passes only where both are known", () => {
    const twice = [BOOT, A, file("/usr/bin/a", "a 2")]
    expect(codes(appraise(twice))).toEqual([["ERR_IMA_CHANGED_FILE", "/usr/bin/a"]])
    const both = {
      ...REFERENCE,
      filehashes: [["/usr/bin/a", hexOf("a")] as const, ["/usr/bin/a", hexOf("a 2")] as const],
    }
    expect(appraise(twice, both).status).toBe("passed")
  })

  test("a known program under another name, by a link or a bind mount, is unknown", () => {
    expect(appraise([BOOT, A, file("/bin/shell", "shell")], known).status).toBe("passed")
    const alias = file("/usr/bin/harmless", "shell")
    expect(codes(appraise([BOOT, A, alias], known))).toEqual([["ERR_IMA_UNKNOWN_FILE", alias.path]])
  })

  test("one known program under the name of another is a changed one", () => {
    expect(codes(appraise([BOOT, file("/usr/bin/a", "shell")], known))).toEqual([
      ["ERR_IMA_CHANGED_FILE", "/usr/bin/a"],
    ])
  })

  test("a name as another mount namespace has it is compared as it stands", () => {
    const inside = file("/usr/bin/a", "the container's a")
    expect(codes(appraise([BOOT, A, inside]))).toEqual([["ERR_IMA_CHANGED_FILE", "/usr/bin/a"]])
    expect(codes(appraise([BOOT, A, file("bin/a", "a")]))).toEqual([["ERR_IMA_UNKNOWN_FILE", "bin/a"]])
  })
})
