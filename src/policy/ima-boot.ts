import { createHash } from "node:crypto"
import { HASH_ALGORITHMS } from "../formats/hash-algorithms.ts"
import { digestText, isViolation, type MeasurementList } from "../formats/ima/measurement-list.ts"
import type { Findings } from "./findings.ts"
import { BOOT_AGGREGATE, DISTRUST, isBootAggregate, RETAKE } from "./ima-files.ts"
import type { Snapshot } from "./snapshot.ts"

/** Quoted PCRs of the SHA-256 bank, PCR 0 first; null: not known, so that boot_aggregate is only compared with the snapshot's. */
export type BootPcrs = readonly Uint8Array[] | null

/**
 * The first entry ties the list to what booted: a digest over the boot PCRs. It is computed anew from the quoted PCRs and
 * compared with the snapshot's; that it occurs among the snapshot's files would say nothing.
 * @returns whether it could be computed. It cannot where the kernel took it over a bank that is not quoted (SHA-1): then
 * the boot check compares the quoted PCRs themselves, and the snapshot's value is required to be equal.
 */
export function appraiseBootAggregate(
  list: MeasurementList,
  reference: Snapshot | null,
  pcrs: BootPcrs,
  findings: Findings,
): boolean {
  const found = digestText(list, 0)
  const wrong = (expected: string, meaning: string) =>
    findings.add(() => ({
      code: "ERR_IMA_BOOT_AGGREGATE",
      subject: BOOT_AGGREGATE,
      expected,
      found,
      meaning,
      remedy: `if you changed the boot chain yourself, ${RETAKE}; else ${DISTRUST}`,
    }))
  if (!isBootAggregate(list, 0) || isViolation(list, 0)) {
    wrong(`${BOOT_AGGREGATE} as the first entry`, "the measurement list does not begin where the kernel did")
    return false
  }
  const computed = list.algorithm[0] === SHA256 && pcrs !== null ? bootAggregate(pcrs) : null
  if (computed === null && list.algorithm[0] === SHA256 && pcrs !== null)
    wrong("a digest over the quoted PCRs 0 to 9", "the quote does not cover the boot measurements")
  if (computed !== null && computed !== found)
    wrong(computed, "the measurement list began with other boot measurements than the TPM holds")
  const known = reference?.ima_reference ?? null
  if (known !== null && known.boot_aggregate !== found)
    wrong(known.boot_aggregate, "firmware, boot loader or kernel are not those of the snapshot")
  if (known !== null && known.template !== templateOf(list))
    findings.add(() => ({
      code: "ERR_IMA_TEMPLATE_CHANGED",
      subject: "measurement list",
      expected: known.template,
      found: templateOf(list),
      meaning: "the kernel was started with another ima_template than when the snapshot was taken",
      remedy: `restore the kernel arguments, or ${RETAKE}`,
    }))
  // Format 1 has no place for the value; there the computed one has to do, where there are PCRs.
  if (
    reference !== null &&
    known === null &&
    (reference.format === 2 || (computed === null && pcrs !== null))
  )
    findings.add(() => ({
      code: "ERR_IMA_REFERENCE",
      subject: BOOT_AGGREGATE,
      found,
      meaning: "the snapshot does not say with which boot measurements the list has to begin",
      remedy: RETAKE,
    }))
  return computed !== null
}

/**
 * `sha256:hex` over SHA-256 PCRs 0 to 9, or null without them. Kernels before 5.8 took SHA-1 over PCRs 0 to 7 whatever
 * the bank, and later ones still do where the bank or ima_hash is SHA-1.
 * Source: Linux 6.12, security/integrity/ima/ima_crypto.c, ima_calc_boot_aggregate_tfm.
 */
function bootAggregate(pcrs: readonly Uint8Array[]): string | null {
  if (pcrs.length < 10) return null
  const hash = createHash("sha256")
  for (const pcr of pcrs.slice(0, 10)) hash.update(pcr)
  return `sha256:${hash.digest("hex")}`
}

/** Template of the first entry. */
export function templateOf(list: MeasurementList): string {
  return list.count === 0 ? "none" : (list.templates[list.template[0] ?? 0]?.name ?? "none")
}

const SHA256 = HASH_ALGORITHMS.findIndex(({ name }) => name === "sha256")
