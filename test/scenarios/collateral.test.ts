/** The built executable fetches, carries and uses vendors' documents. AMD's and Intel's services answer on loopback. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { certChainPath, vcekPathOf } from "../../src/endorsements/amd-kds.ts"
import { parseSnpReport } from "../../src/formats/snp/report.ts"
import { EXECUTABLE, run } from "../executable.ts"
import { vector } from "../fakes/vectors.ts"
import { pcsDocuments, type VendorServices, vendorServices } from "../fakes/vendor-services.ts"
import { HAVE_VECTORS, VECTORS } from "../setup.ts"

const REPORT = "snp/turin-v5-azure-cc/report.bin"
const QUOTE = "tdx-testpki/quote.bin"
let service: VendorServices
let dir: string

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "cosmian-vm-collateral-"))
  service = await vendorServices([])
  if (!HAVE_VECTORS) return
  const bundle: Record<string, string> = JSON.parse(
    Buffer.from(vector("tdx-testpki/collateral-uptodate.json")).toString(),
  )
  for (const [path, document] of pcsDocuments(bundle, "b0c06f000000")) service.documents.set(path, document)
  const chain = { body: vector("trust/amd/cert_chain-vcek-turin.pem"), type: "application/x-pem-file" }
  service.documents.set(certChainPath("vcek", "Turin"), chain)
  const vcek = { body: vector("snp/turin-v5-azure-cc/vcek.der"), type: "application/pkix-cert" }
  service.documents.set(vcekPathOf(parseSnpReport(vector(REPORT)), "Turin"), vcek)
})

afterAll(async () => {
  await service.close()
  rmSync(dir, { recursive: true, force: true })
})

/** With a cache directory of that name; null documents: it did not come to that. */
async function collateral(cache: string, ...args: string[]) {
  const urls = args[0] === "fetch" ? ["--kds-url", service.url, "--pcs-url", service.url] : []
  const options = [...urls, "--cache-dir", join(dir, cache), "--json"]
  const { code, stdout } = await run(["collateral", ...args, ...options])
  const { documents = [] }: { documents?: { source: string | null; error: { code: string } | null }[] } =
    JSON.parse(stdout)
  return {
    code,
    sources: documents.map(({ source }) => source),
    errors: documents.map(({ error }) => error?.code),
  }
}

describe.skipIf(!HAVE_VECTORS)("collateral", () => {
  test("a quote's documents are fetched once, and carried to a site without network", async () => {
    const quote = join(VECTORS, QUOTE)
    expect(await collateral("a", "fetch", quote)).toMatchObject({
      code: 0,
      sources: Array(4).fill("fetched"),
    })
    const asked = service.requests.length
    expect(await collateral("a", "fetch", quote)).toMatchObject({ code: 0, sources: Array(4).fill("cache") })
    expect(service.requests).toHaveLength(asked)
    const file = join(dir, "export.json")
    expect(await run(["collateral", "export", "-o", file, "--cache-dir", join(dir, "a")])).toMatchObject({
      code: 0,
    })
    expect(await collateral("b", "fetch", quote, "--offline")).toMatchObject({ code: 1 })
    expect(await collateral("b", "import", file)).toMatchObject({ code: 0 })
    expect(await collateral("b", "fetch", quote, "--offline")).toMatchObject({ code: 0 })
    expect(readdirSync(join(dir, "b"))).toHaveLength(4)
  })

  test("a Turin chip's certificate is found; what the vendor does not have is said", async () => {
    const { code, sources, errors } = await collateral("c", "fetch", join(VECTORS, REPORT))
    expect([code, ...sources]).toEqual([1, "fetched", "fetched", null])
    expect(errors).toEqual([undefined, undefined, "ERR_COLLATERAL_NOT_FOUND"])
  })

  test("eight processes at once fill one cache", async () => {
    const all = await Promise.all(
      Array.from({ length: 8 }, () => collateral("d", "fetch", join(VECTORS, QUOTE))),
    )
    expect(all.map(({ code }) => code)).toEqual(Array(8).fill(0))
    expect(readdirSync(join(dir, "d"))).toHaveLength(4)
  })

  test("the cache is where the XDG directories say, and nowhere else", async () => {
    const home = join(dir, "home")
    const env = { ...process.env, XDG_CACHE_HOME: home, HOME: dir }
    const args = ["collateral", "fetch", "--fmspc", "b0c06f000000", "--pcs-url", service.url]
    const child = Bun.spawn([EXECUTABLE, ...args, "-q"], { env, stdout: "ignore" })
    expect(await child.exited).toBe(0)
    expect(readdirSync(join(home, "cosmian_vm", "collateral"))).toHaveLength(4)
  })

  test.skipIf(!existsSync("/usr/bin/strace"))("--offline never opens a socket", async () => {
    const traced = async (...more: string[]) => {
      const trace = join(dir, "trace")
      const args = ["collateral", "fetch", join(VECTORS, QUOTE), "--cache-dir", join(dir, "e")]
      const urls = ["--kds-url", service.url, "--pcs-url", service.url]
      const command = [
        "/usr/bin/strace",
        "-f",
        "-e",
        "trace=socket",
        "-o",
        trace,
        EXECUTABLE,
        ...args,
        ...urls,
        ...more,
      ]
      await Bun.spawn(command, { stdout: "ignore", stderr: "ignore" }).exited
      return readFileSync(trace, "utf8").includes("AF_INET")
    }
    expect(await traced("--offline")).toBe(false)
    expect(await traced()).toBe(true)
  })
})
