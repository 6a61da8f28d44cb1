import { describe, expect, test } from "bun:test"
import { fakeAuthorities } from "../../test/fakes/snp.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { encodePem, parsePem } from "../formats/pem.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { AMD_ANCHORS, trustAnchorFromPem } from "./amd-roots.ts"

describe("pinned roots", () => {
  for (const { product, name, spki, simulated } of AMD_ANCHORS) {
    const chain = `trust/amd/cert_chain-vcek-${product.toLowerCase()}.pem`
    test.skipIf(!HAVE_VECTORS)(`${name} is the last certificate of AMD's cert_chain`, () => {
      const ark = parsePem(Buffer.from(vector(chain)).toString()).at(-1)?.der ?? new Uint8Array()
      expect(parseCertificate(ark).spki).toEqual(spki)
      expect(parseCertificate(ark).subject.commonName).toBe(name)
      expect(simulated).toBe(false)
    })

    test.skipIf(!HAVE_VECTORS)(`${name} named as trust root stays AMD's`, () => {
      const ark = parsePem(Buffer.from(vector(chain)).toString()).at(-1)?.der ?? new Uint8Array()
      expect(trustAnchorFromPem(encodePem("CERTIFICATE", ark)).simulated).toBe(false)
    })
  }
})

describe("trust roots that the user names", () => {
  test("a simulated root is taken, and marked", async () => {
    const { ark } = await fakeAuthorities("Milan")
    const anchor = trustAnchorFromPem(encodePem("CERTIFICATE", ark.der))
    expect(anchor).toMatchObject({ product: "Milan", name: "SIMULATED ARK-Milan", simulated: true })
  })

  test("anything else is refused", async () => {
    const { ark, ask } = await fakeAuthorities("Milan")
    const root = encodePem("CERTIFICATE", ark.der)
    const broken = ark.der.slice()
    broken[broken.length - 1] = (broken.at(-1) ?? 0) ^ 1
    for (const pem of [
      "",
      "no PEM",
      root + root,
      encodePem("CERTIFICATE", ask.der),
      encodePem("CERTIFICATE", ark.der.subarray(1)),
      encodePem("CERTIFICATE", broken),
      encodePem("PRIVATE KEY", ark.der),
    ])
      expect(() => trustAnchorFromPem(pem)).toThrowCode("ERR_TRUST_ROOT")
  })
})
