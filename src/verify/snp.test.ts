import { describe, expect, test } from "bun:test"
import { validAt, vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { AMD_ANCHORS, trustAnchorFromPem } from "../endorsements/amd-roots.ts"
import { encodePem, parsePem } from "../formats/pem.ts"
import { parseCertificateTable } from "../formats/snp/certificate-table.ts"
import { parseLegacySnpBlob } from "../formats/snp/legacy-blob.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { parseCrl } from "../formats/x509/crl.ts"
import { isSignedBy } from "./certificate-chain.ts"
import { verifyCrl } from "./crl.ts"
import { verifySnp } from "./snp.ts"

const AT = new Date("2026-08-06T14:05:07Z")
/** AMD's intermediates and roots, as a host would give them. */
const AMD_CAS = HAVE_VECTORS
  ? ["milan", "genoa", "turin"].flatMap((name) =>
      ["ask", "asvk", "ark"].map((kind) => vector(`trust/amd/${kind}-${name}.der`)),
    )
  : []

function judgeByAmd(report: Uint8Array, leaves: readonly Uint8Array[], at: Date, cas = AMD_CAS) {
  return verifySnp({ report, certificates: [...leaves, ...cas], anchors: AMD_ANCHORS, crl: null, at })
}

function leafOf(related: Readonly<Record<string, unknown>> | null | undefined): Uint8Array[] {
  const file = related?.["vcek"] ?? related?.["vlek"]
  return typeof file === "string" ? [vector(file)] : []
}

describe.skipIf(!HAVE_VECTORS)("real reports", () => {
  for (const entry of vectorsUnder("snp").filter(({ kind }) => kind === "snp")) {
    const at = validAt(entry)
    if (at === null)
      test(`${entry.file}: without its certificate it is not verified`, () => {
        expect(() => judgeByAmd(vector(entry.file), [], AT)).toThrowCode("ERR_SNP_ENDORSEMENT_MISSING")
      })
    else
      test(`${entry.file}: verified as ${entry.product}`, () => {
        const proven = judgeByAmd(vector(entry.file), leafOf(entry.related), at)
        expect(proven.product as string).toBe(entry.product ?? "")
        expect(proven.anchor.simulated).toBe(false)
        expect(proven.revocation).toBe("not-checked")
        expect(proven.chipId === null).toBe(proven.signer === "VLEK")
      })
  }

  for (const name of ["milan-v2-vlek-aws-tee-tools", "milan-v3-vlek-aws-trustee"]) {
    const judgeAt = (at: string) =>
      judgeByAmd(vector(`snp/${name}/report.bin`), [vector(`snp/${name}/vlek.der`)], new Date(at))
    test(`${name}: the VLEK lives one year`, () => {
      expect(() => judgeAt("2023-07-01T00:00:00Z")).toThrowCode("ERR_CERT_NOT_YET_VALID")
      expect(() => judgeAt("2026-01-01T00:00:00Z")).toThrowCode("ERR_CERT_EXPIRED")
    })
  }

  test("a VLEK report names the cloud provider and no chip", () => {
    const dir = "snp/milan-v3-vlek-aws-trustee"
    const at = new Date("2025-06-11T10:14:21Z")
    const proven = judgeByAmd(vector(`${dir}/report.bin`), [vector(`${dir}/vlek.der`)], at)
    expect(proven.cspId).toBe("CN=cc-us-east-2.amazonaws.com")
  })

  test("each bit flip in the signed part of a report is refused", () => {
    const report = vector("snp/milan-v5-tee-tools-ext/report.bin")
    const leaves = [vector("snp/milan-v5-tee-tools-ext/vcek.der")]
    for (let at = 0; at < 0x2a0; at++) {
      const changed = report.slice()
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      expect(() => judgeByAmd(changed, leaves, AT)).toThrow()
    }
  })
})

describe.skipIf(!HAVE_VECTORS)("real reports with the certificates that came with them", () => {
  const at = new Date("2026-07-01T23:30:46Z")
  const plain = vector.bind(null, "snp/milan-v5-tee-tools-ext/report.bin")

  test("the predecessor's blob with ARK, ASK, VCEK", () => {
    const { report, certificates } = parseLegacySnpBlob(vector("snp-ext/tee-tools-ark-ask-vcek.bin"))
    expect(report).toEqual(plain())
    expect(
      judgeByAmd(
        report,
        certificates.map(({ der }) => der),
        at,
        [],
      ).signer,
    ).toBe("VCEK")
  })

  test("a report followed by a certificate table", () => {
    const blob = vector("snp-ext/constructed-guid-table-vcek.bin")
    const certificates = parseCertificateTable(blob.subarray(1184)).map(({ der }) => der)
    expect(judgeByAmd(blob.subarray(0, 1184), certificates, at, []).signer).toBe("VCEK")
  })

  test("a report followed by PEM", () => {
    const blob = vector("snp-ext/azure-sev-report-with-chain.bin")
    const certificates = parsePem(Buffer.from(blob.subarray(1184)).toString("latin1")).map(({ der }) => der)
    expect(judgeByAmd(blob.subarray(0, 1184), certificates, at, []).signer).toBe("VCEK")
  })

  test("a report with nothing but its VLEK needs the ASVK from elsewhere", () => {
    const blob = vector("snp-ext/tee-tools-vlek.bin")
    const [report, vlek] = [blob.subarray(0, 1184), blob.subarray(1184 + 44)]
    const valid = new Date("2024-01-17T21:00:17Z")
    expect(() => judgeByAmd(report, [vlek], valid, [])).toThrowCode("ERR_SNP_ENDORSEMENT_MISSING")
    expect(judgeByAmd(report, [vlek], valid).signer).toBe("VLEK")
    expect(() => judgeByAmd(report, [vlek], at)).toThrowCode("ERR_CERT_EXPIRED")
  })
})

describe.skipIf(!HAVE_VECTORS)("reports that must be refused", () => {
  const genoa = HAVE_VECTORS ? [vector("snp/genoa-v3-azure-cc/vcek.der")] : []
  for (const [name, code] of [
    ["report-data-flip", "ERR_SNP_SIGNATURE"],
    ["sig-r-flip", "ERR_SNP_SIGNATURE"],
    ["sig-zero", "ERR_SNP_SIGNATURE"],
    ["sigalgo-0", "ERR_SNP_NOT_SIGNED"],
    ["trailing-byte", "ERR_TRAILING_BYTES"],
    ["truncated-1183", "ERR_TRUNCATED"],
    ["truncated-672", "ERR_TRUNCATED"],
    ["version-1", "ERR_UNSUPPORTED"],
    ["version-99", "ERR_UNSUPPORTED"],
  ] as const)
    test(`${name}: ${code}`, () => {
      const report = vector(`snp-negative/derived-genoa-v3-azure-cc-${name}.bin`)
      expect(() => judgeByAmd(report, genoa, AT)).toThrowCode(code)
    })

  test("malformed reports of another project", () => {
    const bad = (name: string) => vector(`snp-negative/lit-guest-report-${name}.bin`)
    expect(() => judgeByAmd(bad("bad-sig"), [], AT)).toThrowCode("ERR_TRAILING_BYTES")
    expect(() => judgeByAmd(bad("corrupt"), [], AT)).toThrowCode("ERR_TRUNCATED")
  })

  for (const [report, leaf, code] of [
    ["milan-v2-virtee/report.bin", "milan-v2-trustee/vcek.der", "ERR_SNP_CHIP_ID"],
    ["turin-v5-azure-cc/report.bin", "genoa-v3-azure-cc/vcek.der", "ERR_SNP_PRODUCT"],
    ["milan-v2-vlek-aws-tee-tools/report.bin", "milan-v2-virtee/vcek.der", "ERR_SNP_SIGNING_KEY"],
  ] as const)
    test(`${report} with ${leaf}: ${code}`, () => {
      const judge = () => judgeByAmd(vector(`snp/${report}`), [vector(`snp/${leaf}`)], AT)
      expect(judge).toThrowCode(code)
    })

  test("a Milan VCEK does not chain to Genoa's certificates", () => {
    const report = vector("snp/milan-v2-virtee/report.bin")
    const leaf = vector("snp/milan-v2-virtee/vcek.der")
    const chain = parsePem(Buffer.from(vector("trust/amd/cert_chain-vcek-genoa.pem")).toString())
    const judge = () =>
      judgeByAmd(
        report,
        [leaf],
        AT,
        chain.map(({ der }) => der),
      )
    expect(judge).toThrowCode("ERR_SNP_ENDORSEMENT_MISSING")
  })

  test("an ASK with an altered name is not AMD's, and issued nothing", () => {
    const report = vector("snp/milan-v2-trustee/report.bin")
    const leaf = vector("snp/milan-v2-trustee/vcek.der")
    const ask = vector("negative/snp-ask-milan-0903a395.der")
    expect(() => judgeByAmd(report, [leaf], AT, [ask])).toThrowCode("ERR_SNP_ENDORSEMENT_MISSING")
    for (const { spki } of AMD_ANCHORS) expect(isSignedBy(parseCertificate(ask), spki)).toBe(false)
  })

  test("an ASK with an altered signature is not AMD's", () => {
    const report = vector("snp/milan-v2-trustee/report.bin")
    const leaf = vector("snp/milan-v2-trustee/vcek.der")
    const ask = vector("trust/amd/ask-milan.der")
    ask[ask.length - 1] = (ask.at(-1) ?? 0) ^ 1
    expect(() => judgeByAmd(report, [leaf], AT, [ask])).toThrowCode("ERR_CERT_UNTRUSTED")
  })

  test("a made-up VCEK is not signed by the ASK", () => {
    const report = vector("snp/milan-v2-trustee/report.bin")
    const leaf = vector("snp-negative/vcek-invalid-legacy.der")
    expect(() => judgeByAmd(report, [leaf], AT)).toThrowCode("ERR_CERT_SIGNATURE")
  })
})

describe.skipIf(!HAVE_VECTORS)("reports under a test root", () => {
  const at = new Date("2026-06-01T00:00:00Z")
  const file = (name: string) => vector(`snp-testpki/${name}`)
  const judge = (report = "report.bin", vcek = "vcek.der", when = at, crl: string | null = null) =>
    verifySnp({
      report: file(report),
      certificates: [file(vcek), file("ask.der"), file("ark.der")],
      anchors: [trustAnchorFromPem(encodePem("CERTIFICATE", file("ark.der")))],
      crl: crl === null ? null : file(crl),
      at: when,
    })

  test("verified under that root, and simulated", () => {
    expect(judge().anchor.simulated).toBe(true)
  })

  test("with AMD's roots it is refused, although its names are AMD's", () => {
    const certificates = [file("vcek.der"), file("ask.der"), file("ark.der")]
    const judgeReal = () =>
      verifySnp({ report: file("report.bin"), certificates, anchors: AMD_ANCHORS, crl: null, at })
    expect(judgeReal).toThrowCode("ERR_CERT_UNTRUSTED")
  })

  test("with no roots at all it is refused", () => {
    const certificates = [file("vcek.der"), file("ask.der"), file("ark.der")]
    const judgeNone = () =>
      verifySnp({ report: file("report.bin"), certificates, anchors: [], crl: null, at })
    expect(judgeNone).toThrowCode("ERR_CERT_UNTRUSTED")
  })

  test("outside the validity of the VCEK it is refused", () => {
    expect(() => judge("report.bin", "vcek.der", new Date("2033-01-01"))).toThrowCode("ERR_CERT_EXPIRED")
    expect(() => judge("report.bin", "vcek.der", new Date("2024-06-01"))).toThrowCode(
      "ERR_CERT_NOT_YET_VALID",
    )
    expect(() => judge("report.bin", "vcek-expired.der")).toThrowCode("ERR_CERT_EXPIRED")
  })

  for (const [vcek, code] of [
    ["vcek-other-hwid.der", "ERR_SNP_CHIP_ID"],
    ["vcek-other-tcb.der", "ERR_SNP_CERTIFICATE_TCB"],
    ["vcek-signed-by-ark.der", "ERR_CERT_NAME"],
  ] as const)
    test(`${vcek}: ${code}`, () => {
      expect(() => judge("report.bin", vcek)).toThrowCode(code)
    })

  for (const [report, code] of [
    ["report-chipid-masked.bin", "ERR_SNP_CHIP_ID"],
    ["report-mask-chip-key.bin", "ERR_SNP_NOT_SIGNED"],
    ["report-reserved-nonzero.bin", "ERR_RESERVED_NOT_ZERO"],
    ["report-says-vlek.bin", "ERR_SNP_SIGNING_KEY"],
    ["report-vmpl4.bin", "ERR_MALFORMED"],
  ] as const)
    test(`${report}: ${code}`, () => {
      expect(() => judge(report)).toThrowCode(code)
    })

  test("with its root's list revocation is checked", () => {
    expect(judge("report.bin", "vcek.der", at, "crl-empty.der")).toMatchObject({
      revocation: "checked",
      crl: {
        thisUpdate: new Date("2025-01-01T00:00:00Z"),
        nextUpdate: new Date("2030-01-01T00:00:00Z"),
        number: "07",
      },
    })
  })

  for (const [crl, code] of [
    ["crl-ask-revoked.der", "ERR_CERT_REVOKED"],
    ["crl-vcek-revoked.der", "ERR_CERT_REVOKED"],
    ["crl-expired.der", "ERR_CRL_EXPIRED"],
    ["crl-other-product.der", "ERR_CRL_ISSUER"],
    ["crl-wrong-signer.der", "ERR_CRL_SIGNATURE"],
  ] as const)
    test(`${crl}: ${code}`, () => {
      expect(() => judge("report.bin", "vcek.der", at, crl)).toThrowCode(code)
    })

  test("a list that is issued later than the time of verification is refused", () => {
    const early = new Date("2024-12-31T23:59:59Z")
    const list = parseCrl(file("crl-empty.der"))
    const issuer = { spki: parseCertificate(file("ark.der")).spki, name: list.issuer.der }
    expect(() => verifyCrl(list, issuer, early)).toThrowCode("ERR_CRL_NOT_YET_VALID")
  })

  test("a report that allows debugging is genuine: refusing it is for appraisal", () => {
    expect(judge("report-debug.bin").report.policy & (1n << 19n)).not.toBe(0n)
  })
})
