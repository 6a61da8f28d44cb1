import { describe, expect, test } from "bun:test"
import { CERTIFICATES, chain } from "../../test/fakes/intel.ts"
import { fakeCertificate } from "../../test/fakes/intel-certificates.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { encodePem } from "../formats/pem.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { INTEL_ANCHORS, intelAnchorFromPem, isIntelRootName } from "./intel-roots.ts"

describe.skipIf(!HAVE_VECTORS)("pinned root", () => {
  const root = HAVE_VECTORS ? vector("trust/intel/sgx-root-ca.der") : new Uint8Array()

  test("it is the key of Intel's certificate", () => {
    const { spki, subject } = parseCertificate(root)
    expect(INTEL_ANCHORS).toEqual([{ name: `${subject.commonName}`, spki, simulated: false }])
  })

  test("named as trust root it stays Intel's", () => {
    expect(intelAnchorFromPem(encodePem("CERTIFICATE", root)).simulated).toBe(false)
  })

  test("another key under the same name is simulated", () => {
    const anchor = intelAnchorFromPem(encodePem("CERTIFICATE", vector("tdx-testpki/root.der")))
    expect(anchor).toMatchObject({ name: "Intel SGX Root CA", simulated: true })
  })
})

describe("trust roots that the user names", () => {
  const root = fakeCertificate(CERTIFICATES.root)

  test("a simulated root is taken, and marked", () => {
    const anchor = intelAnchorFromPem(encodePem("CERTIFICATE", root))
    expect(anchor).toMatchObject({ name: "SIMULATED Intel SGX Root CA", simulated: true })
    expect(isIntelRootName(anchor.name)).toBe(true)
    expect(isIntelRootName("ARK-Milan")).toBe(false)
  })

  test("anything else is refused", () => {
    const pem = encodePem("CERTIFICATE", root)
    const broken = root.slice()
    broken[broken.length - 1] = (broken.at(-1) ?? 0) ^ 1
    const [, ca = root] = chain()
    for (const text of [
      "",
      "no PEM",
      pem + pem,
      encodePem("CERTIFICATE", ca),
      encodePem("CERTIFICATE", broken),
      encodePem("CERTIFICATE", root.subarray(1)),
      encodePem("PRIVATE KEY", root),
    ])
      expect(() => intelAnchorFromPem(text)).toThrowCode("ERR_INTEL_TRUST_ROOT")
  })
})
