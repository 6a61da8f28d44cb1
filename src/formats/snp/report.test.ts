import { describe, expect, test } from "bun:test"
import { fakeChip, fakeReport } from "../../../test/fakes/snp.ts"
import { vector, vectorsUnder } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { toHex } from "../hex.ts"
import { encodeSnpReport, parseSnpReport } from "./report.ts"
import { encodeTcb, parseTcb, productOfCpu, tcbComponents } from "./tcb.ts"

const reports = vectorsUnder("snp").filter(({ kind }) => kind === "snp")
const sample = fakeReport(await fakeChip())

describe.skipIf(!HAVE_VECTORS)("real reports", () => {
  for (const { file, facts } of reports) {
    const raw = vector(file)

    test(`${file}: fields are those recorded`, () => {
      const report = parseSnpReport(raw)
      expect(report.version).toBe(Number(facts["version"]))
      expect(report.guestSvn).toBe(Number(facts["guest_svn"]))
      expect(report.policy).toBe(BigInt(`${facts["policy"]}`))
      expect(report.vmpl).toBe(Number(facts["vmpl"]))
      expect(report.platformInfo).toBe(BigInt(`${facts["platform_info"]}`))
      expect(report.signingKey as string).toBe(`${facts["signing_key"]}`)
      for (const [name, value] of [
        ["report_data", report.reportData],
        ["measurement", report.measurement],
        ["host_data", report.hostData],
        ["id_key_digest", report.idKeyDigest],
        ["report_id", report.reportId],
        ["chip_id", report.chipId],
        ["reported_tcb_raw", report.reportedTcb],
      ] as const)
        expect(toHex(value)).toBe(`${facts[name]}`)
      if (report.cpuid !== null)
        expect<unknown>(Object.values(report.cpuid)).toEqual(facts["cpuid_fam_mod_step"])
      if (report.version === 5) expect(report.launchMitVector).toBe(BigInt(`${facts["launch_mit_vector"]}`))
    })

    test(`${file}: TCBs are those recorded`, () => {
      const report = parseSnpReport(raw)
      const product = report.product ?? "Milan"
      expect<unknown>(parseTcb(report.reportedTcb, product)).toEqual(facts["reported_tcb"])
      expect<unknown>(parseTcb(report.committedTcb, product)).toEqual(facts["committed_tcb"])
      expect<unknown>(parseTcb(report.currentTcb, product)).toEqual(facts["current_tcb"])
      expect<unknown>(parseTcb(report.launchTcb, product)).toEqual(facts["launch_tcb"])
    })

    test(`${file}: encoding gives the same bytes`, () => {
      expect(encodeSnpReport(parseSnpReport(raw))).toEqual(raw)
    })
  }
})

test("every truncation is refused", () => {
  for (let size = 0; size < sample.length; size++)
    expect(() => parseSnpReport(sample.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
})

test("a longer buffer is refused", () => {
  expect(() => parseSnpReport(Uint8Array.of(...sample, 0))).toThrowCode("ERR_TRAILING_BYTES")
})

test("versions other than 2 to 5 are refused", () => {
  for (const version of [0, 1, 6, 99, 0xff]) {
    const raw = sample.slice()
    raw[0] = version
    expect(() => parseSnpReport(raw)).toThrowCode("ERR_UNSUPPORTED")
  }
})

test("reserved bytes depend on the version", () => {
  const change = (version: number, at: number) => {
    const raw = sample.slice()
    raw[0] = version
    // Version 2 has nothing where later ones have the processor.
    if (version === 2) raw.fill(0, 0x188, 0x18b)
    raw[at] = 1
    return () => parseSnpReport(raw)
  }
  expect(change(2, 0x188)).toThrowCode("ERR_RESERVED_NOT_ZERO")
  expect(change(3, 0x1f8)).toThrowCode("ERR_RESERVED_NOT_ZERO")
  expect(change(4, 0x200)).toThrowCode("ERR_RESERVED_NOT_ZERO")
  expect(change(5, 0x1f8)).not.toThrow()
  for (const at of [0x4c, 0x18b, 0x1eb, 0x1ef, 0x208, 0x29f, 0x330, 0x49f])
    expect(change(5, at)).toThrowCode("ERR_RESERVED_NOT_ZERO")
})

test("fields out of range are refused", () => {
  const change = (at: number, value: number) => {
    const raw = sample.slice()
    raw[at] = value
    return () => parseSnpReport(raw)
  }
  expect(change(0x30, 4)).toThrowCode("ERR_MALFORMED")
  expect(change(0x33, 0xff)).toThrowCode("ERR_MALFORMED")
  expect(change(0x0a, 0)).toThrowCode("ERR_MALFORMED")
  expect(change(0x48, 2 << 2)).toThrowCode("ERR_MALFORMED")
  expect(change(0x48, 0x20)).toThrowCode("ERR_RESERVED_NOT_ZERO")
  expect(change(0x188, 0x17)).toThrowCode("ERR_UNSUPPORTED")
})

test("a TCB means something else on Turin than on Milan", () => {
  const raw = Uint8Array.of(1, 2, 3, 4, 0, 0, 0, 5)
  expect(parseTcb(raw, "Turin")).toEqual({ fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 5 })
  expect(() => parseTcb(raw, "Milan")).toThrowCode("ERR_RESERVED_NOT_ZERO")
  expect(encodeTcb(parseTcb(raw, "Turin"), "Turin")).toEqual(raw)
  expect(tcbComponents("Genoa")).toEqual(["bootloader", "tee", "snp", "microcode"])
  expect(() => parseTcb(raw.subarray(1), "Turin")).toThrowCode("ERR_MALFORMED")
  expect(() => encodeTcb({ bootloader: 256, tee: 0, snp: 0, microcode: 0 }, "Milan")).toThrowCode(
    "ERR_MALFORMED",
  )
})

test("processors are known by family and model", () => {
  expect(productOfCpu(0x19, 0x01)).toBe("Milan")
  expect(productOfCpu(0x19, 0x11)).toBe("Genoa")
  expect(productOfCpu(0x19, 0xa0)).toBe("Genoa")
  expect(productOfCpu(0x1a, 0x02)).toBe("Turin")
  for (const [family, model] of [
    [0x17, 0x31],
    [0x19, 0x21],
    [0x19, 0x50],
    [0x1a, 0x20],
    [0x1b, 0],
  ] as const)
    expect(productOfCpu(family, model)).toBe(null)
})
