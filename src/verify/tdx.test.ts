import { describe, expect, test } from "bun:test"
import {
  bundle,
  entriesOf,
  evaluationTime,
  NO_COLLATERAL,
  related,
  skipped,
  testAnchor,
} from "../../test/fakes/intel-vectors.ts"
import { type VectorEntry, vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { INTEL_ANCHORS } from "../endorsements/intel-roots.ts"
import { toHex } from "../formats/hex.ts"
import type { IntelCollateral } from "../formats/intel/collateral.ts"
import type { TdBody } from "../formats/tdx/body.ts"
import { verifySgx } from "./sgx.ts"
import { verifyTdx } from "./tdx.ts"

const GOOD = "tdx/v4-phala-uptodate/quote.bin"
const GOOD_COLLATERAL = "tdx/v4-phala-uptodate/collateral-202506.json"
const GOOD_AT = new Date("2025-07-04T10:16:31Z")

/** The quote that a bundle belongs to, judged with it as the index says. */
function judge(entry: VectorEntry, collateral = bundle(entry.file)) {
  const file = related(entry, "quote")
  const input = {
    quote: vector(file),
    collateral,
    anchors: INTEL_ANCHORS,
    at: evaluationTime(entry),
    skip: skipped(entry),
  }
  return file.startsWith("sgx/") ? verifySgx(input) : verifyTdx(input)
}

/** The body's fields by the names of the index. */
function bodyFacts(body: TdBody): Record<string, unknown> {
  const attributes = Buffer.alloc(16)
  attributes.writeBigUInt64LE(body.tdAttributes, 0)
  attributes.writeBigUInt64LE(body.xfam, 8)
  return {
    body: body.version === "1.0" ? "tdx10" : "tdx15",
    tee_tcb_svn: toHex(body.teeTcbSvn),
    mrseam: toHex(body.mrSeam),
    mrsignerseam: toHex(body.mrSignerSeam),
    seam_attributes: toHex(body.seamAttributes),
    td_attributes: toHex(attributes.subarray(0, 8)),
    xfam: toHex(attributes.subarray(8)),
    mrtd: toHex(body.mrTd),
    mrconfigid: toHex(body.mrConfigId),
    mrowner: toHex(body.mrOwner),
    mrownerconfig: toHex(body.mrOwnerConfig),
    ...Object.fromEntries(body.rtmrs.map((rtmr, index) => [`rtmr${index}`, toHex(rtmr)])),
    ...(body.teeTcbSvn2 === null ? {} : { tee_tcb_svn_2: toHex(body.teeTcbSvn2) }),
    ...(body.mrServiceTd === null ? {} : { mrservicetd: toHex(body.mrServiceTd) }),
  }
}

describe.skipIf(!HAVE_VECTORS)("real collateral", () => {
  const bundles = ["tdx", "sgx"].flatMap((folder) =>
    entriesOf(folder, "tdx-collateral").filter(({ file }) => file.includes("/collateral-")),
  )
  test("there are some", () => expect(bundles.length).toBe(12))

  for (const entry of bundles)
    test(`${entry.file}: ${entry.expected}`, () => {
      const { facts } = entry
      if (facts["status"] === null) {
        expect(() => judge(entry)).toThrowCode("ERR_TCB_NO_LEVEL")
        return
      }
      const { tcb, anchor, revocation } = judge(entry)
      expect(anchor.simulated).toBe(false)
      expect(revocation).toBe(facts["checked_crls"] === false ? "not-checked" : "checked")
      const found: Record<string, unknown> = {
        status: tcb?.status,
        platform_status: tcb?.platform.status,
        qe_status: tcb?.qe.status,
        module_status: tcb?.module?.status ?? null,
        advisories: tcb?.advisories,
        tcb_date: tcb?.date.toISOString().replace(".000Z", "Z"),
        tcbEvaluationDataNumber: tcb?.evaluationDataNumber,
      }
      for (const [name, value] of Object.entries(found)) expect([name, value]).toEqual([name, facts[name]])
    })

  for (const entry of bundles.filter(({ facts }) => facts["checked_crls"] === false))
    test(`${entry.file}: without revocation lists it fails unless that is asked for`, () => {
      expect(() => judge({ ...entry, facts: {} })).toThrowCode("ERR_REVOCATION_NOT_CHECKED")
    })
})

describe.skipIf(!HAVE_VECTORS)("real quotes", () => {
  for (const entry of [...entriesOf("tdx", "tdx"), ...entriesOf("sgx", "sgx")])
    test(`${entry.file}: ${entry.product}`, () => {
      const { facts } = entry
      const notBefore = new Date(`${facts["pck_not_before"]}`)
      const input = {
        quote: vector(entry.file),
        collateral: null,
        anchors: INTEL_ANCHORS,
        at: new Date(notBefore.getTime() + 1000),
      }
      const result =
        facts["version"] === 3
          ? verifySgx({ ...input, skip: NO_COLLATERAL })
          : verifyTdx({ ...input, skip: NO_COLLATERAL })
      const { quote, platform, tcb, revocation } = result
      expect({ tcb, revocation }).toEqual({ tcb: null, revocation: "not-checked" })
      const found: Record<string, unknown> = {
        version: quote.header.version,
        size: quote.raw.length + quote.padding,
        declared_size: quote.raw.length,
        fmspc: toHex(platform.fmspc),
        pce_svn: platform.pceSvn,
        sgx_tcb_comps: platform.components,
        report_data: toHex(quote.body.reportData),
        ...(result.kind === "tdx" ? bodyFacts(result.quote.body) : {}),
        ...(result.kind === "sgx"
          ? { mrenclave: toHex(result.quote.body.mrEnclave), mrsigner: toHex(result.quote.body.mrSigner) }
          : {}),
      }
      for (const [name, value] of Object.entries(found)) expect([name, value]).toEqual([name, facts[name]])
      expect(() =>
        (result.kind === "sgx" ? verifySgx : verifyTdx)({ ...input, skip: new Set(["revocation"]) }),
      ).toThrowCode("ERR_COLLATERAL_MISSING")
      expect(() =>
        (result.kind === "sgx" ? verifySgx : verifyTdx)({ ...input, skip: new Set(["tcb"]) }),
      ).toThrowCode("ERR_REVOCATION_NOT_CHECKED")
    })
})

describe.skipIf(!HAVE_VECTORS)("constructed collateral", () => {
  const input = { quote: HAVE_VECTORS ? vector("tdx-testpki/quote.bin") : new Uint8Array() }
  for (const entry of vectorsUnder("tdx-testpki").filter(({ file }) => file.endsWith(".json"))) {
    const at = evaluationTime(entry)
    const judged = () => verifyTdx({ ...input, collateral: bundle(entry.file), anchors: [testAnchor()], at })
    test(`${entry.file}: ${entry.expected}`, () => {
      if (entry.expected.includes("REVOKED")) expect(judged).toThrowCode("ERR_CERT_REVOKED")
      else {
        const { tcb, anchor } = judged()
        expect(anchor.simulated).toBe(true)
        expect(`${tcb?.status}`).toBe(`${entry.facts["status"]}`)
        const advisories = /advisories ([^)]*)/.exec(entry.expected)?.[1]?.split(",") ?? []
        expect(tcb?.advisories).toEqual(advisories)
      }
    })

    test(`${entry.file}: refused under Intel's root`, () => {
      const collateral = bundle(entry.file)
      expect(() => verifyTdx({ ...input, collateral, anchors: INTEL_ANCHORS, at })).toThrowCode(
        "ERR_CERT_UNTRUSTED",
      )
    })
  }

  test("with both roots named, each quote rests on its own", () => {
    const anchors = [...INTEL_ANCHORS, testAnchor()]
    const collateral = bundle("tdx-testpki/collateral-uptodate.json")
    const own = verifyTdx({ ...input, collateral, anchors, at: new Date("2026-06-01T00:00:00Z") })
    expect(own.anchor.simulated).toBe(true)
    const real = verifyTdx({ quote: vector(GOOD), collateral: bundle(GOOD_COLLATERAL), anchors, at: GOOD_AT })
    expect(real.anchor.simulated).toBe(false)
  })
})

describe.skipIf(!HAVE_VECTORS)("negative vectors", () => {
  /** By what the index says is wrong. */
  const CODES: readonly (readonly [RegExp, string])[] = [
    [/QE identity signature invalid|TCB info signature invalid/, "ERR_COLLATERAL_SIGNATURE"],
    [/root CA CRL has the wrong issuer/, "ERR_CRL_ISSUER"],
    [/unsupported|TEE type says SGX/, "ERR_UNSUPPORTED"],
    [/QE report hash mismatch/, "ERR_QE_BINDING"],
    [/QE report signature invalid/, "ERR_QE_REPORT_SIGNATURE"],
    [/quote signature invalid/, "ERR_QUOTE_SIGNATURE"],
    [/malformed/, "ERR_TRUNCATED"],
    [/QE vendor id unknown/, "ERR_QUOTE_VENDOR"],
    [/wrong root/, "ERR_CERT_UNTRUSTED"],
    [/PCK chain are altered/, "ERR_MALFORMED"],
  ]
  for (const entry of vectorsUnder("tdx-negative").filter(({ file }) => !file.includes("times-")))
    test(`${entry.file}: ${entry.expected}`, () => {
      const isBundle = entry.file.endsWith(".json")
      const code = CODES.find(([pattern]) => pattern.test(entry.expected))?.[1]
      expect(() =>
        verifyTdx({
          quote: vector(isBundle ? related(entry, "quote") : entry.file),
          collateral: bundle(isBundle ? entry.file : GOOD_COLLATERAL),
          anchors: INTEL_ANCHORS,
          at: GOOD_AT,
        }),
      ).toThrowCode(code ?? entry.expected)
    })

  for (const [iso, code] of [
    ["2019-01-01T00:00:00Z", "ERR_CERT_NOT_YET_VALID"],
    ["2046-01-01T00:00:00Z", "ERR_CERT_EXPIRED"],
    ["2025-06-19T10:00:00Z", "ERR_COLLATERAL_NOT_YET_VALID"],
    ["2025-07-19T10:00:35Z", null],
    ["2025-07-19T10:00:36Z", "ERR_CRL_EXPIRED"],
    ["2025-07-19T10:16:04Z", "ERR_COLLATERAL_EXPIRED"],
  ] as const)
    test(`at ${iso}: ${code ?? "valid to the last second"}`, () => {
      const collateral = bundle(GOOD_COLLATERAL)
      const at = new Date(iso)
      const judged = () => verifyTdx({ quote: vector(GOOD), collateral, anchors: INTEL_ANCHORS, at })
      if (code === null) expect(judged().tcb?.status).toBe("UpToDate")
      else expect(judged).toThrowCode(code)
    })
})

describe.skipIf(!HAVE_VECTORS)("exchanged parts", () => {
  const judged = (file: string, change: (own: IntelCollateral) => Partial<IntelCollateral>, at = GOOD_AT) => {
    const own = bundle(GOOD_COLLATERAL)
    return () =>
      verifyTdx({
        quote: vector(file),
        collateral: { ...own, ...change(own) },
        anchors: INTEL_ANCHORS,
        at,
      })
  }
  const none = () => ({})

  test("TCB info of another platform", () => {
    expect(judged("tdx/v4-entropy/quote.bin", none)).toThrowCode("ERR_COLLATERAL_PLATFORM")
  })

  test("documents of SGX for a TDX quote", () => {
    const sgx = bundle("sgx/v3-sgx-phala-confswhardening/collateral-202506.json")
    const { tcbInfo, tcbInfoSignature, qeIdentity, qeIdentitySignature } = sgx
    expect(judged(GOOD, () => ({ tcbInfo, tcbInfoSignature }))).toThrowCode("ERR_COLLATERAL_PLATFORM")
    expect(judged(GOOD, () => ({ qeIdentity, qeIdentitySignature }))).toThrowCode("ERR_COLLATERAL_PLATFORM")
  })

  test("documents signed by the platform's own chain instead of the TCB signing key", () => {
    expect(judged(GOOD, (own) => ({ tcbInfoIssuerChain: own.pckCrlIssuerChain }))).toThrowCode(
      "ERR_COLLATERAL_MISSING",
    )
    expect(judged(GOOD, () => ({ qeIdentityIssuerChain: [] }))).toThrowCode("ERR_COLLATERAL_MISSING")
  })

  test("the signer's certificate of another era", () => {
    const old = vector("trust/intel/sgx-tcb-signing-2018.der")
    expect(judged(GOOD, () => ({ tcbInfoIssuerChain: [old] }))).toThrowCode("ERR_CERT_EXPIRED")
  })

  test("revocation lists exchanged, expired or missing", () => {
    expect(judged(GOOD, (own) => ({ pckCrl: own.rootCaCrl }))).toThrowCode("ERR_CRL_ISSUER")
    const old = vector("trust/intel/root-ca-crl-2023-04-03.der")
    expect(judged(GOOD, () => ({ rootCaCrl: old }))).toThrowCode("ERR_CRL_EXPIRED")
    expect(judged(GOOD, () => ({ rootCaCrl: null }))).toThrowCode("ERR_REVOCATION_NOT_CHECKED")
    expect(judged(GOOD, () => ({ pckCrl: null }))).toThrowCode("ERR_REVOCATION_NOT_CHECKED")
    const processor = bundle("sgx/v3-sgx-phala-confswhardening/collateral-202506.json").pckCrl
    expect(judged(GOOD, () => ({ pckCrl: processor }))).toThrowCode("ERR_CRL_ISSUER")
  })
})
