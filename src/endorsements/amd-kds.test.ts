import { describe, expect, test } from "bun:test"
import { fakeChip, fakeReport } from "../../test/fakes/snp.ts"
import { vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { encodePem } from "../formats/pem.ts"
import { parseSnpLeaf } from "../formats/snp/leaf-certificate.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { SNP_PRODUCTS } from "../formats/snp/tcb.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import {
  certChainPath,
  certificatesOfChain,
  crlPath,
  hwIdOf,
  kdsResource,
  vcekPath,
  vcekPathOf,
} from "./amd-kds.ts"
import { AMD_ANCHORS, trustAnchorFromPem } from "./amd-roots.ts"
import { DEFAULT_SERVICES } from "./resource.ts"

const resource = (path: string, anchors = AMD_ANCHORS) => {
  const found = kdsResource(path, DEFAULT_SERVICES, anchors)
  if (found === null) throw new Error(`no resource behind ${path}`)
  return found
}
const inspect = (path: string, body: Uint8Array | string, anchors = AMD_ANCHORS) =>
  resource(path, anchors).inspect({ body: Buffer.from(body), issuerChain: null })
const turin = await fakeChip("Turin")
const milan = await fakeChip("Milan")

describe("addresses", () => {
  test("Milan's chips have 64 bytes and four components", () => {
    const id = "ab".repeat(64)
    const path = vcekPath("Milan", Buffer.from(id, "hex"), { bootloader: 4, tee: 0, snp: 24, microcode: 219 })
    expect(resource(path).url).toBe(
      `https://kdsintf.amd.com/vcek/v1/Milan/${id}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219`,
    )
  })

  test("Turin's have 8 bytes and the FMC's level before the others", () => {
    const id = Buffer.from(turin.chip.hwId).toString("hex")
    expect(vcekPathOf(parseSnpReport(fakeReport(turin)), "Turin")).toBe(
      `/vcek/v1/Turin/${id}?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81`,
    )
  })

  test("chains and lists are found by product and kind of key", () => {
    expect(resource(certChainPath("vlek", "Genoa")).url).toBe(
      "https://kdsintf.amd.com/vlek/v1/Genoa/cert_chain",
    )
    expect(resource(crlPath("vcek", "Turin")).url).toBe("https://kdsintf.amd.com/vcek/v1/Turin/crl")
  })

  test("a mirror is asked under its own address", () => {
    const services = { ...DEFAULT_SERVICES, kdsUrl: "http://mirror.example/amd" }
    expect(kdsResource(crlPath("vcek", "Milan"), services, AMD_ANCHORS)?.url).toBe(
      "http://mirror.example/amd/vcek/v1/Milan/crl",
    )
  })

  test("whatever is not exactly such a path names nothing", () => {
    const good = vcekPathOf(parseSnpReport(fakeReport(milan)), "Milan")
    expect(kdsResource(good, DEFAULT_SERVICES, AMD_ANCHORS)).not.toBe(null)
    for (const path of [
      "",
      "/vcek/v1/Naples/crl",
      "/vcek/v2/Milan/crl",
      "/vcek/v1/Milan/",
      "/vcek/v1/Milan/../Genoa/crl",
      good.replace("vcek", "vlek"),
      good.replace("blSPL", "fmcSPL=00&blSPL"),
      good.replace("blSPL=04", "blSPL=4"),
      good.replace("blSPL=04", "blSPL=x"),
      `${good}&more=1`,
      good.slice(0, 40),
    ])
      expect(kdsResource(path, DEFAULT_SERVICES, AMD_ANCHORS)).toBe(null)
  })

  test("a masked chip, and one that is longer than the product's, cannot be asked for", () => {
    const masked = parseSnpReport(fakeReport(milan, { chipId: new Uint8Array(64) }))
    expect(() => hwIdOf(masked, "Milan")).toThrowCode("ERR_COLLATERAL_UNKNOWN")
    expect(() => hwIdOf(parseSnpReport(fakeReport(milan)), "Turin")).toThrowCode("ERR_COLLATERAL_UNKNOWN")
  })
})

describe.skipIf(!HAVE_VECTORS)("real certificates", () => {
  const vceks = vectorsUnder("snp").filter(({ file }) => file.endsWith("vcek.der"))

  for (const { file } of vceks)
    test(`${file} is the answer to its report's address, and to no other`, () => {
      const der = vector(file)
      const certificate = parseCertificate(der)
      const { product } = parseSnpLeaf(certificate)
      const path = vcekPathOf(parseSnpReport(vector(file.replace("vcek.der", "report.bin"))), product)
      expect(inspect(path, der)).toEqual({ from: certificate.notBefore, until: certificate.notAfter })
      const older = path.replace(/snpSPL=\d+/, "snpSPL=01")
      expect(() => inspect(older, der)).toThrowCode("ERR_COLLATERAL_CONTENT")
      const other = path.replace(/(v1\/\w+\/)../, "$1ee")
      expect(() => inspect(other, der)).toThrowCode("ERR_COLLATERAL_CONTENT")
    })

  for (const product of SNP_PRODUCTS)
    test(`${product}: the chains of both keys, and nobody else's`, () => {
      const name = product.toLowerCase()
      const der = (kind: string) => vector(`trust/amd/${kind}-${name}.der`)
      const pem = (...kinds: string[]) => kinds.map((kind) => encodePem("CERTIFICATE", der(kind))).join("")
      const vcek = vector(`trust/amd/cert_chain-vcek-${name}.pem`)
      expect(inspect(certChainPath("vcek", product), vcek).until.getUTCFullYear()).toBeGreaterThan(2040)
      expect(certificatesOfChain({ body: vcek, issuerChain: null }).map((each) => Buffer.from(each))).toEqual(
        [der("ask"), der("ark")].map((each) => Buffer.from(each)),
      )
      inspect(certChainPath("vlek", product), pem("asvk", "ark"))
      for (const wrong of [
        pem("asvk", "ark"),
        pem("ask"),
        pem("ark", "ask"),
        pem("ask", "ask"),
        "",
        pem("ask", "ark", "ark"),
      ])
        expect(() => inspect(certChainPath("vcek", product), wrong)).toThrowCode("ERR_COLLATERAL_CONTENT")
      const next = SNP_PRODUCTS[(SNP_PRODUCTS.indexOf(product) + 1) % 3] ?? "Milan"
      expect(() => inspect(certChainPath("vcek", next), vcek)).toThrowCode("ERR_COLLATERAL_CONTENT")
    })
})

describe.skipIf(!HAVE_VECTORS)("revocation lists", () => {
  const root = () => {
    const ark = trustAnchorFromPem(encodePem("CERTIFICATE", vector("snp-testpki/ark.der")))
    return [{ ...ark, simulated: false }]
  }
  const judge = (name: string) => inspect(crlPath("vcek", "Milan"), vector(`snp-testpki/${name}`), root())

  test("hold for as long as they say", () => {
    expect(judge("crl-empty.der")).toEqual({
      from: new Date("2025-01-01T00:00:00Z"),
      until: new Date("2030-01-01T00:00:00Z"),
    })
  })

  test("by another root are refused", () => {
    expect(() => judge("crl-wrong-signer.der")).toThrowCode("ERR_COLLATERAL_CONTENT")
    expect(() => judge("crl-other-product.der")).toThrowCode("ERR_COLLATERAL_CONTENT")
    expect(() => inspect(crlPath("vcek", "Milan"), vector("snp-testpki/crl-empty.der"))).toThrowCode(
      "ERR_COLLATERAL_CONTENT",
    )
  })
})
