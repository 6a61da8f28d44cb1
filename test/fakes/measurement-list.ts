import { createHash } from "node:crypto"
import { encodeMeasurementEntry, type NewEntry, templateHashInput } from "../../src/formats/ima/encode.ts"
import { parseMeasurementList } from "../../src/formats/ima/measurement-list.ts"
import { type QuotedMeasurements, verifyMeasurementList } from "../../src/verify/ima.ts"
import type { Verified } from "../../src/verify/verified.ts"

/** PCRs 0–15 of a machine that the lists made here belong to. */
export const PCRS: readonly Uint8Array[] = Array.from({ length: 16 }, (_, pcr) =>
  new Uint8Array(32).fill(pcr + 1),
)

export function sha256(data: Uint8Array | string): Uint8Array {
  return new Uint8Array(createHash("sha256").update(data).digest())
}

export function hexOf(content: string): string {
  return Buffer.from(sha256(content)).toString("hex")
}

/** The first entry, as a kernel with those PCRs writes it. */
export function bootAggregate(pcrs: readonly Uint8Array[] = PCRS): NewEntry {
  const digest = sha256(Buffer.concat(pcrs.slice(0, 10)))
  return { template: "ima-ng", algorithm: "sha256", digest, path: "boot_aggregate" }
}

/** An entry for a file with that content. */
export function file(path: string, content = path, more: Partial<NewEntry> = {}): NewEntry {
  return { template: "ima-ng", algorithm: "sha256", digest: sha256(content), path, ...more }
}

/** A violation: zeros in the list, ones in the PCR. */
export function violation(path: string): NewEntry {
  return file(path, path, { digest: new Uint8Array(32), templateDigest: new Uint8Array(20) })
}

export function listOf(...entries: NewEntry[]): Uint8Array {
  return new Uint8Array(Buffer.concat(entries.map(encodeMeasurementEntry)))
}

/** PCR 10 of the SHA-256 bank after a kernel has measured these entries. */
export function extendedPcr(...entries: NewEntry[]): Uint8Array {
  let pcr: Uint8Array = new Uint8Array(32)
  for (const entry of entries) {
    const isViolation = entry.templateDigest?.every((byte) => byte === 0) ?? false
    const digest = isViolation ? new Uint8Array(32).fill(0xff) : sha256(templateHashInput(entry))
    pcr = sha256(Buffer.concat([pcr, digest]))
  }
  return pcr
}

/** Entries as quoted by a TPM that measured exactly these. */
export function quoted(...entries: NewEntry[]): Verified<QuotedMeasurements> {
  return verifyMeasurementList(parseMeasurementList(listOf(...entries)), extendedPcr(...entries))
}
