import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fakeClaims, fakeHclReport, fakeVtpm } from "../../test/fakes/azure.ts"
import { fakeChip } from "../../test/fakes/snp.ts"
import { vector } from "../../test/fakes/vectors.ts"
import {
  pcsDocuments,
  testHttp,
  testPkiDocuments,
  type VendorServices,
  vendorServices,
} from "../../test/fakes/vendor-services.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { vcekPathOf } from "../endorsements/amd-kds.ts"
import { trustAnchorFromPem } from "../endorsements/amd-roots.ts"
import { openCache } from "../endorsements/cache.ts"
import { CollateralSource } from "../endorsements/collateral.ts"
import { parseCollateralBundle } from "../formats/intel/collateral.ts"
import { encodePem } from "../formats/pem.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import type { Check } from "../policy/verdict.ts"
import { judge } from "../policy/verify-vm.ts"
import { EMPTY_WHITELIST } from "../policy/whitelist.ts"
import type { TrustAnchor } from "../verify/snp.ts"
import { endorse } from "./endorse.ts"

/** The report is genuine, and was asked for at another privilege level than 0. */
const PROVEN = "warning"
const AT = new Date("2026-06-01T00:00:00Z")
let service: VendorServices
let dir: string

beforeAll(async () => {
  service = await vendorServices([])
  dir = mkdtempSync(join(tmpdir(), "cosmian-vm-endorse-"))
})
afterAll(async () => {
  await service.close()
  rmSync(dir, { recursive: true, force: true })
})

function sourceOf(anchors: readonly TrustAnchor[], offline: boolean): CollateralSource {
  return new CollateralSource({
    cache: openCache(mkdtempSync(join(dir, "cache-"))),
    http: offline ? null : testHttp(),
    services: { kdsUrl: service.url, pcsUrl: service.url },
    anchors,
    warn: () => undefined,
  })
}

/** The machine of the test PKI sends nothing but its report, and its root is taken for AMD's. */
async function judged(options: {
  crl?: string
  offline?: boolean
  skip?: readonly Check[]
  report?: Uint8Array
}) {
  const report = vector("snp-testpki/report.bin")
  service.documents.clear()
  service.requests.length = 0
  for (const [path, document] of testPkiDocuments(options.crl)) service.documents.set(path, document)
  const vcek = { body: vector("snp-testpki/vcek.der"), type: "application/pkix-cert" }
  service.documents.set(vcekPathOf(parseSnpReport(report), "Milan"), vcek)
  const ark = trustAnchorFromPem(encodePem("CERTIFICATE", vector("snp-testpki/ark.der")))
  const anchors = [{ ...ark, simulated: false }]
  const source = sourceOf(anchors, options.offline === true)
  const tee = { kind: "sev-snp", report: options.report ?? report, certificates: [] } as const
  const skip = new Set(options.skip ?? [])
  const endorsed = await endorse({ tee, tpm: null, ima: null }, source, {
    revocation: !skip.has("revocation"),
    at: AT,
  })
  const { verdict } = judge({
    target: "vm",
    at: AT,
    nonce: new Uint8Array(32),
    ...endorsed,
    intel: { ...endorsed.intel, anchors: [] },
    channel: { spki: new Uint8Array(91), authorized: true, reason: null, insecureAllowed: false },
    reference: null,
    whitelist: EMPTY_WHITELIST,
    anchors,
    applications: [],
    skip,
  })
  const of = (check: Check) => verdict.claims.find((claim) => claim.check === check)
  return { tee: of("tee"), revocation: of("revocation") }
}

describe.skipIf(!HAVE_VECTORS)("a VM that sends nothing but its report", () => {
  test("is judged with what the vendor has", async () => {
    const { tee, revocation } = await judged({})
    expect([tee?.status, revocation?.status]).toEqual([PROVEN, "passed"])
    expect(revocation?.facts).toMatchObject({ source: "verifier", nextUpdate: "2030-01-01T00:00:00.000Z" })
  })

  test("whose intermediate was revoked fails", async () => {
    const { tee, revocation } = await judged({ crl: "crl-ask-revoked.der" })
    expect(tee?.status).toBe(PROVEN)
    expect(revocation?.findings).toMatchObject([{ code: "ERR_CERT_REVOKED" }])
  })

  test("offline, and with nothing cached, fails for want of certificates", async () => {
    const { tee, revocation } = await judged({ offline: true })
    expect(tee?.findings).toMatchObject([{ code: "ERR_SNP_ENDORSEMENT_MISSING" }])
    expect(revocation?.status).toBe("failed")
    expect(service.requests).toEqual([])
  })

  test("fails where the vendor's list is another's, and the finding says why there is none", async () => {
    const { tee, revocation } = await judged({ crl: "crl-wrong-signer.der" })
    expect(tee?.status).toBe(PROVEN)
    expect(revocation?.findings).toMatchObject([{ code: "ERR_REVOCATION_NOT_CHECKED" }])
    expect(revocation?.findings[0]?.found).toContain("revocation list of Milan")
  })

  test("is not asked about where revocation is left out", async () => {
    const { tee, revocation } = await judged({ skip: ["revocation"] })
    expect([tee?.status, revocation?.status]).toEqual([PROVEN, "skipped"])
    expect(service.requests).not.toContain("/vcek/v1/Milan/crl")
  })

  test("on Azure, is judged the same by the report inside the HCL report", async () => {
    const fake = await fakeChip()
    const hcl = fakeHclReport(fake, fakeClaims(fakeVtpm()))
    const source = sourceOf([fake.anchor], false)
    const wanted = { revocation: true, at: AT }
    const tee = { kind: "azure-snp", hcl, certificates: fake.certificates } as const
    // A chain under a root that no vendor knows: it is read, and nobody is asked about it.
    const { evidence, crlAbsence } = await endorse({ tee, tpm: null, ima: null }, source, wanted)
    expect([evidence.tee, crlAbsence]).toEqual([tee, null])
    const cut = { ...tee, hcl: hcl.subarray(0, 100) }
    expect((await endorse({ tee: cut, tpm: null, ima: null }, source, wanted)).evidence.tee).toEqual(cut)
  })

  test("with a report that cannot be read, nobody is asked", async () => {
    const { tee } = await judged({ report: new Uint8Array(10) })
    expect(tee?.findings).toMatchObject([{ code: "ERR_TRUNCATED" }])
    expect(service.requests).toEqual([])
  })
})

describe.skipIf(!HAVE_VECTORS)("a trust domain", () => {
  const quote = HAVE_VECTORS ? vector("tdx/v4-phala-uptodate/quote.bin") : new Uint8Array()
  const bundle = () =>
    JSON.parse(Buffer.from(vector("tdx/v4-phala-uptodate/collateral-202506.json")).toString())
  const at = new Date("2025-07-04T10:16:31Z")
  const KINDS = [
    { kind: "tdx", quote },
    { kind: "azure-tdx", hcl: new Uint8Array(2600), quote },
  ] as const

  test.each(KINDS)("is judged with what Intel has ($kind)", async (tee) => {
    service.documents.clear()
    for (const [path, document] of pcsDocuments(bundle(), "b0c06f000000"))
      service.documents.set(path, document)
    const { intel } = await endorse({ tee, tpm: null, ima: null }, sourceOf([], false), {
      revocation: true,
      at,
    })
    expect(intel.problems).toEqual([])
    expect(intel.collateral).toEqual(parseCollateralBundle(Buffer.from(JSON.stringify(bundle()))))
  })

  test("offline has no documents, and the reason is kept", async () => {
    const tee = KINDS[0]
    const { intel } = await endorse({ tee, tpm: null, ima: null }, sourceOf([], true), {
      revocation: true,
      at,
    })
    expect(intel.collateral).toBeNull()
    expect(intel.problems.map(({ code }) => code)).toEqual(["ERR_COLLATERAL_OFFLINE"])
  })

  test("whose quote cannot be read: nobody is asked", async () => {
    service.requests.length = 0
    const tee = { kind: "tdx", quote: quote.subarray(0, 700) } as const
    const { intel } = await endorse({ tee, tpm: null, ima: null }, sourceOf([], false), {
      revocation: true,
      at,
    })
    expect([intel, service.requests]).toEqual([{ collateral: null, problems: [] }, []])
  })
})
