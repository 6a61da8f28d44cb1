import { endpointText, parseAgentUrl } from "../client/endpoint.ts"
import { AgentError, CodedError, NativeError, UsageError } from "../errors.ts"
import {
  committedBytes,
  EVIDENCE_PCRS,
  type Evidence,
  evidenceQualifyingData,
  evidenceReportData,
  type TeeEvidence,
  type TeeEvidenceKind,
  type TpmEvidence,
} from "../formats/evidence.ts"
import { toHex } from "../formats/hex.ts"
import { encodePem } from "../formats/pem.ts"
import {
  encodeCertificateTable,
  SNP_CERTIFICATE_GUIDS,
  type SnpCertificateEntry,
} from "../formats/snp/certificate-table.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { parseCrl } from "../formats/x509/crl.ts"
import type { AzureReport, ReportDevice, TdxReport, TeeReport, Tpm, TpmQuote } from "../native/ports.ts"
import type { ConnectionOptions } from "./agent-options.ts"
import { withAgent } from "./attest.ts"
import type { Collected, CollectedPart, GetKind } from "./attestation-get.ts"
import { type RatlsRequirements, requireRatls } from "./require-ratls.ts"

/** Report data: 64 bytes. An agent's nonce: 32. */
const REPORT_DATA_SIZE = 64
const AGENT_NONCE_SIZE = 32
/** PCRs of a quote made on this machine: all. */
const ALL_PCRS = Array.from({ length: 24 }, (_, pcr) => pcr)

/** Opens what a machine has; null where it has none. Each is opened when it is needed. */
export interface GetDevices {
  snp(): Promise<ReportDevice | null>
  tdx(): Promise<ReportDevice<TdxReport> | null>
  tpm(): Promise<Tpm>
  /** By way of the machine's TPM; null where that is not Azure's. */
  azure(tpm: Tpm): Promise<ReportDevice<AzureReport> | null>
}

/** The devices of this machine. @param tcti address of the TPM. @param imds base URL of Azure's metadata service. */
export function machineDevices(tcti: string, imds: string): GetDevices {
  return {
    snp: async () => (await import("../native/report-device.ts")).openReportDevice(),
    tdx: async () => (await import("../native/report-device.ts")).openTdxDevice(),
    tpm: async () => (await import("../native/tpm.ts")).openTpm(tcti),
    azure: async (tpm) => (await import("../native/azure.ts")).openAzure(tpm, { baseUrl: imds }),
  }
}

/**
 * Evidence of this machine. The nonce is the report data, filled up with zeros, and the qualifying data of a quote.
 * @throws AgentError ERR_NO_TEE; NativeError of the device
 */
export async function collectFromDevices(
  kind: GetKind,
  nonce: Uint8Array,
  devices: GetDevices,
): Promise<Collected> {
  const reportData = new Uint8Array(REPORT_DATA_SIZE)
  reportData.set(nonce)
  switch (kind) {
    case "snp": {
      const report = await snpReport(devices, reportData)
      return { parts: [report], reportData, qualifyingData: null, notes: [] }
    }
    case "tdx": {
      const { quote } = await present(await devices.tdx(), "a TDX trust domain").getReport(reportData)
      const part = { suffix: "", what: "TDX quote", content: quote }
      return { parts: [part], reportData, qualifyingData: null, notes: [] }
    }
    case "vtpm":
      return withTpm(devices, async (tpm) => {
        const parts = tpmParts(await quoteOf(tpm, nonce), true)
        return { parts, reportData: null, qualifyingData: nonce, notes: [] }
      })
    case "snp-vtpm": {
      const report = await snpReport(devices, reportData)
      return withTpm(devices, async (tpm) => {
        const parts = [report, ...tpmParts(await quoteOf(tpm, nonce), false)] as const
        return { parts: [...parts], reportData, qualifyingData: nonce, notes: [NOT_BOUND] }
      })
    }
    case "azure":
      return withTpm(devices, (tpm) => azureEvidence(tpm, devices, nonce, reportData))
  }
}

const NOT_BOUND =
  "report and quote are for the same nonce, but neither names the other: an agent's evidence ties them together"

async function snpReport(devices: GetDevices, reportData: Uint8Array): Promise<CollectedPart> {
  return snpPart(await present(await devices.snp(), "a SEV-SNP guest").getReport(reportData))
}

function present<T>(device: T | null, what: string): T {
  if (device !== null) return device
  throw new AgentError("ERR_NO_TEE", {
    at: "this machine",
    expected: what,
    found: "none that this user may see",
    hint: "run this on the VM, as root; from elsewhere, ask its agent with --url",
  })
}

async function withTpm(devices: GetDevices, use: (tpm: Tpm) => Promise<Collected>): Promise<Collected> {
  const tpm = await devices.tpm()
  try {
    return await use(tpm)
  } finally {
    await tpm.close()
  }
}

interface Quoted extends TpmQuote {
  readonly pcrs: readonly number[]
  /** TPMT_PUBLIC. */
  readonly akPublic: Uint8Array
}

async function quoteOf(tpm: Tpm, qualifyingData: Uint8Array): Promise<Quoted> {
  const { akPublic } = await tpm.ensureKeys()
  return { ...(await tpm.quote({ pcrs: ALL_PCRS, qualifyingData })), pcrs: ALL_PCRS, akPublic }
}

async function azureEvidence(
  tpm: Tpm,
  devices: GetDevices,
  nonce: Uint8Array,
  reportData: Uint8Array,
): Promise<Collected> {
  const { quoteByAzure } = await import("../native/azure.ts")
  const azure = present(await devices.azure(tpm), "a confidential VM of Azure's")
  const { hclReport, tdQuote, certificates, certificatesMissing } = await azure.getReport(reportData)
  const quote = await quoteByAzure(tpm, nonce)
  return {
    parts: [
      { suffix: "", what: "HCL report", content: hclReport },
      ...quoteFiles(quote),
      ...(tdQuote === null ? [] : [{ suffix: ".td-quote", what: "TDX quote", content: tdQuote }]),
      ...certificateFiles(certificates),
    ],
    reportData,
    qualifyingData: nonce,
    notes: certificatesMissing === null ? [] : [`no certificates: ${certificatesMissing}`],
  }
}

/** The certificate of the chip's key in one file, those above it in another; nothing where there are none. */
function certificateFiles(certificates: readonly SnpCertificateEntry[]): CollectedPart[] {
  const pemOf = (wanted: (guid: string) => boolean) =>
    Buffer.concat(
      certificates
        .filter(({ guid }) => wanted(guid))
        .map(({ der }) => Buffer.from(encodePem("CERTIFICATE", der))),
    )
  const isVcek = (guid: string) => guid === SNP_CERTIFICATE_GUIDS.VCEK
  const isChain = (guid: string) => guid === SNP_CERTIFICATE_GUIDS.ASK || guid === SNP_CERTIFICATE_GUIDS.ARK
  return [
    { suffix: ".vcek.pem", what: "certificate of the chip's key", content: pemOf(isVcek) },
    { suffix: ".chain.pem", what: "AMD's certificates", content: pemOf(isChain) },
  ].filter(({ content }) => content.length > 0)
}

/** A report, followed by the certificate table where the host gave certificates. */
function snpPart({
  report,
  certificates,
}: Pick<TeeReport, "report"> & { certificates: readonly SnpCertificateEntry[] }) {
  const table = certificates.length === 0 ? [] : [encodeCertificateTable(certificates)]
  const what = certificates.length === 0 ? "SEV-SNP report" : "SEV-SNP report with certificate table"
  return { suffix: "", what, content: new Uint8Array(Buffer.concat([report, ...table])) }
}

/** Files of a quote. @param alone the quote is the main file. */
function tpmParts(quoted: Quoted, alone: boolean): [CollectedPart, ...CollectedPart[]] {
  const [quote, ...rest] = quoteFiles(quoted)
  const ak = { suffix: ".ak", what: "attestation key, TPMT_PUBLIC", content: quoted.akPublic }
  return [alone ? { ...quote, suffix: "" } : quote, ...rest, ak]
}

function quoteFiles(
  quoted: TpmQuote & { readonly pcrs: readonly number[] },
): [CollectedPart, ...CollectedPart[]] {
  const values = quoted.pcrs.map((pcr, index) => [pcr, toHex(quoted.pcrValues[index] ?? new Uint8Array())])
  const json = `${JSON.stringify({ sha256: Object.fromEntries(values) }, null, 1)}\n`
  return [
    { suffix: ".quote", what: "TPM quote, TPMS_ATTEST", content: quoted.attest },
    { suffix: ".sig", what: "its signature, TPMT_SIGNATURE", content: quoted.signature },
    { suffix: ".pcrs.json", what: "PCR values", content: Buffer.from(json) },
  ]
}

/**
 * Evidence of a VM by its agent, over one connection. What report and quote are made for is derived from nonce, TLS key and
 * attestation key, as version 1 of the evidence has it.
 * @param nonce 32 bytes.
 * @throws AgentError ERR_CHANNEL_UNTRUSTED, ERR_NO_TEE, ERR_NO_TPM and those of the connection; ParseError
 */
export async function collectFromAgent(
  kind: GetKind,
  nonce: Uint8Array,
  options: Omit<ConnectionOptions, "ratls"> & {
    /** What the certificate's evidence is verified by, before anything is sent; null: an authority has to vouch for it. */
    readonly ratls: RatlsRequirements | null
  },
  signal: AbortSignal,
): Promise<Collected> {
  if (nonce.length !== AGENT_NONCE_SIZE)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--nonce",
      expected: `${AGENT_NONCE_SIZE} bytes in hex, as agents take no others`,
      found: `${nonce.length} bytes`,
    })
  const place = endpointText(parseAgentUrl(options.url))
  return withAgent(options, signal, async (client) => {
    const { spki, authorized, reason } = client.channel
    if (options.ratls !== null) await requireRatls(client.channel, options.url, options.ratls, signal)
    else if (!authorized && !options.insecureAllowed)
      throw new AgentError("ERR_CHANNEL_UNTRUSTED", {
        at: place,
        found: reason ?? "an unknown certificate",
        hint: "use --allow-insecure-tls where the evidence itself is to prove the key",
      })
    return fromEvidence(kind, nonce, spki, await client.evidence(nonce), place)
  })
}

function fromEvidence(
  kind: GetKind,
  nonce: Uint8Array,
  spki: Uint8Array,
  { tee, tpm }: Evidence,
  place: string,
): Collected {
  const wantsTee = kind !== "vtpm"
  const wantsTpm = kind === "vtpm" || kind === "snp-vtpm" || kind === "azure"
  if (wantsTee && (tee === null || !EVIDENCE_KINDS[kind].includes(tee.kind)))
    throw new AgentError("ERR_NO_TEE", {
      at: place,
      expected: `evidence of kind ${EVIDENCE_KINDS[kind].join(" or ")}`,
      found: tee === null ? "no report" : `one of kind ${tee.kind}`,
    })
  if (wantsTpm && tpm === null) throw new AgentError("ERR_NO_TPM", { at: place, found: "no quote" })
  const akName = tpm === null ? null : tpmName(parsePublic(tpm.akPublic))
  const given = wantsTee && tee !== null ? teeParts(tee) : { parts: [], notes: [] }
  const quote = wantsTpm && tpm !== null ? tpmParts(quotedOf(tpm), given.parts.length === 0) : []
  const [main, ...beside] = [...given.parts, ...quote]
  if (main === undefined)
    throw new NativeError("ERR_INTERNAL", { at: "attestation get", found: "no evidence" })
  const committed = tee === null ? null : committedBytes(tee)
  return {
    parts: [main, ...beside],
    reportData: wantsTee ? evidenceReportData(nonce, spki, akName) : null,
    qualifyingData: wantsTpm ? evidenceQualifyingData(nonce, spki, committed) : null,
    notes: given.notes,
  }
}

/** Kinds of evidence that answer each request. */
const EVIDENCE_KINDS: Readonly<Record<GetKind, readonly TeeEvidenceKind[]>> = {
  snp: ["sev-snp"],
  "snp-vtpm": ["sev-snp"],
  tdx: ["tdx"],
  azure: ["azure-snp", "azure-tdx"],
  vtpm: [],
}

function teeParts(tee: TeeEvidence): { parts: CollectedPart[]; notes: string[] } {
  const certificates = "certificates" in tee ? tee.certificates : []
  const known = certificates.map(entryOf).filter((entry) => entry !== null)
  const notes = known.length < certificates.length ? ["the agent gave certificates of an unknown kind"] : []
  const hcl = (content: Uint8Array) => ({ suffix: "", what: "HCL report", content })
  switch (tee.kind) {
    case "sev-snp":
      return { parts: [snpPart({ report: tee.report, certificates: known })], notes }
    case "tdx":
      return { parts: [{ suffix: "", what: "TDX quote", content: tee.quote }], notes }
    case "azure-snp":
      return { parts: [hcl(tee.hcl), ...certificateFiles(known)], notes }
    case "azure-tdx":
      return { parts: [hcl(tee.hcl), { suffix: ".td-quote", what: "TDX quote", content: tee.quote }], notes }
  }
}

function quotedOf({ quote, signature, pcrs, akPublic }: TpmEvidence): Quoted {
  return { attest: quote, signature, pcrValues: pcrs, pcrs: EVIDENCE_PCRS, akPublic }
}

/** An entry of a certificate table for what an agent gave without saying what it is; null where that cannot be told. */
function entryOf(der: Uint8Array): SnpCertificateEntry | null {
  try {
    const name = parseCertificate(der).subject.commonName ?? ""
    for (const [pattern, entry] of ENTRY_NAMES)
      if (pattern.test(name)) return { guid: SNP_CERTIFICATE_GUIDS[entry], der }
    return null
  } catch (error) {
    // Hosts put a revocation list, or anything else, beside their certificates.
    if (error instanceof CodedError) return isCrl(der) ? { guid: SNP_CERTIFICATE_GUIDS.CRL, der } : null
    throw error
  }
}

const ENTRY_NAMES = [
  [/(^| )SEV-VCEK$/, "VCEK"],
  [/(^| )SEV-VLEK$/, "VLEK"],
  [/(^| )ARK-/, "ARK"],
  [/(^| )SEV-/, "ASK"],
] as const

function isCrl(der: Uint8Array): boolean {
  try {
    return parseCrl(der).der.length > 0
  } catch (error) {
    if (error instanceof CodedError) return false
    throw error
  }
}
