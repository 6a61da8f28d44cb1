import { CodedError, NativeError } from "../errors.ts"
import { type HclReport, parseHclReport } from "../formats/azure/hcl.ts"
import { USER_DATA_SIZE } from "../formats/azure/runtime-claims.ts"
import { AZURE_QUOTE_PCRS, AZURE_VTPM } from "../formats/azure/vtpm.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { SNP_CERTIFICATE_GUIDS } from "../formats/snp/certificate-table.ts"
import { type ImdsOptions, openImds } from "./imds.ts"
import type { AzureReport, ReportDevice, TeeCertificate, Tpm, TpmQuote } from "./ports.ts"

/** The paravisor makes a new report every 2 s at most, and gives the old one in between. */
const REPORT_PERIOD_MS = 2_100
const ATTEMPTS = 4

type Azure = ReportDevice<AzureReport>

/**
 * Reports of an Azure VM by way of its virtual TPM, or null where the TPM has no HCL report: then this is no such VM.
 * @throws NativeError from the TPM; UsageError ERR_BAD_VALUE (base URL of the metadata service)
 */
export async function openAzure(
  tpm: Pick<Tpm, "readNv" | "writeNv">,
  options: ImdsOptions = {},
): Promise<Azure | null> {
  const imds = openImds(options)
  if ((await tpm.readNv(AZURE_VTPM.hclReportIndex)) === null) return null
  const pause = options.pause ?? Bun.sleep
  let last: Promise<unknown> = Promise.resolve()
  return {
    provider: "azure-vtpm",
    getReport(reportData) {
      // One at a time: the user data of a request must not be overwritten by the next before its report is made.
      const report = last.then(async () => complete(await freshReport(tpm, reportData, pause), imds))
      last = report.catch(() => null)
      return report
    },
  }
}

/** A quote by the virtual TPM's own attestation key over all PCRs. @throws NativeError from the TPM */
export async function quoteByAzure(
  tpm: Pick<Tpm, "quote">,
  qualifyingData: Uint8Array,
): Promise<TpmQuote & { readonly pcrs: readonly number[] }> {
  const request = { pcrs: AZURE_QUOTE_PCRS, qualifyingData, keyHandle: AZURE_VTPM.akHandle }
  return { ...(await tpm.quote(request)), pcrs: AZURE_QUOTE_PCRS }
}

interface Fresh {
  readonly blob: Uint8Array
  readonly report: HclReport
}

/** Puts the user data in, and reads until a report holds it. */
async function freshReport(
  tpm: Pick<Tpm, "readNv" | "writeNv">,
  reportData: Uint8Array,
  pause: (milliseconds: number) => Promise<void>,
): Promise<Fresh> {
  if (reportData.length !== USER_DATA_SIZE)
    throw new NativeError("ERR_AZURE_DEVICE", {
      at: "report data",
      expected: `${USER_DATA_SIZE} bytes`,
      found: `${reportData.length}`,
    })
  for (let attempt = 1; ; attempt++) {
    // Written each time: another process may have put its own data there meanwhile.
    await tpm.writeNv(AZURE_VTPM.userDataIndex, reportData)
    const fresh = await readReport(tpm)
    const { userData } = fresh.report.claims
    if (userData !== null && bytesEqual(userData, reportData)) return fresh
    if (userData === null || attempt === ATTEMPTS) throw stale(userData, reportData)
    await pause(REPORT_PERIOD_MS)
  }
}

async function readReport(tpm: Pick<Tpm, "readNv">): Promise<Fresh> {
  const blob = await tpm.readNv(AZURE_VTPM.hclReportIndex)
  if (blob === null)
    throw new NativeError("ERR_AZURE_DEVICE", {
      at: `NV index 0x${AZURE_VTPM.hclReportIndex.toString(16)}`,
      expected: "an HCL report",
      found: "nothing any more",
    })
  return { blob, report: parseHclReport(blob) }
}

function stale(found: Uint8Array | null, expected: Uint8Array): NativeError {
  return new NativeError("ERR_AZURE_DEVICE", {
    at: "HCL report, user-data",
    expected: shortHex(expected),
    found: found === null ? "none" : shortHex(found),
    hint:
      found === null
        ? "this VM's paravisor is too old to take user data: stop and deallocate the VM, and start it again on a newer host"
        : "another process asks for reports all the time, or the paravisor makes no new ones: try again later",
  })
}

/** Adds what the metadata service has: a quote, without which TDX proves nothing, or certificates, which others have too. */
async function complete({ blob, report }: Fresh, imds: ReturnType<typeof openImds>): Promise<AzureReport> {
  const found = { hclReport: blob, tdQuote: null, certificates: [], certificatesMissing: null }
  if (report.kind === "tdx")
    return { ...found, kind: "azure-tdx", tdQuote: await imds.tdQuote(report.hardwareReport) }
  try {
    const { vcek, chain } = await imds.certificates()
    return { ...found, kind: "azure-snp", certificates: named(vcek, chain) }
  } catch (error) {
    // The report is as good without: its certificates can be had from AMD. The reason is passed on, not swallowed.
    if (!(error instanceof CodedError)) throw error
    return { ...found, kind: "azure-snp", certificatesMissing: error.message }
  }
}

/** As a host's certificate table has them: the metadata service gives the ASK first, then the ARK. */
function named(vcek: Uint8Array, chain: readonly Uint8Array[]): TeeCertificate[] {
  const certificate = (name: "VCEK" | "ASK" | "ARK", der: Uint8Array): TeeCertificate => ({
    name,
    guid: SNP_CERTIFICATE_GUIDS[name],
    der,
  })
  return [
    certificate("VCEK", vcek),
    ...chain.slice(0, 2).map((der, index) => certificate(index === 0 ? "ASK" : "ARK", der)),
  ]
}
