import { EVENT_TYPE, eventTypeName, parseEventLog } from "../formats/event-log/event-log.ts"
import { shortHex } from "../formats/hex.ts"
import type { PcrValues } from "../formats/tpm/pcr-values.ts"
import { type Registers, RTMR_COUNT, verifyBootEvents } from "../verify/event-log.ts"
import type { TdxAttestation } from "../verify/tdx.ts"
import type { Verified } from "../verify/verified.ts"
import { type BootLog, logFacts, logFindings, readBootLog } from "./boot-log.ts"
import { mismatch, policyClaim } from "./policy-findings.ts"
import { alsoFailing, failedBy, notJudged } from "./validation-claims.ts"
import type { Claim } from "./verdict.ts"

/** Banks that prove something, in order of strength. */
const STRONG_BANKS = ["sha512", "sha384", "sha256"] as const

/** PCRs that only firmware measures into; loaders and systems do so into PCR 5 and those above 7. */
const FIRMWARE_PCRS = [0, 1, 2, 3, 4, 6, 7] as const

/** A log beside the PCRs of a quote, in the best bank that both have. */
export function readQuotedLog(bytes: Uint8Array, quoted: PcrValues): BootLog {
  let log: BootLog = {
    state: "absent",
    reason: "no PCR values of SHA-256 or better to compare the event log with",
  }
  for (const bank of STRONG_BANKS) {
    const values = quoted[bank]
    if (values === undefined) continue
    // PCR 10 is IMA's, and in no event log.
    const boot = new Map([...values].filter(([pcr]) => pcr !== 10))
    log = readBootLog(bytes, boot, { kind: "tcg", bank })
    if (log.state !== "absent") return log
  }
  return log
}

/**
 * The check `boot` with what a log adds. That an operating system measured more into a PCR of its own is common and a warning; the
 * firmware's are explained by every log of this machine and boot.
 */
export function withLog(claim: Claim, log: BootLog): Claim {
  const shown = { ...claim, facts: { ...claim.facts, ...logFacts(log, "PCR") } }
  const wrong = logFindings(log, [], {}, "PCR")
  if (log.state !== "read") return alsoFailing(shown, "boot", wrong)
  const { unexplained } = log.events
  const findings = [...unexplained].map(([pcr, own]) =>
    mismatch("ERR_EVENT_LOG_REPLAY", `PCR ${pcr}`, "the quoted value", shortHex(own), {
      meaning: "the event log does not give it: more was measured than it lists, or it was altered",
      remedy: "nothing to do where the operating system measures into this PCR",
    }),
  )
  if (FIRMWARE_PCRS.some((pcr) => unexplained.has(pcr))) return alsoFailing(shown, "boot", findings)
  if (findings.length === 0 || shown.status === "failed") return shown
  return { ...shown, status: "warning", findings: [...shown.findings, ...findings] }
}

/**
 * The check `boot` of a TD: its event log accounts for all four RTMRs of the quote. What the log says beyond its digests is
 * proven only where an event's digest is that of its data; the facts count both kinds.
 * @param log CCEL or TCG event log, as the guest's ACPI table or the agent gives it.
 * @param proven null where the quote did not hold: then there is nothing to compare with.
 */
export function eventLogClaim(
  log: Uint8Array,
  proven: Verified<TdxAttestation> | null,
): { claim: Claim; logs: readonly BootLog[] } {
  if (proven === null) return { claim: notJudged("boot", "boot", "tee"), logs: [] }
  const quoted = new Map(proven.quote.body.rtmrs.entries())
  return { claim: tdClaim(log, quoted), logs: [readBootLog(log, quoted, { kind: "cc", bank: "sha384" })] }
}

function tdClaim(log: Uint8Array, quoted: Registers): Claim {
  try {
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
