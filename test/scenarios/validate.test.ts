/** `attestation validate` over all recorded evidence: each vector gives what the index says of it, with the right failure class. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { z } from "zod"
import type { FileOption, ValidateOptions } from "../../src/commands/attestation-validate.ts"
import { validateEvidence } from "../../src/commands/validate-evidence.ts"
import { EXIT } from "../../src/errors.ts"
import { fromHex } from "../../src/formats/hex.ts"
import type { ValidateMode, Validation } from "../../src/policy/validate.ts"
import type { Check } from "../../src/policy/verdict.ts"
import { run } from "../executable.ts"
import { type VectorEntry, validAt, vector, vectorsUnder } from "../fakes/vectors.ts"
import { HAVE_VECTORS, VECTORS } from "../setup.ts"

let dir = ""
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "validate-"))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

interface Case {
  readonly mode: ValidateMode
  /** Path below the vectors, like all the others. */
  readonly file: string
  readonly files?: Partial<Record<FileOption, string>>
  readonly trustRoots?: readonly string[]
  readonly at?: string | Date
  readonly skip?: readonly Check[]
  readonly nonce?: string
  readonly reportData?: string
  readonly allowDebug?: boolean
  readonly product?: ValidateOptions["product"]
}

const NO_FILES: Record<FileOption, null> = {
  policy: null,
  vcek: null,
  vlek: null,
  chain: null,
  crl: null,
  collateral: null,
  ak: null,
  signature: null,
  pcrs: null,
  quote: null,
  "td-quote": null,
  "event-log": null,
}
const pathOf = (file: string) => (file.startsWith("/") ? file : join(VECTORS, file))

function judged(given: Case): Promise<Validation> {
  const files = Object.entries(given.files ?? {}).map(([name, file]) => [name, pathOf(file)])
  const options: ValidateOptions = {
    kdsUrl: "http://127.0.0.1:9",
    pcsUrl: "http://127.0.0.1:9",
    cacheDir: join(dir, "cache"),
    offline: true,
    file: pathOf(given.file),
    mode: given.mode,
    files: { ...NO_FILES, ...Object.fromEntries(files) },
    reportData: given.reportData === undefined ? null : fromHex(given.reportData),
    nonce: given.nonce === undefined ? null : fromHex(given.nonce),
    product: given.product ?? null,
    tpmCa: null,
    trustRoots: (given.trustRoots ?? []).map(pathOf),
    allowDebug: given.allowDebug === true,
    skip: new Set(given.skip ?? []),
    at: given.at === undefined ? null : new Date(given.at),
    json: true,
    quiet: false,
  }
  return validateEvidence(options, { talk: () => undefined })
}

/** Verdict, exit code and code agree with each other, and what was left out is told. */
function consistent(result: Validation, given: Case): void {
  expect(result.exitCode === 0).toBe(result.verdict === "pass")
  expect(result.code === null).toBe(result.verdict === "pass")
  expect(result.exitCode === 0 || result.exitCode > EXIT.usage).toBe(true)
  expect([...result.skipped].sort()).toEqual([...(given.skip ?? [])].sort())
}

async function passes(given: Case): Promise<Validation> {
  const result = await judged(given)
  expect({ code: result.code, exit: result.exitCode }).toEqual({ code: null, exit: 0 })
  consistent(result, given)
  return result
}

async function refused(given: Case, code: string, failureClass: keyof typeof EXIT): Promise<Validation> {
  const result = await judged(given)
  expect(`${result.code} ${result.exitCode}`).toBe(`${code} ${EXIT[failureClass]}`)
  consistent(result, given)
  return result
}

const fact = ({ facts }: VectorEntry, name: string) => `${facts[name]}`
const link = ({ related }: VectorEntry, name: string) => {
  const file = related?.[name]
  return typeof file === "string" ? file : null
}
const ofKind = (folder: string, kind: string) => vectorsUnder(folder).filter((entry) => entry.kind === kind)
const timeIn = (text: string) => /\bat (\d{4}-\d\d-\d\dT[\d:]+Z)/.exec(text)?.[1] ?? ""
const chainOf = (product: string, vlek: boolean) =>
  vlek
    ? `trust/amd/asvk-${product.toLowerCase()}.der`
    : `trust/amd/cert_chain-vcek-${product.toLowerCase()}.pem`
const REVOCATION = ["revocation"] as const

describe.skipIf(!HAVE_VECTORS)("SEV-SNP reports", () => {
  const entries = ofKind("snp", "snp")
  const caseOf = (entry: VectorEntry): Case => {
    const [vcek, vlek] = [link(entry, "vcek"), link(entry, "vlek")]
    return {
      mode: "snp",
      file: entry.file,
      files: {
        ...(vcek === null ? {} : { vcek }),
        ...(vlek === null ? {} : { vlek }),
        chain: chainOf(`${entry.product}`, vlek !== null),
      },
      at: validAt(entry) ?? "2024-06-01T00:00:00Z",
      skip: REVOCATION,
      allowDebug: (Number(fact(entry, "policy")) & (1 << 19)) !== 0,
    }
  }
  test("there are some", () => expect(entries.length).toBe(17))

  for (const entry of entries.filter((each) => validAt(each) === null))
    test(`${entry.file}: ${entry.expected}`, async () => {
      await refused(caseOf(entry), "ERR_SNP_ENDORSEMENT_MISSING", "tee")
    })

  for (const entry of entries.filter((each) => validAt(each) !== null)) {
    const given = caseOf(entry)
    test(`${entry.file}: ${entry.expected}`, async () => {
      const { evidence, tcb, simulated } = await passes(given)
      expect(simulated).toBe(false)
      expect(evidence).toMatchObject({
        version: entry.facts["version"],
        vmpl: entry.facts["vmpl"],
        measurement: entry.facts["measurement"],
        report_data: entry.facts["report_data"],
        host_data: entry.facts["host_data"],
      })
      expect(tcb).toMatchObject({ reported: entry.facts["reported_tcb"] })
    })

    test(`${entry.file}: with other report data, without revocation list, of another product`, async () => {
      await passes({ ...given, reportData: fact(entry, "report_data") })
      await refused({ ...given, reportData: "11".repeat(64) }, "ERR_BINDING_REPORT_DATA", "binding")
      await refused({ ...given, skip: [] }, "ERR_REVOCATION_NOT_CHECKED", "tee")
      const product = entry.product === "Turin" ? "Milan" : "Turin"
      await refused({ ...given, product }, "ERR_TEE_PRODUCT", "tee")
      await refused({ ...given, at: "2018-01-01T00:00:00Z" }, "ERR_CERT_NOT_YET_VALID", "tee")
      await refused({ ...given, at: "2046-01-01T00:00:00Z" }, "ERR_CERT_EXPIRED", "tee")
      await refused({ ...given, files: {} }, "ERR_SNP_ENDORSEMENT_MISSING", "tee")
    })

    if (given.allowDebug === true)
      test(`${entry.file}: debugging is refused`, async () => {
        await refused({ ...given, allowDebug: false }, "ERR_TEE_DEBUG", "tee")
      })
  }

  const EXTENDED: readonly (readonly [string, Case])[] = [
    ["azure-sev-report-with-chain.bin", { mode: "snp", file: "", at: "2024-01-01T00:00:00Z" }],
    ["constructed-guid-table-vcek.bin", { mode: "snp", file: "", at: "2026-07-01T23:30:46Z" }],
    ["tee-tools-ark-ask-vcek.bin", { mode: "snp", file: "", at: "2026-07-01T23:30:46Z" }],
    [
      "tee-tools-vlek.bin",
      { mode: "snp", file: "", at: "2024-01-17T21:00:17Z", files: { chain: chainOf("Milan", true) } },
    ],
  ]
  test("all extended reports are judged", () => {
    expect(EXTENDED.map(([name]) => name)).toEqual(
      ofKind("snp-ext", "snp-ext").map(({ file }) => file.slice("snp-ext/".length)),
    )
  })
  for (const [name, given] of EXTENDED)
    test(`snp-ext/${name}: certificates that come with the report serve`, async () => {
      const extended = { ...given, file: `snp-ext/${name}`, skip: REVOCATION }
      await passes(extended)
      await refused({ ...extended, at: "2046-01-01T00:00:00Z" }, "ERR_CERT_EXPIRED", "tee")
    })
})

describe.skipIf(!HAVE_VECTORS)("SEV-SNP reports that are refused", () => {
  const CODES: readonly (readonly [RegExp, string])[] = [
    [/version (1|99)/, "ERR_UNSUPPORTED"],
    [/signature algorithm 0/, "ERR_SNP_NOT_SIGNED"],
    [/1185 bytes|1183 bytes|body only|793 bytes/, "ERR_TRUNCATED"],
    [/signature invalid/, "ERR_SNP_SIGNATURE"],
  ]
  const at = "2026-08-06T14:05:07Z"
  const entries = ofKind("snp-negative", "snp-negative")
  test("there are some", () => expect(entries.length).toBe(13))
  for (const entry of entries.filter(({ file }) => file.endsWith(".bin")))
    test(`${entry.file}: ${entry.expected}`, async () => {
      const vcek = link(entry, "vcek")
      const files = { chain: chainOf("Genoa", false), ...(vcek === null ? {} : { vcek }) }
      const code = CODES.find(([pattern]) => pattern.test(entry.expected))?.[1] ?? entry.expected
      await refused({ mode: "snp", file: entry.file, files, at, skip: REVOCATION }, code, "tee")
    })

  const pairs = z.array(
    z.object({
      report: z.string().optional(),
      certificate: z.string(),
      chain: z.string().optional(),
      expected: z.string(),
    }),
  )
  const PAIR_CODES = [
    "ERR_SNP_CHIP_ID",
    "ERR_SNP_ENDORSEMENT_MISSING",
    "ERR_SNP_SIGNING_KEY",
    "ERR_SNP_ENDORSEMENT_MISSING",
  ]
  const rows = HAVE_VECTORS ? pairs.parse(jsonOf("snp-negative/pairs.json")) : []
  for (const [index, { report = "snp/milan-v2-virtee/report.bin", certificate, ...row }] of rows.entries())
    test(`${report} with ${certificate}: ${row.expected}`, async () => {
      const files = { vcek: certificate, chain: row.chain ?? chainOf("Turin", false) }
      const chain = index === 0 || index === 2 ? chainOf("Milan", false) : files.chain
      const given: Case = { mode: "snp", file: report, files: { ...files, chain }, skip: REVOCATION }
      await refused({ ...given, at: "2024-01-01T00:00:00Z" }, PAIR_CODES[index] ?? "", "tee")
    })

  const MILAN: Case = {
    mode: "snp",
    file: "snp/milan-v2-virtee/report.bin",
    files: { vcek: "snp/milan-v2-virtee/vcek.der", chain: chainOf("Milan", false) },
    at: "2023-10-03T07:23:43Z",
    skip: REVOCATION,
  }
  test("negative/snp-ask-milan-0903a395.der: the altered ASK vouches for nothing", async () => {
    const files = { ...MILAN.files, chain: "negative/snp-ask-milan-0903a395.der" }
    await refused({ ...MILAN, files }, "ERR_SNP_ENDORSEMENT_MISSING", "tee")
  })

  test("cocos/attestation-1240.bin: what stands behind the report is a table without certificates", async () => {
    const given = { ...MILAN, file: "cocos/attestation-1240.bin" }
    await refused({ ...given, files: {} }, "ERR_SNP_ENDORSEMENT_MISSING", "tee")
    await refused(given, "ERR_SNP_CHIP_ID", "tee")
  })

  test("snp-negative/vcek-invalid-legacy.der: a made-up VCEK", async () => {
    const files = { ...MILAN.files, vcek: "snp-negative/vcek-invalid-legacy.der" }
    const { exitCode } = await judged({ ...MILAN, files })
    expect(exitCode).toBe(EXIT.tee)
  })

  test("files that are something else are a refusal, and files that are not there are none", async () => {
    const stranger = "tpm-quote/rsassa-trustee-tpm/quote.msg"
    for (const option of ["vcek", "chain"] as const) {
      const { exitCode } = await judged({ ...MILAN, files: { ...MILAN.files, [option]: stranger } })
      expect(exitCode).toBe(EXIT.tee)
    }
    const { exitCode } = await judged({ ...MILAN, files: { ...MILAN.files, crl: stranger }, skip: [] })
    expect(exitCode).toBe(EXIT.tee)
    expect(judged({ ...MILAN, files: { vcek: "nowhere" } })).rejects.toMatchObject({ code: "ERR_IO" })
    expect(judged({ ...MILAN, file: "nowhere" })).rejects.toMatchObject({ code: "ERR_IO" })
  })
})

describe.skipIf(!HAVE_VECTORS)("SEV-SNP reports under a test root", () => {
  const given: Case = {
    mode: "snp",
    file: "snp-testpki/report.bin",
    files: {
      vcek: "snp-testpki/vcek.der",
      chain: "snp-testpki/ask.der",
      crl: "snp-testpki/crl-empty.der",
    },
    trustRoots: ["snp-testpki/ark.der"],
    at: "2026-06-01T00:00:00Z",
  }
  const withFiles = (files: Case["files"]): Case => ({ ...given, files: { ...given.files, ...files } })

  test("report.bin is valid where its root is named, and the result says so", async () => {
    const { simulated, claims } = await passes(given)
    expect(simulated).toBe(true)
    expect(claims.find(({ name }) => name === "revocation")?.status).toBe("passed")
  })

  test.each<[string, Case, string]>([
    ["with the real roots", { ...given, trustRoots: [] }, "ERR_CERT_UNTRUSTED"],
    ["at 2033-01-01", { ...given, at: "2033-01-01T00:00:00Z" }, "ERR_CERT_EXPIRED"],
    ["at 2024-06-01", { ...given, at: "2024-06-01T00:00:00Z" }, "ERR_CERT_NOT_YET_VALID"],
    ["crl-ask-revoked", withFiles({ crl: "snp-testpki/crl-ask-revoked.der" }), "ERR_CERT_REVOKED"],
    ["crl-vcek-revoked", withFiles({ crl: "snp-testpki/crl-vcek-revoked.der" }), "ERR_CERT_REVOKED"],
    ["crl-expired", withFiles({ crl: "snp-testpki/crl-expired.der" }), "ERR_CRL_EXPIRED"],
    ["crl-other-product", withFiles({ crl: "snp-testpki/crl-other-product.der" }), "ERR_CRL_ISSUER"],
    ["crl-wrong-signer", withFiles({ crl: "snp-testpki/crl-wrong-signer.der" }), "ERR_CRL_SIGNATURE"],
    ["vcek-expired", withFiles({ vcek: "snp-testpki/vcek-expired.der" }), "ERR_CERT_EXPIRED"],
    ["vcek-other-hwid", withFiles({ vcek: "snp-testpki/vcek-other-hwid.der" }), "ERR_SNP_CHIP_ID"],
    ["vcek-other-tcb", withFiles({ vcek: "snp-testpki/vcek-other-tcb.der" }), "ERR_SNP_CERTIFICATE_TCB"],
    [
      "vcek-signed-by-ark",
      withFiles({ vcek: "snp-testpki/vcek-signed-by-ark.der" }),
      "ERR_SNP_ENDORSEMENT_MISSING",
    ],
    ["report-chipid-masked", { ...given, file: "snp-testpki/report-chipid-masked.bin" }, "ERR_SNP_CHIP_ID"],
    ["report-debug", { ...given, file: "snp-testpki/report-debug.bin" }, "ERR_TEE_DEBUG"],
    [
      "report-mask-chip-key",
      { ...given, file: "snp-testpki/report-mask-chip-key.bin" },
      "ERR_SNP_NOT_SIGNED",
    ],
    [
      "report-reserved-nonzero",
      { ...given, file: "snp-testpki/report-reserved-nonzero.bin" },
      "ERR_RESERVED_NOT_ZERO",
    ],
    ["report-says-vlek", { ...given, file: "snp-testpki/report-says-vlek.bin" }, "ERR_SNP_SIGNING_KEY"],
    ["report-vmpl4", { ...given, file: "snp-testpki/report-vmpl4.bin" }, "ERR_MALFORMED"],
  ])("%s is refused", async (_, case_, code) => {
    await refused(case_, code, "tee")
  })

  test("report-debug.bin passes where debugging is allowed by name", async () => {
    await passes({ ...given, file: "snp-testpki/report-debug.bin", allowDebug: true })
  })
})

describe.skipIf(!HAVE_VECTORS)("TDX and SGX quotes", () => {
  const bundles = ["tdx", "sgx"]
    .flatMap((folder) => ofKind(folder, "tdx-collateral"))
    .filter(({ file }) => file.includes("/collateral-"))
  test("there are some", () => expect(bundles.length).toBe(12))

  for (const entry of bundles)
    test(`${entry.file}: ${entry.expected}`, async () => {
      const file = link(entry, "quote") ?? ""
      const given: Case = {
        mode: file.startsWith("sgx/") ? "sgx" : "tdx",
        file,
        files: { collateral: entry.file },
        at: timeIn(entry.expected),
        skip: entry.facts["checked_crls"] === false ? REVOCATION : [],
        allowDebug: isDebugTd(file),
      }
      const { status } = entry.facts
      if (given.allowDebug === true) await refused({ ...given, allowDebug: false }, "ERR_TEE_DEBUG", "tee")
      const result =
        status === "UpToDate"
          ? await passes(given)
          : await refused(given, status === null ? "ERR_TCB_NO_LEVEL" : "ERR_TCB_STATUS", "tcb")
      if (status === null) return
      expect(result.tcb).toMatchObject({ status, advisories: entry.facts["advisories"] })
      expect(Date.parse(`${result.tcb["date"]}`)).toBe(Date.parse(fact(entry, "tcb_date")))
      const claim = result.claims.find(({ name }) => name === "tcb")
      if (status !== "UpToDate") expect(claim?.found).toStartWith(`${status}`)
      for (const advisory of z.array(z.string()).parse(entry.facts["advisories"]))
        if (status !== "UpToDate") expect(claim?.found).toContain(advisory)
      if (given.skip?.length === 1) await refused({ ...given, skip: [] }, "ERR_REVOCATION_NOT_CHECKED", "tee")
    })

  const quotes = [
    ...ofKind("tdx", "tdx"),
    ...ofKind("sgx", "sgx"),
    ...ofKind("azure-tdx", "azure-tdx"),
  ].filter(({ file }) => file.endsWith("quote.bin"))
  for (const entry of quotes)
    test(`${entry.file}: genuine; without documents it passes by name only`, async () => {
      const { facts, file } = entry
      const notBefore = facts["pck_not_before"]
      const at = new Date(
        notBefore === undefined ? "2025-01-01T00:00:00Z" : Date.parse(`${notBefore}`) + 1000,
      )
      const mode = file.startsWith("sgx/") ? "sgx" : "tdx"
      const given: Case = { mode, file, at, skip: ["revocation", "tcb"], allowDebug: isDebugTd(file) }
      const { tcb } = await passes(given)
      expect(tcb["status"]).toBeNull()
      await refused({ ...given, skip: [] }, "ERR_REVOCATION_NOT_CHECKED", "tee")
      await refused({ ...given, skip: REVOCATION }, "ERR_COLLATERAL_MISSING", "tee")
      await refused({ ...given, reportData: "11".repeat(64) }, "ERR_BINDING_REPORT_DATA", "binding")
      const wrong = mode === "sgx" ? "tdx" : "sgx"
      await refused({ ...given, mode: wrong }, "ERR_UNSUPPORTED", "tee")
    })

  const GOOD: Case = {
    mode: "tdx",
    file: "tdx/v4-phala-uptodate/quote.bin",
    files: { collateral: "tdx/v4-phala-uptodate/collateral-202506.json" },
    at: "2025-07-04T10:16:31Z",
  }
  const CODES: readonly (readonly [RegExp, string])[] = [
    [/QE identity signature invalid|TCB info signature invalid/, "ERR_COLLATERAL_SIGNATURE"],
    [/root CA CRL has the wrong issuer/, "ERR_CRL_ISSUER"],
    [/unsupported|TEE type says SGX/, "ERR_UNSUPPORTED"],
    [/QE report hash mismatch/, "ERR_QE_BINDING"],
    [/QE report signature invalid/, "ERR_QE_REPORT_SIGNATURE"],
    [/quote signature invalid/, "ERR_QUOTE_SIGNATURE"],
    [/malformed/, "ERR_TRUNCATED"],
    [/PCK chain are altered/, "ERR_MALFORMED"],
    [/QE vendor id unknown/, "ERR_QUOTE_VENDOR"],
    [/wrong root/, "ERR_CERT_UNTRUSTED"],
  ]
  for (const entry of vectorsUnder("tdx-negative").filter(({ file }) => !file.includes("times-")))
    test(`${entry.file}: ${entry.expected}`, async () => {
      const given = entry.file.endsWith(".json")
        ? { ...GOOD, files: { collateral: entry.file } }
        : { ...GOOD, file: entry.file }
      const code = CODES.find(([pattern]) => pattern.test(entry.expected))?.[1] ?? entry.expected
      await refused(given, code, "tee")
    })

  test("tdx-negative/times-v4-phala-uptodate.json: the time decides", async () => {
    const Row = z.object({ quote: z.string(), collateral: z.string(), at: z.string(), expected: z.string() })
    const rows = z.array(Row).parse(jsonOf("tdx-negative/times-v4-phala-uptodate.json"))
    expect(rows.length).toBe(3)
    for (const { quote, collateral, at, expected } of rows) {
      const given: Case = { mode: "tdx", file: quote, files: { collateral }, at }
      if (!expected.startsWith("reject")) await passes(given)
      else expect((await judged(given)).exitCode).toBe(EXIT.tee)
    }
    const late = { ...GOOD, at: "2025-07-19T10:16:04Z" }
    await refused(late, "ERR_CRL_EXPIRED", "tee")
    await refused({ ...late, skip: REVOCATION }, "ERR_COLLATERAL_EXPIRED", "tee")
  })

  for (const entry of ofKind("tdx-testpki", "tdx-testpki").filter(({ file }) => file.endsWith(".json")))
    test(`${entry.file}: ${entry.expected}`, async () => {
      const given: Case = {
        mode: "tdx",
        file: "tdx-testpki/quote.bin",
        files: { collateral: entry.file },
        trustRoots: ["tdx-testpki/root.der"],
        at: timeIn(entry.expected),
      }
      const status = fact(entry, "status")
      if (status === "UpToDate") expect((await passes(given)).simulated).toBe(true)
      else if (status.startsWith("reject")) await refused(given, "ERR_CERT_REVOKED", "tee")
      else expect((await refused(given, "ERR_TCB_STATUS", "tcb")).tcb["status"]).toBe(status)
      await refused({ ...given, trustRoots: [] }, "ERR_CERT_UNTRUSTED", "tee")
    })

  test("collateral may be a directory of the single files", async () => {
    const bundle = z.record(z.string(), z.string()).parse(jsonOf(GOOD.files?.collateral ?? ""))
    const folder = join(dir, "collateral")
    mkdirSync(folder)
    for (const [name, text] of Object.entries(bundle)) writeFileSync(join(folder, `${name}.txt`), text)
    await passes({ ...GOOD, files: { collateral: folder } })
    rmSync(join(folder, "qe_identity.txt"))
    await refused({ ...GOOD, files: { collateral: folder } }, "ERR_MALFORMED", "tee")
  })
})

describe.skipIf(!HAVE_VECTORS)("TPM quotes", () => {
  const quotes = ["tpm-quote", "ima-quote", "gcp", "cocos"]
    .flatMap(vectorsUnder)
    .filter(({ file }) => file.endsWith("quote.msg"))
  const caseOf = (entry: VectorEntry): Case => {
    const pcrs = link(entry, "pcrs")
    const files = { ak: link(entry, "ak") ?? "", signature: link(entry, "sig") ?? "" }
    return {
      mode: "vtpm",
      file: entry.file,
      files: pcrs === null ? files : { ...files, pcrs },
      nonce: fact(entry, "extra_data"),
    }
  }
  test("there are some", () => expect(quotes.length).toBe(15))

  for (const entry of quotes)
    test(`${entry.file}: ${entry.expected}`, async () => {
      const given = caseOf(entry)
      const { evidence } = await passes(given)
      expect(evidence).toMatchObject({
        extra_data: entry.facts["extra_data"],
        reset_count: entry.facts["reset_count"],
        pcr_digest: entry.facts["pcr_digest"],
      })
      await refused({ ...given, nonce: "0011" }, "ERR_TPM_QUALIFYING_DATA", "tpm")
      const { ak: _, ...rest } = given.files ?? {}
      await refused({ ...given, files: rest }, "ERR_TPM_INCOMPLETE", "tpm")
    })

  const GOOD = "tpm-quote/rsassa-trustee-tpm"
  const good: Case = {
    mode: "vtpm",
    file: `${GOOD}/quote.msg`,
    files: {
      ak: `${GOOD}/ak.spki.der`,
      signature: `${GOOD}/quote.sig`,
      pcrs: `${GOOD}/pcrs.json`,
    },
  }
  const CODES: readonly (readonly [RegExp, string])[] = [
    [/bad TPM_GENERATED magic/, "ERR_TPM_MAGIC"],
    [/CERTIFY/, "ERR_TPM_ATTEST_TYPE"],
    [/malformed/, "ERR_TRUNCATED"],
    [/SHA-1/, "ERR_TPM_SCHEME"],
    [/TPM_ALG_NULL/, "ERR_UNSUPPORTED"],
    [/signature invalid/, "ERR_TPM_SIGNATURE"],
  ]
  const altered = vectorsUnder("tpm-negative").filter(({ file }) => !file.endsWith(".json"))
  for (const entry of altered)
    test(`${entry.file}: ${entry.expected}`, async () => {
      const given = entry.file.endsWith(".sig")
        ? { ...good, files: { ...good.files, signature: entry.file } }
        : { ...good, file: entry.file }
      const code = CODES.find(([pattern]) => pattern.test(entry.expected))?.[1] ?? entry.expected
      await refused(given, code, "tpm")
    })

  test("tpm-negative/nonces-rsassa-trustee-tpm.json: only the very nonce is accepted", async () => {
    const Row = z.object({ quote: z.string(), nonce_hex: z.string(), expected: z.string() })
    for (const row of z.array(Row).parse(jsonOf("tpm-negative/nonces-rsassa-trustee-tpm.json"))) {
      const given = { ...good, file: row.quote, nonce: row.nonce_hex }
      if (row.expected.startsWith("accept")) await passes(given)
      else await refused(given, "ERR_TPM_QUALIFYING_DATA", "tpm")
    }
  })

  test("containers of quotes, and a quote as text, are no quotes", async () => {
    const containers = ["gcp", "cocos"].flatMap(vectorsUnder).filter(({ file }) => file.endsWith(".pb"))
    for (const { file } of [...containers, { file: "tpm-quote/keylime-string/test-quote.txt" }])
      await refused({ ...good, file }, "ERR_TPM_MAGIC", "tpm")
  })

  test("PCR values may be what tpm2_pcrread prints, with more than was quoted", async () => {
    const banks = z.record(z.string(), z.record(z.string(), z.string())).parse(jsonOf(`${GOOD}/pcrs.json`))
    const lines = Object.entries(banks).flatMap(([bank, values]) => [
      `  ${bank}:`,
      ...Object.entries(values).map(([pcr, value]) => `    ${pcr.padEnd(2)}: 0x${value.toUpperCase()}`),
    ])
    const text = join(dir, "pcrs.txt")
    writeFileSync(text, `  sha1:\n    0 : 0x${"00".repeat(20)}\n${lines.join("\n")}\n`)
    await passes({ ...good, files: { ...good.files, pcrs: text } })
    writeFileSync(text, `${lines.join("\n").replace(/0x../, "0xFF")}\n`)
    await refused({ ...good, files: { ...good.files, pcrs: text } }, "ERR_TPM_PCR_DIGEST", "tpm")
    writeFileSync(text, "sha256:\n  0: zero\n")
    await refused({ ...good, files: { ...good.files, pcrs: text } }, "ERR_MALFORMED", "tpm")
  })

  test("the bare signature serves as well as the TPM's structure", async () => {
    const bare = join(dir, "bare.sig")
    writeFileSync(bare, vector(`${GOOD}/quote.sig`).subarray(6))
    await passes({ ...good, files: { ...good.files, signature: bare } })
  })
})

describe.skipIf(!HAVE_VECTORS)("a report together with a quote", () => {
  const tpm = "tpm-quote/generated-ecdsa-p256"
  const both: Case = {
    mode: "snp-vtpm",
    file: "snp/genoa-v3-azure-cc/report.bin",
    files: {
      vcek: "snp/genoa-v3-azure-cc/vcek.der",
      chain: chainOf("Genoa", false),
      quote: `${tpm}/quote.msg`,
      signature: `${tpm}/quote.sig`,
      ak: `${tpm}/ak.tpm2b`,
      pcrs: `${tpm}/pcrs.json`,
    },
    at: "2026-08-06T14:05:07Z",
    nonce: "b0b1b2b3b4b5b6b7",
    skip: REVOCATION,
  }

  test("passes where both do, and fails with the one that does not", async () => {
    const { claims } = await passes(both)
    expect(claims.map(({ name }) => name)).toEqual(["tee", "revocation", "tcb", "binding", "tpm", "boot"])
    await refused({ ...both, nonce: "b0" }, "ERR_TPM_QUALIFYING_DATA", "tpm")
    await refused({ ...both, reportData: "11".repeat(64) }, "ERR_BINDING_REPORT_DATA", "binding")
    const { quote: _, ...rest } = both.files ?? {}
    await refused({ ...both, files: rest }, "ERR_TPM_INCOMPLETE", "tpm")
    await passes({ ...both, files: rest, skip: ["revocation", "tpm", "boot"] })
    const flipped = "snp-negative/derived-genoa-v3-azure-cc-report-data-flip.bin"
    await refused({ ...both, file: flipped }, "ERR_SNP_SIGNATURE", "tee")
  })

  test("a policy's PCR values are compared with the quoted ones", async () => {
    const policy = join(dir, "pcrs.toml")
    const pcrs = z.object({ sha256: z.record(z.string(), z.string()) }).parse(jsonOf(`${tpm}/pcrs.json`))
    const text = (value: string) => `[snp]\n[tpm.pcrs.sha256]\n4 = ["${value}"]\n`
    writeFileSync(policy, text(pcrs.sha256["4"] ?? ""))
    const { claims } = await passes({ ...both, files: { ...both.files, policy } })
    expect(claims.find(({ name }) => name === "boot")?.status).toBe("passed")
    writeFileSync(policy, text("11".repeat(32)))
    await refused({ ...both, files: { ...both.files, policy } }, "ERR_BOOT_PCR", "boot")
    const { pcrs: _, ...rest } = both.files ?? {}
    await refused({ ...both, files: { ...rest, policy } }, "ERR_POLICY_PCRS", "boot")
  })
})

describe.skipIf(!HAVE_VECTORS)("Azure", () => {
  const blobs = ["azure-snp", "azure-tdx"].flatMap((folder) =>
    ofKind(folder, folder).filter(({ file }) => file.endsWith("hcl-report.bin")),
  )
  const caseOf = (entry: VectorEntry): Case => {
    const folder = entry.file.slice(0, -"/hcl-report.bin".length)
    const quote = link(entry, "tpm_quote")
    const [vcek, tdQuote] = [link(entry, "vcek"), link(entry, "td_quote")]
    const tdx = entry.kind === "azure-tdx"
    return {
      mode: tdx ? "azure-tdx" : "azure-snp",
      file: entry.file,
      files: {
        ...(tdx ? {} : { chain: chainOf("Milan", false) }),
        ...(vcek === null ? {} : { vcek }),
        ...(tdQuote === null ? {} : { "td-quote": tdQuote }),
        ...(quote === null
          ? {}
          : {
              quote,
              signature: `${folder}/tpm-quote.sig`,
              pcrs: `${folder}/pcrs.json`,
              ak: `${folder}/ak.pem`,
            }),
      },
      at: validAt(entry) ?? "2025-01-01T00:00:00Z",
      skip: tdx ? ["revocation", "tcb"] : REVOCATION,
    }
  }
  test("there are some", () => expect(blobs.length).toBe(13))

  for (const entry of blobs)
    test(`${entry.file}: ${entry.expected}`, async () => {
      const given = caseOf(entry)
      if (entry.expected.includes("not checkable")) {
        const tdx = given.mode === "azure-tdx"
        await refused(given, tdx ? "ERR_TEE_ABSENT" : "ERR_SNP_ENDORSEMENT_MISSING", "tee")
        return
      }
      const { assurance, evidence } = await passes(given)
      expect(assurance.label).toBe("tpm-inside-tee")
      expect(evidence).toMatchObject({ hcl: { report_data: entry.facts["report_data"] } })
      const userData = entry.facts["user_data"]
      if (typeof userData === "string" && !/^0*$/.test(userData))
        await passes({ ...given, reportData: userData })
      await passes({ ...given, reportData: fact(entry, "report_data") })
      await refused({ ...given, reportData: "11".repeat(64) }, "ERR_AZURE_USER_DATA", "binding")
      await refused({ ...given, reportData: `11${"00".repeat(63)}` }, "ERR_BINDING_REPORT_DATA", "binding")
      const other = given.mode === "azure-snp" ? "azure-tdx" : "azure-snp"
      await refused({ ...given, mode: other }, "ERR_HCL_REPORT_TYPE", "tee")
    })

  test("azure-snp/trustee-hist-milan-v2-a: the VCEK of the same report elsewhere vouches for it", async () => {
    const entry = blobs.find(({ file }) => file.includes("trustee-hist-milan-v2-a"))
    if (entry === undefined) throw new Error("no such vector")
    const given = caseOf(entry)
    const files = { ...given.files, vcek: "snp/milan-v2-trustee/vcek.der" }
    await passes({ ...given, files, at: "2023-07-26T05:58:26Z" })
  })

  const quoted = ["azure-snp", "azure-tdx"].flatMap((folder) =>
    ofKind(folder, folder).filter(({ file }) => file.endsWith("tpm-quote.msg")),
  )
  for (const entry of quoted)
    test(`${entry.file}: ${entry.expected}`, async () => {
      const nonce = /extraData\) ([0-9a-f]*)/.exec(entry.expected)?.[1] ?? ""
      const blob = blobs.find(({ file }) => file.startsWith(entry.file.slice(0, -"tpm-quote.msg".length)))
      if (blob === undefined) throw new Error("no HCL report beside it")
      const given = { ...caseOf(blob), nonce }
      await passes(given)
      await refused({ ...given, nonce: "0011" }, "ERR_TPM_QUALIFYING_DATA", "tpm")
      const { quote: _, ...without } = given.files ?? {}
      await refused({ ...given, files: without }, "ERR_TPM_INCOMPLETE", "tpm")
      const ak = "tpm-quote/rsassa-trustee-tpm/ak.spki.der"
      await refused({ ...given, files: { ...given.files, ak } }, "ERR_AZURE_AK", "binding")
      // The same quote as evidence of its own.
      const { signature = "", pcrs = "", ak: own = "" } = given.files ?? {}
      await passes({ mode: "vtpm", file: entry.file, files: { ak: own, signature, pcrs }, nonce })
    })

  const CODES: readonly (readonly [RegExp, string, keyof typeof EXIT])[] = [
    [/bad HCL magic/, "ERR_HCL_SIGNATURE", "tee"],
    [/report type says TDX/, "ERR_HCL_REPORT_TYPE", "tee"],
    [/differs from report_data/, "ERR_AZURE_RUNTIME_DATA", "binding"],
    [/no IGVM header|beyond the blob/, "ERR_TRUNCATED", "tee"],
  ]
  const altered = vectorsUnder("azure-negative")
  test("there are altered ones", () => expect(altered.length).toBe(5))
  for (const entry of altered)
    test(`${entry.file}: ${entry.expected}`, async () => {
      const [, code, failureClass] = CODES.find(([pattern]) => pattern.test(entry.expected)) ?? []
      const given: Case = {
        mode: "azure-snp",
        file: entry.file,
        files: { vcek: "azure-snp/trustee-v0-milan/vcek.der", chain: chainOf("Milan", false) },
        at: "2025-07-30T04:26:55Z",
        skip: REVOCATION,
      }
      await refused(given, code ?? entry.expected, failureClass ?? "ok")
    })
})

describe.skipIf(!HAVE_VECTORS)("policies", () => {
  const Row = z.object({ report: z.string(), policy: z.unknown(), expected: z.string() })
  const rows = HAVE_VECTORS ? z.array(Row).parse(jsonOf("policy/snp-policy-cases.json")) : []
  const CODES: readonly (readonly [RegExp, string, keyof typeof EXIT])[] = [
    [/measurement/, "ERR_TEE_MEASUREMENT", "tee"],
    [/vmpl/, "ERR_TEE_VMPL", "tee"],
    [/host_data/, "ERR_TEE_HOST_DATA", "tee"],
    [/TCB/, "ERR_TCB_BELOW", "tcb"],
    [/debug/, "ERR_TEE_DEBUG", "tee"],
  ]
  for (const [index, row] of rows.entries())
    test(`case ${index}, ${row.report}: ${row.expected}`, async () => {
      const folder = row.report.replace("/report.bin", "")
      const entry = vectorsUnder(folder).find(({ file }) => file === row.report)
      if (entry === undefined) throw new Error("no such report")
      const policy = join(dir, `policy-${index}.json`)
      writeFileSync(policy, JSON.stringify(row.policy))
      const given: Case = {
        mode: "snp",
        file: row.report,
        files: { policy, vcek: `${folder}/vcek.der`, chain: chainOf(`${entry.product}`, false) },
        at: validAt(entry) ?? "",
        skip: REVOCATION,
      }
      if (row.expected.startsWith("policy satisfied")) await passes(given)
      else {
        const [, code, failureClass] = CODES.find(([pattern]) => pattern.test(row.expected)) ?? []
        await refused(given, code ?? row.expected, failureClass ?? "ok")
      }
    })

  test("policy/cocos-tdx-latest.json fits the quote that the index names", async () => {
    const quote: Case = {
      mode: "tdx",
      file: "tdx/v4-phala-uptodate/quote.bin",
      files: {
        collateral: "tdx/v4-phala-uptodate/collateral-202506.json",
        policy: "policy/cocos-tdx-latest.json",
      },
      at: "2025-07-04T10:16:31Z",
    }
    const result = await judged(quote)
    const found = result.claims.flatMap(({ findings }) => findings.map(({ subject }) => subject))
    expect(found).not.toContain("mr_td")
  })

  test("a policy for SEV-SNP refuses a TDX quote", async () => {
    const given: Case = {
      mode: "tdx",
      file: "tdx/v4-phala-uptodate/quote.bin",
      files: {
        collateral: "tdx/v4-phala-uptodate/collateral-202506.json",
        policy: "policy/cocos-snp-2025.json",
      },
      at: "2025-07-04T10:16:31Z",
    }
    await refused(given, "ERR_POLICY_PLATFORM", "tee")
  })
})

describe.skipIf(!HAVE_VECTORS)("the executable", () => {
  const genoa = ["snp/genoa-v3-azure-cc/report.bin", "snp/genoa-v3-azure-cc/vcek.der"].map(pathOf)
  const [report = "", vcek = ""] = genoa
  const base = ["attestation", "validate", report, "--mode", "snp", "--offline", "--vcek", vcek]
  const full = [...base, "--chain", pathOf(chainOf("Genoa", false)), "--at", "2026-08-06T14:05:07Z"]
  const cache = ["--cache-dir", "/nonexistent"]

  test("a pass ends with 0 and names what was left out", async () => {
    const { code, stdout } = await run([...full, ...cache, "--skip", "revocation", "--json"])
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ verdict: "pass", code: null, skipped: ["revocation"] })
    const text = await run([...full, ...cache, "--skip", "revocation"])
    expect([text.code, text.stderr]).toEqual([0, ""])
    expect(text.stdout).toContain("Left out by --skip: revocation")
  })

  test("a check that could not be made is a refusal", async () => {
    const { code, stdout } = await run([...full, ...cache, "--json"])
    expect(code).toBe(EXIT.tee)
    const shown = z.object({ claims: z.array(z.record(z.string(), z.unknown())) }).parse(JSON.parse(stdout))
    expect(JSON.parse(stdout)).toMatchObject({ verdict: "fail", code: "ERR_REVOCATION_NOT_CHECKED" })
    for (const claim of shown.claims)
      for (const member of ["name", "status", "expected", "found", "meaning", "remedy"])
        expect(Object.keys(claim)).toContain(member)
  })

  test("option names may have underscores, and evidence may come on standard input", async () => {
    const td = pathOf("tdx/v4-phala-uptodate/quote.bin")
    const collateral = pathOf("tdx/v4-phala-uptodate/collateral-202506.json")
    const at = ["--at", "2025-07-04T12:16:31+02:00"]
    const data = fact(
      ofKind("tdx", "tdx").find(({ file }) => td.endsWith(file)) ?? {
        file: "",
        kind: "",
        role: "",
        expected: "",
        facts: {},
      },
      "report_data",
    )
    const args = ["attestation", "validate", "--mode=tdx", "--offline", "--cache_dir", "/nonexistent", ...at]
    const { code } = await run([...args, "--collateral", collateral, "--report_data", data, td])
    expect(code).toBe(0)
    const child = Bun.spawnSync(
      [
        "sh",
        "-c",
        'exec "$0" "$@" - < "$QUOTE"',
        join(import.meta.dir, "../../dist/cosmian_vm"),
        ...args,
        "--collateral",
        collateral,
      ],
      { env: { ...process.env, QUOTE: td } },
    )
    expect(child.exitCode).toBe(0)
  })

  test("1 and 2 are for files and options only", async () => {
    for (const [args, expected] of [
      [[...full, "--mode", "tdx"], EXIT.usage],
      [["attestation", "validate", report], EXIT.usage],
      [["attestation", "validate", report, "--mode", "sev"], EXIT.usage],
      [[...full, "--nonce", "00"], EXIT.usage],
      [[...full, "--report-data", "0g"], EXIT.usage],
      [[...full, "--at", "yesterday"], EXIT.usage],
      [[...full, "--at", "2025-02-30T00:00:00Z"], EXIT.usage],
      [[...full, "--skip", "everything"], EXIT.usage],
      [[...full, "--vlek", vcek], EXIT.usage],
      [[...full, "--trust-root", vcek], EXIT.usage],
      [[...full, "--policy", "/nonexistent"], EXIT.operational],
      [["attestation", "validate", "/nonexistent", "--mode", "snp"], EXIT.operational],
      [["attestation", "validate", "/dev/null", "--mode", "snp", "--offline"], EXIT.tee],
      [["attestation", "validate", "/dev/null", "--mode", "vtpm"], EXIT.tpm],
      [["attestation", "validate", vcek, "--mode", "tdx", "--offline"], EXIT.tee],
    ] as const)
      expect(`${args.join(" ")}: ${(await run(args)).code}`).toBe(`${args.join(" ")}: ${expected}`)
  })
})

/** Whether the index says that a TD's first attribute, debugging, is set. */
function isDebugTd(quote: string): boolean {
  const entry = vectorsUnder("tdx").find(({ file }) => file === quote)
  return /^.[13579bdf]/.test(`${entry?.facts["td_attributes"] ?? "00"}`)
}

function jsonOf(file: string): unknown {
  return JSON.parse(Buffer.from(vector(file)).toString("utf8"))
}

describe.skipIf(!HAVE_VECTORS)("--event-log", () => {
  const quote = "tdx/v4-attestation-rs-live/quote.bin"
  const withLog = (log: string) =>
    judged({
      mode: "tdx",
      file: quote,
      files: { "event-log": log },
      at: "2026-10-01T00:00:00Z",
      // No collateral of this platform is stored.
      skip: ["revocation", "tcb"],
      allowDebug: true,
    })

  test("the log of that boot gives the quote's RTMRs", async () => {
    const { claims, exitCode } = await withLog("ccel/attestation-rs-live2.bin")
    expect(claims.find(({ name }) => name === "boot")?.status).toBe("passed")
    expect(exitCode).toBe(0)
  })

  test("the log of another boot, and what is no log, are refused as a boot failure", async () => {
    const other = await withLog("ccel/attestation-rs-live.bin")
    expect([other.exitCode, other.code]).toEqual([15, "ERR_RTMR_REPLAY"])
    expect((await withLog(quote)).exitCode).toBe(15)
  })
})
