import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { vector, vectorsUnder } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { toHex } from "../hex.ts"
import { encodePem } from "../pem.ts"
import { parseSnpReportFile } from "../snp/report-file.ts"
import { describeEvidence, detectEvidence, type EvidenceFileKind } from "./evidence.ts"

/** Which files of the vectors are of which kind, by folder and name. */
const EXPECTED: readonly (readonly [folder: string, name: RegExp, kind: EvidenceFileKind])[] = [
  ["snp", /\/report\.bin$/, "snp-report"],
  ["snp-ext", /(constructed|ark-ask|with-chain).*\.bin$/, "snp-report"],
  ["snp", /\/v[cl]ek\.der$/, "certificate"],
  ["tdx", /\/quote\.bin$/, "tdx-quote"],
  ["tdx", /\/collateral-[^/]*\.json$/, "intel-collateral"],
  ["tdx-testpki", /\/collateral-[^/]*\.json$/, "intel-collateral"],
  ["sgx", /\/quote\.bin$/, "sgx-quote"],
  ["azure-snp", /\/hcl-report\.bin$/, "hcl-report"],
  ["azure-tdx", /\/hcl-report\.bin$/, "hcl-report"],
  ["azure-tdx", /\/td-quote\.bin$/, "tdx-quote"],
  ["azure-snp", /\/tpm-quote\.msg$/, "tpm-attest"],
  ["tpm-quote", /\/quote\.msg$/, "tpm-attest"],
  ["ima", /(imang-[^/]*|ima-template)\.bin$/, "ima-binary"],
  ["ima", /(sha256|imasig-signatures)\.ascii$/, "ima-ascii"],
  ["trust/amd", /\.der$/, "certificate"],
  ["trust/amd", /\.pem$/, "certificate-chain"],
  ["trust/intel", /crl[^/]*\.der$/, "crl"],
  ["tdx-crl", /\.der$/, "crl"],
]

const files = EXPECTED.flatMap(([folder, name, kind]) =>
  vectorsUnder(folder)
    .filter(({ file }) => name.test(file))
    .map(({ file, facts }) => ({ file, facts, kind })),
)

describe.skipIf(!HAVE_VECTORS)("real files", () => {
  test("are there for each kind", () => {
    expect(new Set(files.map(({ kind }) => kind)).size).toBe(11)
    expect(files.length).toBeGreaterThan(70)
  })

  for (const { file, kind } of files)
    test(`${file}: ${kind}`, () => {
      const { kind: found, fields } = describeEvidence(vector(file))
      expect(found).toBe(kind)
      expect(Object.keys(fields).length).toBeGreaterThan(0)
      // What is shown is JSON: no byte arrays, no bigints, nothing that is lost.
      expect(JSON.parse(JSON.stringify(fields))).toEqual(fields)
    })

  test("fields are those that the index records", () => {
    for (const { file, facts } of vectorsUnder("azure-snp").filter(({ file }) =>
      file.endsWith("hcl-report.bin"),
    )) {
      const snp = Object(facts["snp"])
      expect(describeEvidence(vector(file)).fields["hardware_report"]).toMatchObject({
        version: snp.version,
        guest_svn: snp.guest_svn,
        policy: { value: snp.policy },
        vmpl: snp.vmpl,
        platform_info: { value: snp.platform_info },
        flags: { value: snp.flags, signing_key: snp.signing_key },
        report_data: snp.report_data,
        measurement: snp.measurement,
        host_data: snp.host_data,
        id_key_digest: snp.id_key_digest,
        report_id: snp.report_id,
        reported_tcb: { bytes: snp.reported_tcb_raw },
        chip_id: snp.chip_id,
      })
    }
    const [message] = vectorsUnder("azure-snp").filter(({ file }) => file.endsWith("v2-milan/tpm-quote.msg"))
    expect(describeEvidence(vector(`${message?.file}`)).fields).toMatchObject({
      extra_data: message?.facts["extra_data"],
      reset_count: message?.facts["reset_count"],
      firmware_version: message?.facts["firmware_version"],
      pcr_digest: message?.facts["pcr_digest"],
      pcr_select: [{ hash: "sha256", pcrs: message?.facts["pcr_selection"] }],
    })
  })

  test("a TCB is decoded by the product that report or certificate says, and never guessed", () => {
    const tcb = (bytes: Uint8Array) => Object(describeEvidence(bytes).fields["reported_tcb"])
    expect(tcb(vector("snp/turin-v5-azure-cc/report.bin"))).toHaveProperty("fmc")
    const alone = vector("snp/milan-v2-trustee/report.bin")
    expect(Object.keys(tcb(alone))).toEqual(["bytes"])
    const pem = encodePem("CERTIFICATE", vector("snp/milan-v2-trustee/vcek.der"))
    expect(tcb(Uint8Array.of(...alone, ...Buffer.from(pem)))).toHaveProperty("microcode")
  })

  test("a revocation list in PEM is the same as in DER", () => {
    const der = vector("tdx-crl/pck-platform-crl-129-entries.der")
    const pem = Buffer.from(encodePem("X509 CRL", der))
    expect(describeEvidence(pem)).toEqual(describeEvidence(der))
    expect(describeEvidence(der).fields["revoked_count"]).toBe(129)
  })

  test("a host may put anything beside a report: it is shown with the reason why it is no certificate", () => {
    const report = vector("snp/milan-v5-tee-tools-ext/report.bin")
    const crl = encodePem("X509 CRL", vector("tdx-crl/pck-platform-crl-129-entries.der"))
    const [shown] = Object(
      describeEvidence(Uint8Array.of(...report, ...Buffer.from(crl))).fields["certificates"],
    )
    expect(shown).toHaveProperty("unreadable")
  })

  for (const kind of new Set(files.map((each) => each.kind))) {
    const sizes = files.filter((each) => each.kind === kind).map(({ file }) => vector(file))
    const smallest = sizes.sort((a, b) => a.length - b.length)[0] ?? new Uint8Array()
    test(`${kind}: cut short or changed anywhere, it is shown or refused with a code`, () => {
      const step = Math.max(1, Math.floor(smallest.length / 300))
      for (let size = 0; size < smallest.length; size += step) onlyCoded(smallest.subarray(0, size))
      const change = fc.array(fc.tuple(fc.nat(smallest.length - 1), fc.nat(255)), {
        minLength: 1,
        maxLength: 6,
      })
      fc.assert(
        fc.property(change, (changes) => {
          const bytes = smallest.slice()
          for (const [at, value] of changes) bytes[at] = value
          onlyCoded(bytes)
        }),
        { numRuns: 100 },
      )
    })
  }
})

describe("what is nothing known", () => {
  test.each([
    ["nothing", ""],
    ["a few bytes", "00010203"],
    ["zeros", "00".repeat(4096)],
    ["text", toHex(Buffer.from("hello, world"))],
    ["JSON of another kind", toHex(Buffer.from('{"a":1}'))],
    ["a key in PEM", toHex(Buffer.from("-----BEGIN PRIVATE KEY-----\n"))],
  ])("%s", (_, hex) => {
    expect(() => detectEvidence(Uint8Array.from(Buffer.from(hex, "hex")))).toThrowCode("ERR_UNSUPPORTED")
  })

  test("random bytes are refused with a code", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 3000 }), onlyCoded), { numRuns: 500 })
  })
})

describe.skipIf(!HAVE_VECTORS)("a report in a file", () => {
  const report = HAVE_VECTORS ? vector("snp/milan-v5-tee-tools-ext/report.bin") : new Uint8Array()

  test("in each form has the same certificates", () => {
    const ders = (file: string) =>
      parseSnpReportFile(vector(`snp-ext/${file}`))
        .certificates.map(({ der }) => toHex(der))
        .sort()
    const table = ders("constructed-guid-table-vcek.bin")
    expect(table.length).toBe(3)
    expect(ders("tee-tools-ark-ask-vcek.bin")).toEqual(table)
    expect(ders("azure-sev-report-with-chain.bin").length).toBe(3)
  })

  test("may be followed by an empty list, and by nothing that is no certificate", () => {
    const followed = (...bytes: number[]) => parseSnpReportFile(Uint8Array.of(...report, ...bytes)).form
    expect(followed()).toBe("report")
    expect(followed(0, 0, 0, 0)).toBe("predecessor's blob")
    expect(followed(...new Uint8Array(24))).toBe("report with certificate table")
    for (const rest of [[1], [1, 2, 3, 4, 5], Array.from(new Uint8Array(56).fill(7))])
      expect(() => followed(...rest)).toThrowCode("ERR_TRUNCATED")
    expect(() => followed(...new Uint8Array(24), 1)).toThrowCode("ERR_TRAILING_BYTES")
    expect(() => parseSnpReportFile(report.subarray(1))).toThrowCode("ERR_TRUNCATED")
  })
})

function onlyCoded(bytes: Uint8Array): void {
  try {
    describeEvidence(bytes)
  } catch (error) {
    if (!(error instanceof CodedError) || error.code === "ERR_INTERNAL") throw error
  }
}
