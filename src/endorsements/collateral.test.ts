import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { codeOf } from "../../test/fakes/simulated.ts"
import { fakeChip, fakeReport } from "../../test/fakes/snp.ts"
import { vector } from "../../test/fakes/vectors.ts"
import {
  pcsDocuments,
  testHttp,
  testPkiDocuments,
  type VendorServices,
  vendorServices,
} from "../../test/fakes/vendor-services.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { parseCollateralBundle } from "../formats/intel/collateral.ts"
import { encodePem } from "../formats/pem.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { verifySnp } from "../verify/snp.ts"
import { verifyTdx } from "../verify/tdx.ts"
import { vcekPathOf } from "./amd-kds.ts"
import { AMD_ANCHORS, trustAnchorFromPem } from "./amd-roots.ts"
import { type CollateralCache, openCache } from "./cache.ts"
import { CollateralSource, type SnpNeed } from "./collateral.ts"
import type { Http } from "./http.ts"
import { INTEL_ANCHORS } from "./intel-roots.ts"

const AT = new Date("2026-06-01T00:00:00Z")
const CRL = "amd:/vcek/v1/Milan/crl"
const file = (name: string) => vector(`snp-testpki/${name}`)

let service: VendorServices
let root: string
let dir: string
let warnings: string[]

beforeAll(async () => {
  service = await vendorServices([])
  root = mkdtempSync(join(tmpdir(), "cosmian-vm-collateral-"))
})
afterAll(async () => {
  await service.close()
  rmSync(root, { recursive: true, force: true })
})
beforeEach(() => {
  dir = mkdtempSync(join(root, "cache-"))
  warnings = []
  service.requests.length = 0
  service.disturbances.length = 0
  service.documents.clear()
  if (!HAVE_VECTORS) return
  for (const [path, published] of testPkiDocuments()) service.documents.set(path, published)
  const path = vcekPathOf(parseSnpReport(file("report.bin")), "Milan")
  service.documents.set(path, { body: file("vcek.der"), type: "application/pkix-cert" })
})

/** The root of the test PKI, taken for AMD's. */
function anchors() {
  const ark = trustAnchorFromPem(encodePem("CERTIFICATE", file("ark.der")))
  return [{ ...ark, simulated: false }]
}

function source(changes: { http?: Http | null; cache?: CollateralCache } = {}) {
  return new CollateralSource({
    cache: changes.cache ?? openCache(dir),
    http: changes.http === undefined ? testHttp() : changes.http,
    services: { kdsUrl: service.url, pcsUrl: service.url },
    anchors: anchors(),
    warn: ({ code }) => warnings.push(code),
  })
}

function need(changes: Partial<SnpNeed> = {}): SnpNeed {
  const report = parseSnpReport(file("report.bin"))
  return { report, certificates: [], product: null, revocation: true, at: AT, ...changes }
}

describe.skipIf(!HAVE_VECTORS)("a SEV-SNP report", () => {
  test("with nothing beside it: all is fetched, and it verifies", async () => {
    const { certificates, crl, problems } = await source().snp(need())
    expect(problems).toEqual([])
    const attested = verifySnp({ report: file("report.bin"), certificates, anchors: anchors(), crl, at: AT })
    expect(attested.revocation).toBe("checked")
    expect(service.requests.map((path) => path.replace(/[0-9a-f]{128}/, "CHIP"))).toEqual([
      expect.stringMatching(/^\/vcek\/v1\/Milan\/CHIP\?blSPL=\d\d&teeSPL=\d\d&snpSPL=\d\d&ucodeSPL=\d+$/),
      "/vcek/v1/Milan/cert_chain",
      "/vcek/v1/Milan/crl",
    ])
  })

  test("a second time, and in another process, nothing is asked", async () => {
    await source().snp(need())
    service.requests.length = 0
    const again = await source().snp(need())
    const offline = await source({ http: null }).snp(need())
    expect([again.problems, offline.problems, service.requests]).toEqual([[], [], []])
    expect(offline.crl).toEqual(file("crl-empty.der"))
  })

  test("with certificates beside it only the list is fetched", async () => {
    const certificates = [file("vcek.der"), file("ask.der")]
    const found = await source().snp(need({ certificates }))
    expect(found.certificates).toEqual(certificates)
    expect(service.requests).toEqual(["/vcek/v1/Milan/crl"])
  })

  test("with the certificate of another TCB the right one is fetched", async () => {
    const certificates = [file("vcek-other-tcb.der"), file("ask.der")]
    const found = await source().snp(need({ certificates }))
    expect(found.certificates).toContainEqual(file("vcek.der"))
    const { crl } = found
    verifySnp({
      report: file("report.bin"),
      certificates: found.certificates,
      anchors: anchors(),
      crl,
      at: AT,
    })
  })

  test("where revocation is left out the list is not asked for", async () => {
    expect((await source().snp(need({ revocation: false }))).crl).toBe(null)
    expect(service.requests).toHaveLength(2)
  })

  test("what is not to be had is told, and does not stop the rest", async () => {
    service.documents.delete("/vcek/v1/Milan/crl")
    const { certificates, crl, problems } = await source().snp(need())
    expect(certificates).toHaveLength(3)
    expect([crl, problems.map(({ code }) => code)]).toEqual([null, ["ERR_COLLATERAL_NOT_FOUND"]])
  })

  test("a report that names no product needs its certificate, or a word", async () => {
    const report = { ...parseSnpReport(file("report.bin")), product: null }
    const unknown = await source().snp(need({ report }))
    expect(unknown.problems.map(({ code }) => code)).toEqual(["ERR_COLLATERAL_UNKNOWN"])
    expect(service.requests).toEqual([])
    expect((await source().snp(need({ report, product: "Milan" }))).problems).toEqual([])
    const certificates = [file("vcek.der")]
    expect((await source().snp(need({ report, certificates }))).problems).toEqual([])
  })

  test("a VLEK's chain is asked for by its own address; the VLEK itself nobody gives", async () => {
    const report = parseSnpReport(vector("snp/milan-v3-vlek-aws-trustee/report.bin"))
    await source().snp(need({ report }))
    expect(service.requests).toEqual(["/vlek/v1/Milan/cert_chain", "/vlek/v1/Milan/crl"])
  })
})

test.each([true, false])("about a simulated TEE no vendor is asked (its root named: %p)", async (named) => {
  const milan = await fakeChip("Milan")
  const mine = new CollateralSource({
    cache: openCache(dir),
    http: testHttp(),
    services: { kdsUrl: service.url, pcsUrl: service.url },
    anchors: named ? [...AMD_ANCHORS, milan.anchor] : AMD_ANCHORS,
    warn: ({ code }) => warnings.push(code),
  })
  const report = parseSnpReport(fakeReport(milan))
  const { certificates } = milan
  expect(await mine.snp({ report, certificates, product: null, revocation: true, at: AT })).toEqual({
    certificates,
    crl: null,
    problems: [],
  })
  expect(service.requests).toEqual([])
})

describe.skipIf(!HAVE_VECTORS)("offline", () => {
  test("no connection is opened, whatever is missing", async () => {
    const before = service.connections
    const { problems } = await source({ http: null }).snp(need())
    expect(problems.map(({ code }) => code)).toEqual(Array(3).fill("ERR_COLLATERAL_OFFLINE"))
    expect(await codeOf(source({ http: null }).get(CRL, { at: AT, refresh: true }))).toBe(
      "ERR_COLLATERAL_OFFLINE",
    )
    expect(service.connections).toBe(before)
  })
})

describe.skipIf(!HAVE_VECTORS)("one document", () => {
  test("out of date it is asked for again, with its validator; unchanged it is kept", async () => {
    await source().get(CRL, { at: AT })
    const later = new Date("2031-01-01T00:00:00Z")
    const again = await source().get(CRL, { at: later })
    expect(again.source).toBe("unchanged")
    expect(service.lastHeaders["if-none-match"]).toBe('"crl-empty.der"')
    expect(await codeOf(source({ http: null }).get(CRL, { at: later }))).toBe("ERR_COLLATERAL_OFFLINE")
  })

  test("a new one takes the place of the old one", async () => {
    await source().get(CRL, { at: AT })
    const [, published] = testPkiDocuments("crl-ask-revoked.der")
    if (published !== undefined) service.documents.set(...published)
    const fresh = await source().get(CRL, { at: AT, refresh: true })
    expect([fresh.source, fresh.body]).toEqual(["fetched", file("crl-ask-revoked.der")])
    expect((await source().get(CRL, { at: AT })).body).toEqual(fresh.body)
  })

  test("for a time before it began it is used as it is: the vendor has nothing older", async () => {
    await source().get(CRL, { at: AT })
    service.requests.length = 0
    expect((await source().get(CRL, { at: new Date("2020-01-01") })).source).toBe("cache")
    expect(service.requests).toEqual([])
  })

  test("in date it still serves when asking again fails, and the failure is told", async () => {
    await source().get(CRL, { at: AT })
    service.disturbances.push(...Array(4).fill({ status: 503 }))
    expect((await source().get(CRL, { at: AT, refresh: true })).source).toBe("cache")
    expect(warnings).toEqual(["ERR_COLLATERAL_UNREACHABLE"])
    service.disturbances.push(...Array(4).fill({ status: 503 }))
    expect(await codeOf(source().get(CRL, { at: new Date("2031-01-01") }))).toBe("ERR_COLLATERAL_UNREACHABLE")
  })

  test("a busy service gets the time that it asks for", async () => {
    service.disturbances.push({ status: 429, headers: { "retry-after": "10" } })
    const http = testHttp()
    expect((await source({ http }).get(CRL, { at: AT })).source).toBe("fetched")
    expect(http.slept).toEqual([10_000])
  })

  test("what is something else is neither used nor kept", async () => {
    for (const body of ["<html>log in</html>", "", file("crl-wrong-signer.der"), file("vcek.der")]) {
      service.documents.set("/vcek/v1/Milan/crl", { body, type: "text/html" })
      expect(await codeOf(source().get(CRL, { at: AT }))).toBe("ERR_COLLATERAL_CONTENT")
    }
    expect(await openCache(dir).list()).toEqual([])
    expect(await codeOf(source().get("amd:/vcek/v1/Naples/crl", { at: AT }))).toBe("ERR_COLLATERAL_CONTENT")
    expect(await codeOf(source().get("elsewhere", { at: AT }))).toBe("ERR_COLLATERAL_CONTENT")
  })

  test("a cached one that is something else is fetched again", async () => {
    const entry = { url: "", fetchedAt: AT, etag: '"crl-empty.der"', lastModified: null, issuerChain: null }
    await openCache(dir).write({ key: CRL, ...entry, body: file("crl-wrong-signer.der") })
    expect(await source().get(CRL, { at: AT })).toMatchObject({
      source: "fetched",
      body: file("crl-empty.der"),
    })
  })

  test("asked for by many at once it is fetched once", async () => {
    const one = source()
    await Promise.all(Array.from({ length: 20 }, () => one.get(CRL, { at: AT })))
    expect(service.requests).toHaveLength(1)
  })

  test("without a cache that can be written to it is used, and the failure told", async () => {
    writeFileSync(join(dir, "file"), "")
    const found = await source({ cache: openCache(join(dir, "file")) }).get(CRL, { at: AT })
    expect([found.source, warnings]).toEqual(["fetched", ["ERR_IO"]])
  })

  test("that came another way is kept where it is what its name says and holds longer", async () => {
    const entry = { key: CRL, url: "", fetchedAt: AT, etag: null, lastModified: null, issuerChain: null }
    expect(await source({ http: null }).put({ ...entry, body: file("crl-empty.der") })).toBe(true)
    expect(await source({ http: null }).put({ ...entry, body: file("crl-expired.der") })).toBe(false)
    expect((await source({ http: null }).get(CRL, { at: AT })).body).toEqual(file("crl-empty.der"))
    const foreign = { ...entry, body: file("crl-wrong-signer.der") }
    expect(await codeOf(source({ http: null }).put(foreign))).toBe("ERR_COLLATERAL_CONTENT")
    expect(await codeOf(source({ http: null }).put({ ...foreign, key: "x" }))).toBe("ERR_COLLATERAL_CONTENT")
  })
})

describe.skipIf(!HAVE_VECTORS)("a TDX quote", () => {
  const platform = {
    tee: "tdx",
    fmspc: Buffer.from("b0c06f000000", "hex"),
    authority: "platform",
    revocation: true,
    at: new Date("2025-07-04T10:16:31Z"),
  } as const
  const bundleFile = "tdx/v4-phala-uptodate/collateral-202506.json"

  test("gets its four documents, once, as the vectors have them", async () => {
    const bundle: Record<string, string> = JSON.parse(Buffer.from(vector(bundleFile)).toString())
    for (const [path, published] of pcsDocuments(bundle, "b0c06f000000"))
      service.documents.set(path, published)
    const found = await source().intel(platform)
    const expected = parseCollateralBundle(vector(bundleFile))
    const plain = (value: object) =>
      JSON.stringify(value, (_, item) => (item instanceof Uint8Array ? [...item] : item))
    expect(plain(found)).toBe(plain(expected))
    expect(service.requests).toHaveLength(4)
    const quote = vector("tdx/v4-phala-uptodate/quote.bin")
    const proven = verifyTdx({ quote, collateral: found, anchors: INTEL_ANCHORS, at: platform.at })
    expect(proven.kind).toBe("tdx")
    expect(plain(await source({ http: null }).intel(platform))).toBe(plain(expected))
    expect(service.requests).toHaveLength(4)
    const later = { ...platform, at: new Date("2026-07-04T00:00:00Z") }
    expect(await codeOf(source({ http: null }).intel(later))).toBe("ERR_COLLATERAL_OFFLINE")
    const without = await source({ http: null }).intel({ ...platform, revocation: false })
    expect([without.pckCrl, without.rootCaCrl]).toEqual([null, null])
  })
})
