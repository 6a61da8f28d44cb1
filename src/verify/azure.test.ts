import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { fakeClaims, fakeHclReport, fakeVtpm } from "../../test/fakes/azure.ts"
import { bundle } from "../../test/fakes/intel-vectors.ts"
import { fakeChip, JUDGED } from "../../test/fakes/snp.ts"
import { makeSoftwareAk, quoteAttest, softwareQuote } from "../../test/fakes/software-ak.ts"
import { type VectorEntry, validAt, vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { AMD_ANCHORS } from "../endorsements/amd-roots.ts"
import { INTEL_ANCHORS } from "../endorsements/intel-roots.ts"
import { CodedError } from "../errors.ts"
import { parseHclEnvelope, parseHclReport } from "../formats/azure/hcl.ts"
import { AZURE_QUOTE_PCRS } from "../formats/azure/vtpm.ts"
import { fromHex, toHex } from "../formats/hex.ts"
import { parsePem } from "../formats/pem.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { encodeAttest, parseAttest } from "../formats/tpm/attest.ts"
import { OBJECT } from "../formats/tpm/public.ts"
import { encodeSignature, parseSignature } from "../formats/tpm/signature.ts"
import {
  type AzureClaims,
  type HclHardware,
  verifyAzureQuote,
  verifyHcl,
  verifyRuntimeData,
} from "./azure.ts"
import { verifySnp } from "./snp.ts"
import { type TdxAttestation, verifyTdx } from "./tdx.ts"
import { verifyBareKeyQuote, verifyQuote } from "./tpm.ts"
import { bareKey, spkiOf } from "./tpm-signature.ts"
import type { Verified } from "./verified.ts"

const index = ["azure-snp", "azure-tdx"].flatMap(vectorsUnder)
const named = (name: string) => index.filter(({ file }) => file.endsWith(`/${name}`))
const beside = (file: string, name: string) => vector(file.replace(/[^/]+$/, name))
const bytesOf = (hex: unknown) => fromHex(String(hex)) ?? new Uint8Array()

/** AMD's judgement over the SNP report inside an HCL report. */
function amd(blob: Uint8Array, vcek: string, at: Date): HclHardware {
  const { hardwareReport } = parseHclEnvelope(blob)
  const certificates = [vector(vcek), vector("trust/amd/ask-milan.der")]
  return {
    kind: "snp",
    attestation: verifySnp({ report: hardwareReport, certificates, anchors: AMD_ANCHORS, crl: null, at }),
  }
}

/** Intel's documents for the platforms (FMSPC 00806f050000) that Azure's quotes come from, and a day on which they held. */
const COLLATERAL = "tdx/v4-gcp-automata/collateral-202507-outofdate.json"
const COLLATERAL_AT = new Date("2025-07-20T00:00:00Z")

/** Intel's judgement over a quote. */
function intel(quote: Uint8Array): { kind: "tdx"; attestation: Verified<TdxAttestation> } {
  const input = { collateral: bundle(COLLATERAL), anchors: INTEL_ANCHORS, at: COLLATERAL_AT }
  return { kind: "tdx", attestation: verifyTdx({ quote, ...input }) }
}

function hardwareOf(entry: VectorEntry): HclHardware | null {
  const { vcek, td_quote: quote } = entry.related ?? {}
  const at = validAt(entry)
  if (typeof vcek === "string" && at !== null) return amd(vector(entry.file), vcek, at)
  return typeof quote === "string" ? intel(vector(quote)) : null
}

function akBeside(file: string): Uint8Array {
  return parsePem(Buffer.from(beside(file, "ak.pem")).toString())[0]?.der ?? new Uint8Array()
}

function pcrsBeside(file: string): Uint8Array[] {
  const { sha256 } = JSON.parse(Buffer.from(beside(file, "pcrs.json")).toString())
  return AZURE_QUOTE_PCRS.map((pcr) => bytesOf(sha256[pcr]))
}

describe.skipIf(!HAVE_VECTORS)("real HCL reports", () => {
  for (const entry of named("hcl-report.bin")) {
    const { file, expected, related } = entry
    const load = () => vector(file)

    test(`${file}: the hardware report holds the hash of the claims`, () => {
      expect(expected).toContain("runtime data bound")
      const report = parseHclReport(load())
      expect(verifyRuntimeData(report)).toBeUndefined()
      const ak = akBeside(file)
      expect(Buffer.from(ak).includes(report.claims.akPublicKey.modulus)).toBeTrue()
    })

    const vouched = /SNP report valid at|TD quote valid/.test(expected)
    test(`${file}: ${vouched ? "verified hardware vouches for the claims" : "no hardware can vouch for it here"}`, () => {
      const hardware = hardwareOf(entry)
      expect(hardware !== null).toBe(vouched)
      if (hardware === null) return
      const claims = verifyHcl({ blob: load(), hardware, userData: null })
      expect(claims.freshness).toBe("not-checked")
      expect(claims.akSpki).toEqual(akBeside(file))
    })

    if (typeof related?.["tpm_quote"] === "string")
      test(`${file}: its attestation key signed the quote`, () => {
        const hardware = hardwareOf(entry)
        if (hardware === null) throw new Error("no hardware")
        const claims = verifyHcl({ blob: load(), hardware, userData: null })
        const message = named("tpm-quote.msg").find((each) => each.file === related["tpm_quote"])
        const qualifyingData = bytesOf(message?.facts["extra_data"])
        const evidence = {
          quote: beside(file, "tpm-quote.msg"),
          signature: beside(file, "tpm-quote.sig"),
          pcrs: pcrsBeside(file),
          akSpki: null,
        }
        const asked = { qualifyingData, pcrSelection: AZURE_QUOTE_PCRS }
        const tpm = verifyAzureQuote(claims, evidence, asked)
        expect(tpm).toMatchObject({ akAttributes: "unknown", akVouchedBy: "paravisor", safe: true })
        expect<unknown>(tpm.resetCount).toBe(message?.facts["reset_count"])
        const other = { ...asked, qualifyingData: Uint8Array.of(...qualifyingData, 0) }
        expect(() => verifyAzureQuote(claims, evidence, other)).toThrowCode("ERR_TPM_QUALIFYING_DATA")
      })
  }

  for (const { file, expected, facts } of named("td-quote.bin"))
    test(`${file}: ${expected.slice(0, 60)}…`, () => {
      const { attestation } = intel(vector(file))
      expect<unknown>(toHex(attestation.quote.body.mrTd)).toBe(facts["mrtd"])
      expect<unknown>(toHex(attestation.platform.fmspc)).toBe(facts["fmspc"])
      // By documents of that time: these machines had not had their update.
      expect(attestation).toMatchObject({ revocation: "checked", tcb: { status: "OutOfDate" } })
    })

  test("one blob without its certificate holds a report that another file's certificate proves", () => {
    const blob = vector("azure-snp/trustee-hist-milan-v2-a/hcl-report.bin")
    const hardware = amd(blob, "snp/milan-v2-trustee/vcek.der", new Date("2025-01-01T00:00:00Z"))
    expect(verifyHcl({ blob, hardware, userData: null }).ekPublicKey).toBeNull()
  })

  test("user data shows for which verification a report was made", () => {
    const [entry] = named("hcl-report.bin").filter(({ file }) => file.includes("trustee-v2-milan"))
    const hardware = entry && hardwareOf(entry)
    if (!entry || !hardware) throw new Error("no such vector")
    const blob = vector(entry.file)
    const nonce = bytesOf(
      named("tpm-quote.msg").find(({ file }) => file.includes("v2-milan"))?.facts["extra_data"],
    )
    expect(nonce.length).toBe(48)
    expect(verifyHcl({ blob, hardware, userData: nonce }).freshness).toBe("user-data")
    for (const userData of [nonce.subarray(1), new Uint8Array(64), new Uint8Array(65)])
      expect(() => verifyHcl({ blob, hardware, userData })).toThrowCode("ERR_AZURE_USER_DATA")
  })

  test("evidence files of other projects hold the very same parts", () => {
    for (const { file } of named("evidence.json")) {
      const evidence: unknown = JSON.parse(Buffer.from(vector(file)).toString())
      const parts = new Set(partsOf(evidence).map(toHex))
      for (const name of ["hcl-report.bin", "tpm-quote.msg", "tpm-quote.sig"])
        expect(parts.has(toHex(beside(file, name)))).toBeTrue()
    }
  })
})

/** Byte strings in another project's JSON: lists of numbers, hex, base64url. */
function partsOf(value: unknown): Uint8Array[] {
  if (typeof value === "string") return [fromHex(value) ?? Uint8Array.from(Buffer.from(value, "base64url"))]
  if (Array.isArray(value) && value.every((item) => typeof item === "number")) return [Uint8Array.from(value)]
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(partsOf) : []
}

describe.skipIf(!HAVE_VECTORS)("HCL reports that must be refused", () => {
  const codes: Readonly<Record<string, string>> = {
    magic: "ERR_HCL_SIGNATURE",
    "reporttype-tdx": "ERR_HCL_REPORT_TYPE",
    "runtime-byte": "ERR_AZURE_RUNTIME_DATA",
    truncated: "ERR_TRUNCATED",
    "varlen-large": "ERR_TRUNCATED",
  }
  for (const { file, expected, related } of vectorsUnder("azure-negative"))
    test(`${file}: ${expected}`, () => {
      const good = vector(String(related?.["good"]))
      const at = new Date("2025-07-30T04:26:55Z")
      const hardware = amd(good, "azure-snp/trustee-v0-milan/vcek.der", at)
      expect(verifyHcl({ blob: good, hardware, userData: null }).kind).toBe("snp")
      const name = /milan-(.*)\.bin$/.exec(file)?.[1] ?? ""
      expect(() => verifyHcl({ blob: vector(file), hardware, userData: null })).toThrowCode(codes[name] ?? "")
    })

  test("each byte of report and claims changed is refused", () => {
    const folder = "azure-snp/trustee-v2-milan"
    const good = vector(`${folder}/hcl-report.bin`)
    const hardware = amd(good, `${folder}/vcek.der`, new Date("2025-07-30T04:33:43Z"))
    const end = 1236 + parseHclEnvelope(good).runtimeData.length
    for (let at = 0; at < end; at++) {
      const blob = good.slice()
      blob[at] = (blob[at] ?? 0) ^ (1 << (at % 8))
      expect(codeOf(() => verifyHcl({ blob, hardware, userData: null }))).toStartWith("ERR_")
    }
  })

  test("T11: claims of one VM with the verified report of another", () => {
    const one = vector("azure-snp/trustee-v1-milan/hcl-report.bin")
    const other = vector("azure-snp/trustee-v2-milan/hcl-report.bin")
    const at = new Date("2025-08-01T00:00:00Z")
    const hardware = amd(one, "azure-snp/trustee-v1-milan/vcek.der", at)
    const judge = (blob: Uint8Array) => () => verifyHcl({ blob, hardware, userData: null })
    expect(judge(other)).toThrowCode("ERR_AZURE_HARDWARE_REPORT")
    const spliced = one.slice()
    spliced.set(other.subarray(1216), 1216)
    expect(judge(spliced)).toThrowCode("ERR_AZURE_RUNTIME_DATA")
    const tdx = vector("azure-tdx/trustee-v1/hcl-report.bin")
    expect(judge(tdx)).toThrowCode("ERR_AZURE_HARDWARE_REPORT")
  })

  test("T11: a TD quote over another report", () => {
    const blob = vector("azure-tdx/trustee-v1/hcl-report.bin")
    const hardware = intel(vector("azure-tdx/tee-tools/td-quote.bin"))
    const judge = () => verifyHcl({ blob, hardware, userData: null })
    expect(judge).toThrowCode("ERR_AZURE_HARDWARE_REPORT")
  })

  test("T11: a TDREPORT changed to hold the hash of other claims does not fit the quote", () => {
    const blob = vector("azure-tdx/trustee-v1/hcl-report.bin")
    const text = Buffer.from(parseHclEnvelope(blob).runtimeData)
      .toString()
      .replace(':true,"tpm-p', ':null,"tpm-p')
    blob.set(Buffer.from(text), 1236)
    blob.set(createHash("sha256").update(text).digest(), 32 + 128)
    expect(verifyRuntimeData(parseHclEnvelope(blob))).toBeUndefined()
    const hardware = intel(vector("azure-tdx/trustee-v1/td-quote.bin"))
    const judge = () => verifyHcl({ blob, hardware, userData: null })
    expect(judge).toThrowCode("ERR_AZURE_HARDWARE_REPORT")
  })
})

const chip = await fakeChip()
const vtpm = fakeVtpm()

/** Claims that a made-up chip vouches for. */
function made(blob: Uint8Array, userData: Uint8Array | null = null): Verified<AzureClaims> {
  const { certificates, anchor } = chip
  const { hardwareReport: report } = parseHclEnvelope(blob)
  const attestation = verifySnp({ report, certificates, anchors: [anchor], crl: null, at: JUDGED })
  return verifyHcl({ blob, hardware: { kind: "snp", attestation }, userData })
}

describe("claims", () => {
  test.each(["sha256", "sha384", "sha512"] as const)("hashed by %s", (hash) => {
    expect(made(fakeHclReport(chip, fakeClaims(vtpm), { hash })).akSpki).toEqual(vtpm.spki)
  })

  test("with bytes behind the hash in the report data", () => {
    const claims = fakeClaims(vtpm)
    const reportData = new Uint8Array(64).fill(1)
    reportData.set(createHash("sha256").update(claims).digest())
    expect(() => made(fakeHclReport(chip, claims, { reportData }))).toThrowCode("ERR_AZURE_RUNTIME_DATA")
  })

  test("that the VM itself could have written", () => {
    for (const vmpl of [1, 2, 3])
      expect(() => made(fakeHclReport(chip, fakeClaims(vtpm), { vmpl }))).toThrowCode("ERR_TEE_VMPL")
  })

  test("are read as the hardware vouches for them, or not at all", () => {
    expect(() => made(fakeHclReport(chip, '{"keys":[]}'))).toThrowCode("ERR_MALFORMED")
  })

  test("without user data are never fresh", () => {
    const blob = fakeHclReport(chip, fakeClaims(vtpm, { "user-data": undefined }))
    expect(made(blob).freshness).toBe("not-checked")
    expect(() => made(blob, new Uint8Array(64))).toThrowCode("ERR_AZURE_USER_DATA")
  })

  test("with a key of exponent 3 are refused", () => {
    const blob = fakeHclReport(chip, fakeClaims(vtpm, { keys: [{ kid: "HCLAkPub", ...vtpm.jwk, e: "Aw" }] }))
    expect(() => made(blob)).toThrowCode("ERR_TPM_AK_KEY")
  })
})

describe("quotes by Azure's virtual TPM", () => {
  const claims = made(fakeHclReport(chip, fakeClaims(vtpm)))
  const pcrs = AZURE_QUOTE_PCRS.map((pcr) => new Uint8Array(32).fill(pcr))
  const digest = createHash("sha256").update(Buffer.concat(pcrs)).digest()
  const extraData = new Uint8Array(32).fill(9)
  const quote = encodeAttest(quoteAttest(AZURE_QUOTE_PCRS, digest, { extraData }))
  const good = { quote, signature: vtpm.sign(quote), pcrs, akSpki: vtpm.spki }
  const asked = { qualifyingData: extraData, pcrSelection: AZURE_QUOTE_PCRS }

  test("verify by the key of the claims, with signatures of both forms", () => {
    const bare = { ...good, signature: good.signature.subarray(6), akSpki: null }
    for (const evidence of [good, bare])
      expect(verifyAzureQuote(claims, evidence, asked).akSpki).toEqual(vtpm.spki)
  })

  test("T11: by another key, whether it is shown or not", () => {
    const other = fakeVtpm()
    const evidence = { ...good, signature: other.sign(quote) }
    const judge = (akSpki: Uint8Array | null) => () =>
      verifyAzureQuote(claims, { ...evidence, akSpki }, asked)
    expect(judge(other.spki)).toThrowCode("ERR_AZURE_AK")
    expect(judge(vtpm.spki)).toThrowCode("ERR_TPM_SIGNATURE")
    expect(judge(null)).toThrowCode("ERR_TPM_SIGNATURE")
  })

  test("with another scheme or hash than Azure's", () => {
    const signature = { scheme: "rsassa", hash: ALG.sha256, signature: good.signature.subarray(6) } as const
    for (const change of [{ hash: ALG.sha1 }, { hash: ALG.sha384 }, { scheme: "rsapss" } as const]) {
      const evidence = { ...good, signature: encodeSignature({ ...signature, ...change }) }
      expect(() => verifyAzureQuote(claims, evidence, asked)).toThrowCode("ERR_TPM_SCHEME")
    }
  })

  test("over other PCRs, or with other values", () => {
    const fewer = { ...asked, pcrSelection: AZURE_QUOTE_PCRS.slice(1) }
    expect(() => verifyAzureQuote(claims, good, fewer)).toThrowCode("ERR_TPM_PCR_SELECTION")
    const swapped = { ...good, pcrs: pcrs.toReversed() }
    expect(() => verifyAzureQuote(claims, swapped, asked)).toThrowCode("ERR_TPM_PCR_DIGEST")
  })

  test("each byte of the statement changed is refused", () => {
    for (let at = 0; at < quote.length; at++) {
      const changed = quote.slice()
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      const judge = () => verifyAzureQuote(claims, { ...good, quote: changed }, asked)
      expect(judge).toThrowCode("ERR_TPM_SIGNATURE")
    }
  })
})

describe.skipIf(!HAVE_VECTORS)("bare keys", () => {
  const rsassa = { scheme: ALG.rsassa, hash: ALG.sha256 }

  test("are read from a SubjectPublicKeyInfo and give it back", () => {
    const spki = vector("tpm-quote/rsassa-trustee-tpm/ak.spki.der")
    expect(spkiOf(bareKey(spki, rsassa))).toEqual(spki)
    expect(parseAttest(vector("tpm-quote/rsassa-trustee-tpm/quote.msg")).resetCount).toBeNumber()
  })

  test.each(["ecdsa-p256", "ecdsa-p384", "rsassa", "rsapss"] as const)(
    "%s: verify a quote, of which no more is claimed than that they signed it",
    (kind) => {
      // A key that signs whatever it is given: with its attributes it is refused, and without them nobody can tell.
      const made = makeSoftwareAk(kind, { attributes: OBJECT.sign })
      const { scheme } = made.publicArea
      if (scheme === null) throw new Error("no scheme")
      const hash = scheme.hash === ALG.sha384 ? "sha384" : "sha256"
      const pcrs = [new Uint8Array(32).fill(1)]
      const extraData = new Uint8Array(16).fill(2)
      const digest = createHash(hash).update(Buffer.concat(pcrs)).digest()
      const { quote, signature } = softwareQuote(made, quoteAttest([4], digest, { extraData }))
      const asked = { qualifyingData: extraData, pcrSelection: [4] }
      const key = bareKey(spkiOf(made.publicArea), scheme)
      const evidence = { quote, signature: parseSignature(signature), pcrs }
      const statement = verifyBareKeyQuote(evidence, key, asked)
      expect(statement).toMatchObject({ akAttributes: "unknown", resetCount: 7 })
      expect(statement).not.toHaveProperty("akName")
      const whole = { quote, signature, akPublic: made.akPublic, pcrs }
      expect(() => verifyQuote(whole, asked)).toThrowCode("ERR_TPM_AK_ATTRIBUTES")
      const other = bareKey(spkiOf(makeSoftwareAk(kind).publicArea), scheme)
      expect(() => verifyBareKeyQuote(evidence, other, asked)).toThrowCode("ERR_TPM_SIGNATURE")
    },
  )

  test("with bytes behind them, or none at all, are refused", () => {
    const spki = vector("tpm-quote/rsassa-trustee-tpm/ak.spki.der")
    for (const bad of [Uint8Array.of(...spki, 0), spki.subarray(1), new Uint8Array(0)])
      expect(() => bareKey(bad, rsassa)).toThrowCode("ERR_TPM_AK_KEY")
  })
})

function codeOf(run: () => unknown): string | null {
  try {
    run()
    return null
  } catch (error) {
    if (error instanceof CodedError && error.code !== "ERR_INTERNAL") return error.code
    throw error
  }
}
