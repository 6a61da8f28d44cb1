import { EVENT_TYPE, eventTypeName, parseEventLog } from "../formats/ccel/event-log.ts"
import { RTMR_COUNT, verifyEventLog } from "../verify/rtmr.ts"
import type { TdxAttestation } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { failedBy, notJudged } from "./validation-claims.ts"
import type { Claim } from "./verdict.ts"

/**
 * The check `boot` of a TD: its event log accounts for all four RTMRs of the quote. What the log says beyond its digests is
 * proven only where an event's digest is that of its data; the facts count both kinds.
 * @param log CCEL or TCG event log, as the guest's ACPI table or the agent gives it.
 * @param proven null where the quote did not hold: then there is nothing to compare with.
 */
export function eventLogClaim(log: Uint8Array, proven: Verified<TdxAttestation> | null): Claim {
  if (proven === null) return notJudged("boot", "boot", "tee")
  try {
    const { events } = verifyEventLog(parseEventLog(log), proven.quote.body.rtmrs)
    const described = events.filter(({ dataMeasured }) => dataMeasured).length
    const loaders = events.filter(({ type }) => type === EVENT_TYPE.EV_EFI_BOOT_SERVICES_APPLICATION).length
    return {
      check: "boot",
      status: "passed",
      summary: `the event log's ${events.length} events give the quote's RTMR0 to RTMR${RTMR_COUNT - 1}`,
      findings: [],
      facts: {
        events: events.length,
        eventsWithMeasuredData: described,
        [eventTypeName(EVENT_TYPE.EV_EFI_BOOT_SERVICES_APPLICATION)]: loaders,
      },
    }
  } catch (error) {
    return failedBy("boot", "boot", error)
  }
}
