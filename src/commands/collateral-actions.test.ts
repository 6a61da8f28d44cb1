import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { codeOf } from "../../test/fakes/simulated.ts"
import { vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import {
  pcsDocuments,
  testPkiDocuments,
  type VendorServices,
  vendorServices,
} from "../../test/fakes/vendor-services.ts"
import { HAVE_VECTORS, VECTORS } from "../../test/setup.ts"
import { vcekPathOf } from "../endorsements/amd-kds.ts"
import { trustAnchorFromPem } from "../endorsements/amd-roots.ts"
import { parseCollateralBundle } from "../formats/intel/collateral.ts"
import { encodePem } from "../formats/pem.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import {
  exportCollateral,
  type FetchOptions,
  fetchCollateral,
  importCollateral,
  listCollateral,
} from "./collateral-actions.ts"
import { neededBy } from "./collateral-needs.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

const FMSPC = "b0c06f000000"
const BUNDLE = "tdx-testpki/collateral-uptodate.json"
const file = (name: string) => join(VECTORS, "snp-testpki", name)

let service: VendorServices
let dir: string
let cacheDir: string
let said: string

const terminal: Terminal = {
  out: (text) => {
    said += text
  },
  talk: (text) => {
    said += text
  },
  outStyle: PLAIN,
  talkStyle: PLAIN,
  live: false,
  columns: 80,
  outColumns: null,
}

beforeAll(async () => {
  service = await vendorServices([])
  dir = mkdtempSync(join(tmpdir(), "cosmian-vm-collateral-"))
})
afterAll(async () => {
  await service.close()
  rmSync(dir, { recursive: true, force: true })
})
beforeEach(() => {
  cacheDir = mkdtempSync(join(dir, "cache-"))
  said = ""
  service.requests.length = 0
  service.documents.clear()
  if (!HAVE_VECTORS) return
  const bundle: Record<string, string> = JSON.parse(Buffer.from(vector(BUNDLE)).toString())
  for (const [path, document] of [...testPkiDocuments(), ...pcsDocuments(bundle, FMSPC)])
    service.documents.set(path, document)
  const path = vcekPathOf(parseSnpReport(vector("snp-testpki/report.bin")), "Milan")
  service.documents.set(path, { body: vector("snp-testpki/vcek.der"), type: "application/pkix-cert" })
})

/** The root of the test PKI, taken for AMD's. */
function anchors() {
  const ark = trustAnchorFromPem(encodePem("CERTIFICATE", vector("snp-testpki/ark.der")))
  return [{ ...ark, simulated: false }]
}

function common() {
  const { url } = service
  return { kdsUrl: `${url}/`, pcsUrl: url, cacheDir, offline: false, json: true, quiet: false }
}

const PLATFORM: { fmspc: string | null; tee: string; ca: string } = {
  fmspc: null,
  tee: "tdx",
  ca: "platform",
}

function fetched(changes: Partial<FetchOptions> = {}) {
  const options = {
    ...common(),
    ...PLATFORM,
    evidence: null,
    product: null,
    vlek: false,
    refresh: false,
    timeout: "5",
    ...changes,
  }
  said = ""
  return fetchCollateral(options, terminal, anchors())
}

/** What was said, of each document this member. */
function members(name: string): unknown[] {
  const { documents }: { documents: Record<string, unknown>[] } = JSON.parse(said)
  return documents.map((document) => document[name])
}

describe.skipIf(!HAVE_VECTORS)("fetch", () => {
  test("all that a SEV-SNP report needs, and nothing twice", async () => {
    expect(await fetched({ evidence: file("report.bin") })).toBe(0)
    expect(members("source")).toEqual(["fetched", "fetched", "fetched"])
    expect(await fetched({ evidence: file("report.bin") })).toBe(0)
    expect(members("source")).toEqual(["cache", "cache", "cache"])
    expect(service.requests).toHaveLength(3)
    expect(await fetched({ evidence: file("report.bin"), offline: true })).toBe(0)
    expect(await fetched({ evidence: file("report.bin"), refresh: true })).toBe(0)
    expect(members("source")).toEqual(["fetched", "fetched", "unchanged"])
  })

  test("all that a TDX quote needs, by the quote or by its platform's name", async () => {
    expect(await fetched({ evidence: join(VECTORS, "tdx-testpki/quote.bin") })).toBe(0)
    expect(members("source")).toEqual(Array(4).fill("fetched"))
    expect(await fetched({ fmspc: FMSPC.toUpperCase() })).toBe(0)
    expect(members("source")).toEqual(Array(4).fill("cache"))
  })

  test("what a product needs", async () => {
    expect(await fetched({ product: "Milan", json: false })).toBe(0)
    expect(said).toBe(
      "[ OK ] ASK and ARK of Milan: fetched, holds until 2050-01-01T00:00:00Z\n" +
        "[ OK ] revocation list of Milan: fetched, holds until 2030-01-01T00:00:00Z\n",
    )
  })

  test("what cannot be had is named, and what can be had is kept", async () => {
    service.documents.delete("/vcek/v1/Milan/crl")
    expect(await fetched({ evidence: file("report.bin") })).toBe(1)
    expect(members("error")).toEqual([
      null,
      null,
      expect.objectContaining({ code: "ERR_COLLATERAL_NOT_FOUND" }),
    ])
    expect(await fetched({ evidence: file("report.bin"), json: false, quiet: true, offline: true })).toBe(1)
    expect(said).toStartWith("[ FAIL ] revocation list of Milan: ")
    expect(said).toContain("ERR_COLLATERAL_OFFLINE")
  })

  test("options that name nothing, or not what they should, are refused", async () => {
    expect(await codeOf(fetched())).toBe("ERR_MISSING_ARGUMENT")
    expect(await codeOf(fetched({ fmspc: "b0c06f" }))).toBe("ERR_BAD_VALUE")
    expect(await codeOf(fetched({ product: "Milan", timeout: "0" }))).toBe("ERR_BAD_VALUE")
    for (const kdsUrl of ["kds.example", "ftp://kds.example", "https://u:p@kds.example", "https://k/?q"])
      expect(await codeOf(fetched({ product: "Milan", kdsUrl }))).toBe("ERR_BAD_VALUE")
  })
})

describe.skipIf(!HAVE_VECTORS)("list, export, import", () => {
  const move = async (from: string, to: string, name: string, change: Partial<typeof PLATFORM> = {}) => {
    const output = join(dir, name)
    const options = { ...common(), ...PLATFORM, ...change, cacheDir: from, output }
    expect(await exportCollateral(options, terminal, anchors())).toBe(0)
    said = ""
    return importCollateral({ ...common(), cacheDir: to, files: [output] }, terminal, anchors())
  }

  test("a cache is carried to another machine, which then needs no network", async () => {
    await fetched({ evidence: file("report.bin") })
    await fetched({ fmspc: FMSPC })
    const other = join(dir, "elsewhere")
    expect(await move(cacheDir, other, "all.json")).toBe(0)
    expect(members("kept")).toEqual(Array(7).fill(true))
    service.requests.length = 0
    expect(await fetched({ evidence: file("report.bin"), offline: true, cacheDir: other })).toBe(0)
    expect(await fetched({ fmspc: FMSPC, offline: true, cacheDir: other })).toBe(0)
    expect(service.requests).toEqual([])
    said = ""
    await listCollateral({ ...common(), cacheDir: other }, terminal, anchors())
    expect(members("in_date")).toEqual(Array(7).fill(true))
    expect(members("what")).toContain("revocation list of Milan")
  })

  test("a platform's documents are written as a bundle, and read from one", async () => {
    await fetched({ fmspc: FMSPC })
    const other = join(dir, "from-bundle")
    expect(await move(cacheDir, other, "bundle.json", { fmspc: FMSPC })).toBe(0)
    const plain = (bytes: Uint8Array) =>
      JSON.stringify(parseCollateralBundle(bytes), (_, item) =>
        item instanceof Uint8Array ? [...item] : item,
      )
    expect(plain(readFileSync(join(dir, "bundle.json")))).toBe(plain(vector(BUNDLE)))
    expect(await fetched({ fmspc: FMSPC, offline: true, cacheDir: other })).toBe(0)
  })

  test("single files of AMD's are read", async () => {
    const chain = join(dir, "cert_chain.pem")
    const pem = ["ask", "ark"].map((name) => encodePem("CERTIFICATE", vector(`snp-testpki/${name}.der`)))
    writeFileSync(chain, pem.join(""))
    const files = [file("vcek.der"), file("crl-empty.der"), chain]
    expect(await importCollateral({ ...common(), files }, terminal, anchors())).toBe(0)
    expect(await fetched({ evidence: file("report.bin"), offline: true })).toBe(0)
  })

  test("what is not genuine is refused, and nothing of its file is kept", async () => {
    const imported = (files: string[], roots = anchors()) =>
      codeOf(importCollateral({ ...common(), files }, terminal, roots))
    expect(await imported([file("crl-wrong-signer.der")])).toBe("ERR_COLLATERAL_CONTENT")
    expect(await imported([file("crl-empty.der"), file("crl-other-product.der")])).toBe(
      "ERR_COLLATERAL_CONTENT",
    )
    expect(await imported([file("report.bin")])).toBe("ERR_COLLATERAL_UNKNOWN")
    expect(await imported([file("ask.der")])).toBe("ERR_MALFORMED")
    expect(await imported([join(VECTORS, "snp/milan-v3-vlek-aws-trustee/vlek.der")])).toBe(
      "ERR_COLLATERAL_UNKNOWN",
    )
    said = ""
    await listCollateral(common(), terminal, anchors())
    expect(members("key")).toEqual([])
  })

  test("what is out of date, and what is damaged, is told", async () => {
    await fetched({ product: "Milan" })
    const options = { ...common(), files: [file("crl-expired.der")], cacheDir: join(dir, "stale") }
    await importCollateral(options, terminal, anchors())
    said = ""
    await listCollateral({ ...options, json: false }, terminal, anchors())
    expect(said).toContain("[ WARNING ] revocation list of Milan: held until 20")
    said = ""
    await listCollateral({ ...common(), json: false, cacheDir: join(dir, "none") }, terminal, anchors())
    expect(said).toBe("nothing is cached\n")
    said = ""
    // Under other roots the same documents are worth nothing.
    await listCollateral({ ...common(), json: false }, terminal, [])
    expect(said).toContain("not usable")
  })
})

describe.skipIf(!HAVE_VECTORS)("what evidence needs is read from every form of it", () => {
  for (const folder of ["snp", "snp-ext", "tdx", "sgx", "azure-snp"])
    for (const { file: name } of vectorsUnder(folder).filter(({ file: each }) =>
      /(report|quote|hcl-report|snp-ext\/.*)\.bin$/.test(each),
    ))
      test(name, () => {
        const needed = neededBy(vector(name))
        expect(needed.kind).toBe(folder.includes("snp") ? "snp" : "intel")
      })

  test("a TD report names no platform, and other files nothing", () => {
    expect(() => neededBy(vector("azure-tdx/trustee-v1/hcl-report.bin"))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => neededBy(new Uint8Array(0))).toThrowCode("ERR_TRUNCATED")
    expect(() => neededBy(Buffer.from("hello"))).toThrowCode("ERR_TRUNCATED")
  })
})
