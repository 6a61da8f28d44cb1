import { AgentError, CodedError, NativeError, ParseError } from "../errors.ts"
import { parseEventLog } from "../formats/event-log/event-log.ts"
import {
  committedBytes,
  EVIDENCE_PCRS,
  type Evidence,
  evidenceQualifyingData,
  evidenceReportData,
  type ImaEvidence,
  type TeeEvidence,
  type TpmEvidence,
} from "../formats/evidence.ts"
import { parseMeasurementList } from "../formats/ima/measurement-list.ts"
import type {
  AnyReport,
  AzureReport,
  Devices,
  EventLogSource,
  MeasurementListSource,
  Tpm,
} from "../native/ports.ts"
import { type AttestationKey, type AttestationKeyInfo, quoteRequest } from "./attestation-key.ts"
import type { TlsIdentity } from "./identity.ts"

export interface EvidenceSources {
  readonly devices: Devices
  readonly identity: TlsIdentity
  readonly key: AttestationKey | null
}

/**
 * Collects version 1 of the evidence. The order is part of the format: the report commits to the AK and the TLS key, the
 * quote commits to the report, and the measurement list is read after the quote, so that it holds at least what the TPM saw.
 * @param nonce 32 bytes; 64 where a sealing key is vouched for. @param imaFrom first entry wanted of the measurement list.
 * @throws NativeError of the device that failed; AgentError ERR_NO_TEE where Azure gives no quote for a trust domain.
 */
export async function collectEvidence(
  { devices, identity, key }: EvidenceSources,
  nonce: Uint8Array,
  imaFrom: number,
): Promise<Evidence> {
  const ak = key === null ? null : await key.info()
  const reportData = evidenceReportData(nonce, identity.spki, ak?.akName ?? null)
  const tee = devices.tee === null ? null : teeEvidenceOf(await devices.tee.getReport(reportData))
  const committed = tee === null ? null : committedBytes(tee)
  const qualifyingData = evidenceQualifyingData(nonce, identity.spki, committed)
  const tpm = devices.tpm === null || ak === null ? null : await quote(devices.tpm, ak, qualifyingData)
  const ima = devices.ima === null ? null : await readList(devices.ima, imaFrom)
  return { tee, tpm, ima, ...(await readEventLogs(devices.eventLogs)) }
}

/** The logs that there are. A verifier misses them where it needs them; without them the rest of the evidence holds. */
async function readEventLogs(
  source: EventLogSource | undefined,
): Promise<Pick<Evidence, "eventLog" | "ccEventLog" | "kernelCommandLine">> {
  const firmware = (await source?.readFirmware()) ?? null
  const confidential = (await source?.readConfidential()) ?? null
  const kernelCommandLine = (await source?.readCommandLine()) ?? null
  return {
    ...(firmware === null ? {} : { eventLog: withoutFilling(firmware) }),
    ...(confidential === null ? {} : { ccEventLog: withoutFilling(confidential) }),
    ...(kernelCommandLine === null ? {} : { kernelCommandLine }),
  }
}

/** Areas for logs are large and mostly empty. A log that cannot be read here is for the verifier to judge as it is. */
function withoutFilling(area: Uint8Array): Uint8Array {
  try {
    return area.subarray(0, parseEventLog(area).size)
  } catch (error) {
    if (error instanceof CodedError) return area
    throw error
  }
}

/** What a device gave, as evidence holds it. @throws AgentError ERR_NO_TEE */
export function teeEvidenceOf(given: AnyReport): TeeEvidence {
  switch (given.kind) {
    case "sev-snp":
      return {
        kind: given.kind,
        report: given.report,
        certificates: given.certificates.map(({ der }) => der),
      }
    case "tdx":
      return { kind: given.kind, quote: given.quote }
    case "azure-snp":
      return {
        kind: given.kind,
        hcl: given.hclReport,
        certificates: given.certificates.map(({ der }) => der),
      }
    case "azure-tdx":
      return { kind: given.kind, hcl: given.hclReport, quote: tdQuoteOf(given) }
  }
}

/** The quote of a trust domain on Azure. @throws AgentError ERR_NO_TEE */
export function tdQuoteOf({ tdQuote }: AzureReport): Uint8Array {
  if (tdQuote !== null) return tdQuote
  throw new AgentError("ERR_NO_TEE", {
    at: "Azure's metadata service",
    expected: "a TDX quote",
    found: "none",
  })
}

async function quote(tpm: Tpm, ak: AttestationKeyInfo, qualifyingData: Uint8Array): Promise<TpmEvidence> {
  const { attest, signature, pcrValues } = await tpm.quote(quoteRequest(ak, EVIDENCE_PCRS, qualifyingData))
  // After the quote, so that its PCRs are those of the quote or later ones.
  const nitroDocument = await nitroDocumentOf(tpm, qualifyingData)
  return {
    quote: attest,
    signature,
    akPublic: ak.akPublic,
    pcrs: pcrValues,
    akCertificate: ak.akCertificate,
    ekCertificate: ak.ekCertificate,
    ...(ak.certificates.length === 0 ? {} : { certificates: ak.certificates }),
    ...(nitroDocument === null ? {} : { nitroDocument }),
  }
}

/** A document that cannot be had is for the verifier to miss, where its snapshot was taken with one. */
async function nitroDocumentOf(tpm: Tpm, nonce: Uint8Array): Promise<Uint8Array | null> {
  try {
    return await tpm.nitroDocument(nonce)
  } catch (error) {
    if (error instanceof NativeError || error instanceof ParseError) return null
    throw error
  }
}

/** The list from an entry on; the whole list where it has fewer entries, as after a reboot. `from` tells which. */
async function readList(source: MeasurementListSource, from: number): Promise<ImaEvidence> {
  const list = await source.readBinary()
  if (from === 0) return { from, list }
  const { count, templateDigestAt } = parseMeasurementList(list)
  if (from > count) return { from: 0, list }
  // An entry begins with its PCR, 4 bytes, before the template digest.
  const digestAt = from === count ? undefined : templateDigestAt[from]
  return { from, list: list.subarray(digestAt === undefined ? list.length : digestAt - 4) }
}
