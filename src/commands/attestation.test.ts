import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fakeClaims, fakeHclReport, fakeVtpm } from "../../test/fakes/azure.ts"
import { fakeTpm } from "../../test/fakes/devices.ts"
import { codeOf } from "../../test/fakes/simulated.ts"
import { fakeChip, fakeReport } from "../../test/fakes/snp.ts"
import { httpsServer, serverKey, type TlsServer } from "../../test/fakes/tls-server.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { teeEvidenceOf } from "../agent/evidence.ts"
import { describeEvidence } from "../formats/describe/evidence.ts"
import {
  committedBytes,
  encodeEvidence,
  evidenceQualifyingData,
  evidenceReportData,
} from "../formats/evidence.ts"
import { fromBase64, toHex } from "../formats/hex.ts"
import { encodeMeasurementList } from "../formats/ima/encode.ts"
import { SNP_CERTIFICATE_GUIDS } from "../formats/snp/certificate-table.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { parseSnpReportFile } from "../formats/snp/report-file.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import type { AzureReport, Devices, ReportDevice, TdxReport, Tpm } from "../native/ports.ts"
import { verifyQuote } from "../verify/tpm.ts"
import { type GetKind, type GetOptions, getAttestation } from "./attestation-get.ts"
import { showAttestation } from "./attestation-show.ts"
import { collectFromAgent, collectFromDevices, type GetDevices } from "./collect.ts"
import { parseCommandLine } from "./command-line.ts"
import { rootCommand } from "./root.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

const chip = await fakeChip()
const NAMES = ["VCEK", "ASK", "ARK"] as const
const NONCE = new Uint8Array(32).fill(0xc)
const REPORT_DATA = Uint8Array.of(...NONCE, ...new Uint8Array(32))

let dir = ""
let out = ""
let talk = ""
const terminal: Terminal = {
  out: (text) => {
    out += text
  },
  talk: (text) => {
    talk += text
  },
  outStyle: PLAIN,
  talkStyle: PLAIN,
  live: false,
  columns: 80,
  outColumns: null,
}

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "attestation-"))
})
beforeEach(() => {
  out = ""
  talk = ""
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** A SEV-SNP device that signs, with the certificates of its host. */
const snpDevice: ReportDevice = {
  provider: "fake",
  getReport: async (reportData) => ({
    kind: "sev-snp",
    report: fakeReport(chip, { reportData }),
    certificates: chip.certificates.map((der, index) => {
      const name = NAMES[index] ?? "VCEK"
      return { name, guid: SNP_CERTIFICATE_GUIDS[name], der }
    }),
  }),
}

function azureDevice(kind: AzureReport["kind"]): ReportDevice<AzureReport> {
  const vtpm = fakeVtpm()
  return {
    provider: "fake",
    getReport: async (reportData) => {
      const { certificates } = await snpDevice.getReport(reportData)
      return {
        kind,
        hclReport: fakeHclReport(chip, fakeClaims(vtpm, { "user-data": toHex(reportData) })),
        tdQuote: kind === "azure-tdx" ? Uint8Array.of(4, 0, 2, 0) : null,
        certificates: kind === "azure-snp" ? certificates : [],
        certificatesMissing: kind === "azure-snp" ? null : "none are needed",
      }
    },
  }
}

/** Devices of a machine, of which tests change some. */
function machine(change: Partial<GetDevices> = {}): { devices: GetDevices; closed: () => number } {
  let closed = 0
  const tpm: Tpm = { ...fakeTpm(), close: async () => void closed++ }
  const devices: GetDevices = {
    snp: async () => snpDevice,
    tdx: async () => ({ provider: "fake", getReport: async (data) => ({ kind: "tdx", quote: data }) }),
    tpm: async () => tpm,
    azure: async () => azureDevice("azure-snp"),
    ...change,
  }
  return { devices, closed: () => closed }
}

let files = 0
async function get(kind: GetKind, devices: GetDevices, change: Partial<GetOptions> = {}) {
  const output = join(dir, `file${files++}`)
  const options = { kind, nonce: NONCE, output, url: null, insecureAllowed: false, timeout: "5" }
  const code = await getAttestation(
    { ...options, json: false, quiet: false, ...change },
    (nonce) => collectFromDevices(kind, nonce, devices),
    terminal,
  )
  const read = (suffix = "") => Uint8Array.from(readFileSync(`${output}${suffix}`))
  return { code, output, read }
}

describe("attestation get, on the VM", () => {
  test("snp: a report for the nonce, with the host's certificates behind it", async () => {
    const { code, read } = await get("snp", machine().devices)
    const { report, certificates, form } = parseSnpReportFile(read())
    expect([code, form]).toEqual([0, "report with certificate table"])
    expect(parseSnpReport(report).reportData).toEqual(REPORT_DATA)
    expect(certificates.map(({ der }) => der)).toEqual([...chip.certificates])
    expect(talk).toContain(`report data: ${toHex(REPORT_DATA)}`)
    expect(out).toBe("")
  })

  test("snp: a report alone where the host gives no certificates", async () => {
    const bare: ReportDevice = {
      provider: "fake",
      getReport: async (data) => ({ ...(await snpDevice.getReport(data)), certificates: [] }),
    }
    const { read } = await get("snp", machine({ snp: async () => bare }).devices)
    expect(read().length).toBe(1184)
  })

  test("tdx: the quote as the machine gave it", async () => {
    const { read } = await get("tdx", machine().devices)
    expect(read()).toEqual(REPORT_DATA)
  })

  test("vtpm: a quote with all that it takes to verify it", async () => {
    const { devices, closed } = machine()
    const { read } = await get("vtpm", devices)
    const values: Record<string, string> = JSON.parse(Buffer.from(read(".pcrs.json")).toString()).sha256
    const pcrSelection = Array.from({ length: 24 }, (_, pcr) => pcr)
    const pcrs = pcrSelection.map((pcr) => Uint8Array.from(Buffer.from(values[pcr] ?? "", "hex")))
    const evidence = { quote: read(), signature: read(".sig"), akPublic: read(".ak"), pcrs }
    expect(verifyQuote(evidence, { qualifyingData: NONCE, pcrSelection }).resetCount).toBe(5)
    expect(closed()).toBe(1)
  })

  test("snp-vtpm: both, and that nothing ties them together is said", async () => {
    const { read, output } = await get("snp-vtpm", machine().devices, { json: true })
    expect(parseSnpReportFile(read()).certificates.length).toBe(3)
    const result = JSON.parse(out)
    expect(result.files.map(({ file }: { file: string }) => file.slice(output.length))).toEqual([
      "",
      ".quote",
      ".sig",
      ".pcrs.json",
      ".ak",
    ])
    expect(result).toMatchObject({ nonce: toHex(NONCE), qualifying_data: toHex(NONCE), kind: "snp-vtpm" })
    expect(result.notes.length).toBe(1)
  })

  test("azure: the HCL report, the quote of its TPM, and what the metadata service gave", async () => {
    const snp = await get("azure", machine().devices)
    expect(describeEvidence(snp.read()).fields["runtime_claims"]).toMatchObject({
      user_data: toHex(REPORT_DATA),
    })
    expect(describeEvidence(snp.read(".quote")).fields["extra_data"]).toBe(toHex(NONCE))
    expect(describeEvidence(snp.read(".vcek.pem")).kind).toBe("certificate-chain")
    expect(Object(describeEvidence(snp.read(".chain.pem")).fields["certificates"]).length).toBe(2)
    const tdx = await get("azure", machine({ azure: async () => azureDevice("azure-tdx") }).devices)
    expect(tdx.read(".td-quote")).toEqual(Uint8Array.of(4, 0, 2, 0))
    expect(existsSync(`${tdx.output}.vcek.pem`)).toBeFalse()
    expect(talk).toContain("note: no certificates: none are needed")
  })

  test("a machine without the hardware is told so, and no file is left behind", async () => {
    const none = machine({ snp: async () => null, tdx: async () => null, azure: async () => null })
    const before = readdirSync(dir)
    for (const kind of ["snp", "tdx", "azure", "snp-vtpm"] as const)
      expect(await codeOf(get(kind, none.devices))).toBe("ERR_NO_TEE")
    expect(readdirSync(dir)).toEqual(before)
  })

  test("the nonce is random unless given, and another each time", async () => {
    const nonces = new Set<string>()
    for (let index = 0; index < 3; index++) {
      out = ""
      await get("tdx", machine().devices, { nonce: null, json: true })
      nonces.add(JSON.parse(out).nonce)
    }
    expect([...nonces].map((nonce) => nonce.length)).toEqual([64, 64, 64])
  })

  test("several files do not fit on standard output", async () => {
    expect(await codeOf(get("vtpm", machine().devices, { output: "-" }))).toBe("ERR_BAD_VALUE")
    expect(await codeOf(get("tdx", machine().devices, { output: "-", json: true }))).toBe("ERR_BAD_VALUE")
  })

  test.each([
    [["attestation", "get"], "ERR_MISSING_ARGUMENT"],
    [["attestation", "get", "sgx"], "ERR_BAD_VALUE"],
    [["attestation", "get", "snp", "--nonce", "xyz"], "ERR_BAD_VALUE"],
    [["attestation", "get", "snp", "--nonce", "00".repeat(65)], "ERR_BAD_VALUE"],
    [["attestation", "get", "snp", "--nonce", ""], "ERR_BAD_VALUE"],
    [["attestation", "get", "snp", "--reprot"], "ERR_UNKNOWN_OPTION"],
    [["attestation", "show"], "ERR_MISSING_ARGUMENT"],
    [["attestation"], "ERR_MISSING_COMMAND"],
  ])("%p is refused: %s", async (argv, code) => {
    const run = async () => {
      const { command, args, rawArgs } = await parseCommandLine(rootCommand, "cosmian_vm", argv)
      return command.run?.({ args, rawArgs: [...rawArgs], cmd: command })
    }
    expect(await codeOf(run())).toBe(code)
  })
})

describe("attestation get, from an agent", () => {
  let server: TlsServer
  let spki = new Uint8Array()
  const tpm = fakeTpm()
  let devices: Devices = { tee: snpDevice, tpm, ima: null }
  const keyInfo = async () => {
    const { akPublic } = await tpm.ensureKeys()
    return { akPublic, akName: tpmName(parsePublic(akPublic)), ekCertificate: null }
  }
  beforeAll(async () => {
    const key = await serverKey()
    spki = Uint8Array.from(new X509Certificate(key.cert).publicKey.export({ type: "spki", format: "der" }))
    server = await httpsServer(key, async (request, response) => {
      const { searchParams } = new URL(request.url ?? "", "https://x")
      const nonce = fromBase64(searchParams.get("nonce") ?? "") ?? new Uint8Array()
      const ak = await keyInfo()
      const reportData = evidenceReportData(nonce, spki, devices.tpm === null ? null : ak.akName)
      const tee = devices.tee === null ? null : teeEvidenceOf(await devices.tee.getReport(reportData))
      const qualifyingData = evidenceQualifyingData(nonce, spki, tee && committedBytes(tee))
      const pcrs = Array.from({ length: 16 }, (_, pcr) => pcr)
      const quote = devices.tpm === null ? null : await devices.tpm.quote({ pcrs, qualifyingData })
      const evidence = {
        tee,
        tpm: quote && {
          quote: quote.attest,
          signature: quote.signature,
          akPublic: ak.akPublic,
          pcrs: quote.pcrValues,
          akCertificate: null,
          ekCertificate: null,
        },
        ima: null,
      }
      response.end(encodeEvidence(evidence))
    })
  })
  afterAll(() => server.close())

  const fromAgent = (kind: GetKind, change: { nonce?: Uint8Array; insecureAllowed?: boolean } = {}) => {
    const url = `https://127.0.0.1:${server.port}`
    const options = {
      url,
      insecureAllowed: change.insecureAllowed ?? true,
      timeout: "5",
      json: false,
      quiet: true,
      ratls: null,
    }
    return collectFromAgent(kind, change.nonce ?? NONCE, options, new AbortController().signal)
  }

  test("report and quote are those that the agent gave, and what they are made for is said", async () => {
    const { parts, reportData, qualifyingData } = await fromAgent("snp-vtpm")
    const [main, quote] = parts
    const { report, certificates } = parseSnpReportFile(main.content)
    expect(parseSnpReport(report).reportData).toEqual(reportData ?? new Uint8Array())
    expect(certificates.map(({ name }) => name)).toEqual(["VCEK", "ASK", "ARK"])
    expect(describeEvidence(quote?.content ?? new Uint8Array()).fields["extra_data"]).toBe(
      toHex(qualifyingData ?? new Uint8Array()),
    )
    const alone = await fromAgent("vtpm")
    expect(alone.reportData).toBeNull()
    expect(alone.parts.map(({ suffix }) => suffix)).toEqual(["", ".sig", ".pcrs.json", ".ak"])
  })

  test("nothing is asked over a connection that nobody vouches for, unless that is allowed", async () => {
    expect(await codeOf(fromAgent("snp", { insecureAllowed: false }))).toBe("ERR_CHANNEL_UNTRUSTED")
  })

  test("a trust domain's quote, and all of Azure's parts", async () => {
    const tdx: ReportDevice<TdxReport> = {
      provider: "fake",
      getReport: async (data) => ({ kind: "tdx", quote: data }),
    }
    devices = { tee: tdx, tpm, ima: null }
    const { parts, reportData } = await fromAgent("tdx")
    expect(parts.map(({ content }) => content)).toEqual([reportData ?? new Uint8Array()])
    expect(await codeOf(fromAgent("snp"))).toBe("ERR_NO_TEE")
    const suffixes = async (kind: AzureReport["kind"]) => {
      devices = { tee: azureDevice(kind), tpm, ima: null }
      return (await fromAgent("azure")).parts.map(({ suffix }) => suffix)
    }
    const quote = [".quote", ".sig", ".pcrs.json", ".ak"]
    expect(await suffixes("azure-snp")).toEqual(["", ".vcek.pem", ".chain.pem", ...quote])
    expect(await suffixes("azure-tdx")).toEqual(["", ".td-quote", ...quote])
    devices = { tee: snpDevice, tpm, ima: null }
  })

  test("what an agent does not give is no evidence of another kind", async () => {
    expect(await codeOf(fromAgent("tdx"))).toBe("ERR_NO_TEE")
    expect(await codeOf(fromAgent("azure"))).toBe("ERR_NO_TEE")
    devices = { tee: null, tpm: null, ima: null }
    expect(await codeOf(fromAgent("snp"))).toBe("ERR_NO_TEE")
    expect(await codeOf(fromAgent("vtpm"))).toBe("ERR_NO_TPM")
    devices = { tee: snpDevice, tpm, ima: null }
  })

  test("a nonce of another length than agents take", async () => {
    expect(await codeOf(fromAgent("snp", { nonce: new Uint8Array(16) }))).toBe("ERR_BAD_VALUE")
  })
})

describe("attestation show", () => {
  const file = (name: string, content: Uint8Array | string) => {
    const path = join(dir, name)
    writeFileSync(path, content)
    return path
  }

  test("text and JSON are the same fields, and say that nothing is verified", async () => {
    const path = file("report", fakeReport(chip))
    expect(showAttestation(path, false, terminal)).toBe(0)
    expect(out).toStartWith("SEV-SNP attestation report  (not verified)\n")
    expect(out).toContain("signing_key    VCEK")
    expect(out).toContain("migration_agent         no")
    out = ""
    expect(showAttestation(path, true, terminal)).toBe(0)
    expect(JSON.parse(out)).toMatchObject({
      kind: "snp-report",
      verified: false,
      evidence: { product: "Milan" },
    })
  })

  test.skipIf(!HAVE_VECTORS)("text of every kind is printable, line by line", () => {
    for (const name of [
      "azure-tdx/trustee-v1/hcl-report.bin",
      "sgx/v3-sgx-tee-tools/quote.bin",
      "ima/keylime-imasig-signatures.ascii",
    ]) {
      out = ""
      showAttestation(file("any", vector(name)), false, terminal)
      expect(out).not.toMatch(/[^\n\x20-\x7e]/)
      expect(out.length).toBeGreaterThan(500)
    }
  })

  test("hostile names and values never reach the terminal as they are", () => {
    const path = "/tmp/\u001b]0;owned\u0007\u202etxt\n[ OK ] all is well"
    const entry = {
      template: "ima-ng",
      algorithm: "sha256",
      digest: new Uint8Array(32).fill(1),
      path,
    } as const
    showAttestation(file("list", encodeMeasurementList([entry])), false, terminal)
    expect(out).toContain("\\x1b]0;owned\\x07\\u{202e}txt\\x0a[ OK ] all is well")
    const configuration = { "\u001b[2J": "\u001b[31m", nested: { "a\nb": ["\u0007"] } }
    const claims = fakeClaims(fakeVtpm(), { "vm-configuration": configuration })
    const blob = file("blob", fakeHclReport(chip, claims))
    showAttestation(blob, false, terminal)
    expect(out).toContain("\\x1b[2J")
    expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)
    out = ""
    showAttestation(blob, true, terminal)
    expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
  })

  test("long lists are cut in text and whole in JSON", () => {
    const entries = Array.from({ length: 1500 }, (_, index) => ({
      template: "ima-ng" as const,
      algorithm: "sha256",
      digest: new Uint8Array(32).fill(index % 256),
      path: `/bin/p${index}`,
    }))
    const path = file("long", encodeMeasurementList(entries))
    showAttestation(path, false, terminal)
    expect(out).toContain("… and 500 more")
    out = ""
    showAttestation(path, true, terminal)
    expect(JSON.parse(out).evidence.entries.length).toBe(1500)
  })

  test("what is wrong is told with the file's name", () => {
    const path = file("bad", Uint8Array.of(...fakeReport(chip), 1))
    expect(() => showAttestation(path, false, terminal)).toThrowCode("ERR_TRUNCATED")
    expect(() => showAttestation(join(dir, "none"), false, terminal)).toThrowCode("ERR_IO")
  })
})
