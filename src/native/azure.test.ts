import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, type RequestListener } from "node:http"
import { createServer as createTcpServer, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fakeClaims, fakeHclReport, fakeVtpm } from "../../test/fakes/azure.ts"
import { codeOf } from "../../test/fakes/simulated.ts"
import { fakeChip, JUDGED } from "../../test/fakes/snp.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { NativeError } from "../errors.ts"
import { encodeHclReport, parseHclEnvelope } from "../formats/azure/hcl.ts"
import { AZURE_QUOTE_PCRS, AZURE_VTPM } from "../formats/azure/vtpm.ts"
import { toHex } from "../formats/hex.ts"
import { encodePem } from "../formats/pem.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { OBJECT, parsePublic, type TpmPublic } from "../formats/tpm/public.ts"
import { verifyAzureQuote, verifyHcl } from "../verify/azure.ts"
import { verifySnp } from "../verify/snp.ts"
import { spkiOf } from "../verify/tpm-signature.ts"
import { openAzure, quoteByAzure } from "./azure.ts"
import { openImds } from "./imds.ts"
import type { Tpm } from "./ports.ts"
import { openSimulatedMachine, type SimulatedMachine } from "./simulated-machine.ts"
import { openTpm } from "./tpm.ts"
import * as commands from "./tpm-commands.ts"
import { loadTss2, type TpmTransport } from "./tss2.ts"

const chip = await fakeChip()
const vtpm = fakeVtpm()
const DATA = new Uint8Array(64).fill(0xd)
const PEMS = chip.certificates.map((der) => encodePem("CERTIFICATE", der))
const THIM = JSON.stringify({
  vcekCert: PEMS[0],
  tcbm: "DB18000000000004",
  certificateChain: `${PEMS[1]}${PEMS[2]}`,
})
const noPause = async () => undefined

interface Asked {
  readonly method: string | undefined
  readonly url: string | undefined
  readonly metadata: unknown
  readonly body: string
}

const servers: Server[] = []
afterAll(() => {
  for (const server of servers) server.close()
})

async function listening(server: Server): Promise<string> {
  servers.push(server)
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("no port")
  return `http://127.0.0.1:${address.port}`
}

/** A metadata service on loopback that answers in turn; the last answer stays. */
async function metadata(...answers: readonly (readonly [status: number, body: string | Uint8Array])[]) {
  const asked: Asked[] = []
  const listener: RequestListener = async (request, response) => {
    let body = ""
    for await (const part of request) body += part
    const { method, url, headers } = request
    const [status, text] = answers[Math.min(asked.length, answers.length - 1)] ?? [500, ""]
    asked.push({ method, url, metadata: headers["metadata"], body })
    response.writeHead(status, status === 429 ? { "retry-after": "3" } : {}).end(text)
  }
  return { baseUrl: await listening(createServer(listener)), asked }
}

/**
 * A virtual TPM whose paravisor makes a report at each read, from the user data of that moment.
 * @param lag reads until user data arrives in the report.
 */
function paravisor(change: { lag?: number; tooOld?: boolean; kind?: "snp" | "tdx" } = {}) {
  let userData = "00".repeat(64)
  let stillOld = userData
  let lag = change.lag ?? 0
  const written: string[] = []
  const claims = (hex: string) => fakeClaims(vtpm, { "user-data": change.tooOld === true ? undefined : hex })
  const tpm: Pick<Tpm, "readNv" | "writeNv"> = {
    async readNv(index) {
      if (index !== AZURE_VTPM.hclReportIndex) return null
      if (lag-- <= 0) stillOld = userData
      const blob = fakeHclReport(chip, claims(stillOld))
      if (change.kind !== "tdx") return blob
      const { hardwareReport, version } = parseHclEnvelope(vector("azure-tdx/trustee-v1/hcl-report.bin"))
      const { runtimeData } = parseHclEnvelope(blob)
      return encodeHclReport({ kind: "tdx", version, hardwareReport, hash: "sha256", runtimeData }, 2600)
    },
    async writeNv(index, data) {
      if (index !== AZURE_VTPM.userDataIndex) throw new Error("another index")
      userData = toHex(data)
      written.push(userData)
    },
  }
  return { tpm, written }
}

async function openedAzure(...arguments_: Parameters<typeof openAzure>) {
  const azure = await openAzure(...arguments_)
  if (azure === null) throw new Error("not an Azure VM")
  return azure
}

describe("a report of an Azure VM", () => {
  test("holds the report data as user data, and has the certificates of the metadata service", async () => {
    const { baseUrl, asked } = await metadata([200, THIM])
    const { tpm } = paravisor()
    const azure = await openedAzure(tpm, { baseUrl })
    const report = await azure.getReport(DATA)
    expect(report).toMatchObject({ kind: "azure-snp", tdQuote: null, certificatesMissing: null })
    expect(report.certificates.map(({ name }) => name)).toEqual(["VCEK", "ASK", "ARK"])
    expect(asked).toEqual([
      { method: "GET", url: "/metadata/THIM/amd/certification", metadata: "true", body: "" },
    ])
    const attestation = verifySnp({
      report: parseHclEnvelope(report.hclReport).hardwareReport,
      certificates: report.certificates.map(({ der }) => der),
      anchors: [chip.anchor],
      crl: null,
      at: JUDGED,
    })
    const hardware = { kind: "snp", attestation } as const
    const claims = verifyHcl({ blob: report.hclReport, hardware, userData: DATA })
    expect(claims.freshness).toBe("user-data")
  })

  test("is read again while the paravisor gives the old one", async () => {
    const { baseUrl } = await metadata([200, THIM])
    const { tpm, written } = paravisor({ lag: 3 })
    const pauses: number[] = []
    const pause = async (milliseconds: number) => void pauses.push(milliseconds)
    const azure = await openedAzure(tpm, { baseUrl, pause })
    expect((await azure.getReport(DATA)).kind).toBe("azure-snp")
    expect(pauses).toEqual([2100, 2100])
    expect(written).toEqual(Array.from({ length: 3 }, () => toHex(DATA)))
  })

  test("is given up on where the user data never arrives, or cannot", async () => {
    const { baseUrl } = await metadata([200, THIM])
    for (const change of [{ lag: 100 }, { tooOld: true }]) {
      const azure = await openedAzure(paravisor(change).tpm, { baseUrl, pause: noPause })
      expect(await codeOf(azure.getReport(DATA))).toBe("ERR_AZURE_DEVICE")
    }
  })

  test("is made for one request after the other", async () => {
    const { baseUrl } = await metadata([200, THIM])
    const azure = await openedAzure(paravisor().tpm, { baseUrl })
    const all = Array.from({ length: 5 }, (_, index) => new Uint8Array(64).fill(index))
    const failing = azure.getReport(new Uint8Array(63))
    const reports = await Promise.all(all.map((data) => azure.getReport(data)))
    expect(await codeOf(failing)).toBe("ERR_AZURE_DEVICE")
    for (const [index, { hclReport }] of reports.entries())
      expect(Buffer.from(hclReport).includes(`"user-data":"${toHex(all[index] ?? DATA)}"`)).toBeTrue()
  })

  test("comes without certificates, and says why, where the metadata service has none", async () => {
    const { baseUrl } = await metadata([404, "no such thing"])
    const azure = await openedAzure(paravisor().tpm, { baseUrl, pause: noPause })
    const { certificates, certificatesMissing } = await azure.getReport(DATA)
    expect(certificates).toEqual([])
    expect(certificatesMissing).toContain("404")
  })

  test.skipIf(!HAVE_VECTORS)("of TDX comes with a quote over the TDREPORT, or not at all", async () => {
    const quote = vector("azure-tdx/trustee-v1/td-quote.bin")
    const answer = JSON.stringify({ quote: Buffer.from(quote).toString("base64url") })
    const { baseUrl, asked } = await metadata([200, answer], [400, "refused"])
    const azure = await openedAzure(paravisor({ kind: "tdx" }).tpm, { baseUrl })
    expect(await azure.getReport(DATA)).toMatchObject({ kind: "azure-tdx", tdQuote: quote })
    const { hardwareReport } = parseHclEnvelope(vector("azure-tdx/trustee-v1/hcl-report.bin"))
    const report = Buffer.from(hardwareReport).toString("base64url")
    expect(asked).toEqual([
      { method: "POST", url: "/acc/tdquote", metadata: "true", body: JSON.stringify({ report }) },
    ])
    expect(await codeOf(azure.getReport(DATA))).toBe("ERR_IMDS")
  })

  test("is not to be had on another machine", async () => {
    const tpm = { readNv: async () => null, writeNv: async () => undefined }
    expect(await openAzure(tpm)).toBeNull()
  })
})

describe("the metadata service", () => {
  test("is asked again while it is busy, and no more often than it says", async () => {
    const { baseUrl, asked } = await metadata([429, ""], [503, ""], [410, ""], [200, THIM])
    const pauses: number[] = []
    const pause = async (milliseconds: number) => void pauses.push(milliseconds)
    expect((await openImds({ baseUrl, pause }).certificates()).chain.length).toBe(2)
    expect(pauses).toEqual([3000, 500, 1000])
    expect(asked.length).toBe(4)
  })

  test("is given up on after some tries, and at once where it refuses", async () => {
    for (const [status, tries] of [
      [503, 4],
      [403, 1],
      [302, 1],
    ] as const) {
      const { baseUrl, asked } = await metadata([status, "text"])
      expect(await codeOf(openImds({ baseUrl, pause: noPause }).certificates())).toBe("ERR_IMDS")
      expect(asked.length).toBe(tries)
    }
  })

  test("may answer with nonsense, without end, or with half of what it promised", async () => {
    const nonsense = await metadata([200, "<html>"])
    expect(await codeOf(openImds(nonsense).certificates())).toBe("ERR_MALFORMED")
    const endless = await metadata([200, new Uint8Array(300_000)])
    expect(await codeOf(openImds(endless).certificates())).toBe("ERR_IMDS")
    const half = createTcpServer((socket) => {
      socket.on("error", () => socket.destroy())
      socket.end("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{}")
    })
    expect(await codeOf(openImds({ baseUrl: await listening(half) }).certificates())).toBe("ERR_IMDS")
  })

  test("may be silent, or not there", async () => {
    const silent = createTcpServer((socket) => socket.on("error", () => socket.destroy()))
    const baseUrl = await listening(silent)
    const before = performance.now()
    expect(await codeOf(openImds({ baseUrl, timeoutMs: 100 }).certificates())).toBe("ERR_IMDS")
    expect(performance.now() - before).toBeLessThan(3000)
    expect(await codeOf(openImds({ baseUrl: "http://127.0.0.1:1" }).certificates())).toBe("ERR_IMDS")
  })

  test("is asked directly, whatever proxy the environment names", async () => {
    const proxy = await metadata([200, "{}"])
    const { baseUrl, asked } = await metadata([200, THIM])
    const before = process.env["HTTP_PROXY"]
    process.env["HTTP_PROXY"] = proxy.baseUrl
    try {
      await openImds({ baseUrl }).certificates()
    } finally {
      if (before === undefined) delete process.env["HTTP_PROXY"]
      else process.env["HTTP_PROXY"] = before
    }
    expect([asked.length, proxy.asked.length]).toEqual([1, 0])
  })

  test.each([
    "https://169.254.169.254",
    "file:///etc/passwd",
    "169.254.169.254",
    "http://a@b",
    "http://b/?x",
  ])("is not at %s", (baseUrl) => {
    expect(() => openImds({ baseUrl })).toThrowCode("ERR_BAD_VALUE")
  })
})

/** RSA 2048 attestation key as the paravisor makes it. */
const AK_TEMPLATE: TpmPublic = {
  type: "rsa",
  nameAlg: ALG.sha256,
  objectAttributes:
    OBJECT.fixedTPM |
    OBJECT.fixedParent |
    OBJECT.sensitiveDataOrigin |
    OBJECT.userWithAuth |
    OBJECT.noDA |
    OBJECT.restricted |
    OBJECT.sign,
  authPolicy: new Uint8Array(0),
  symmetric: null,
  scheme: { scheme: ALG.rsassa, hash: ALG.sha256 },
  keyBits: 2048,
  exponent: 0,
  modulus: new Uint8Array(0),
}

describe("with a software TPM in the place of Azure's", () => {
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-test-"))
  let machine: SimulatedMachine
  let tpm: Tpm
  let transport: () => TpmTransport
  beforeAll(async () => {
    machine = await openSimulatedMachine(dir)
    tpm = await openTpm(machine.tcti)
    const opener = await loadTss2()
    transport = () => opener(machine.tcti)
    const connection = transport()
    const transceive: commands.Transceive = (command) => connection.transceive(command)
    try {
      const { handle } = commands.createPrimary(transceive, commands.RH.owner, AK_TEMPLATE)
      commands.persist(transceive, handle, AZURE_VTPM.akHandle)
      commands.flush(transceive, handle)
    } finally {
      connection.close()
    }
  })
  afterAll(async () => {
    await tpm.close()
    await machine.close()
    rmSync(dir, { recursive: true })
  })

  /** What the paravisor does when its index is read: makes a report of the user data and puts it there. */
  function withParavisor(): Tpm {
    return {
      ...tpm,
      async readNv(index) {
        if (index === AZURE_VTPM.hclReportIndex) {
          // With one key the report is small enough for swtpm, whose NV indexes have 2048 bytes at most.
          const area = parsePublic((await tpm.readPublic(AZURE_VTPM.akHandle)) ?? new Uint8Array())
          if (area.type !== "rsa") throw new Error("not RSA")
          const n = Buffer.from(area.modulus).toString("base64url")
          const keys = [{ kid: "HCLAkPub", key_ops: ["sign"], kty: "RSA", e: "AQAB", n }]
          const userData = (await tpm.readNv(AZURE_VTPM.userDataIndex)) ?? new Uint8Array(64)
          const claims = fakeClaims(vtpm, { keys, "user-data": toHex(userData) })
          await tpm.writeNv(index, fakeHclReport(chip, claims, { size: 2048 }))
        }
        return tpm.readNv(index)
      },
    }
  }

  test("report and quote prove each other", async () => {
    const { baseUrl } = await metadata([200, THIM])
    const azure = await openedAzure(withParavisor(), { baseUrl })
    const { hclReport, certificates } = await azure.getReport(DATA)
    const attestation = verifySnp({
      report: parseHclEnvelope(hclReport).hardwareReport,
      certificates: certificates.map(({ der }) => der),
      anchors: [chip.anchor],
      crl: null,
      at: JUDGED,
    })
    const claims = verifyHcl({ blob: hclReport, hardware: { kind: "snp", attestation }, userData: DATA })
    const qualifyingData = new Uint8Array(32).fill(5)
    const quote = await quoteByAzure(tpm, qualifyingData)
    const area = parsePublic((await tpm.readPublic(AZURE_VTPM.akHandle)) ?? new Uint8Array())
    const proven = verifyAzureQuote(
      claims,
      { quote: quote.attest, signature: quote.signature, pcrs: quote.pcrValues, akSpki: spkiOf(area) },
      { qualifyingData, pcrSelection: AZURE_QUOTE_PCRS },
    )
    expect(proven.pcrs.length).toBe(24)
  })

  test("an NV index is made where there is none, and written whole", async () => {
    const index = 0x180_0077
    const first = new Uint8Array(1300).map((_, at) => at % 251)
    await tpm.writeNv(index, first)
    expect(await tpm.readNv(index)).toEqual(first)
    await tpm.writeNv(index, first.toReversed())
    expect(await tpm.readNv(index)).toEqual(first.toReversed())
  })

  test("an NV index of another size is somebody else's", async () => {
    const index = 0x180_0078
    await tpm.writeNv(index, new Uint8Array(32).fill(1))
    expect(await codeOf(tpm.writeNv(index, new Uint8Array(64)))).toBe("ERR_TPM_HANDLE_TAKEN")
    expect(await tpm.readNv(index)).toEqual(new Uint8Array(32).fill(1))
  })

  test("a key that is not there signs nothing, and the error says which", async () => {
    expect(await tpm.readPublic(0x8100_0099)).toBeNull()
    const request = { pcrs: [0], qualifyingData: DATA, keyHandle: 0x8100_0099 }
    const error = await tpm.quote(request).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(NativeError)
    expect(error).toMatchObject({ code: "ERR_TPM_COMMAND", at: expect.stringContaining("81000099") })
  })
})
