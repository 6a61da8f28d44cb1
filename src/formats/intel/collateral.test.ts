import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { fakeCollateral } from "../../../test/fakes/intel.ts"
import { bundle, entriesOf } from "../../../test/fakes/intel-vectors.ts"
import { vector } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { toHex } from "../hex.ts"
import { encodePem } from "../pem.ts"
import {
  encodeCollateralBundle,
  type IntelCollateral,
  parseCollateralBundle,
  parsePcsDocument,
} from "./collateral.ts"
import { COLLATERAL_FILES, collateralMember, collateralOfFiles } from "./collateral-files.ts"
import { parseQeIdentity } from "./qe-identity.ts"
import { parseTcbInfo } from "./tcb-info.ts"

const own = fakeCollateral()
const utf8 = (text: string) => new Uint8Array(Buffer.from(text))
const reencoded = (collateral: IntelCollateral) =>
  parseCollateralBundle(utf8(encodeCollateralBundle(collateral)))
const plain = ({ ...members }: IntelCollateral) =>
  Object.fromEntries(
    Object.entries(members).map(([name, value]) => [
      name,
      value === null ? null : value instanceof Uint8Array ? toHex(value) : value.map(toHex),
    ]),
  )

describe.skipIf(!HAVE_VECTORS)("real collateral", () => {
  for (const { file } of entriesOf("tdx", "tdx-collateral").filter(({ file }) =>
    file.includes("/collateral"),
  ))
    test(`${file}: survives encoding`, () => {
      expect(plain(reencoded(bundle(file)))).toEqual(plain(bundle(file)))
    })

  test("answers of Intel's service hold the very bytes that the bundle has", () => {
    const folder = "tdx/v4-trustee-4"
    const { tcbInfo, tcbInfoSignature, qeIdentity, qeIdentitySignature } = bundle(
      `${folder}/collateral-202306.json`,
    )
    const info = parsePcsDocument(vector(`${folder}/pcs-tcbinfo-response.json`), "tcbInfo")
    const identity = parsePcsDocument(vector(`${folder}/pcs-qeidentity-response.json`), "enclaveIdentity")
    expect([info.document, info.signature]).toEqual([tcbInfo, tcbInfoSignature])
    expect([identity.document, identity.signature]).toEqual([qeIdentity, qeIdentitySignature])
  })
})

describe("bundle", () => {
  const text = encodeCollateralBundle(own)
  const changed = (members: Record<string, unknown>) =>
    utf8(JSON.stringify({ ...JSON.parse(text), ...members }))

  test("lists may be hex, PEM or absent", () => {
    const pem = encodePem("X509 CRL", own.rootCaCrl ?? new Uint8Array())
    expect(parseCollateralBundle(changed({ root_ca_crl: pem })).rootCaCrl).toEqual(own.rootCaCrl)
    const without = parseCollateralBundle(
      changed({ root_ca_crl: undefined, pck_crl: null, pck_crl_issuer_chain: undefined }),
    )
    expect(without).toMatchObject({ rootCaCrl: null, pckCrl: null, pckCrlIssuerChain: [] })
    expect(plain(reencoded(without))).toEqual(plain(without))
  })

  test("anything else is refused", () => {
    for (const members of [
      { tcb_info: undefined },
      { tcb_info: {} },
      { tcb_info_signature: "00" },
      { qe_identity_signature: "zz".repeat(64) },
      { tcb_info_issuer_chain: "" },
      { tcb_info_issuer_chain: encodePem("PUBLIC KEY", Uint8Array.of(1)) },
      { root_ca_crl: "" },
      { root_ca_crl: "0" },
      { pck_crl: encodePem("CERTIFICATE", Uint8Array.of(1)) },
      { extra: "member" },
    ])
      expect(() => parseCollateralBundle(changed(members))).toThrowCode("ERR_MALFORMED")
    expect(() => parseCollateralBundle(utf8(`{"tcb_info":"a","tcb_info":"b"}`))).toThrowCode(
      "ERR_DUPLICATE_KEY",
    )
    expect(() => parseCollateralBundle(utf8(text.slice(0, -3)))).toThrowCode("ERR_TRUNCATED")
    expect(() => parseCollateralBundle(utf8(`${text}{}`))).toThrowCode("ERR_TRAILING_BYTES")
    expect(() => parseCollateralBundle(new Uint8Array(9 * 1024 * 1024))).toThrowCode("ERR_TOO_LARGE")
  })
})

describe("directory", () => {
  const { tcbInfo, tcbInfoSignature, qeIdentity, qeIdentitySignature } = own
  const chainText = (ders: readonly Uint8Array[]) =>
    utf8(ders.map((der) => encodePem("CERTIFICATE", der)).join(""))
  const answer = (member: string, document: Uint8Array, signature: Uint8Array) =>
    utf8(`{"${member}":${Buffer.from(document)},"signature":"${toHex(signature)}"}`)
  const crl = own.pckCrl ?? new Uint8Array()
  const files = {
    "tcb_info.json": tcbInfo,
    "tcb_info_signature.hex": utf8(`${toHex(tcbInfoSignature)}\n`),
    "tcb_info_issuer_chain.pem": chainText(own.tcbInfoIssuerChain),
    "qe-identity.json": answer("enclaveIdentity", qeIdentity, qeIdentitySignature),
    "qe_identity_issuer_chain.pem": utf8(
      encodeURIComponent(Buffer.from(chainText(own.qeIdentityIssuerChain)).toString()),
    ),
    "pck_crl.der": crl,
    "pck-crl-issuer-chain.pem": chainText(own.pckCrlIssuerChain),
    ROOT_CA_CRL: utf8(toHex(own.rootCaCrl ?? new Uint8Array())),
    "README.md": utf8("not collateral"),
  }
  const read = (change: Record<string, Uint8Array | null>) => {
    const entries = Object.entries<Uint8Array | null>({ ...files, ...change })
    return collateralOfFiles(
      new Map(entries.flatMap(([name, bytes]) => (bytes === null ? [] : [[name, bytes]]))),
    )
  }

  test("each file in one of its forms gives the same as the bundle", () => {
    expect(plain(read({}))).toEqual(plain(own))
  })

  test("a newline that an editor added is not taken for a part of the document", () => {
    expect(read({ "tcb_info.json": utf8(`${Buffer.from(tcbInfo)}\n`) }).tcbInfo).toEqual(tcbInfo)
  })

  test("lists may be missing, documents not", () => {
    expect(read({ "pck_crl.der": null, ROOT_CA_CRL: null })).toMatchObject({ pckCrl: null, rootCaCrl: null })
    for (const name of ["tcb_info.json", "tcb_info_issuer_chain.pem", "qe-identity.json"])
      expect(() => read({ [name]: null })).toThrowCode("ERR_MALFORMED")
  })

  test("the same thing twice is refused", () => {
    expect(() => read({ "tcb_info.txt": tcbInfo })).toThrowCode("ERR_MALFORMED")
    const both = { "tcb_info.json": answer("tcbInfo", tcbInfo, tcbInfoSignature) }
    expect(() => read(both)).toThrowCode("ERR_MALFORMED")
  })

  test("a document without any signature is refused", () => {
    expect(() => read({ "tcb_info_signature.hex": null })).toThrowCode("ERR_MALFORMED")
  })

  test("names tell what a file is", () => {
    for (const name of COLLATERAL_FILES) expect(collateralMember(`${name}.json`)).toBe(name)
    expect(collateralMember("tcb_info.json.bak")).toBe(null)
  })
})

test("whatever the bytes, only coded errors escape", () => {
  const parsers = [
    parseCollateralBundle,
    parseTcbInfo,
    parseQeIdentity,
    (bytes: Uint8Array) => parsePcsDocument(bytes, "tcbInfo"),
  ]
  const seeds = [own.tcbInfo, own.qeIdentity, utf8(encodeCollateralBundle(own))]
  fc.assert(
    fc.property(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { maxLength: 6 }),
      (seed, changes) => {
        const bytes = seed.slice()
        for (const [at, value] of changes) bytes[at % bytes.length] = value
        for (const parse of parsers)
          try {
            parse(bytes)
          } catch (error) {
            if (!(error instanceof CodedError) || error.code === "ERR_INTERNAL") throw error
          }
      },
    ),
    { numRuns: 300 },
  )
})
