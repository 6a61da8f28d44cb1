import { describe, expect, test } from "bun:test"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { parseCollateralBundle } from "../formats/intel/collateral.ts"
import {
  assembleCollateral,
  pckCrlPath,
  pcsResource,
  qeIdentityPath,
  ROOT_CA_CRL_PATH,
  tcbInfoPath,
} from "./intel-pcs.ts"
import { DEFAULT_SERVICES } from "./resource.ts"

const DIR = "tdx/v4-trustee-4"
const FMSPC = Buffer.from("50806f000000", "hex")

const resource = (path: string) => {
  const found = pcsResource(path, DEFAULT_SERVICES)
  if (found === null) throw new Error(`no resource behind ${path}`)
  return found
}

test("addresses are those of version 4", () => {
  const base = "https://api.trustedservices.intel.com"
  expect(resource(tcbInfoPath("tdx", FMSPC)).url).toBe(`${base}/tdx/certification/v4/tcb?fmspc=50806f000000`)
  expect(resource(tcbInfoPath("sgx", FMSPC)).url).toBe(`${base}/sgx/certification/v4/tcb?fmspc=50806f000000`)
  expect(resource(qeIdentityPath("tdx")).url).toBe(`${base}/tdx/certification/v4/qe/identity`)
  expect(resource(pckCrlPath("processor")).url).toBe(
    `${base}/sgx/certification/v4/pckcrl?ca=processor&encoding=der`,
  )
})

test("the root's list comes from where Intel publishes it, or from the caching service that is named", () => {
  expect(resource(ROOT_CA_CRL_PATH).url).toBe(
    "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
  )
  const services = { ...DEFAULT_SERVICES, pcsUrl: "https://pccs.example:8081" }
  expect(pcsResource(ROOT_CA_CRL_PATH, services)?.url).toBe(
    "https://pccs.example:8081/sgx/certification/v4/rootcacrl",
  )
})

test("other paths name nothing", () => {
  for (const path of [
    "",
    "/tdx/certification/v4/tcb?fmspc=50806F000000",
    "/tdx/certification/v3/tcb?fmspc=50806f000000",
    "/tdx/certification/v4/tcb?fmspc=50806f",
    "/sgx/certification/v4/pckcrl?ca=root&encoding=der",
  ])
    expect(pcsResource(path, DEFAULT_SERVICES)).toBe(null)
})

describe.skipIf(!HAVE_VECTORS)("real documents", () => {
  const bundleBytes = () => vector(`${DIR}/collateral-202306.json`)
  const bundle = (): Record<string, string> => JSON.parse(Buffer.from(bundleBytes()).toString())
  const tcbInfo = () => ({
    body: vector(`${DIR}/pcs-tcbinfo-response.json`),
    issuerChain: bundle()["tcb_info_issuer_chain"] ?? null,
  })
  const qeIdentity = () => ({
    body: vector(`${DIR}/pcs-qeidentity-response.json`),
    issuerChain: bundle()["qe_identity_issuer_chain"] ?? null,
  })
  const pckCrl = () => ({
    body: Uint8Array.from(Buffer.from(bundle()["pck_crl"] ?? "", "hex")),
    issuerChain: bundle()["pck_crl_issuer_chain"] ?? null,
  })
  const rootCaCrl = () => ({
    body: Uint8Array.from(Buffer.from(bundle()["root_ca_crl"] ?? "", "hex")),
    issuerChain: null,
  })

  test("are taken for what they are, and hold for as long as they say", () => {
    expect(resource(tcbInfoPath("tdx", FMSPC)).inspect(tcbInfo())).toEqual({
      from: new Date("2023-06-18T08:42:58Z"),
      until: new Date("2023-07-18T08:42:58Z"),
    })
    expect(resource(qeIdentityPath("tdx")).inspect(qeIdentity()).until).toEqual(
      new Date("2023-07-08T07:24:59Z"),
    )
    expect(resource(pckCrlPath("platform")).inspect(pckCrl()).until.getUTCFullYear()).toBe(2023)
    expect(resource(ROOT_CA_CRL_PATH).inspect(rootCaCrl()).until.getUTCFullYear()).toBe(2024)
  })

  test("together they are the bundle, byte for byte", () => {
    const made = assembleCollateral({
      tcbInfo: tcbInfo(),
      qeIdentity: qeIdentity(),
      pckCrl: pckCrl(),
      rootCaCrl: rootCaCrl(),
    })
    const expected = parseCollateralBundle(bundleBytes())
    const plain = (value: object) =>
      JSON.stringify(value, (_, item) => (item instanceof Uint8Array ? [...item] : item))
    expect(plain(made)).toBe(plain(expected))
  })

  test("lists in hex, as caching services send them, are read", () => {
    const { decode } = resource(ROOT_CA_CRL_PATH)
    const der = rootCaCrl().body
    expect(decode(Buffer.from(Buffer.from(der).toString("hex")))).toEqual(der)
    expect(decode(der)).toEqual(der)
    expect(() => decode(Buffer.from("<html>"))).toThrowCode("ERR_MALFORMED")
  })

  test("of another platform, TEE or authority are refused", () => {
    const other = Buffer.from("00806f050000", "hex")
    for (const [path, document] of [
      [tcbInfoPath("tdx", other), tcbInfo()],
      [tcbInfoPath("sgx", FMSPC), tcbInfo()],
      [qeIdentityPath("sgx"), qeIdentity()],
      [pckCrlPath("processor"), pckCrl()],
      [ROOT_CA_CRL_PATH, pckCrl()],
    ] as const)
      expect(() => resource(path).inspect(document)).toThrowCode("ERR_COLLATERAL_CONTENT")
  })

  test("that were altered, or whose signer is not named, are refused", () => {
    const text = Buffer.from(tcbInfo().body).toString().replace("2023-07-18", "2033-07-18")
    const altered = { ...tcbInfo(), body: Buffer.from(text) }
    const inspect = resource(tcbInfoPath("tdx", FMSPC)).inspect
    expect(() => inspect(altered)).toThrowCode("ERR_COLLATERAL_CONTENT")
    expect(() => inspect({ ...tcbInfo(), issuerChain: null })).toThrowCode("ERR_COLLATERAL_CONTENT")
    expect(() => inspect({ ...tcbInfo(), issuerChain: pckCrl().issuerChain })).toThrowCode(
      "ERR_COLLATERAL_CONTENT",
    )
    const list = pckCrl().body.slice()
    list[list.length - 1] = (list.at(-1) ?? 0) ^ 1
    expect(() => resource(pckCrlPath("platform")).inspect({ ...pckCrl(), body: list })).toThrowCode(
      "ERR_COLLATERAL_CONTENT",
    )
  })
})
