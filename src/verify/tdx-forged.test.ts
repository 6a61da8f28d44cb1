import { describe, expect, test } from "bun:test"
import { generateKeyPairSync } from "node:crypto"
import {
  CERTIFICATES,
  type Change,
  chain,
  fakeCollateral,
  fakeSgxQuote,
  fakeTdxQuote,
  KEYS,
  LEVEL,
  PLATFORM,
  PREFIX,
  QE_IDENTITY,
  scenario,
  TCB_INFO,
} from "../../test/fakes/intel.ts"
import {
  CA_EXTENSIONS,
  fakeCertificate,
  fakeIntelCrl,
  fakeKey,
  pckExtension,
  sha256,
} from "../../test/fakes/intel-certificates.ts"
import { converge } from "./intel-tcb.ts"
import { mrSignerOfKey, verifySgx } from "./sgx.ts"
import { verifyTdx } from "./tdx.ts"

const judged = (change: Change) => () => verifyTdx(scenario(change))
const zeros = (size: number) => new Uint8Array(size)

test("the honest quote of the made-up platform is genuine, and simulated", () => {
  const { tcb, anchor, revocation } = verifyTdx(scenario())
  expect(tcb).toMatchObject({ status: "UpToDate", advisories: [], evaluationDataNumber: 17 })
  expect(tcb?.module?.id).toBe("TDX_01")
  expect({ simulated: anchor.simulated, revocation }).toEqual({ simulated: true, revocation: "checked" })
})

describe("T9: platform's chain", () => {
  test("no PCK certificate, or none of its authority", () => {
    const [pck = zeros(0), ca = zeros(0)] = chain()
    expect(judged({ certificates: [] })).toThrowCode("ERR_PCK_MISSING")
    expect(judged({ certificates: [ca] })).toThrowCode("ERR_PCK_MISSING")
    expect(judged({ certificates: [pck] })).toThrowCode("ERR_PCK_MISSING")
  })

  test("the order of the certificates does not matter, and the root is not needed", () => {
    expect(judged({ certificates: chain().reverse() })().tcb?.status).toBe("UpToDate")
    expect(judged({ certificates: chain().slice(0, 2) })().tcb?.status).toBe("UpToDate")
  })

  test("self-made all the way, under the names of the genuine one", () => {
    const { pck, ca, root } = CERTIFICATES
    const own = fakeKey()
    const certificates = [pck, { ...ca, signer: own }, { ...root, key: own, signer: own }].map(
      fakeCertificate,
    )
    expect(judged({ certificates })).toThrowCode("ERR_CERT_UNTRUSTED")
  })

  test("names without the anchor's word before them", () => {
    const ca = { subject: "Intel SGX PCK Platform CA" }
    expect(judged({ certificates: chain({ pck: { issuer: ca.subject }, ca }) })).toThrowCode("ERR_CERT_NAME")
    expect(judged({ certificates: chain({ pck: { subject: "X Intel SGX PCK Certificate" } }) })).toThrowCode(
      "ERR_CERT_NAME",
    )
  })

  test("an authority that is none, an expired one, keys on another curve", () => {
    expect(judged({ certificates: chain({ ca: { extensions: [] } }) })).toThrowCode("ERR_CERT_NOT_CA")
    expect(judged({ certificates: chain({ ca: { notAfter: "260531235959Z" } }) })).toThrowCode(
      "ERR_CERT_EXPIRED",
    )
    expect(judged({ certificates: chain({ pck: { key: fakeKey("P-384") } }) })).toThrowCode(
      "ERR_CERT_ALGORITHM",
    )
    const extensions = [...CA_EXTENSIONS, pckExtension(PLATFORM)]
    expect(judged({ certificates: chain({ pck: { extensions } }) })).toThrowCode("ERR_CERT_IS_CA")
  })

  test("a PCK certificate without Intel's extension", () => {
    expect(judged({ certificates: chain({ pck: { extensions: [] } }) })).toThrowCode("ERR_MALFORMED")
  })

  test("revoked by either list, the signer of documents too", () => {
    const root = fakeIntelCrl(`${PREFIX}Intel SGX Root CA`, KEYS.root, [2])
    const signer = fakeIntelCrl(`${PREFIX}Intel SGX Root CA`, KEYS.root, [3])
    const pck = fakeIntelCrl(`${PREFIX}Intel SGX PCK Platform CA`, KEYS.ca, [4, 5])
    for (const collateral of [{ rootCaCrl: root }, { rootCaCrl: signer }, { pckCrl: pck }])
      expect(judged({ collateral })).toThrowCode("ERR_CERT_REVOKED")
    expect(
      verifyTdx({ ...scenario({ collateral: { pckCrl: pck } }), skip: new Set(["revocation"]) }).revocation,
    ).toBe("not-checked")
  })

  test("lists signed by a stranger", () => {
    const pckCrl = fakeIntelCrl(`${PREFIX}Intel SGX PCK Platform CA`, KEYS.stranger, [])
    expect(judged({ collateral: { pckCrl } })).toThrowCode("ERR_CRL_SIGNATURE")
  })
})

describe("T9: quoting enclave", () => {
  test("its report signed by another platform's key", () => {
    expect(judged({ qeSigner: KEYS.stranger })).toThrowCode("ERR_QE_REPORT_SIGNATURE")
  })

  test("its report vouches for another key, or for more than the key", () => {
    expect(judged({ qeReport: { reportData: zeros(64) } })).toThrowCode("ERR_QE_BINDING")
    const { reportData } = verifyTdx(scenario()).qe
    const more = reportData.slice()
    more[63] = 1
    expect(judged({ qeReport: { reportData: more } })).toThrowCode("ERR_QE_BINDING")
  })

  const others: readonly (readonly [string, NonNullable<Change["qeReport"]>])[] = [
    ["MRSIGNER", { mrSigner: zeros(32) }],
    ["ISVPRODID", { isvProdId: 1 }],
    ["attributes: debug", { attributes: Uint8Array.of(0x17, ...zeros(15)) }],
  ]
  for (const [what, qeReport] of others)
    test(`another enclave of the platform: ${what}, with and without its identity`, () => {
      expect(judged({ qeReport })).toThrowCode("ERR_QE_IDENTITY")
      const skip = new Set(["tcb", "revocation"] as const)
      expect(() => verifyTdx({ ...scenario({ qeReport }), skip })).toThrowCode("ERR_QE_IDENTITY")
    })

  test("masked bits of attributes do not count, others and MISCSELECT do", () => {
    const attributes = (first: number) => Uint8Array.of(first, ...zeros(15))
    expect(judged({ qeReport: { attributes: attributes(0x11) } })().tcb?.status).toBe("UpToDate")
    expect(judged({ qeReport: { attributes: attributes(0x05) } })).toThrowCode("ERR_QE_IDENTITY")
    expect(judged({ qeReport: { miscSelect: Uint8Array.of(1, 0, 0, 0) } })).toThrowCode("ERR_QE_IDENTITY")
  })

  test("older than anything that its identity names", () => {
    expect(judged({ qeReport: { isvSvn: 3 } })).toThrowCode("ERR_TCB_NO_LEVEL")
  })

  test("another vendor's", () => {
    expect(judged({ header: { qeVendorId: zeros(16) } })).toThrowCode("ERR_QUOTE_VENDOR")
  })
})

describe("documents", () => {
  test("signed by the platform itself: its chain ends at the same root", () => {
    const own = fakeCollateral()
    const collateral = { ...own, tcbInfoIssuerChain: chain(), qeIdentityIssuerChain: chain() }
    expect(judged({ collateral })).toThrowCode("ERR_COLLATERAL_MISSING")
    const posing = { subject: `${PREFIX}Intel SGX TCB Signing`, issuer: `${PREFIX}Intel SGX PCK Platform CA` }
    const signerCertificate = { ...posing, signer: KEYS.ca }
    expect(judged({ signerCertificate })).toThrowCode("ERR_CERT_NAME")
  })

  test("signed by a signer of another root", () => {
    expect(judged({ signerCertificate: { signer: KEYS.stranger } })).toThrowCode("ERR_CERT_UNTRUSTED")
  })

  test("signed by an expired signer", () => {
    expect(judged({ signerCertificate: { notAfter: "260501000000Z" } })).toThrowCode("ERR_CERT_EXPIRED")
  })

  test("for another platform, kind or model", () => {
    for (const tcbInfo of [{ fmspc: "B0C06F000001" }, { pceId: "0001" }, { id: "SGX" }])
      expect(judged({ tcbInfo })).toThrowCode("ERR_COLLATERAL_PLATFORM")
    expect(judged({ qeIdentity: { id: "QVE" } })).toThrowCode("ERR_COLLATERAL_PLATFORM")
  })

  test("of a version, type or status that is not known", () => {
    const revised = { ...LEVEL, tcbStatus: "Fine" }
    for (const tcbInfo of [{ version: 2 }, { tcbType: 1 }, { id: "ARM" }, { tcbLevels: [revised] }])
      expect(judged({ tcbInfo })).toThrowCode("ERR_UNSUPPORTED")
    expect(judged({ qeIdentity: { version: 1 } })).toThrowCode("ERR_UNSUPPORTED")
  })

  test("with members missing, doubled or of the wrong size", () => {
    const short = { ...LEVEL, tcb: { ...LEVEL.tcb, sgxtcbcomponents: LEVEL.tcb.sgxtcbcomponents.slice(1) } }
    const bare = { ...LEVEL, tcb: { ...LEVEL.tcb, tdxtcbcomponents: null } }
    const bad = [
      { fmspc: "B0" },
      { tcbLevels: [short] },
      { tcbLevels: [bare] },
      { tdxModule: null },
      { nextUpdate: "2028-02-30T00:00:00Z" },
      { nextUpdate: "soon" },
      { tcbLevels: [{ ...LEVEL, advisoryIDs: ["\u001b[2J"] }] },
      { tcbLevels: "none" },
    ]
    for (const tcbInfo of bad) expect(judged({ tcbInfo })).toThrowCode("ERR_MALFORMED")
    expect(judged({ tcbInfo: { tcbLevels: new Array(600).fill(LEVEL) } })).toThrowCode("ERR_TOO_LARGE")
  })

  test("the lower evaluation data number counts", () => {
    expect(judged({ qeIdentity: { tcbEvaluationDataNumber: 5 } })().tcb?.evaluationDataNumber).toBe(5)
    expect(judged({ tcbInfo: { tcbEvaluationDataNumber: 6 } })().tcb?.evaluationDataNumber).toBe(6)
  })

  test("none at all", () => {
    expect(() => verifyTdx({ ...scenario(), collateral: null })).toThrowCode("ERR_COLLATERAL_MISSING")
  })
})

describe("TCB level", () => {
  const level = (change: Partial<(typeof LEVEL)["tcb"]>, tcbStatus: string, advisoryIDs: string[] = []) => ({
    ...LEVEL,
    tcb: { ...LEVEL.tcb, ...change },
    tcbStatus,
    advisoryIDs,
  })
  const one = (index: number, svn: number) =>
    PLATFORM.components.map((own, at) => ({ svn: at === index ? svn : own }))

  test("one component higher does not make up for one lower", () => {
    for (let index = 0; index < 16; index++) {
      const asked = one(index, (PLATFORM.components[index] ?? 0) + 1)
      expect(
        judged({ tcbInfo: { tcbLevels: [level({ sgxtcbcomponents: asked }, "UpToDate")] } }),
      ).toThrowCode("ERR_TCB_NO_LEVEL")
    }
  })

  test("the PCE counts too", () => {
    expect(judged({ tcbInfo: { tcbLevels: [level({ pcesvn: 12 }, "UpToDate")] } })).toThrowCode(
      "ERR_TCB_NO_LEVEL",
    )
  })

  test("the first level that is reached decides", () => {
    const tcbLevels = [
      level({ pcesvn: 12 }, "UpToDate"),
      level({}, "OutOfDate", ["INTEL-SA-00002", "INTEL-SA-00001"]),
      level({}, "Revoked"),
    ]
    expect(judged({ tcbInfo: { tcbLevels } })().tcb).toMatchObject({
      status: "OutOfDate",
      advisories: ["INTEL-SA-00001", "INTEL-SA-00002"],
    })
  })

  test("from module version 1 on, the module's own components are left to its levels", () => {
    const svns = [99, 99, 3, ...zeros(13)].map((svn) => ({ svn }))
    const tcbInfo = { tcbLevels: [level({ tdxtcbcomponents: svns }, "UpToDate")] }
    expect(judged({ tcbInfo })().tcb?.status).toBe("UpToDate")
    const body = { teeTcbSvn: Uint8Array.of(3, 0, 3, ...zeros(13)) }
    expect(judged({ tcbInfo, body })).toThrowCode("ERR_TCB_NO_LEVEL")
    const third = [0, 0, 4, ...zeros(13)].map((svn) => ({ svn }))
    const higher = { tcbLevels: [level({ tdxtcbcomponents: third }, "UpToDate")] }
    expect(judged({ tcbInfo: higher })).toThrowCode("ERR_TCB_NO_LEVEL")
  })

  test("advisories of platform, module and quoting enclave come together, each once", () => {
    const outOfDate = { tcbDate: "2024-01-01T00:00:00Z", tcbStatus: "OutOfDate" }
    const [module] = Array.isArray(TCB_INFO["tdxModuleIdentities"]) ? TCB_INFO["tdxModuleIdentities"] : []
    const tcbInfo = {
      tcbLevels: [level({}, "SWHardeningNeeded", ["B", "A"])],
      tdxModuleIdentities: [
        { ...module, tcbLevels: [{ tcb: { isvsvn: 3 }, ...outOfDate, advisoryIDs: ["C", "A"] }] },
      ],
    }
    const qeIdentity = { tcbLevels: [{ tcb: { isvsvn: 6 }, ...outOfDate, advisoryIDs: ["D"] }] }
    const { tcb } = judged({ tcbInfo, qeIdentity })()
    expect(tcb).toMatchObject({ status: "OutOfDate", advisories: ["A", "B", "C", "D"] })
    expect(tcb?.platform.status).toBe("SWHardeningNeeded")
  })

  test("statuses converge, and never for the better", () => {
    expect(converge("UpToDate", "UpToDate")).toBe("UpToDate")
    expect(converge("SWHardeningNeeded", "UpToDate")).toBe("SWHardeningNeeded")
    expect(converge("SWHardeningNeeded", "OutOfDate")).toBe("OutOfDate")
    expect(converge("ConfigurationNeeded", "OutOfDate")).toBe("OutOfDateConfigurationNeeded")
    expect(converge("ConfigurationAndSWHardeningNeeded", "OutOfDate")).toBe("OutOfDateConfigurationNeeded")
    expect(converge("OutOfDateConfigurationNeeded", "OutOfDate")).toBe("OutOfDateConfigurationNeeded")
    expect(converge("UpToDate", "Revoked")).toBe("Revoked")
    expect(converge("Revoked", "OutOfDate")).toBe("Revoked")
  })
})

describe("TDX module", () => {
  test("of a version that TCB info does not name", () => {
    const body = { teeTcbSvn: Uint8Array.of(3, 2, 3, ...zeros(13)) }
    expect(judged({ body })).toThrowCode("ERR_TDX_MODULE")
    expect(judged({ tcbInfo: { tdxModuleIdentities: null } })).toThrowCode("ERR_TDX_MODULE")
  })

  test("of another signer, or with other attributes", () => {
    for (const svn of [Uint8Array.of(3, 1, 3, ...zeros(13)), Uint8Array.of(3, 0, 3, ...zeros(13))]) {
      const signer = { teeTcbSvn: svn, mrSignerSeam: zeros(48).fill(1) }
      expect(judged({ body: signer })).toThrowCode("ERR_TDX_MODULE")
      const attributes = { teeTcbSvn: svn, seamAttributes: Uint8Array.of(1, ...zeros(7)) }
      expect(judged({ body: attributes })).toThrowCode("ERR_TDX_MODULE")
    }
  })

  test("older than anything that TCB info names", () => {
    const body = { teeTcbSvn: Uint8Array.of(2, 1, 3, ...zeros(13)) }
    expect(judged({ body })).toThrowCode("ERR_TCB_NO_LEVEL")
  })
})

describe("SGX", () => {
  const mrSigner = Buffer.from("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff", "hex")
  const change: Change = {
    qeReport: { mrSigner, isvProdId: 1 },
    tcbInfo: { id: "SGX" },
    qeIdentity: { id: "QE", mrsigner: mrSigner.toString("hex"), isvprodid: 1 },
  }
  const input = { ...scenario(change), quote: fakeSgxQuote({ mrEnclave: zeros(32).fill(7) }, change) }

  test("the honest quote is genuine", () => {
    const { quote, tcb } = verifySgx(input)
    expect(quote.body.mrEnclave[0]).toBe(7)
    expect(tcb).toMatchObject({ status: "UpToDate", module: null })
  })

  test("quotes of one kind do not pass for the other", () => {
    expect(() => verifyTdx(input)).toThrowCode("ERR_UNSUPPORTED")
    expect(() => verifySgx(scenario())).toThrowCode("ERR_UNSUPPORTED")
    const tdQe = { ...input, quote: fakeSgxQuote({}) }
    expect(() => verifySgx(tdQe)).toThrowCode("ERR_QE_IDENTITY")
    expect(() => verifySgx({ ...input, quote: fakeSgxQuote({}), skip: new Set(["tcb"]) })).toThrowCode(
      "ERR_QE_IDENTITY",
    )
    expect(() => verifySgx({ ...input, collateral: fakeCollateral() })).toThrowCode("ERR_COLLATERAL_PLATFORM")
  })

  test("MRSIGNER of a key is the hash of its modulus, little-endian", () => {
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 3072, publicExponent: 3 })
    const spki = new Uint8Array(publicKey.export({ type: "spki", format: "der" }))
    // The modulus stands at the end of the key, before the exponent: INTEGER, one byte, 3.
    const modulus = spki.slice(-384 - 3, -3)
    expect(mrSignerOfKey(spki)).toEqual(sha256(modulus.reverse()))
  })

  test("MRSIGNER of other keys is refused", () => {
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })
    expect(() =>
      mrSignerOfKey(new Uint8Array(publicKey.export({ type: "spki", format: "der" }))),
    ).toThrowCode("ERR_CERT_ALGORITHM")
    expect(() => mrSignerOfKey(zeros(10))).toThrowCode("ERR_CERT_ALGORITHM")
  })
})

test("zeros behind a quote are padding, anything else is refused", () => {
  const quote = fakeTdxQuote()
  expect(verifyTdx({ ...scenario(), quote: Buffer.concat([quote, zeros(3000)]) }).quote.padding).toBe(3000)
  expect(() =>
    verifyTdx({ ...scenario(), quote: Buffer.concat([quote, zeros(9), Uint8Array.of(1)]) }),
  ).toThrowCode("ERR_TRAILING_BYTES")
})

test("a level that TCB info and QE identity name is needed", () => {
  expect(judged({ tcbInfo: { tcbLevels: [] } })).toThrowCode("ERR_TCB_NO_LEVEL")
  expect(judged({ qeIdentity: { ...QE_IDENTITY, tcbLevels: [] } })).toThrowCode("ERR_TCB_NO_LEVEL")
})
