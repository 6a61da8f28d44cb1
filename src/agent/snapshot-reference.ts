import { getHashes } from "node:crypto"
import { AgentError } from "../errors.ts"
import { parseHclEnvelope } from "../formats/azure/hcl.ts"
import { EVIDENCE_PCRS } from "../formats/evidence.ts"
import { toHex } from "../formats/hex.ts"
import {
  digestText,
  isViolation,
  type MeasurementList,
  measurementEntry,
  parseMeasurementList,
} from "../formats/ima/measurement-list.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { parseTdxQuote } from "../formats/tdx/quote.ts"
import { parseAttest } from "../formats/tpm/attest.ts"
import type { Devices } from "../native/ports.ts"
import type { ImaReference, Snapshot, TeePolicy, TpmPolicy, TpmReference } from "../policy/snapshot.ts"
import { tdxPolicyOf } from "../policy/tdx.ts"
import { sevPolicyOf } from "../policy/tee.ts"
import { type AttestationKey, quoteRequest } from "./attestation-key.ts"
import { teeEvidenceOf } from "./evidence.ts"

/** What a snapshot says beside the digests of the file system. */
export interface SnapshotDescription
  extends Pick<Snapshot, "cloud_type" | "tee_policy" | "tpm_policy" | "tpm_reference" | "ima_reference"> {
  /** Name of the hash in the kernel and in node:crypto. */
  readonly hash_algorithm: string
  /** Path and hex digest of the files in the measurement list; null where there is no TPM to vouch for any list. */
  readonly measured: readonly (readonly [path: string, digest: string])[] | null
}

/**
 * Describes the machine as it is now. The values are this machine's own word: whoever wants to rest on them takes those
 * of verified evidence instead.
 * @throws NativeError of a device; ParseError of what it gave; AgentError ERR_UNSUPPORTED for a hash that is not known here.
 */
export async function describeMachine(
  devices: Devices,
  key: AttestationKey | null,
  cloud: Snapshot["cloud_type"],
): Promise<SnapshotDescription> {
  const tee_policy = devices.tee === null ? null : await describeTee(devices.tee)
  const tpm = await describeTpm(devices, key)
  const list = devices.ima === null ? null : parseMeasurementList(await devices.ima.readBinary())
  const hash_algorithm = fileHashOf(list)
  return {
    cloud_type: cloud,
    tee_policy,
    ...tpm,
    ima_reference: list === null ? null : imaReferenceOf(list),
    hash_algorithm,
    measured: devices.tpm === null ? null : list === null ? [] : measuredFiles(list, hash_algorithm),
  }
}

async function describeTee(device: NonNullable<Devices["tee"]>): Promise<TeePolicy> {
  const tee = teeEvidenceOf(await device.getReport(new Uint8Array(64)))
  const sev = (report: Uint8Array) => ({ Sev: sevPolicyOf(parseSnpReport(report)) })
  switch (tee.kind) {
    case "sev-snp":
      return sev(tee.report)
    case "azure-snp":
      return sev(parseHclEnvelope(tee.hcl).hardwareReport)
    case "tdx":
    case "azure-tdx":
      return { Tdx: tdxPolicyOf(parseTdxQuote(tee.quote)) }
  }
}

async function describeTpm(
  { tpm }: Devices,
  key: AttestationKey | null,
): Promise<{ tpm_policy: TpmPolicy | null; tpm_reference: TpmReference | null }> {
  if (tpm === null || key === null) return { tpm_policy: null, tpm_reference: null }
  const ak = await key.info()
  const { attest, pcrValues } = await tpm.quote(quoteRequest(ak, EVIDENCE_PCRS, new Uint8Array(0)))
  const { resetCount, restartCount } = parseAttest(attest)
  const pcrs: Record<string, string> = {}
  for (const [pcr, value] of pcrValues.entries()) {
    // PCR 10 moves with every file that runs.
    if (pcr !== 10) pcrs[String(pcr)] = toHex(value)
  }
  return {
    tpm_policy: { reset_count: resetCount, restart_count: restartCount },
    tpm_reference: { ak_name: toHex(ak.akName), pcrs, clock: null },
  }
}

function imaReferenceOf(list: MeasurementList): ImaReference | null {
  if (list.count === 0) return null
  return { template: measurementEntry(list, 0).template, boot_aggregate: digestText(list, 0) }
}

/** The kernel's hash of files: that of the last entry, since boot_aggregate may have another. SHA-256 without any entry. */
function fileHashOf(list: MeasurementList | null): string {
  const algorithm =
    list === null || list.count === 0 ? "sha256" : measurementEntry(list, list.count - 1).algorithm
  if (getHashes().includes(algorithm)) return algorithm
  throw new AgentError("ERR_UNSUPPORTED", {
    at: "hash of the measurement list",
    found: algorithm,
    hint: "boot the VM with the kernel argument ima_hash=sha256",
  })
}

/** Each path and digest once. Violations and measured data have no digest of a file; a snapshot has one algorithm, so others are left out. */
function measuredFiles(list: MeasurementList, algorithm: string): (readonly [string, string])[] {
  const pairs = new Map<string, readonly [string, string]>()
  for (let index = 0; index < list.count; index++) {
    const entry = measurementEntry(list, index)
    if (isViolation(list, index) || entry.content !== "file" || entry.algorithm !== algorithm) continue
    const digest = toHex(entry.digest)
    pairs.set(`${entry.path}\0${digest}`, [entry.path, digest])
  }
  return [...pairs.values()]
}
