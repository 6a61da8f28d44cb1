/** A made-up machine of 300 000 files, its measurement list and its snapshot. */
import { createHash } from "node:crypto"
import { encodeMeasurementEntry, type NewEntry, templateHashInput } from "../src/formats/ima/encode.ts"
import type { Snapshot } from "../src/policy/snapshot.ts"

export const FILES = 300_000

/** A measurement list made for a benchmark, with the PCR 10 that it replays to. */
export interface Sample {
  readonly list: Uint8Array
  readonly pcr10: Uint8Array
}

export const PCRS: readonly Uint8Array[] = Array.from({ length: 16 }, (_, index) =>
  new Uint8Array(32).fill(index),
)
const BOOT_AGGREGATE: NewEntry = {
  template: "ima-ng",
  algorithm: "sha256",
  digest: createHash("sha256")
    .update(Buffer.concat(PCRS.slice(0, 10)))
    .digest(),
  path: "boot_aggregate",
}

/** File `index` of the sample machine: names as long as those below /usr, in no particular order. */
function sampleFile(index: number): NewEntry {
  return {
    template: "ima-ng",
    algorithm: "sha256",
    digest: createHash("sha256").update(`content of file ${index}`).digest(),
    path: `/usr/lib/x86_64-linux-gnu/package-${(index * 7919) % 1000}/part-${(index * 31) % 97}/file-${index}.so`,
  }
}

export function sampleList(count: number): Sample {
  const files = Array.from({ length: count - 1 }, (_, index) => sampleFile((index * 104_729) % FILES))
  const entries = [BOOT_AGGREGATE, ...files]
  let pcr10: Uint8Array = new Uint8Array(32)
  for (const entry of entries) {
    const digest = createHash("sha256").update(templateHashInput(entry)).digest()
    pcr10 = createHash("sha256").update(pcr10).update(digest).digest()
  }
  return { list: Buffer.concat(entries.map(encodeMeasurementEntry)), pcr10 }
}

export function sampleSnapshot(): Snapshot {
  const filehashes = Array.from({ length: FILES }, (_, index) => {
    const { path, digest } = sampleFile(index)
    return [path, Buffer.from(digest).toString("hex")] as const
  })
  return {
    format: 2,
    cloud_type: null,
    tee_policy: null,
    tpm_policy: null,
    filehashes,
    taken_at: null,
    agent_version: null,
    host: null,
    hash_algorithm: "sha256",
    tee_reference: null,
    tpm_reference: null,
    ima_reference: {
      template: "ima-ng",
      boot_aggregate: `sha256:${Buffer.from(BOOT_AGGREGATE.digest).toString("hex")}`,
    },
    unreadable: [],
  }
}
