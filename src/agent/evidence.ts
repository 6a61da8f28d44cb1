import {
  EVIDENCE_PCRS,
  type Evidence,
  evidenceQualifyingData,
  evidenceReportData,
  type ImaEvidence,
  type TpmEvidence,
} from "../formats/evidence.ts"
import { parseMeasurementList } from "../formats/ima/measurement-list.ts"
import type { Devices, MeasurementListSource, Tpm } from "../native/ports.ts"
import type { AttestationKey, AttestationKeyInfo } from "./attestation-key.ts"
import type { TlsIdentity } from "./identity.ts"

export interface EvidenceSources {
  readonly devices: Devices
  readonly identity: TlsIdentity
  readonly key: AttestationKey | null
}

/**
 * Collects version 1 of the evidence. The order is part of the format: the report commits to the AK and the TLS key, the
 * quote commits to the report, and the measurement list is read after the quote, so that it holds at least what the TPM saw.
 * @param nonce 32 bytes. @param imaFrom first entry wanted of the measurement list.
 * @throws NativeError of the device that failed.
 */
export async function collectEvidence(
  { devices, identity, key }: EvidenceSources,
  nonce: Uint8Array,
  imaFrom: number,
): Promise<Evidence> {
  const ak = key === null ? null : await key.info()
  const reportData = evidenceReportData(nonce, identity.spki, ak?.akName ?? null)
  const tee = devices.tee === null ? null : await devices.tee.getReport(reportData)
  const qualifyingData = evidenceQualifyingData(nonce, identity.spki, tee?.report ?? null)
  const tpm = devices.tpm === null || ak === null ? null : await quote(devices.tpm, ak, qualifyingData)
  const ima = devices.ima === null ? null : await readList(devices.ima, imaFrom)
  return {
    tee: tee && { kind: tee.kind, report: tee.report, certificates: tee.certificates.map(({ der }) => der) },
    tpm,
    ima,
  }
}

async function quote(tpm: Tpm, ak: AttestationKeyInfo, qualifyingData: Uint8Array): Promise<TpmEvidence> {
  const { attest, signature, pcrValues } = await tpm.quote({ pcrs: EVIDENCE_PCRS, qualifyingData })
  return {
    quote: attest,
    signature,
    akPublic: ak.akPublic,
    pcrs: pcrValues,
    // The AK is made on this machine: nobody has certified it.
    akCertificate: null,
    ekCertificate: ak.ekCertificate,
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
