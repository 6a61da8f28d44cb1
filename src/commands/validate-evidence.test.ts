import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import {
  NITRO_AT,
  NITRO_NONCE,
  nitroDocument,
  nitroMembers,
  nitroPayload,
  nitroPki,
  nitroSign,
} from "../../test/fakes/nitro-tpm.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { pcsDocuments, type VendorServices, vendorServices } from "../../test/fakes/vendor-services.ts"
import { HAVE_VECTORS, VECTORS } from "../../test/setup.ts"
import { vcekPathOf } from "../endorsements/amd-kds.ts"
import { EXIT } from "../errors.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { VALIDATE_MODES } from "../policy/validate.ts"
import type { FileOption, ValidateOptions } from "./attestation-validate.ts"
import { validateEvidence } from "./validate-evidence.ts"

const GENOA = "snp/genoa-v3-azure-cc"
const GENOA_AT = new Date("2026-08-06T14:05:07Z")
const QUOTE = "tdx/v4-phala-uptodate/quote.bin"
const BUNDLE = "tdx/v4-phala-uptodate/collateral-202506.json"
const QUOTE_AT = new Date("2025-07-04T10:16:31Z")

let service: VendorServices
let dir: string
let cacheDir: string

beforeAll(async () => {
  service = await vendorServices([])
  dir = mkdtempSync(join(tmpdir(), "cosmian-vm-validate-"))
})
afterAll(async () => {
  await service.close()
  rmSync(dir, { recursive: true, force: true })
})
beforeEach(() => {
  cacheDir = mkdtempSync(join(dir, "cache-"))
  service.requests.length = 0
  service.documents.clear()
})

const NO_FILES: Record<FileOption, null> = {
  policy: null,
  vcek: null,
  vlek: null,
  chain: null,
  crl: null,
  collateral: null,
  ak: null,
  signature: null,
  pcrs: null,
  quote: null,
  "td-quote": null,
  "event-log": null,
}

function judged(changes: Partial<ValidateOptions>) {
  const options: ValidateOptions = {
    kdsUrl: service.url,
    pcsUrl: service.url,
    cacheDir,
    offline: false,
    file: "",
    mode: "snp",
    files: NO_FILES,
    reportData: null,
    nonce: null,
    product: null,
    tpmCa: null,
    trustRoots: [],
    allowDebug: false,
    skip: new Set(),
    at: null,
    json: true,
    quiet: false,
    ...changes,
  }
  return validateEvidence(options, { talk: () => undefined })
}

const path = (file: string) => join(VECTORS, file)

describe.skipIf(!HAVE_VECTORS)("AMD's documents that are not given", () => {
  const report = { file: path(`${GENOA}/report.bin`), at: GENOA_AT }
  const revocation = new Set(["revocation"] as const)
  const paths: string[] = []

  beforeEach(() => {
    const vcek = vcekPathOf(parseSnpReport(vector(`${GENOA}/report.bin`)), "Genoa")
    paths.splice(0, 2, vcek, "/vcek/v1/Genoa/cert_chain")
    service.documents.set(vcek, { body: vector(`${GENOA}/vcek.der`), type: "application/pkix-cert" })
    const chain = vector("trust/amd/cert_chain-vcek-genoa.pem")
    service.documents.set("/vcek/v1/Genoa/cert_chain", { body: chain, type: "application/x-pem-file" })
  })

  test("are fetched once, and then taken from the cache, also offline", async () => {
    expect((await judged({ ...report, skip: revocation })).verdict).toBe("pass")
    expect(service.requests).toEqual(paths)
    expect((await judged({ ...report, skip: revocation })).verdict).toBe("pass")
    expect((await judged({ ...report, skip: revocation, offline: true })).verdict).toBe("pass")
    expect(service.requests.length).toBe(2)
  })

  test("are not asked for with --offline", async () => {
    const before = service.connections
    const { code, exitCode } = await judged({ ...report, skip: revocation, offline: true })
    expect([code, exitCode]).toEqual(["ERR_SNP_ENDORSEMENT_MISSING", EXIT.tee])
    expect(service.connections).toBe(before)
  })

  test("are missed where the vendor has none, and the result says why", async () => {
    const { code, claims } = await judged(report)
    expect(code).toBe("ERR_REVOCATION_NOT_CHECKED")
    expect(claims.find(({ name }) => name === "revocation")?.found).toContain("no such document")
    service.documents.clear()
    const { code: missing, claims: failed } = await judged({
      ...report,
      at: new Date("2026-08-07T00:00:00Z"),
    })
    expect(missing).toBe("ERR_REVOCATION_NOT_CHECKED")
    expect(failed[0]?.status).toBe("passed")
  })

  test("do not take the place of files that are given", async () => {
    const files = { ...NO_FILES, chain: path("trust/amd/cert_chain-vcek-milan.pem") }
    const { code } = await judged({ ...report, files, skip: revocation })
    expect(code).toBe("ERR_SNP_ENDORSEMENT_MISSING")
    expect(service.requests).toEqual([`${paths[0]}`])
  })

  test("a list of somebody else's is refused like none", async () => {
    const crl = vector("snp-testpki/crl-empty.der")
    service.documents.set("/vcek/v1/Genoa/crl", { body: crl, type: "application/pkix-crl" })
    expect((await judged(report)).code).toBe("ERR_REVOCATION_NOT_CHECKED")
    const given = { ...NO_FILES, crl: path("snp-testpki/crl-empty.der") }
    const { code, exitCode } = await judged({ ...report, files: given })
    expect([code, exitCode]).toEqual(["ERR_CRL_ISSUER", EXIT.tee])
  })
})

describe.skipIf(!HAVE_VECTORS)("Intel's documents that are not given", () => {
  const quote = { mode: "tdx", file: path(QUOTE), at: QUOTE_AT } as const

  beforeEach(() => {
    const bundle: Record<string, string> = JSON.parse(Buffer.from(vector(BUNDLE)).toString())
    for (const [name, document] of pcsDocuments(bundle, "b0c06f000000")) service.documents.set(name, document)
  })

  test("are fetched once", async () => {
    expect((await judged(quote)).verdict).toBe("pass")
    expect(service.requests.length).toBe(4)
    expect((await judged({ ...quote, offline: true })).verdict).toBe("pass")
    expect(service.requests.length).toBe(4)
  })

  test("are not asked for where a quote is forged, or nothing needs them", async () => {
    const forged = { ...quote, file: path("tdx-negative/v4-preproduction-root.bin") }
    expect((await judged(forged)).code).toBe("ERR_CERT_UNTRUSTED")
    expect((await judged({ ...quote, skip: new Set(["tcb", "revocation"]) })).verdict).toBe("pass")
    expect(service.requests).toEqual([])
  })

  test("are missed where the service has none", async () => {
    service.documents.clear()
    const { code, exitCode, claims } = await judged(quote)
    expect([code, exitCode]).toEqual(["ERR_REVOCATION_NOT_CHECKED", EXIT.tee])
    expect(claims.find(({ name }) => name === "tcb")?.found).toContain("no such document")
  })

  test("malformed ones are a refusal", async () => {
    const files = { ...NO_FILES, collateral: path("INDEX.json") }
    const { exitCode } = await judged({ ...quote, files })
    expect(exitCode).toBe(EXIT.tee)
  })
})

describe("a NitroTPM document", () => {
  const pki = nitroPki()
  let given: Partial<ValidateOptions> & { readonly tpmCa: string }

  beforeEach(() => {
    const tpmCa = mkdtempSync(join(dir, "ca-"))
    writeFileSync(join(tpmCa, "root.der"), pki.rootDer)
    const file = join(tpmCa, ".document")
    writeFileSync(file, nitroDocument(pki))
    given = { mode: "nitro-tpm", file, tpmCa, nonce: NITRO_NONCE, at: NITRO_AT, offline: true }
  })

  const policy = (text: string) => {
    const file = join(given.tpmCa, ".policy.toml")
    writeFileSync(file, `version = 1\n${text}`)
    return { ...NO_FILES, policy: file }
  }
  const pcr4 = (bank: string, value: string) => policy(`[tpm.pcrs.${bank}]\n4 = "${value}"\n`)

  test("passes under a root that the user names, and only there", async () => {
    const { verdict, assurance, simulated, claims } = await judged(given)
    expect([verdict, assurance.label, simulated]).toEqual(["pass", "no-tee", false])
    expect(claims.map(({ name, status }) => `${name} ${status}`)).toEqual(["tpm passed", "boot warning"])
    const withAws = await judged({ ...given, tpmCa: null })
    expect([withAws.code, withAws.exitCode]).toEqual(["ERR_CERT_UNTRUSTED", EXIT.tpm])
  })

  test("is compared with the policy's PCRs of the SHA-384 bank", async () => {
    const good = await judged({ ...given, files: pcr4("sha384", "04".repeat(48)) })
    expect([good.verdict, good.claims.at(-1)?.status]).toEqual(["pass", "passed"])
    const other = await judged({ ...given, files: pcr4("sha384", "05".repeat(48)) })
    expect([other.code, other.exitCode]).toEqual(["ERR_BOOT_PCR", EXIT.boot])
    const bank = await judged({ ...given, files: pcr4("sha256", "04".repeat(32)) })
    expect([bank.code, bank.exitCode]).toEqual(["ERR_POLICY_PCRS", EXIT.boot])
  })

  test("does not answer a policy that names an attestation key", async () => {
    const files = policy(`[tpm]\nak_name = "000b${"11".repeat(32)}"\n`)
    const { code, exitCode } = await judged({ ...given, files })
    expect([code, exitCode]).toEqual(["ERR_TPM_AK_CHANGED", EXIT.tpm])
  })

  test("without nonce is told to be of any age, and of another request refused", async () => {
    const [tpm] = (await judged({ ...given, nonce: null })).claims
    expect([tpm?.status, tpm?.findings[0]?.code]).toEqual(["warning", "ERR_NITRO_NONCE"])
    const { code, exitCode } = await judged({ ...given, nonce: new Uint8Array(8) })
    expect([code, exitCode]).toEqual(["ERR_NITRO_NONCE", EXIT.tpm])
  })

  test("that somebody else signed is refused", async () => {
    writeFileSync(given.file ?? "", nitroSign(nitroPayload(nitroMembers(pki)), nitroPki().key))
    const { code, exitCode, claims } = await judged(given)
    expect([code, exitCode]).toEqual(["ERR_NITRO_SIGNATURE", EXIT.tpm])
    expect(claims.find(({ name }) => name === "boot")?.code).toBe("ERR_NOT_JUDGED")
  })

  test("rests on a directory with a root in it", async () => {
    const empty = mkdtempSync(join(dir, "empty-"))
    expect(judged({ ...given, tpmCa: empty })).rejects.toHaveProperty("code", "ERR_TPM_CA")
  })
})

describe("evidence that is none", () => {
  const offline = { offline: true, at: GENOA_AT }

  test("is refused whatever it is said to be", async () => {
    const file = join(dir, "random")
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 3000 }), async (bytes) => {
        writeFileSync(file, bytes)
        for (const mode of VALIDATE_MODES) {
          const { verdict, exitCode } = await judged({ ...offline, mode, file })
          expect(verdict).toBe("fail")
          expect(exitCode).toBeGreaterThan(EXIT.usage)
        }
      }),
      { numRuns: 60 },
    )
  })

  test("is refused where it is larger than any evidence", async () => {
    const file = join(dir, "large")
    writeFileSync(file, new Uint8Array(5 * 1024 * 1024))
    for (const mode of VALIDATE_MODES)
      expect((await judged({ ...offline, mode, file })).code).toBe("ERR_TOO_LARGE")
  })

  test.skipIf(!HAVE_VECTORS)("is refused after any change to what is signed", async () => {
    const file = join(dir, "changed")
    const cases = [
      ["snp", `${GENOA}/report.bin`, 0x2a0, { vcek: `${GENOA}/vcek.der`, chain: "trust/amd/ask-genoa.der" }],
      ["tdx", QUOTE, 48 + 584, { collateral: BUNDLE }],
    ] as const
    for (const [mode, name, size, given] of cases) {
      const good = vector(name)
      const paths = Object.fromEntries(Object.entries(given).map(([option, value]) => [option, path(value)]))
      const options: Partial<ValidateOptions> = {
        mode,
        file,
        offline: true,
        at: mode === "snp" ? GENOA_AT : QUOTE_AT,
        files: { ...NO_FILES, ...paths },
        skip: new Set(mode === "snp" ? ["revocation"] : []),
      }
      writeFileSync(file, good)
      expect((await judged(options)).verdict).toBe("pass")
      for (let at = 0; at < size; at += 7) {
        const changed = good.slice()
        changed[at] = (changed[at] ?? 0) ^ 0x10
        writeFileSync(file, changed)
        const { verdict, exitCode, code } = await judged(options)
        expect(`${at} ${verdict}`).toBe(`${at} fail`)
        expect(exitCode).toBe(EXIT.tee)
        expect(code).not.toBe("ERR_INTERNAL")
      }
    }
  })
})
