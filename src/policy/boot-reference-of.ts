import { referenceRegisters } from "./boot-log.ts"
import { MAX_REFERENCE_EVENTS } from "./boot-reference.ts"
import { BOOT_RTMRS } from "./boot-rtmr.ts"
import type { Snapshot } from "./snapshot.ts"
import { BOOT_PCRS } from "./tpm.ts"
import type { BootLogs } from "./verify-vm.ts"

/** The snapshot's member that event logs of verified evidence fill; none where they explained nothing. */
export function bootReferenceFrom({ tcg, td }: BootLogs): Pick<Snapshot, "boot_reference"> {
  const pcrs = referenceRegisters(tcg, BOOT_PCRS)
  const rtmrs = referenceRegisters(td?.log ?? null, BOOT_RTMRS)
  const events = [...Object.values(pcrs), ...Object.values(rtmrs)].reduce((sum, list) => sum + list.length, 0)
  return events === 0 || events > MAX_REFERENCE_EVENTS ? {} : { boot_reference: { pcrs, rtmrs } }
}
