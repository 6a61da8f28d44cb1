import { EVENT_TYPE, eventTypeName, parseEventLog } from "../formats/event-log/event-log.ts"
import { shortHex } from "../formats/hex.ts"
import { RTMR_COUNT, verifyBootEvents } from "../verify/event-log.ts"
import type { TdxAttestation } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { mismatch, policyClaim } from "./policy-findings.ts"
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
    const quoted = new Map(proven.quote.body.rtmrs.entries())
    const { registers, unexplained } = verifyBootEvents(parseEventLog(log), quoted, {
      kind: "cc",
      bank: "sha384",
    })
    const events = [...registers.values()].flat()
    const loaders = events.filter(({ event }) => event.type === EVENT_TYPE.EV_EFI_BOOT_SERVICES_APPLICATION)
    return policyClaim({
      check: "boot",
      failureClass: "boot",
      findings: [...unexplained].map(([rtmr, own]) =>
        mismatch(
          "ERR_RTMR_REPLAY",
          `RTMR${rtmr}`,
          `${shortHex(quoted.get(rtmr) ?? own)}, as the quote says`,
          shortHex(own),
          {
            meaning: "the event log does not give what the quote says",
            remedy:
              "the log was altered or is another boot's, or something was measured that it does not list: get both again",
          },
        ),
      ),
      warnings: [],
      summary: `the event log's ${events.length} events give the quote's RTMR0 to RTMR${RTMR_COUNT - 1}`,
      facts: {
        events: events.length,
        eventsWithMeasuredData: events.filter(({ measured }) => measured !== null).length,
        [eventTypeName(EVENT_TYPE.EV_EFI_BOOT_SERVICES_APPLICATION)]: loaders.length,
      },
    })
  } catch (error) {
    return failedBy("boot", "boot", error)
  }
}
